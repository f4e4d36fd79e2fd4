"""`all_trips`: the trips of all services as one relation, which is what marts and reports read from.

Belongs here: which columns it has, and what they mean for each service. It is no table: it is put into every query that
names it.
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

# Columns are in lower case, words of the language in upper case.
_NAMES = re.compile("[a-z_]+")
# Of fhv, a quarter of some months' trips end days later: what their bases wrote down is no duration.
_TIMED = f"trip_seconds BETWEEN 0 AND {24 * 3600}"


@dataclass(frozen=True)
class CommonColumn:
    """A column that the trips of all services have, null where a service does not record it.

    `usual` is what it is in terms of a service's columns, in SQL. `of_trips_only`: null for a reversal, which takes
    back a charge and is no trip. `otherwise` is what an unrecorded value becomes.
    """

    name: str
    type: ColumnType
    usual_name: str
    of_trips_only: bool = False
    fallback: str | None = None


COLUMNS = (
    CommonColumn("data_month", ColumnType.DATE, "data_month"),
    CommonColumn("pickup_datetime", ColumnType.DATETIME, "pickup_datetime"),
    CommonColumn("pickup_date", ColumnType.DATE, "pickup_date"),
    CommonColumn("pickup_hour", ColumnType.INTEGER, "pickup_hour"),
    CommonColumn("pickup_isodow", ColumnType.INTEGER, "pickup_isodow"),
    CommonColumn("pickup_location_id", ColumnType.INTEGER, "pickup_location_id", fallback=str(UNKNOWN_ZONE)),
    CommonColumn("dropoff_location_id", ColumnType.INTEGER, "dropoff_location_id", fallback=str(UNKNOWN_ZONE)),
    CommonColumn("payment_type", ColumnType.INTEGER, "payment_type"),
    CommonColumn("trips", ColumnType.INTEGER, "1", of_trips_only=True, fallback="0"),
    CommonColumn("passengers", ColumnType.INTEGER, "passenger_count", of_trips_only=True),
    CommonColumn("miles", ColumnType.MILES, "trip_distance", of_trips_only=True),
    CommonColumn("seconds", ColumnType.INTEGER, f"CASE WHEN {_TIMED} THEN trip_seconds END", of_trips_only=True),
    CommonColumn("timed_trips", ColumnType.INTEGER, f"CASE WHEN {_TIMED} THEN 1 ELSE 0 END", of_trips_only=True),
    CommonColumn("fare", ColumnType.MONEY, "fare_amount"),
    CommonColumn("tips", ColumnType.MONEY, "tip_amount"),
    CommonColumn("revenue", ColumnType.MONEY, "total_amount"),
)


def source_of(column: CommonColumn, service: Service) -> str | None:
    """What the column is for a service, in SQL; None where the service does not record it."""
    if column.name in service.measures:
        return service.measures[column.name]
    recorded = {known.name for known in service.columns}
    return column.usual_name if set(_NAMES.findall(column.usual_name)) <= recorded else None


def query_of_service(service: Service, names: set[str]) -> bool:
    """Whether the service records all of these columns."""
    return all(source_of(column, service) is not None for column in COLUMNS if column.name in names)
