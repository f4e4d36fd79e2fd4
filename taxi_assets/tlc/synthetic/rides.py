"""Single rides of the synthetic sample, for any service: random draws, New York's clock, and tolls.

Belongs here: code that all services share. Does not belong here: the numbers (`demand.py`), and the records that a
service publishes of a ride.
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

# The share of trips with a toll, by miles driven, measured on green and yellow trips.
_TOLL_MILES = (0, 3, 5, 8, 12, 20, 30)
_TOLL_SHARE = (0.003, 0.008, 0.025, 0.11, 0.38, 0.57, 0.7)
_AIRPORT_TOLL_SHARE = (0.003, 0.008, 0.025, 0.45, 0.57, 0.6, 0.7)
# The toll of the bridges and tunnels between the airports and Manhattan, in cents, by the month from which it applies.
_TOLLS = (
    *(("2009-01", 457), ("2012-09", 480), ("2015-01", 554), ("2019-02", 576), ("2019-04", 612)),
    *(("2021-04", 655), ("2023-01", 694)),
)


# ------------------------------------------------------------------------------------------------------ random values


def draw_flags(rng: np.random.Generator, count: int, share: float | FloatArray) -> BoolArray:
    """Draw `count` flags, each true with the probability `share` (one value, or one per flag)."""
    flags: BoolArray = rng.random(count) < share
    return flags


def draw_indices(rng: np.random.Generator, count: int, shares: Sequence[float] | FloatArray) -> IntArray:
    """Draw `count` indices into `shares`, with probabilities in proportion to them."""
    ends = np.cumsum(shares)
    positions: IntArray = np.searchsorted(ends, rng.random(count) * ends[-1], side="right").astype(np.int64)
    return positions


def draw_lognormal(rng: np.random.Generator, count: int, median: float, spread: float) -> IntArray:
    """Draw `count` integers from a log-normal distribution; `spread` is the standard deviation of the logarithms."""
    numbers: IntArray = np.rint(median * np.exp(spread * rng.standard_normal(count))).astype(np.int64)
    return numbers


# ------------------------------------------------------------------------------------------------------ the clock


@dataclass(frozen=True)
class Day:
    """One day on New York's clock."""

    date: dt.date
    shift: int = 0
    """Seconds by which the clock moves forward at 02:00; negative in autumn."""

    @classmethod
    def of(cls, date: dt.date) -> Day:
        """Return the day with the shift in force since 2007: second Sunday of March, first Sunday of November."""
        change = (date.month, date.weekday(), (date.day - 1) // 7)
        return cls(date, {(3, _SUNDAY, 1): _HOUR, (11, _SUNDAY, 0): -_HOUR}.get(change, 0))

    def elapsed(self, rng: np.random.Generator, clock: IntArray) -> IntArray:
        """Convert clock times to the seconds elapsed since midnight; both are in seconds.

        On the day in November, the hour from 01:00 occurs twice, and one of the two is drawn.
        """
        if self.shift == 0:
            return clock
        changed = clock >= _TWO_O_CLOCK + max(self.shift, 0)
        if self.shift < 0:
            changed |= (clock >= _HOUR) & draw_flags(rng, len(clock), 0.5)
        return clock - self.shift * changed

    def wall_clock(self, elapsed: IntArray) -> IntArray:
        """Return clock times in seconds since 1970, for seconds elapsed since midnight (negative: before it)."""
        midnight = (self.date - dt.date(1970, 1, 1)).days * 86_400
        return midnight + elapsed + self.shift * (elapsed >= _TWO_O_CLOCK)


# ------------------------------------------------------------------------------------------------------- rides


@dataclass(frozen=True)
class Rides:
    """Rides that begin on one day, without recording errors; columns of equal length."""

    day: Day
    start_seconds: IntArray
    """Seconds elapsed since midnight at the pickup."""
    duration_seconds: IntArray
    duration_minutes: FloatArray
    """The duration before it was rounded to seconds."""
    miles: FloatArray
    origin: IntArray
    """LocationID of the pickup."""
    destination: IntArray
    """LocationID of the dropoff."""

    @property
    def pickup(self) -> IntArray:
        """Pickup times in seconds of New York's wall clock since 1970."""
        return self.day.wall_clock(self.start_seconds)

    @property
    def dropoff(self) -> IntArray:
        """Dropoff times in seconds of New York's wall clock since 1970."""
        return self.day.wall_clock(self.start_seconds + self.duration_seconds)


def draw_rides(rng: np.random.Generator, demand: Demand, date: dt.date, count: int, *, aborted: float = 0.0) -> Rides:
    """Draw `count` rides, in any order. The share `aborted` ends within a minute in the zone of the pickup."""
    day = Day.of(date)
    model = demands.origin_destination_model(demand)
    origin, destination = model.draw_pairs(rng, count)
    is_aborted = draw_flags(rng, count, aborted)
    destination = np.where(is_aborted, origin, destination)
    miles = np.where(is_aborted, 0.0, np.minimum(model.draw_miles(rng, origin, destination), 60.0))
    hour = draw_indices(rng, count, demand.hour_probabilities(date))
    # Fitted to published trips of 0.5 to 40 miles: ln minutes = 1.9 + 0.72 ln miles, standard deviation 0.32,
    # of which the factor by hour explains a part and the random term 0.3.
    minutes = np.exp(1.9 + 0.72 * np.log(np.maximum(miles, 0.05)) + 0.3 * rng.standard_normal(count))
    minutes = np.where(is_aborted, rng.uniform(0.03, 1.0, count), minutes * demands.DURATION_FACTOR_BY_HOUR[hour])
    seconds = np.maximum(np.rint(minutes * 60), 1).astype(np.int64)
    start_seconds = day.elapsed(rng, hour * _HOUR + rng.integers(0, _HOUR, count))
    return Rides(day, start_seconds, seconds, minutes, miles, origin, destination)


def draw_tolls(rng: np.random.Generator, rides: Rides) -> IntArray:
    """Draw the toll of each ride, in cents. Trips to or from an airport have one more often."""
    ends = np.stack([rides.origin, rides.destination])
    at_airport = np.isin(ends, demands.AIRPORTS).any(axis=0)
    shares = (np.interp(rides.miles, _TOLL_MILES, share) for share in (_AIRPORT_TOLL_SHARE, _TOLL_SHARE))
    paid = draw_flags(rng, len(rides.miles), np.where(at_airport, *shares))
    toll = demands.value_in_force(_TOLLS, rides.day.date)
    amounts: IntArray = np.array([toll, 2 * toll, 280, 229])
    return amounts[draw_indices(rng, len(rides.miles), (0.83, 0.06, 0.06, 0.05))] * paid
