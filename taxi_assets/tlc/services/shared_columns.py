"""Columns that all services share: what they mean is the same, the names they were published under are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taxi_assets.tlc.schema import Column, ColumnType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.tlc.month import Month


UNKNOWN_ZONE = 264
"""TLC's zone number for an unknown location (`taxi_zone_lookup.csv`)."""

OUTSIDE_NYC_ZONE = 265
"""TLC's zone number for a location outside New York City (`taxi_zone_lookup.csv`)."""

SPECIAL_ZONES = f"{UNKNOWN_ZONE} means unknown, {OUTSIDE_NYC_ZONE} means outside of NYC."
"""What the two numbers without a place mean. Descriptions of all location columns use this sentence."""


def money(name: str, description: str, **options: Any) -> Column:
    """An amount; `options` are those of `Column`."""
    return Column(name, ColumnType.MONEY, description, "US dollars", **options)


def local_time(name: str, description: str, **options: Any) -> Column:
    """A moment, as New York's clocks showed it; `options` are those of `Column`."""
    return Column(name, ColumnType.DATETIME, description, "local time", **options)


def zone(event: str, *, since: Month | None = None, aliases: Sequence[str] = ()) -> Column:
    """The taxi zone of the pickup or the dropoff (`event`)."""
    description = f"TLC taxi zone of the {event}; see taxi_zones. {SPECIAL_ZONES}"
    published = (f"{event[0]}{'u' if event == 'pickup' else 'o'}locationid", *aliases)
    return Column(f"{event}_location_id", ColumnType.INTEGER, description, aliases=published, since=since)


# Computed, not read (`split_batch.py`): what marts need and engines spell differently.
DERIVED_TIMES = (
    Column("pickup_date", ColumnType.DATE, "Day of the pickup.", "local date", derived=True),
    Column("pickup_hour", ColumnType.INTEGER, "Hour of the pickup, 0 to 23.", "hour of the day", derived=True),
    Column("pickup_isodow", ColumnType.INTEGER, "Day of the week, 1 Monday to 7 Sunday.", "weekday", derived=True),
    Column(
        "trip_seconds",
        ColumnType.INTEGER,
        "From pickup to dropoff by the clock; an hour more where both stand in the hour that clocks repeat in autumn "
        "and the dropoff not after the pickup.",
        "seconds",
        derived=True,
    ),
)

# Where the row came from.
ORIGIN = (
    Column(
        "data_month",
        ColumnType.DATE,
        "First day of the month whose file holds the row: the partition. Not the month of the pickup, which may be a "
        "neighbouring one.",
        derived=True,
    ),
    Column(
        "source_row",
        ColumnType.INTEGER,
        "The row's place in the published file: data rows from 1, blank lines not counted.",
        "row number",
        derived=True,
    ),
)
