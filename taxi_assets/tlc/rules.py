"""The rules that a clean trip passes. A row that violates a rule goes to quarantine with all its reasons.

Belongs here: tests that a readable row can fail because it is implausible. The limits are this project's, not TLC's.
Does not belong here: values that cannot be read and malformed rows. The reader finds those, and they always go to
quarantine; see `READING_REASONS`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable

    from taxi_assets.tlc.month import Month

MAXIMUM_MILES = 500
MAXIMUM_HOURS = 24  # of a trip

UNREADABLE_VALUE = "unreadable_value"
WRONG_FIELD_COUNT = "wrong_field_count"
REPEATED_HEADER = "repeated_header"
NOT_UTF8 = "not_utf8"

READING_REASONS = {
    UNREADABLE_VALUE: "A value cannot be read as its column's type. `unreadable_columns` names the columns.",
    WRONG_FIELD_COUNT: "The row has another number of fields than most rows, or a value in a field without a name.",
    REPEATED_HEADER: "The row is a header, as in a file that was joined from parts. It applies to the rows after it.",
    NOT_UTF8: "The row holds bytes that are not valid UTF-8. `original` shows them as escapes, such as `\\xff`.",
}
"""Quarantine reasons that are not rules, by name. No run can switch them off: such a row has no canonical form."""


@dataclass(frozen=True)
class Rule:
    """A test that is true where a row must go to quarantine.

    Attributes:
        name: The reason in quarantine, and the choice in run config.
        description: What the rule rejects, with its limits. Dagster's UI and the data dictionary show it. It is part of
            the data version: after a change, a month is cleaned again when it is next materialized.
        is_violated: Called with a batch and its month; returns one boolean per row, true where the row violates the
            rule. Null counts as passed. `batch.column(name)` returns a column of the service in its canonical type; see
            `cleaning.split_batch.RuleInput`. A row counts as passed if a value of these columns cannot be read; it is
            in quarantine anyway.
    """

    name: str
    description: str
    is_violated: Callable[[Any, Month], Any]


def repeated_hour(year: int) -> tuple[dt.datetime, dt.datetime]:
    """Return the start and the end of the hour that New York's clocks repeat in autumn.

    It is 01:00 to 02:00 on the first Sunday of November, since 2007 (Energy Policy Act of 2005). The first TLC file is
    from 2009.
    """
    first = dt.date(year, 11, 1)
    sunday = first + dt.timedelta(days=(6 - first.weekday()) % 7)
    start = dt.datetime.combine(sunday, dt.time(1))
    return start, start + dt.timedelta(hours=1)


def within_repeated_hour(pickup: Any, dropoff: Any, month: Month, *, where: Any) -> Any:
    """Return which trips lie within the repeated hour, where a dropoff may be later than it seems.

    Args:
        pickup: Pickup times, in microseconds of local time.
        dropoff: Dropoff times, one per pickup.
        month: The partition. Only the repeated hours of its year and of the neighboring months' years are tested.
        where: The rows to test, one boolean per row; null counts as false. Few rows are true, which keeps this fast.

    Returns:
        One boolean per row: true where `where` is true, and both times are known and in the repeated hour.
    """
    if where.null_count:
        where = pc.fill_null(where, pa.scalar(False))
    if not where.true_count:
        return where
    pickup, dropoff = pickup.filter(where), dropoff.filter(where)
    inside = pa.repeat(pa.scalar(False), len(pickup))
    for year in sorted({month.shift(-1).year, month.year, month.shift(1).year}):
        start, end = (pa.scalar(time) for time in repeated_hour(year))
        for_year = pc.and_(
            pc.and_(pc.greater_equal(pickup, start), pc.less(pickup, end)),
            pc.and_(pc.greater_equal(dropoff, start), pc.less(dropoff, end)),
        )
        inside = pc.or_(inside, pc.fill_null(for_year, pa.scalar(False)))
    if not inside.true_count:
        return pa.repeat(pa.scalar(False), len(where))
    return pc.replace_with_mask(where, where, inside)


def _pickup_outside_month(batch: Any, month: Month) -> Any:
    earliest = dt.datetime.combine(month.shift(-1).start, dt.time())
    end = dt.datetime.combine(month.end + dt.timedelta(days=1), dt.time())
    pickup = batch.column("pickup_datetime")
    return pc.or_(pc.less(pickup, pa.scalar(earliest)), pc.greater_equal(pickup, pa.scalar(end)))


def _dropoff_not_after_pickup(batch: Any, month: Month) -> Any:
    pickup, dropoff = batch.column("pickup_datetime"), batch.column("dropoff_datetime")
    not_after = pc.less_equal(dropoff, pickup)
    return pc.and_not(not_after, within_repeated_hour(pickup, dropoff, month, where=not_after))


def _distance_out_of_range(batch: Any, _month: Month) -> Any:
    miles = batch.column("trip_distance")
    return pc.or_(pc.less(miles, pa.scalar(0)), pc.greater(miles, pa.scalar(MAXIMUM_MILES)))


PICKUP_MISSING = Rule(
    "pickup_missing",
    "The pickup time is missing.",
    lambda batch, _month: pc.is_null(batch.column("pickup_datetime")),
)
PICKUP_OUTSIDE_MONTH = Rule(
    "pickup_outside_month",
    "The pickup is before the start of the previous month, or after the first day of the next month. "
    "Trips that were reported a month late pass.",
    _pickup_outside_month,
)
DROPOFF_NOT_AFTER_PICKUP = Rule(
    "dropoff_not_after_pickup",
    "The dropoff is not after the pickup. A missing dropoff passes, and so does a trip within the hour that clocks "
    "repeat in autumn.",
    _dropoff_not_after_pickup,
)
ZERO_PASSENGERS = Rule(
    "zero_passengers",
    "The driver entered zero passengers. A missing count passes.",
    lambda batch, _month: pc.equal(batch.column("passenger_count"), pa.scalar(0)),
)
DISTANCE_OUT_OF_RANGE = Rule(
    "distance_out_of_range",
    f"The distance is below 0 or above {MAXIMUM_MILES} miles. A missing distance passes.",
    _distance_out_of_range,
)
LONGER_THAN_A_DAY = Rule(
    "longer_than_24_hours",
    f"The trip took longer than {MAXIMUM_HOURS} hours. A missing dropoff passes.",
    lambda batch, _month: pc.greater(batch.column("trip_seconds"), pa.scalar(MAXIMUM_HOURS * 3600)),
)

STREET_HAIL_RULES = (
    PICKUP_MISSING,
    PICKUP_OUTSIDE_MONTH,
    DROPOFF_NOT_AFTER_PICKUP,
    ZERO_PASSENGERS,
    DISTANCE_OUT_OF_RANGE,
    LONGER_THAN_A_DAY,
)
"""The rules of yellow and green taxis, which report passengers and distance."""
