"""How a ride of the generated sample comes about, whoever drives: the dice, New York's clock, the way and its minutes.

Belongs here: what all services share. Does not belong here: which figures go in (`demand.py`), and what a
service records of a ride.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from taxi_assets.tlc.synthetic import demand as demands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.tlc.synthetic.demand import BoolArray, Demand, FloatArray, IntArray

_SUNDAY = 6
_HOUR = 3600
_TWO_O_CLOCK = 2 * _HOUR

# The share of trips that pay a toll, by miles driven (of green and of yellow trips),
_TOLL_MILES = (0, 3, 5, 8, 12, 20, 30)
_TOLL_SHARE = (0.003, 0.008, 0.025, 0.11, 0.38, 0.57, 0.7)
_AIRPORT_TOLL_SHARE = (0.003, 0.008, 0.025, 0.45, 0.57, 0.6, 0.7)
# and, since a month, what the bridges and tunnels between the airports and Manhattan cost, in cents.
_TOLLS = (
    *(("2009-01", 457), ("2012-09", 480), ("2015-01", 554), ("2019-02", 576), ("2019-04", 612)),
    *(("2021-04", 655), ("2023-01", 694)),
)


# ------------------------------------------------------------------------------------------------------ the dice


def draw_flags(rng: np.random.Generator, count: int, share: float | FloatArray) -> BoolArray:
    """`count` flags, each set with the chance `share`."""
    flags: BoolArray = rng.random(count) < share
    return flags


def draw_indices(rng: np.random.Generator, count: int, shares: Sequence[float] | FloatArray) -> IntArray:
    """Positions in `shares` (which need not sum to 1), drawn by them."""
    ends = np.cumsum(shares)
    positions: IntArray = np.searchsorted(ends, rng.random(count) * ends[-1], side="right").astype(np.int64)
    return positions


def draw_lognormal(rng: np.random.Generator, count: int, median: float, spread: float) -> IntArray:
    """Whole numbers around a median, more of them far above than far below; `spread` is that of their logarithms."""
    numbers: IntArray = np.rint(median * np.exp(spread * rng.standard_normal(count))).astype(np.int64)
    return numbers


# ------------------------------------------------------------------------------------------------------ the clock


@dataclass(frozen=True)
class Day:
    """One day of New York's clock; `shift` is by how many seconds it is put forward at 02:00."""

    date: dt.date
    shift: int = 0

    @classmethod
    def of(cls, date: dt.date) -> Day:
        """The day with the rule in force since 2007: second Sunday of March, first Sunday of November."""
        change = (date.month, date.weekday(), (date.day - 1) // 7)
        return cls(date, {(3, _SUNDAY, 1): _HOUR, (11, _SUNDAY, 0): -_HOUR}.get(change, 0))

    def elapsed(self, rng: np.random.Generator, clock: IntArray) -> IntArray:
        """Seconds passed since midnight when the clock shows `clock`; in November it shows 01:00 to 02:00 twice."""
        if self.shift == 0:
            return clock
        changed = clock >= _TWO_O_CLOCK + max(self.shift, 0)
        if self.shift < 0:
            changed |= (clock >= _HOUR) & draw_flags(rng, len(clock), 0.5)
        return clock - self.shift * changed

    def wall_clock(self, elapsed: IntArray) -> IntArray:
        """What the clock shows so many seconds after midnight (or before, if negative), in seconds since 1970."""
        midnight = (self.date - dt.date(1970, 1, 1)).days * 86_400
        return midnight + elapsed + self.shift * (elapsed >= _TWO_O_CLOCK)


# ------------------------------------------------------------------------------------------------------- the ride


@dataclass(frozen=True)
class Rides:
    """Rides that begin on a day, as they truly were; columns of one length."""

    day: Day
    start_seconds: IntArray  # seconds after midnight
    duration_seconds: IntArray  # under way
    duration_minutes: FloatArray  # the same, to the fraction
    miles: FloatArray
    origin: IntArray  # LocationID
    destination: IntArray

    @property
    def pickup(self) -> IntArray:
        """In seconds of New York's wall clock since 1970."""
        return self.day.wall_clock(self.start_seconds)

    @property
    def dropoff(self) -> IntArray:
        """In seconds of New York's wall clock since 1970."""
        return self.day.wall_clock(self.start_seconds + self.duration_seconds)


def draw_rides(rng: np.random.Generator, demand: Demand, date: dt.date, count: int, *, aborted: float = 0.0) -> Rides:
    """`count` rides, in any order; the share `aborted` is over within a minute, where it began."""
    day = Day.of(date)
    zones = demands.origin_destination_model(demand)
    origin, destination = zones.draw_pairs(rng, count)
    given_up = draw_flags(rng, count, aborted)
    destination = np.where(given_up, origin, destination)
    miles = np.where(given_up, 0.0, np.minimum(zones.draw_miles(rng, origin, destination), 60.0))
    hour = draw_indices(rng, count, demand.hourly(date))
    # Fitted to the real trips of 0.5 to 40 miles: ln minutes = 1.9 + 0.72 ln miles, standard deviation 0.32.
    minutes = np.exp(1.9 + 0.72 * np.log(np.maximum(miles, 0.05)) + 0.3 * rng.standard_normal(count))
    minutes = np.where(given_up, rng.uniform(0.03, 1.0, count), minutes * demands.SLOWNESS_BY_HOUR[hour])
    seconds = np.maximum(np.rint(minutes * 60), 1).astype(np.int64)
    began = day.elapsed(rng, hour * _HOUR + rng.integers(0, _HOUR, count))
    return Rides(day, began, seconds, minutes, miles, origin, destination)


def draw_tolls(rng: np.random.Generator, rides: Rides) -> IntArray:
    """Cents paid, by distance; the way to an airport more often leads through a tunnel."""
    ends = np.stack([rides.origin, rides.destination])
    to_airport = np.isin(ends, demands.AIRPORTS).any(axis=0)
    shares = (np.interp(rides.miles, _TOLL_MILES, share) for share in (_AIRPORT_TOLL_SHARE, _TOLL_SHARE))
    paid = draw_flags(rng, len(rides.miles), np.where(to_airport, *shares))
    toll = demands.value_in_force(_TOLLS, rides.day.date)
    amounts: IntArray = np.array([toll, 2 * toll, 280, 229])
    return amounts[draw_indices(rng, len(rides.miles), (0.83, 0.06, 0.06, 0.05))] * paid
