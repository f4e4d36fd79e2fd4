"""The generated records of fhvhv: the trips of Uber, Lyft, Via and Juno, as TLC publishes them now.

Belongs here: the companies, fares and pay, and the columns. Does not belong here: drawing rides (`rides.py`), their
number (`demand.py`), and writing the file (`__init__.py`).

Known facts:

- the columns
- the bases of each company, and their shares until 2020-04 (counted on 600 published rows)
- the Black Car Fund's 2.5%, 3% from 2020-11-01, and 2.75% in published rows of 2024; sales tax of 8.875%
- the congestion surcharge of 2.75, or 0.75 for shared rides
- the airport fee of 2.50 per end from 2021-04-05, or 1.25 for shared rides; its column was empty before
- the business district's fee of 1.50 from 2025-01-05
- the driver's pay follows the city's minimum per mile and minute
- Lyft reports neither the originating base nor when a car is on the scene

Estimates: waiting times, fares, tips, shares of rides and flags, the exact dates of changes of which only the
months are known, and all data errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.month import Month
from taxi_assets.tlc.synthetic import demand as demands
from taxi_assets.tlc.synthetic.demand import APPS, FHVHV_VOLUME, value_in_force
from taxi_assets.tlc.synthetic.rides import draw_flags, draw_indices, draw_lognormal, draw_rides, draw_tolls

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from taxi_assets.tlc.synthetic.demand import BoolArray, FloatArray, IntArray
    from taxi_assets.tlc.synthetic.rides import Rides

_JUNO, _UBER, _VIA, _LYFT = range(4)
_LICENSES = pa.array(["HV0002", "HV0003", "HV0004", "HV0005"])
# Juno closed on 2019-11-18, Via's own service on 2021-12-20.
_COMPANIES = (
    ("2019-02", (0.04, 0.70, 0.05, 0.21)),
    ("2019-07", (0.03, 0.72, 0.04, 0.21)),
    ("2019-11-19", (0.0, 0.745, 0.04, 0.215)),
    ("2020-04", (0.0, 0.715, 0.01, 0.275)),
    ("2021-12-21", (0.0, 0.73, 0.0, 0.27)),
)
_UBERS_BASES = (
    *("B02764", "B02617", "B02872", "B02875", "B02682", "B02882", "B02869", "B02836", "B02765", "B02835"),
    *("B02879", "B02880", "B02887", "B02864", "B02871", "B02877", "B02884", "B02866", "B02878", "B02888"),
    *("B02870", "B02889", "B02867", "B02876", "B02865", "B02883"),
)
# The bases of each company, the largest first. Uber and Lyft have had one each since 2022.
_BASES = (
    ("2019-02", (("B03035", "B02914"), _UBERS_BASES, ("B02800",), ("B02510",))),
    ("2022-01", (("B03035",), ("B03404",), ("B02800",), ("B03406",))),
)

# ------------------------------------------------------------------------------------------------------- the money

_FUND = (("2019-02", 0.025), ("2020-11", 0.03), ("2024-01", 0.0275))
_SALES_TAX = 0.08875
_CONGESTION, _CONGESTION_SHARED = 275, 75
_AIRPORT, _AIRPORT_SHARED, _AIRPORT_SINCE = 250, 125, "2021-04-05"
_DISTRICT, _DISTRICT_SINCE, _DISTRICT_COLUMN = 150, "2025-01-05", Month(2025, 1)
_PAY = (  # the driver's minimum pay, in cents per mile and per minute
    *(("2019-02", (109, 50)), ("2021-01", (116, 53)), ("2022-03", (122, 56)), ("2023-03", (131, 57))),
)
_LEAST_FARE = 700
_TIPPED = 0.17

# ------------------------------------------------------------------------------------------------------- the flags

# Share of trips that request sharing. In March 2020 the apps stopped it, except Via.
_SHARED = (("2019-02", 0.22), ("2019-10", 0.15), ("2020-03-17", 0.0), ("2022-06", 0.015))
_VIAS_SHARED = 0.9
_MATCHED = 0.55  # share of the requests that find another passenger
_WHEELCHAIR = 2e-3
_IN_ACCESSIBLE_CAR = (("2019-02", 0.0), ("2022-01", 0.05))  # share of trips that are accessible without a request
# Published rows of 2021 and 2022 have a blank, those of 2024 an N.
_UBERS_ACCESS_A_RIDE = (("2019-02", " "), ("2024-01", "N"))

# -------------------------------------------------------------------------------------------------------- data errors

_UNPAID = 1.5e-3
_PAY_TAKEN_BACK = 1.5e-4
_NO_MILES = 7e-4
_NO_TIME = 1e-4
_ON_SCENE_AFTER_PICKUP = 4e-3
_BEYOND_THE_MONTH = 8e-5

_TIMES = ("request_datetime", "on_scene_datetime", "pickup_datetime", "dropoff_datetime")


def schema(month: Month) -> pa.Schema:
    """Return the columns and types of a month. From 2023-02, zone columns are int32, as in TLC's green files."""
    text, number, time = pa.string(), pa.float64(), pa.timestamp("us")
    zone = pa.int64() if month < Month(2023, 2) else pa.int32()
    names = ("hvfhs_license_num", "dispatching_base_num", "originating_base_num")
    money = ("base_passenger_fare", "tolls", "bcf", "sales_tax", "congestion_surcharge", "airport_fee", "tips")
    flags = ("shared_request_flag", "shared_match_flag", "access_a_ride_flag", "wav_request_flag", "wav_match_flag")
    fields = [(name, text) for name in names]
    fields += [(name, time) for name in _TIMES]
    fields += [("PULocationID", zone), ("DOLocationID", zone), ("trip_miles", number), ("trip_time", pa.int64())]
    fields += [(name, number) for name in (*money, "driver_pay")]
    fields += [(name, text) for name in flags]
    if month >= _DISTRICT_COLUMN:
        fields.append(("cbd_congestion_fee", number))
    return pa.schema(fields)


