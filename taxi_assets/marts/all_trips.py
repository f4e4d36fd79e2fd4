"""Define `all_trips`, the trips of all services as one relation that marts and reports read from.

Belongs here: its columns, and the SQL of each column per service. `all_trips` is not stored as a table: every query
that names it gets a subquery in its place (`sql_rendering.expand_all_trips`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taxi_assets.tlc.schema import ColumnType
from taxi_assets.tlc.services.shared_columns import UNKNOWN_ZONE

if TYPE_CHECKING:
    from taxi_assets.tlc.schema import Service

NAME = "all_trips"

_COLUMN_NAME_PATTERN = re.compile("[a-z_]+")
# In some months of fhv, a quarter of the trips end days later: their dispatch bases recorded something other than the
# dropoff time.
_HAS_PLAUSIBLE_DURATION = f"trip_seconds BETWEEN 0 AND {24 * 3600}"


@dataclass(frozen=True)
class CommonColumn:
    """A column of `all_trips`, null for services that do not record it.

    Attributes:
        name: Its name in `all_trips`.
        type: Its type.
        default_sql: SQL over a service's own columns, for services whose `measures` do not override it. Column names
            are in lower case and keywords in upper case, so that the names can be found.
        null_for_reversals: Whether it is null for a reversal (before `value_if_null` applies). A reversal reverses a
            charge and is not a trip.
        value_if_null: SQL of the value that replaces null, if any.
    """

    name: str
    type: ColumnType
    default_sql: str
    null_for_reversals: bool = False
    value_if_null: str | None = None


COLUMNS = (
    CommonColumn("data_month", ColumnType.DATE, "data_month"),
    CommonColumn("pickup_datetime", ColumnType.DATETIME, "pickup_datetime"),
    CommonColumn("pickup_date", ColumnType.DATE, "pickup_date"),
    CommonColumn("pickup_hour", ColumnType.INTEGER, "pickup_hour"),
    CommonColumn("pickup_isodow", ColumnType.INTEGER, "pickup_isodow"),
    CommonColumn("pickup_location_id", ColumnType.INTEGER, "pickup_location_id", value_if_null=str(UNKNOWN_ZONE)),
    CommonColumn("dropoff_location_id", ColumnType.INTEGER, "dropoff_location_id", value_if_null=str(UNKNOWN_ZONE)),
    CommonColumn("payment_type", ColumnType.INTEGER, "payment_type"),
    CommonColumn("trips", ColumnType.INTEGER, "1", null_for_reversals=True, value_if_null="0"),
    CommonColumn("passengers", ColumnType.INTEGER, "passenger_count", null_for_reversals=True),
    CommonColumn("miles", ColumnType.MILES, "trip_distance", null_for_reversals=True),
    CommonColumn(
        "seconds",
        ColumnType.INTEGER,
        f"CASE WHEN {_HAS_PLAUSIBLE_DURATION} THEN trip_seconds END",
        null_for_reversals=True,
    ),
    # The number of trips that `seconds` adds up: the divisor for the mean duration.
    CommonColumn(
        "timed_trips",
        ColumnType.INTEGER,
        f"CASE WHEN {_HAS_PLAUSIBLE_DURATION} THEN 1 ELSE 0 END",
        null_for_reversals=True,
    ),
    CommonColumn("fare", ColumnType.MONEY, "fare_amount"),
    CommonColumn("tips", ColumnType.MONEY, "tip_amount"),
    CommonColumn("revenue", ColumnType.MONEY, "total_amount"),
)


def column_sql(column: CommonColumn, service: Service) -> str | None:
    """Return the SQL of a column over a service's own columns, or None if the service does not record it."""
    if column.name in service.measures:
        return service.measures[column.name]
    recorded = {service_column.name for service_column in service.columns}
    return column.default_sql if set(_COLUMN_NAME_PATTERN.findall(column.default_sql)) <= recorded else None


def records_all(service: Service, names: set[str]) -> bool:
    """Return whether the service records all columns with these names."""
    return all(column_sql(column, service) is not None for column in COLUMNS if column.name in names)
