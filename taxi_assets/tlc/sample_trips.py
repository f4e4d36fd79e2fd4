"""One day's trips of the generated sample: ridden, paid, then recorded as badly as the real ones.

Belongs here: how the columns of a row follow from each other. Does not belong here: the figures (`sample_shape.py`)
and the file (`sample.py`).

Trips are columns of whole numbers, all of one length: money in cents, distance in hundredths of a mile, times in
seconds of New York's wall clock since 1970, the flag as 0 or 1, the rest as published.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from taxi_assets.tlc import sample_shape as shapes
from taxi_assets.tlc.sample_shape import Demand, Flags, Real, Shape, Tariff, Whole

if TYPE_CHECKING:
    from collections.abc import Sequence

Trips = dict[str, Whole]

FARE_PARTS = (
    *("fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount"),
    *("improvement_surcharge", "congestion_surcharge"),
)
_STANDARD, _TO_JFK, _TO_NEWARK, _SUBURBS, _NEGOTIATED, _RATE_UNKNOWN = 1, 2, 3, 4, 5, 99  # RatecodeID
_CARD, _CASH, _NO_CHARGE, _DISPUTE = 1, 2, 3, 4  # payment_type
_TENTHS, _HUNDREDTHS = 1, 2  # the vendors, by the grain of their odometers
_SUNDAY = 6
_HOUR = 3600
_TWO_O_CLOCK = 2 * _HOUR


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

    def elapsed(self, rng: np.random.Generator, clock: Whole) -> Whole:
        """Seconds passed since midnight when the clock shows `clock`; in November it shows 01:00 to 02:00 twice."""
        if self.shift == 0:
            return clock
        changed = clock >= _TWO_O_CLOCK + max(self.shift, 0)
        if self.shift < 0:
            changed |= (clock >= _HOUR) & _happens(rng, len(clock), 0.5)
        return clock - self.shift * changed

    def wall_clock(self, elapsed: Whole) -> Whole:
        """What the clock shows so many seconds after midnight, in seconds since 1970."""
        midnight = (self.date - dt.date(1970, 1, 1)).days * 86_400
        return midnight + elapsed + self.shift * (elapsed >= _TWO_O_CLOCK)


def hailed_trips(rng: np.random.Generator, shape: Shape, tariff: Tariff, date: dt.date, count: int) -> Trips:
    """Metered trips of a day in the order of the file; `count` rows, reversals included."""
    day = Day.of(date)
    reversals = int(rng.binomial(count, shape.reversed)) if count > 1 else 0
    rides = count - min(reversals, count // 2)
    trips, minutes = _ride(rng, shape.hailed, day, rides, aborted=shape.aborted)
    trips["VendorID"] = _HUNDREDTHS - _happens(rng, rides, shape.vendor_1)
    trips["store_and_fwd_flag"] = _happens(rng, rides, shape.stored).astype(np.int64)
    trips["passenger_count"] = _choose(rng, rides, shape.passengers) + 1
    trips["payment_type"] = _choose(rng, rides, shape.payment_types) + 1
    _charge(rng, shape, tariff, day, trips, minutes)
    trips["tip_amount"] = _tips(rng, shape, trips)
    trips["total_amount"] = _sum(trips, FARE_PARTS)
    _misrecord(rng, shape, trips)
    trips = _in_upload_order(rng, trips)
    _stray(rng, trips)
    return _reverse(rng, trips, count - rides)


def dispatched_trips(rng: np.random.Generator, shape: Shape, tariff: Tariff, date: dt.date, count: int) -> Trips:
    """Trips known only from a dispatcher, in the order of the file. Nobody knows vendor, passengers, rate, payment."""
    trips, minutes = _ride(rng, shape.dispatched, Day.of(date), count, aborted=0.0)
    to_the_minute = ~_happens(rng, count, shapes.DISPATCHED_TO_THE_SECOND)
    for name in ("pickup_datetime", "dropoff_datetime"):
        trips[name] -= trips[name] % 60 * to_the_minute
    miles = trips["trip_distance"] / 100
    fare = 1380 + 179 * miles + 9 * minutes + 590 * rng.standard_normal(count)
    trips["fare_amount"] = np.maximum(np.rint(fare).astype(np.int64), 600)
    trips["extra"] = np.zeros(count, np.int64)
    trips["mta_tax"] = np.full(count, 50 if shape.dispatch_mta_tax else 0)
    trips["tolls_amount"] = _tolls(rng, tariff, trips)
    trips["improvement_surcharge"] = np.full(count, tariff.improvement)
    trips["congestion_surcharge"] = np.zeros(count, np.int64)
    tip = _happens(rng, count, 0.6) * np.rint(trips["fare_amount"] * rng.uniform(0.05, 0.3, count)).astype(np.int64)
    trips["tip_amount"] = np.where(_happens(rng, count, shape.dispatch_fee), 275, tip)
    trips["total_amount"] = _sum(trips, FARE_PARTS)
    absurd = _happens(rng, count, shape.absurd_distance)
    trips["trip_distance"][absurd] = np.rint(60_000 * 375 ** rng.random(int(absurd.sum()))).astype(np.int64)
    trips["trip_distance"][_happens(rng, count, shapes.DISPATCHED_WITHOUT_DISTANCE)] = 0
    instant = _happens(rng, count, shapes.DROPOFF_AT_PICKUP)
    trips["dropoff_datetime"][instant] = trips["pickup_datetime"][instant]
    return _in_upload_order(rng, trips)


# ------------------------------------------------------------------------------------------------------ the ride


def _ride(rng: np.random.Generator, demand: Demand, day: Day, count: int, *, aborted: float) -> tuple[Trips, Real]:
    """Times, zones and distance; and the minutes under way (the meter's, where a clock change hides them)."""
    zones = shapes.zones_of(demand)
    origin, destination = zones.draw(rng, count)
    given_up = _happens(rng, count, aborted)
    destination = np.where(given_up, origin, destination)
    miles = np.where(given_up, 0.0, np.minimum(zones.miles(rng, origin, destination), 60.0))
    hour = _choose(rng, count, tuple(demand.hourly(day.date)))
    # Fitted to the real trips of 0.5 to 40 miles: ln minutes = 1.9 + 0.72 ln miles, standard deviation 0.32.
    minutes = np.exp(1.9 + 0.72 * np.log(np.maximum(miles, 0.05)) + 0.3 * rng.standard_normal(count))
    minutes = np.where(given_up, rng.uniform(0.03, 1.0, count), minutes * shapes.SLOWNESS_BY_HOUR[hour])
    seconds = np.maximum(np.rint(minutes * 60), 1).astype(np.int64)
    pickup = day.elapsed(rng, hour * 3600 + rng.integers(0, 3600, count))
    trips = {
        "pickup_datetime": day.wall_clock(pickup),
        "dropoff_datetime": day.wall_clock(pickup + seconds),
        "PULocationID": origin,
        "DOLocationID": destination,
        "trip_distance": np.rint(miles * 100).astype(np.int64),
    }
    return trips, minutes


# ------------------------------------------------------------------------------------------------------ the money


def _charge(rng: np.random.Generator, shape: Shape, tariff: Tariff, day: Day, trips: Trips, minutes: Real) -> None:
    """RatecodeID and trip_type, and every part of the fare but the tip."""
    count = len(minutes)
    rate = _rates(rng, shape, trips)
    hour = trips["pickup_datetime"] // 3600 % 24
    overnight = np.isin(hour, shapes.OVERNIGHT_HOURS)
    rush = np.isin(hour, shapes.RUSH_HOURS) & shapes.is_workday(day.date)
    extra = np.where(rate == _TO_JFK, tariff.jfk_rush * rush, tariff.rush * rush + tariff.overnight * overnight)
    taxed = np.isin(rate, [_TO_NEWARK, _NEGOTIATED], invert=True)
    below_96th = shapes.below_96th()
    congested = below_96th[trips["PULocationID"]] | below_96th[trips["DOLocationID"]]
    trips["RatecodeID"] = rate
    trips["trip_type"] = 1 + _happens(rng, count, 0.86 * (rate == _NEGOTIATED))
    trips["fare_amount"] = _fares(rng, tariff, rate, trips["trip_distance"] / 100, minutes)
    trips["extra"] = extra * taxed
    trips["mta_tax"] = 50 * taxed
    trips["tolls_amount"] = _tolls(rng, tariff, trips)
    trips["improvement_surcharge"] = np.full(count, tariff.improvement)
    trips["congestion_surcharge"] = shape.congestion_cents * (congested & tariff.has_congestion)


def _rates(rng: np.random.Generator, shape: Shape, trips: Trips) -> Whole:
    """RatecodeID: standard, flat between JFK and Manhattan, Newark, Nassau or Westchester, negotiated, unknown."""
    origin, destination = trips["PULocationID"], trips["DOLocationID"]
    below_96th, count = shapes.below_96th(), len(origin)
    jfk = ((origin == shapes.JFK) & below_96th[destination]) | ((destination == shapes.JFK) & below_96th[origin])
    rate = np.where(jfk, _TO_JFK, _STANDARD)
    rate[destination == shapes.NEWARK] = _TO_NEWARK
    rate[(destination == shapes.OUTSIDE) & _happens(rng, count, 0.1)] = _SUBURBS
    rate[_happens(rng, count, shape.negotiated)] = _NEGOTIATED
    rate[_happens(rng, count, shapes.RATE_UNKNOWN)] = _RATE_UNKNOWN
    return rate


def _fares(rng: np.random.Generator, tariff: Tariff, rate: Whole, miles: Real, minutes: Real) -> Whole:
    # A meter counts a unit per fifth of a mile, or per minute when slow; fitted to the real fares of rate 1.
    units = np.maximum(np.rint(3.98 * miles + 0.69 * minutes - 1.2 + 0.8 * rng.standard_normal(len(miles))), 0)
    fare = tariff.drop + tariff.unit * units.astype(np.int64)
    dollars = np.rint(fare / 100 * rng.uniform(0.8, 1.5, len(fare))).astype(np.int64)
    negotiated = 100 * dollars * _happens(rng, len(fare), 0.87)  # the others are recorded as free
    cases = [rate == _TO_JFK, rate == _TO_NEWARK, rate == _SUBURBS, rate == _NEGOTIATED]
    return np.select(cases, [tariff.jfk_flat, fare + tariff.newark, 2 * fare - tariff.drop, negotiated], fare)


def _tolls(rng: np.random.Generator, tariff: Tariff, trips: Trips) -> Whole:
    """By distance; the way to an airport more often leads through a tunnel."""
    miles = trips["trip_distance"] / 100
    ends = np.stack([trips["PULocationID"], trips["DOLocationID"]])
    to_airport = np.isin(ends, shapes.AIRPORTS).any(axis=0)
    shares = (np.interp(miles, shapes.TOLL_MILES, share) for share in (shapes.AIRPORT_TOLL_SHARE, shapes.TOLL_SHARE))
    paid = _happens(rng, len(miles), np.where(to_airport, *shares))
    amounts = np.array([tariff.toll, 2 * tariff.toll, 280, 229])
    return amounts[_choose(rng, len(miles), (0.83, 0.06, 0.06, 0.05))] * paid


def _tips(rng: np.random.Generator, shape: Shape, trips: Trips) -> Whole:
    """Only tips on cards are recorded: mostly one of the screen's percentages of everything else, or whole dollars."""
    due = _sum(trips, [part for part in FARE_PARTS if part != "tip_amount"])
    count = len(due)
    kind = _choose(rng, count, shape.tips)
    whole_dollars = 100 * np.maximum(np.rint(due / 100 * rng.uniform(0.1, 0.25, count)), 1)
    any_amount = np.rint(due * rng.uniform(0.03, 0.35, count))
    choices = [0 * due, *(np.rint(due * share) for share in (0.2, 0.25, 0.3)), whole_dollars, any_amount]
    on_card: Whole = np.choose(kind, choices).astype(np.int64) * (trips["payment_type"] == _CARD)
    return on_card


def _sum(trips: Trips, parts: Sequence[str]) -> Whole:
    total: Whole = np.sum([trips[part] for part in parts], axis=0)
    return total


# ------------------------------------------------------------------------------------------------------- the dirt


def _misrecord(rng: np.random.Generator, shape: Shape, trips: Trips) -> None:
    """What meters get wrong, after the passenger has paid for the true trip."""
    count = len(trips["VendorID"])
    pickup, dropoff = trips["pickup_datetime"], trips["dropoff_datetime"]
    tenths = trips["VendorID"] == _TENTHS
    trips["trip_distance"] = np.where(tenths, (trips["trip_distance"] + 5) // 10 * 10, trips["trip_distance"])
    trips["trip_distance"][_happens(rng, count, shape.odometer_failed)] = 0
    # Nine of ten are vendor 1's.
    share = np.where(tenths, 0.9 / shape.vendor_1, 0.1 / (1 - shape.vendor_1))
    trips["passenger_count"][_happens(rng, count, share * shape.zero_passengers)] = 0
    left_on = ~tenths & _happens(rng, count, shapes.METER_LEFT_ON)
    almost_a_day = 86_420 - np.rint(1750 * rng.standard_exponential(count)).astype(np.int64)
    dropoff[left_on] = (pickup + almost_a_day)[left_on]
    before = _happens(rng, count, shapes.DROPOFF_BEFORE_PICKUP)
    dropoff[before] = (2 * pickup - dropoff)[before]
    instant = _happens(rng, count, shapes.DROPOFF_AT_PICKUP)
    dropoff[instant] = pickup[instant]
    trips["trip_distance"][instant] = 0


def _in_upload_order(rng: np.random.Generator, trips: Trips) -> Trips:
    """By the hour, any order within; a few in the next or the last hour, and some hours late."""
    count = len(trips["pickup_datetime"])
    late = 3 * 3600 * rng.standard_exponential(count) * _happens(rng, count, shapes.UPLOADED_LATE)
    hour = (trips["pickup_datetime"] + 200 * rng.standard_normal(count) + late) // 3600
    order = np.lexsort((rng.random(count), hour))
    return {name: column[order] for name, column in trips.items()}


def _stray(rng: np.random.Generator, trips: Trips) -> None:
    """Pickups of another month: reported late, a little early, or by a clock that fell back to its first day."""
    pickup, dropoff = trips["pickup_datetime"], trips["dropoff_datetime"]
    reset = int(dt.datetime(2008, 12, 31, 22, tzinfo=dt.UTC).timestamp())
    for row in np.flatnonzero(_happens(rng, len(pickup), shapes.STRAYS)):
        month = pickup[row].astype("datetime64[s]").astype("datetime64[M]")
        start, end = (int(edge.astype("datetime64[s]").astype(np.int64)) for edge in (month, month + 1))
        times = (start - int(rng.integers(1, 7 * 86_400)), end + int(rng.integers(0, 3 * 3600)))
        time = (*times, reset + int(rng.integers(0, 14 * 3600)))[int(rng.choice(3, p=(0.6, 0.2, 0.2)))]
        dropoff[row] += time - pickup[row]
        pickup[row] = time


def _reverse(rng: np.random.Generator, trips: Trips, count: int) -> Trips:
    """Put before each of `count` charges of vendor 2, paid in cash, a row that takes it back to the cent."""
    candidates = (trips["VendorID"] == _HUNDREDTHS) & (trips["payment_type"] == _CASH)
    chance = np.where(candidates, 1.0, 1e-9)
    taken = np.sort(rng.choice(len(chance), size=count, replace=False, p=chance / chance.sum()))
    order = np.sort(np.concatenate([np.arange(len(chance)), taken]))
    trips = {name: column[order] for name, column in trips.items()}
    reversal = taken + np.arange(count)
    trips["payment_type"][reversal] = np.where(_happens(rng, count, 0.76), _NO_CHARGE, _DISPUTE)
    for part in (*FARE_PARTS, "total_amount"):
        trips[part][reversal] *= -1
    return trips


# ------------------------------------------------------------------------------------------------------ the dice


def _happens(rng: np.random.Generator, count: int, share: float | Real) -> Flags:
    """`count` flags, each set with the chance `share`."""
    flags: Flags = rng.random(count) < share
    return flags


def _choose(rng: np.random.Generator, count: int, shares: tuple[float, ...]) -> Whole:
    """Positions in `shares` (which need not sum to 1), drawn by them."""
    ends = np.cumsum(shares)
    positions: Whole = np.searchsorted(ends, rng.random(count) * ends[-1], side="right").astype(np.int64)
    return positions