def record_batches(month: Month, rng: np.random.Generator) -> Iterator[pa.RecordBatch]:
    """Yield the trips of each day, in the month's schema."""
    days = demands.days_of(month)
    weights = demands.draw_day_factors(rng, month) * APPS.day_factors(days)
    for day, count in zip(days, demands.apportion(FHVHV_VOLUME.rows(month), weights), strict=True):
        if count:
            yield draw_day_batch(rng, month, day, count)


def draw_day_batch(rng: np.random.Generator, month: Month, date: dt.date, count: int) -> pa.RecordBatch:
    """Return `count` trips of a day of the month, in the order of the file."""
    rides = draw_rides(rng, APPS, date, count)
    company = draw_indices(rng, count, value_in_force(_COMPANIES, date))
    is_requested = draw_flags(rng, count, np.where(company == _VIA, _VIAS_SHARED, value_in_force(_SHARED, date)))
    is_matched = is_requested & draw_flags(rng, count, _MATCHED)
    texts = _draw_bases(rng, date, company) | _draw_flag_columns(rng, date, company, is_requested, is_matched)
    numbers = _draw_times_and_places(rng, rides, company) | _draw_amounts(rng, rides, is_requested)
    _add_recording_errors(rng, month, numbers)
    # Sorted by the hour of the true pickup (before recording errors), in random order within the hour.
    order = pa.array(np.lexsort((rng.random(count), rides.pickup // 3600)))
    month_schema = schema(month)
    columns = [texts[f.name] if f.name in texts else _to_arrow(numbers[f.name], f.type) for f in month_schema]
    return pa.RecordBatch.from_arrays([column.take(order) for column in columns], schema=month_schema)


# ----------------------------------------------------------------------------------------------- the parts of a row


def _draw_bases(rng: np.random.Generator, date: dt.date, company: IntArray) -> dict[str, pa.Array]:
    bases = value_in_force(_BASES, date)
    names = [name for owned in bases for name in owned]
    first = np.cumsum([0, *(len(owned) for owned in bases)])
    base = np.zeros(len(company), np.int64)
    for owner, owned in enumerate(bases):
        own = company == owner
        base[own] = first[owner] + draw_indices(rng, int(own.sum()), 1 / (np.arange(len(owned)) + 2))
    dispatching = pa.array(names).take(pa.array(base))
    return {
        "hvfhs_license_num": _LICENSES.take(pa.array(company)),
        "dispatching_base_num": dispatching,
        "originating_base_num": pc.if_else(pa.array(company == _LYFT), None, dispatching),
    }


def _draw_times_and_places(
    rng: np.random.Generator, rides: Rides, company: IntArray
) -> dict[str, IntArray | FloatArray]:
    """Draw times in seconds of New York's wall clock since 1970, and return them with zones, miles and durations."""
    count = len(rides.start_seconds)
    waited = draw_lognormal(rng, count, 50, 0.9)  # seconds that the car waits for the passenger
    under_way = draw_lognormal(rng, count, 240, 0.6)  # seconds from the request until the car is on the scene
    on_scene = rides.start_seconds - waited
    units_per_mile = np.where(company == _LYFT, 1000, 100)
    return {
        "request_datetime": rides.day.wall_clock(on_scene - under_way),
        "on_scene_datetime": np.where(company == _LYFT, np.nan, rides.day.wall_clock(on_scene)),
        "pickup_datetime": rides.pickup,
        "dropoff_datetime": rides.dropoff,
        "PULocationID": rides.origin,
        "DOLocationID": rides.destination,
        "trip_miles": np.rint(rides.miles * units_per_mile) / units_per_mile,
        "trip_time": rides.duration_seconds,
    }


def _draw_amounts(rng: np.random.Generator, rides: Rides, shared: BoolArray) -> dict[str, IntArray | FloatArray]:
    """Draw the amounts in dollars. Sums use whole cents and are divided last, so that 12.34 is the nearest float."""
    date, count = rides.day.date, len(rides.start_seconds)
    ends = np.stack([rides.origin, rides.destination])
    per_mile, per_minute = value_in_force(_PAY, date)
    # Mostly the minimum pay; more if cars are scarce.
    scarcity = np.exp(np.maximum(0.15 * rng.standard_normal(count), 0.01))
    pay = (per_mile * rides.miles + per_minute * rides.duration_minutes) * scarcity
    fare = np.rint(np.maximum(pay * np.exp(0.15 + 0.25 * rng.standard_normal(count)), _LEAST_FARE))
    fare = np.rint(np.where(shared, 0.75, 1.0) * fare)
    toll = draw_tolls(rng, rides)
    airport = np.isin(ends, demands.AIRPORTS).sum(axis=0) * np.where(shared, _AIRPORT_SHARED, _AIRPORT)
    cents = {
        "base_passenger_fare": fare,
        "tolls": toll,
        "bcf": np.rint(value_in_force(_FUND, date) * (fare + toll)),
        "sales_tax": np.rint(_SALES_TAX * (fare + toll)),
        "congestion_surcharge": demands.congestion_surcharge_zones()[ends].any(axis=0)
        * np.where(shared, _CONGESTION_SHARED, _CONGESTION),
        "airport_fee": airport if date.isoformat() >= _AIRPORT_SINCE else np.full(count, np.nan),
        "tips": _draw_tips(rng, fare),
        "driver_pay": np.rint(pay),
        "cbd_congestion_fee": demands.business_district_zones()[ends].any(axis=0)
        * (date.isoformat() >= _DISTRICT_SINCE)
        * _DISTRICT,
    }
    return {name: amount / 100 for name, amount in cents.items()}


def _draw_tips(rng: np.random.Generator, fare: FloatArray) -> FloatArray:
    """Draw tips: half of them whole dollars, half a share of the fare."""
    count = len(fare)
    dollars = 100.0 * (1 + draw_indices(rng, count, (0.25, 0.3, 0.2, 0.06, 0.19)))
    share = np.rint(
        fare * np.array([0.1, 0.15, 0.18, 0.2, 0.25])[draw_indices(rng, count, (0.2, 0.25, 0.15, 0.3, 0.1))]
    )
    return np.where(draw_flags(rng, count, 0.5), dollars, share) * draw_flags(rng, count, _TIPPED)


def _draw_flag_columns(
    rng: np.random.Generator, date: dt.date, company: IntArray, is_requested: BoolArray, is_matched: BoolArray
) -> dict[str, pa.Array]:
    count = len(company)
    wheelchair = draw_flags(rng, count, _WHEELCHAIR)
    accessible = draw_flags(rng, count, np.where(wheelchair, 0.9, value_in_force(_IN_ACCESSIBLE_CAR, date)))
    return {
        "shared_request_flag": _format_flags(is_requested),
        "shared_match_flag": _format_flags(is_matched),
        "access_a_ride_flag": pc.if_else(pa.array(company == _UBER), value_in_force(_UBERS_ACCESS_A_RIDE, date), "N"),
        "wav_request_flag": _format_flags(wheelchair),
        "wav_match_flag": _format_flags(accessible),
    }


def _format_flags(flags: BoolArray) -> pa.Array:
    return pc.if_else(pa.array(flags), "Y", "N")


# ------------------------------------------------------------------------------------------------------- data errors


def _add_recording_errors(rng: np.random.Generator, month: Month, columns: dict[str, IntArray | FloatArray]) -> None:
    """Change a few values as the companies misreport them."""
    pay, pickup, dropoff, on_scene = (
        columns[name] for name in ("driver_pay", "pickup_datetime", "dropoff_datetime", "on_scene_datetime")
    )
    count = len(pickup)
    pay[draw_flags(rng, count, _UNPAID)] = 0
    pay[draw_flags(rng, count, _PAY_TAKEN_BACK)] *= -1
    columns["trip_miles"][draw_flags(rng, count, _NO_MILES)] = 0
    instant = draw_flags(rng, count, _NO_TIME)
    dropoff[instant] = pickup[instant]
    columns["trip_time"][instant] = 0
    after = draw_flags(rng, count, _ON_SCENE_AFTER_PICKUP)
    on_scene[after] = (pickup + rng.integers(1, 300, count))[after]
    end = np.datetime64(month.end, "s").astype(np.int64)
    stray = draw_flags(rng, count, _BEYOND_THE_MONTH)
    later = (end + rng.integers(0, 6 * 3600, count) - pickup) * stray
    for name in _TIMES:
        columns[name] = columns[name] + later


def _to_arrow(column: IntArray | FloatArray, arrow_type: pa.DataType) -> pa.Array:
    """Return a column in its published type. NaN becomes null: not reported."""
    if pa.types.is_timestamp(arrow_type):
        seconds = pa.array(column, from_pandas=True).cast(pa.int64())
        return seconds.cast(pa.timestamp("s")).cast(arrow_type)
    return pa.array(column, from_pandas=True).cast(arrow_type)
