"""The generated records of yellow and green: rides, their fares, and the errors that published records have.

Belongs here: how the columns of a row follow from each other, and their text. Does not belong here: the numbers
(`metered_distributions.py`), drawing rides (`rides.py`), and writing the file (`__init__.py`).

Trips are columns of integers, all of equal length: amounts in cents, distance in hundredths of a mile, times in seconds
of New York's wall clock since 1970, the flag as 0 or 1, the rest as published.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.synthetic import demand as demands
from taxi_assets.tlc.synthetic import metered_distributions as distributions
from taxi_assets.tlc.synthetic.rides import Rides, draw_flags, draw_indices, draw_rides, draw_tolls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.synthetic.demand import IntArray
    from taxi_assets.tlc.synthetic.metered_distributions import MeteredService, Tariff

TripColumns = dict[str, "IntArray"]

YELLOW_HEADER = (
    "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,RatecodeID,store_and_fwd_flag,"
    "PULocationID,DOLocationID,payment_type,fare_amount,extra,mta_tax,tip_amount,tolls_amount,improvement_surcharge,"
    "total_amount,congestion_surcharge"
)
GREEN_HEADER = (
    "VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,store_and_fwd_flag,RatecodeID,PULocationID,DOLocationID,"
    "passenger_count,trip_distance,fare_amount,extra,mta_tax,tip_amount,tolls_amount,ehail_fee,improvement_surcharge,"
    "total_amount,payment_type,trip_type,congestion_surcharge"
)

_FARE_PARTS = (
    *("fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount"),
    *("improvement_surcharge", "congestion_surcharge"),
)
_AMOUNTS = {*_FARE_PARTS, "total_amount"}
# Columns that are null for trips that only a dispatcher reported.
_UNKNOWN_IF_DISPATCHED = {
    *("VendorID", "passenger_count", "RatecodeID", "store_and_fwd_flag"),
    *("payment_type", "trip_type", "congestion_surcharge"),
}
_STANDARD, _TO_JFK, _TO_NEWARK, _SUBURBS, _NEGOTIATED, _RATE_UNKNOWN = 1, 2, 3, 4, 5, 99  # RatecodeID
_CARD, _CASH, _NO_CHARGE, _DISPUTE = 1, 2, 3, 4  # payment_type
_TENTHS, _HUNDREDTHS = 1, 2  # VendorID, by the precision of the odometer


def csv_lines(service: MeteredService, header: str, month: Month, rng: np.random.Generator) -> Iterator[pa.Array]:
    """Yield CSV lines without line ends: hailed trips by day, then dispatched trips with the days in random order."""
    tariff = distributions.tariff_of(month)
    days = service.rows_by_day(rng, month)
    for day, hailed, _ in days:
        if hailed:
            yield _to_csv_lines(header, draw_hailed_trips(rng, service, tariff, day, hailed))
    for index in rng.permutation(len(days)):
        day, _, dispatched = days[index]
        if dispatched:
            yield _to_csv_lines(header, draw_dispatched_trips(rng, service, tariff, day, dispatched))


def draw_hailed_trips(
    rng: np.random.Generator, service: MeteredService, tariff: Tariff, date: dt.date, count: int
) -> TripColumns:
    """Draw the metered trips of a day in the order of the file: `count` rows, including reversals."""
    reversals = int(rng.binomial(count, service.reversal_share)) if count > 1 else 0
    charges = count - min(reversals, count // 2)
    rides = draw_rides(rng, service.hailed, date, charges, aborted=service.aborted)
    trips = _metered_columns(rides)
    trips["VendorID"] = _HUNDREDTHS - draw_flags(rng, charges, service.vendor_1)
    trips["store_and_fwd_flag"] = draw_flags(rng, charges, service.stored).astype(np.int64)
    trips["passenger_count"] = draw_indices(rng, charges, service.passengers) + 1
    trips["payment_type"] = draw_indices(rng, charges, service.payment_types) + 1
    _add_fares(rng, service, tariff, rides, trips)
    trips["tip_amount"] = _draw_tips(rng, service, trips)
    trips["total_amount"] = _sum_columns(trips, _FARE_PARTS)
    _add_recording_errors(rng, service, trips)
    trips = _in_upload_order(rng, trips)
    _add_strays(rng, trips)
    return _add_reversals(rng, trips, count - charges)


def draw_dispatched_trips(
    rng: np.random.Generator, service: MeteredService, tariff: Tariff, date: dt.date, count: int
) -> TripColumns:
    """Draw trips that only a dispatcher reported, in the order of the file: no vendor, passengers, rate or payment."""
    rides = draw_rides(rng, service.dispatched, date, count)
    trips = _metered_columns(rides)
    to_the_minute = ~draw_flags(rng, count, distributions.DISPATCHED_TO_THE_SECOND)
    for name in ("pickup_datetime", "dropoff_datetime"):
        trips[name] -= trips[name] % 60 * to_the_minute
    fare = 1380 + 179 * rides.miles + 9 * rides.duration_minutes + 590 * rng.standard_normal(count)
    trips["fare_amount"] = np.maximum(np.rint(fare).astype(np.int64), 600)
    trips["extra"] = np.zeros(count, np.int64)
    trips["mta_tax"] = np.full(count, 50 if service.dispatch_mta_tax else 0)
    trips["tolls_amount"] = draw_tolls(rng, rides)
    trips["improvement_surcharge"] = np.full(count, tariff.improvement)
    trips["congestion_surcharge"] = np.zeros(count, np.int64)
    tip = draw_flags(rng, count, 0.6) * np.rint(trips["fare_amount"] * rng.uniform(0.05, 0.3, count)).astype(np.int64)
    trips["tip_amount"] = np.where(draw_flags(rng, count, service.dispatch_fee), 275, tip)
    trips["total_amount"] = _sum_columns(trips, _FARE_PARTS)
    absurd = draw_flags(rng, count, service.absurd_distance)
    trips["trip_distance"][absurd] = np.rint(60_000 * 375 ** rng.random(int(absurd.sum()))).astype(np.int64)
    trips["trip_distance"][draw_flags(rng, count, distributions.DISPATCHED_WITHOUT_DISTANCE)] = 0
    instant = draw_flags(rng, count, distributions.DROPOFF_AT_PICKUP)
    trips["dropoff_datetime"][instant] = trips["pickup_datetime"][instant]
    return _in_upload_order(rng, trips)


def _metered_columns(rides: Rides) -> TripColumns:
    """Return the columns that the meter measures: times, zones and distance."""
    return {
        "pickup_datetime": rides.pickup,
        "dropoff_datetime": rides.dropoff,
        "PULocationID": rides.origin,
        "DOLocationID": rides.destination,
        "trip_distance": np.rint(rides.miles * 100).astype(np.int64),
    }


# ------------------------------------------------------------------------------------------------------ amounts


def _add_fares(
    rng: np.random.Generator, service: MeteredService, tariff: Tariff, rides: Rides, trips: TripColumns
) -> None:
    """Add RatecodeID, trip_type and every part of the fare except the tip."""
    count = len(rides.start_seconds)
    rate = _draw_rate_codes(rng, service, rides)
    hour = trips["pickup_datetime"] // 3600 % 24
    overnight = np.isin(hour, distributions.OVERNIGHT_HOURS)
    rush = np.isin(hour, distributions.RUSH_HOURS) & demands.is_workday(rides.day.date)
    extra = np.where(rate == _TO_JFK, tariff.jfk_rush * rush, tariff.rush * rush + tariff.overnight * overnight)
    taxed = np.isin(rate, [_TO_NEWARK, _NEGOTIATED], invert=True)
    has_surcharge = demands.congestion_surcharge_zones()
    congested = has_surcharge[rides.origin] | has_surcharge[rides.destination]
    trips["RatecodeID"] = rate
    trips["trip_type"] = 1 + draw_flags(rng, count, 0.86 * (rate == _NEGOTIATED))
    trips["fare_amount"] = _draw_fares(rng, tariff, rate, rides)
    trips["extra"] = extra * taxed
    trips["mta_tax"] = 50 * taxed
    trips["tolls_amount"] = draw_tolls(rng, rides)
    trips["improvement_surcharge"] = np.full(count, tariff.improvement)
    trips["congestion_surcharge"] = service.congestion_cents * (congested & tariff.has_congestion)


def _draw_rate_codes(rng: np.random.Generator, service: MeteredService, rides: Rides) -> IntArray:
    """Draw RatecodeIDs: standard, JFK (flat), Newark, Nassau or Westchester, negotiated, unknown."""
    origin, destination = rides.origin, rides.destination
    # The flat fare applies in all of Manhattan. Here it applies south of 96th Street.
    manhattan, count = demands.congestion_surcharge_zones(), len(origin)
    jfk = ((origin == demands.JFK) & manhattan[destination]) | ((destination == demands.JFK) & manhattan[origin])
    rate = np.where(jfk, _TO_JFK, _STANDARD)
    rate[destination == demands.NEWARK] = _TO_NEWARK
    rate[(destination == demands.OUTSIDE) & draw_flags(rng, count, 0.1)] = _SUBURBS
    rate[draw_flags(rng, count, service.negotiated)] = _NEGOTIATED
    rate[draw_flags(rng, count, distributions.RATE_UNKNOWN)] = _RATE_UNKNOWN
    return rate


def _draw_fares(rng: np.random.Generator, tariff: Tariff, rate: IntArray, rides: Rides) -> IntArray:
    # The meter counts one unit per fifth of a mile, or per minute in slow traffic. Fitted to published fares of rate 1.
    counted = 3.98 * rides.miles + 0.69 * rides.duration_minutes - 1.2 + 0.8 * rng.standard_normal(len(rate))
    units = np.maximum(np.rint(counted), 0)
    fare = tariff.drop + tariff.unit * units.astype(np.int64)
    dollars = np.rint(fare / 100 * rng.uniform(0.8, 1.5, len(fare))).astype(np.int64)
    negotiated = 100 * dollars * draw_flags(rng, len(fare), 0.87)  # the others are recorded with a fare of 0
    cases = [rate == _TO_JFK, rate == _TO_NEWARK, rate == _SUBURBS, rate == _NEGOTIATED]
    return np.select(cases, [tariff.jfk_flat, fare + tariff.newark, 2 * fare - tariff.drop, negotiated], fare)


def _draw_tips(rng: np.random.Generator, service: MeteredService, trips: TripColumns) -> IntArray:
    """Draw tips, which are recorded for cards only: one of the suggested percentages, whole dollars or any amount."""
    due = _sum_columns(trips, [part for part in _FARE_PARTS if part != "tip_amount"])
    count = len(due)
    kind = draw_indices(rng, count, service.tips)
    whole_dollars = 100 * np.maximum(np.rint(due / 100 * rng.uniform(0.1, 0.25, count)), 1)
    any_amount = np.rint(due * rng.uniform(0.03, 0.35, count))
    choices = [0 * due, *(np.rint(due * share) for share in (0.2, 0.25, 0.3)), whole_dollars, any_amount]
    on_card: IntArray = np.choose(kind, choices).astype(np.int64) * (trips["payment_type"] == _CARD)
    return on_card


def _sum_columns(trips: TripColumns, parts: Sequence[str]) -> IntArray:
    total: IntArray = np.sum([trips[part] for part in parts], axis=0)
    return total


# ------------------------------------------------------------------------------------------------------- data errors


def _add_recording_errors(rng: np.random.Generator, service: MeteredService, trips: TripColumns) -> None:
    """Change a few values as meters misrecord them, after the fare was computed from the true ones."""
    count = len(trips["VendorID"])
    pickup, dropoff = trips["pickup_datetime"], trips["dropoff_datetime"]
    tenths = trips["VendorID"] == _TENTHS
    trips["trip_distance"] = np.where(tenths, (trips["trip_distance"] + 5) // 10 * 10, trips["trip_distance"])
    trips["trip_distance"][draw_flags(rng, count, service.odometer_failed)] = 0
    # Nine of ten of these rows are from vendor 1.
    share = np.where(tenths, 0.9 / service.vendor_1, 0.1 / (1 - service.vendor_1))
    trips["passenger_count"][draw_flags(rng, count, share * service.zero_passengers)] = 0
    left_on = ~tenths & draw_flags(rng, count, distributions.METER_LEFT_ON)
    almost_a_day = 86_420 - np.rint(1750 * rng.standard_exponential(count)).astype(np.int64)
    dropoff[left_on] = (pickup + almost_a_day)[left_on]
    before = draw_flags(rng, count, distributions.DROPOFF_BEFORE_PICKUP)
    dropoff[before] = (2 * pickup - dropoff)[before]
    instant = draw_flags(rng, count, distributions.DROPOFF_AT_PICKUP)
    dropoff[instant] = pickup[instant]
    trips["trip_distance"][instant] = 0


def _in_upload_order(rng: np.random.Generator, trips: TripColumns) -> TripColumns:
    """Sort by hour, in random order within. A few rows are in an adjacent hour, and some are hours late."""
    count = len(trips["pickup_datetime"])
    late = 3 * 3600 * rng.standard_exponential(count) * draw_flags(rng, count, distributions.UPLOADED_LATE)
    hour = (trips["pickup_datetime"] + 200 * rng.standard_normal(count) + late) // 3600
    order = np.lexsort((rng.random(count), hour))
    return {name: column[order] for name, column in trips.items()}


def _add_strays(rng: np.random.Generator, trips: TripColumns) -> None:
    """Move a few pickups to other months: reported late, slightly early, or by a clock that was reset to 2008."""
    pickup, dropoff = trips["pickup_datetime"], trips["dropoff_datetime"]
    reset = int(dt.datetime(2008, 12, 31, 22, tzinfo=dt.UTC).timestamp())
    for row in np.flatnonzero(draw_flags(rng, len(pickup), distributions.STRAYS)):
        month = pickup[row].astype("datetime64[s]").astype("datetime64[M]")
        edges = (month, month + np.timedelta64(1, "M"))
        start, end = (int(edge.astype("datetime64[s]").astype(np.int64)) for edge in edges)
        times = (start - int(rng.integers(1, 7 * 86_400)), end + int(rng.integers(0, 3 * 3600)))
        time = (*times, reset + int(rng.integers(0, 14 * 3600)))[int(rng.choice(3, p=(0.6, 0.2, 0.2)))]
        dropoff[row] += time - pickup[row]
        pickup[row] = time


def _add_reversals(rng: np.random.Generator, trips: TripColumns, count: int) -> TripColumns:
    """Insert before `count` cash payments of vendor 2 a row that reverses the payment exactly."""
    candidates = (trips["VendorID"] == _HUNDREDTHS) & (trips["payment_type"] == _CASH)
    chance = np.where(candidates, 1.0, 1e-9)
    taken = np.sort(rng.choice(len(chance), size=count, replace=False, p=chance / chance.sum()))
    order = np.sort(np.concatenate([np.arange(len(chance)), taken]))
    trips = {name: column[order] for name, column in trips.items()}
    reversal = taken + np.arange(count)
    trips["payment_type"][reversal] = np.where(draw_flags(rng, count, 0.76), _NO_CHARGE, _DISPUTE)
    for part in (*_FARE_PARTS, "total_amount"):
        trips[part][reversal] *= -1
    return trips


# ------------------------------------------------------------------------------------------------------- text


def _to_csv_lines(header: str, trips: TripColumns) -> pa.Array:
    """Return one CSV line per trip, without line end."""
    columns = [_to_text(name, trips) for name in header.split(",")]
    return pc.binary_join_element_wise(*columns, ",")


def _to_text(name: str, trips: TripColumns) -> pa.Array:
    """Return a column as text, formatted as in published files."""
    hailed = "VendorID" in trips
    key = name.removeprefix("tpep_").removeprefix("lpep_")
    if name == "ehail_fee" or (name in _UNKNOWN_IF_DISPATCHED and not hailed):
        return pa.repeat("", len(trips["pickup_datetime"]))
    if key.endswith("_datetime"):
        return pa.array(trips[key].astype("datetime64[s]")).cast(pa.string())
    if name == "store_and_fwd_flag":
        return pa.array(["N", "Y"]).take(pa.array(trips[name]))
    if name == "trip_distance":
        return _format_numbers(trips[name], lambda hundredths: f"{hundredths / 100:.2f}".removeprefix("0"))
    if name in _AMOUNTS:
        return _format_numbers(trips[name], lambda cents: f"{cents / 100:.2f}".rstrip("0").rstrip("."))
    return pa.array(trips[name]).cast(pa.string())


def _format_numbers(numbers: IntArray, format_number: Callable[[int], str]) -> pa.Array:
    # A day has few distinct amounts: format each once.
    distinct, position = np.unique(numbers, return_inverse=True)
    return pa.array([format_number(number) for number in distinct.tolist()]).take(pa.array(position))
