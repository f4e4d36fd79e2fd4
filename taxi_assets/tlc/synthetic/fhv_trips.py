"""The generated records of fhv: trips of for-hire vehicles (liveries and black cars), as their bases report them.

Belongs here: the bases and their habits, and the CSV lines. Does not belong here: drawing rides (`rides.py`), their
number (`demand.py`), and writing the file (`__init__.py`).

Measured on the first 100 rows of 2019-01 to 2020-04: the layout, the order (by the hour, then by base), and how many
rows name a zone, have whole minutes or the shared flag. Estimates: the shares of long trips, of repeated rows and of
empty zones since 2021. There are more bases than in reality (2,400; TLC has licensed about half as many), so that even
a small month has many. The bases are the same until January 2019, although the published files then contained Uber and
others.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.synthetic.demand import (
    FHV_VOLUME,
    FOR_HIRE_CARS,
    apportion,
    days_of,
    draw_day_factors,
    value_in_force,
)
from taxi_assets.tlc.synthetic.rides import draw_flags, draw_indices, draw_rides

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.synthetic.demand import BoolArray, FloatArray, IntArray

HEADER = "dispatching_base_num,pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,SR_Flag"

_UNKNOWN_ZONE = 264
_BASES, _HIGHEST_NUMBER = 2_400, 3_600
# A larger offset makes the bases more equal. With 6, the largest base has one row in 35, and 120 bases have half of
# them.
_RANK_OFFSET = 6.0
_NEITHER, _DROPOFF, _BOTH = 0, 1, 2  # the zones that a base reports
_REPORTED_ZONES = (0.30, 0.53, 0.17)
# Share of the bases that leave an unknown zone empty instead of writing 264.
_EMPTY_ZONES = (("2015-01", 0.25), ("2021-01", 0.75))
_MINUTES_ONLY = 0.14  # share of the bases that report pickups in whole minutes
_MINUTES_BOTH = 0.5  # share of these that also report dropoffs in whole minutes
_SHARED = (("2015-01", 0.0), ("2017-07", 0.2), ("2019-02", 0.003))
_REPEATED = 0.008  # exact duplicates
_DAY_LATE = 0.03  # the dropoff has the date of the next day
_DROPOFF_AT_PICKUP = 1.5e-3
_DROPOFF_BEFORE_PICKUP = 1e-3
_YEARS_LATE = 1.5e-4  # a published trip of 2019 took 72 years


@dataclass(frozen=True)
class _Bases:
    """The properties of the bases; columns of equal length, the largest base first."""

    names: pa.Array
    number: IntArray
    rows: FloatArray
    """Relative number of rows."""
    places: IntArray
    """The zones that a base reports: `_NEITHER`, `_DROPOFF` or `_BOTH`."""
    pickup_to_the_minute: BoolArray
    dropoff_to_the_minute: BoolArray
    completeness: FloatArray
    """0 to 1. Bases below the value in `_EMPTY_ZONES` leave unknown zones empty."""


def csv_lines(month: Month, rng: np.random.Generator) -> Iterator[pa.Array]:
    """Yield the CSV lines of each day, without line ends."""
    days = days_of(month)
    weights = draw_day_factors(rng, month) * FOR_HIRE_CARS.day_factors(days)
    for day, count in zip(days, apportion(FHV_VOLUME.rows(month), weights), strict=True):
        if count:
            yield draw_day_lines(rng, day, count)


def draw_day_lines(rng: np.random.Generator, date: dt.date, count: int) -> pa.Array:
    """Return `count` CSV lines of a day in the order of the file, without line ends."""
    repeated = min(int(rng.binomial(count, _REPEATED)), count // 2)
    count -= repeated
    bases, base = _draw_bases(), draw_indices(rng, count, _draw_bases().rows)
    rides = draw_rides(rng, FOR_HIRE_CARS, date, count)
    pickup = rides.pickup - rides.pickup % 60 * bases.pickup_to_the_minute[base]
    dropoff = rides.dropoff - rides.dropoff % 60 * bases.dropoff_to_the_minute[base]
    dropoff = _draw_recorded_dropoffs(rng, pickup, dropoff)
    is_empty = bases.completeness[base] < value_in_force(_EMPTY_ZONES, date)
    columns = [
        bases.names.take(pa.array(base)),
        _format_times(pickup),
        _format_times(dropoff),
        _format_zones(rides.origin, bases.places[base] == _BOTH, is_empty),
        _format_zones(rides.destination, bases.places[base] >= _DROPOFF, is_empty),
        pa.array(["", "1"]).take(pa.array(draw_flags(rng, count, value_in_force(_SHARED, date)).astype(np.int64))),
    ]
    order = np.lexsort((bases.number[base], pickup // 3600))
    twice = np.sort(np.concatenate([np.arange(count), rng.choice(count, repeated, replace=False)]))
    return pc.binary_join_element_wise(*columns, ",").take(pa.array(order[twice]))


def _draw_recorded_dropoffs(rng: np.random.Generator, pickup: IntArray, dropoff: IntArray) -> IntArray:
    """Return the dropoffs as reported: some are a day or years late, some at or before the pickup."""
    count = len(pickup)
    dropoff = dropoff + 86_400 * draw_flags(rng, count, _DAY_LATE)
    dropoff += 365 * 86_400 * rng.integers(1, 73, count) * draw_flags(rng, count, _YEARS_LATE)
    dropoff = np.where(draw_flags(rng, count, _DROPOFF_BEFORE_PICKUP), 2 * pickup - dropoff, dropoff)
    return np.where(draw_flags(rng, count, _DROPOFF_AT_PICKUP), pickup, dropoff)


def _format_times(seconds: IntArray) -> pa.Array:
    return pa.array(seconds.astype("datetime64[s]")).cast(pa.string())


def _format_zones(zone: IntArray, known: BoolArray, is_empty: BoolArray) -> pa.Array:
    text = pa.array(np.where(known, zone, _UNKNOWN_ZONE)).cast(pa.string())
    return pc.if_else(pa.array(is_empty & ~known), "", text)


@functools.cache
def _draw_bases() -> _Bases:
    """Return the bases, which are the same in every month."""
    rng = np.random.Generator(np.random.PCG64(2015))
    number = rng.choice(_HIGHEST_NUMBER, _BASES, replace=False) + 1
    to_the_minute = draw_flags(rng, _BASES, _MINUTES_ONLY)
    return _Bases(
        names=pa.array([f"B{n:05d}" for n in number.tolist()]),
        number=number,
        rows=1 / (np.arange(_BASES) + _RANK_OFFSET),
        places=draw_indices(rng, _BASES, _REPORTED_ZONES),
        pickup_to_the_minute=to_the_minute,
        dropoff_to_the_minute=to_the_minute & draw_flags(rng, _BASES, _MINUTES_BOTH),
        completeness=rng.random(_BASES),
    )
