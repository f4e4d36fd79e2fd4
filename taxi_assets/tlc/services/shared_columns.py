"""Columns that all services have, and constructors of columns.

The columns mean the same for every service. The names under which they were published differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Column, ColumnType

if TYPE_CHECKING:
    from collections.abc import Sequence


PARQUET_ONLY_SINCE = Month(2021, 8)
"""The first month of which no CSV file was published. Parquet files have more columns than CSV files had."""

UNKNOWN_ZONE = 264
"""TLC's zone number for an unknown location (`taxi_zone_lookup.csv`)."""

OUTSIDE_NYC_ZONE = 265
"""TLC's zone number for a location outside New York City (`taxi_zone_lookup.csv`)."""

SPECIAL_ZONES = f"{UNKNOWN_ZONE} means unknown, {OUTSIDE_NYC_ZONE} means outside of NYC."
"""What the two numbers without a place mean. Descriptions of all location columns use this sentence."""

YES_OR_NO = {"y": "Y", "n": "N", "1": "Y", "0": "N", "1.0": "Y", "0.0": "N"}
"""The codes of flags, which are Y or N. Booleans are read as 1 and 0."""

CONGESTION_SURCHARGE_DESCRIPTION = "New York State congestion surcharge, for trips in Manhattan south of 96th Street."
CBD_FEE_DESCRIPTION = "MTA fee for trips in the Congestion Relief Zone, charged since 2025-01-05."


def money(name: str, description: str, **options: Any) -> Column:
    """Return a column of amounts in US dollars.

    Args:
        name: The column's name.
        description: What the amount is for.
        options: Further attributes of `Column`.
    """
    return Column(name, ColumnType.MONEY, description, "US dollars", **options)


def local_time(name: str, description: str, **options: Any) -> Column:
    """Return a column of times as New York's clocks showed them, without a time zone.

    Args:
        name: The column's name.
        description: What happened at that time.
        options: Further attributes of `Column`.
    """
    return Column(name, ColumnType.DATETIME, description, "local time", **options)


def zone(event: str, *, aliases: Sequence[str] = (), **options: Any) -> Column:
    """Return the column of pickup or dropoff zones.

    Args:
        event: "pickup" or "dropoff".
        aliases: Names in files, in lower case, in addition to TLC's `pulocationid` or `dolocationid`.
        options: Further attributes of `Column`.
    """
    description = f"TLC taxi zone of the {event}; see taxi_zones. {SPECIAL_ZONES}"
    published = (f"{event[0]}{'u' if event == 'pickup' else 'o'}locationid", *aliases)
    return Column(f"{event}_location_id", ColumnType.INTEGER, description, aliases=published, **options)


DERIVED_TIMES = (
    Column("pickup_date", ColumnType.DATE, "Date of pickup_datetime.", "local date", derived=True),
    Column("pickup_hour", ColumnType.INTEGER, "Hour of pickup_datetime, 0 to 23.", "hour of the day", derived=True),
    Column(
        "pickup_isodow",
        ColumnType.INTEGER,
        "Weekday of pickup_datetime, from 1 for Monday to 7 for Sunday (ISO 8601).",
        "weekday",
        derived=True,
    ),
    Column(
        "trip_seconds",
        ColumnType.INTEGER,
        "Time from pickup_datetime to dropoff_datetime. One hour is added if both are in the hour that clocks repeat "
        "in autumn, and the dropoff is not after the pickup.",
        "seconds",
        derived=True,
    ),
)
"""Columns that marts need of every trip. Cleaning computes them, because warehouses would differ."""

ORIGIN = (
    Column(
        "data_month",
        ColumnType.DATE,
        "First day of the month in whose file the row was published: the partition. The pickup may be in a neighboring "
        "month.",
        derived=True,
    ),
    Column(
        "source_row",
        ColumnType.INTEGER,
        "Number of the row in the published file. The first data row is 1; blank lines are not counted.",
        "row number",
        derived=True,
    ),
)
"""Where a row comes from: its file and its place in the file."""
