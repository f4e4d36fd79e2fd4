"""The rules a trip must pass to be clean. A row that breaks one goes to quarantine, with every reason, and is kept.

Belongs here: what makes a readable row implausible. Does not belong here: values that cannot be read, rows of another
shape; those are found while reading and always go to quarantine (see `READING_REASONS`).
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
MAXIMUM_HOURS = 24

UNREADABLE_VALUE = "unreadable_value"
WRONG_FIELD_COUNT = "wrong_field_count"
NOT_UTF8 = "not_utf8"

# Reasons that reading itself finds. No run can switch them off: such a row has no canonical form.
READING_REASONS = {
    UNREADABLE_VALUE: "A value is not of its column's type; `unreadable_columns` names the columns.",
    WRONG_FIELD_COUNT: "The row has more or fewer fields than the others.",
    NOT_UTF8: "The row holds bytes that are not UTF-8; they are shown escaped.",
}


@dataclass(frozen=True)
class Rule:
    """A rule as data: `broken(batch, month)` is true where a row breaks it; null counts as not broken.

    `batch.column(name)` is one of the service's columns in its canonical type; see `part.Trips`. The name is the reason
    in quarantine. Name and description are part
    of the data version, so a limit must be spelled in the description.
    """

    name: str
    description: str
    is_violated: Callable[[Any, Month], Any]


def repeated_hour(year: int) -> tuple[dt.datetime, dt.datetime]:
    """The hour that New York's clocks go through twice in autumn: 01:00 to 02:00 on November's first Sunday.

    True since 2007 (Energy Policy Act of 2005); the first TLC file is of 2009.
    """
    first = dt.date(year, 11, 1)
    sunday = first + dt.timedelta(days=(6 - first.weekday()) % 7)
    start = dt.datetime.combine(sunday, dt.time(1))
    return start, start + dt.timedelta(hours=1)


def within_repeated_hour(pickup: Any, dropoff: Any, month: Month, *, where: Any) -> Any:
    """Where pickup and dropoff both fall into the repeated hour, so that their order says nothing.

    Looks at the rows where the mask `where` is true; elsewhere it is false. They are few.
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
    first = dt.datetime.combine(month.shift(-1).start, dt.time())
    after = dt.datetime.combine(month.end + dt.timedelta(days=1), dt.time())
    pickup = batch.column("pickup_datetime")
    return pc.or_(pc.less(pickup, pa.scalar(first)), pc.greater_equal(pickup, pa.scalar(after)))


def _dropoff_not_after_pickup(batch: Any, month: Month) -> Any:
    pickup, dropoff = batch.column("pickup_datetime"), batch.column("dropoff_datetime")
    not_after = pc.less_equal(dropoff, pickup)
    return pc.and_not(not_after, within_repeated_hour(pickup, dropoff, month, where=not_after))


def _distance_out_of_range(batch: Any, _month: Month) -> Any:
    miles = batch.column("trip_distance")
    return pc.or_(pc.less(miles, pa.scalar(0)), pc.greater(miles, pa.scalar(MAXIMUM_MILES)))


PICKUP_MISSING = Rule(
    "pickup_missing",
    "The trip has no pickup time.",
    lambda batch, _month: pc.is_null(batch.column("pickup_datetime")),
)
PICKUP_OUTSIDE_MONTH = Rule(
    "pickup_outside_month",
    "The pickup lies before the first day of the month before, or later than the day after the month's end. "
    "Trips reported a month late are kept.",
    _pickup_outside_month,
)
DROPOFF_NOT_AFTER_PICKUP = Rule(
    "dropoff_not_after_pickup",
    "The dropoff is at or before the pickup, other than within the hour that clocks repeat in autumn. "
    "A missing dropoff passes.",
    _dropoff_not_after_pickup,
)
ZERO_PASSENGERS = Rule(
    "zero_passengers",
    "The driver entered zero passengers. A missing count passes.",
    lambda batch, _month: pc.equal(batch.column("passenger_count"), pa.scalar(0)),
)
DISTANCE_OUT_OF_RANGE = Rule(
    "distance_out_of_range",
    f"The distance is below 0 or above {MAXIMUM_MILES} miles.",
    _distance_out_of_range,
)
LONGER_THAN_A_DAY = Rule(
    "longer_than_24_hours",
    f"The trip took longer than {MAXIMUM_HOURS} hours.",
    lambda batch, _month: pc.greater(batch.column("trip_seconds"), pa.scalar(MAXIMUM_HOURS * 3600)),
)

# Street-hail services (yellow, green) report passengers and distance.
STREET_HAIL_RULES = (
    PICKUP_MISSING,
    PICKUP_OUTSIDE_MONTH,
    DROPOFF_NOT_AFTER_PICKUP,
    ZERO_PASSENGERS,
    DISTANCE_OUT_OF_RANGE,
    LONGER_THAN_A_DAY,
)
