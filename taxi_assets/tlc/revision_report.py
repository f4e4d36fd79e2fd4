"""The comparison of two revisions of a month: the columns of its rows, and its report.

Two revisions are two files that were published for the same month, one after the other.

Belongs here: the form of the result. Does not belong here: computing it (`storage/revision_comparison/`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from taxi_assets.tlc.footer_report import FooterReport
from taxi_assets.tlc.schema import Column, ColumnType

if TYPE_CHECKING:
    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.schema import Service

ADDED, REMOVED, CHANGED = CHANGES = ("added", "removed", "changed")
"""The values of the column `change`."""

VERSION = 1
"""Part of the data version. Increase it when the same two revisions would give other rows."""

_TRIP_KEY = (
    *("pickup_datetime", "dropoff_datetime", "pickup_location_id", "dropoff_location_id"),
    *("vendor_id", "hvfhs_license_num", "dispatching_base_num"),
)

# The queries call the values of a column x in the two revisions old_x and new_x, and other columns _x. The
# other names are kept free for such columns.
_INTERNAL_NAMES = {"row", "total", "difference"}
_INTERNAL_PREFIXES = ("old_", "new_", "_")


def trip_key(names: Sequence[str]) -> list[str]:
    """Return the columns that two rows of the same trip have in common: times, zones, and vendor or base.

    Args:
        names: The columns that are compared. The key consists of those of its columns that are among them.
    """
    return [name for name in _TRIP_KEY if name in names]


def revision_columns(service: Service) -> list[Column]:
    """Return the columns of the rows that differ between two revisions of a month of the service."""
    return [
        Column("data_month", ColumnType.DATE, "First day of the published month.", "local date"),
        Column(
            "change",
            ColumnType.TEXT,
            f"'{ADDED}': only the newer revision has the row. '{REMOVED}': only the older revision has it. "
            f"'{CHANGED}': both revisions have the trip (the same times, zones, and vendor or base), with another "
            "value in `changed_column`. A changed trip has one row for each changed column.",
        ),
        Column(
            "row_count",
            ColumnType.INTEGER,
            "The number of published rows that differ in this same way.",
            "rows",
        ),
        Column("changed_column", ColumnType.TEXT, f"The name of the changed column; null unless '{CHANGED}'."),
        Column("old_value", ColumnType.TEXT, f"Its value in the older revision, as text; null unless '{CHANGED}'."),
        Column("new_value", ColumnType.TEXT, f"Its value in the newer revision, as text; null unless '{CHANGED}'."),
        Column(
            "old_source_row",
            ColumnType.INTEGER,
            f"`source_row` of the first such row in the older revision; null if '{ADDED}'.",
        ),
        Column(
            "new_source_row",
            ColumnType.INTEGER,
            f"`source_row` of the first such row in the newer revision; null if '{REMOVED}'.",
        ),
        *(replace(column, aliases=(), codes={}, required=False) for column in service.published_columns),
    ]


def reserved_names(service: Service) -> list[str]:
    """Return the published columns of a service whose names the comparison of revisions needs for columns of its own.

    These are the columns that it adds, and names that its queries build from those of the published columns. SQL does
    not distinguish upper and lower case.
    """
    names = [column.name.lower() for column in revision_columns(service)]
    return [
        column.name
        for column in service.published_columns
        if names.count(name := column.name.lower()) > 1
        or name in _INTERNAL_NAMES
        or name.startswith(_INTERNAL_PREFIXES)
    ]


class RevisionReport(FooterReport):
    """The outcome of comparing two revisions of a month."""

    FOOTER_KEY = b"taxi_assets.revision_report"

    service: str = Field(description="Name of the service.")
    month: str = Field(description="The partition key, such as 2021-01.")
    data_version: str = Field(description="Digest of the data versions of both revisions.")
    old_sha256: str = Field(description="SHA-256 digest of the older file.")
    new_sha256: str = Field(description="SHA-256 digest of the newer file.")
    rows_old: int = Field(description="Clean trips of the older revision.")
    rows_new: int = Field(description="Clean trips of the newer revision.")
    quarantined_old: int = Field(description="Quarantined rows of the older revision.")
    quarantined_new: int = Field(description="Quarantined rows of the newer revision.")
    rows_added: int = Field(description="Trips that only the newer revision has.")
    rows_removed: int = Field(description="Trips that only the older revision has.")
    rows_changed: int = Field(description="Trips that both revisions have, with other values.")
    changed_by_column: dict[str, int] = Field(description="Changed trips by column. One trip can count under several.")
    cents: int | None = Field(
        description="The newer total amount minus the older one, in cents; None if the service does not record it."
    )
    cents_by_column: dict[str, int] = Field(
        description="The newer sum minus the older one, in cents, for each compared money column whose sum differs."
    )
    columns_only_old: Sequence[str] = Field(description="Columns that only the older file has. They are not compared.")
    columns_only_new: Sequence[str] = Field(description="Columns that only the newer file has. They are not compared.")
    rows_by_day: dict[str, list[int]] = Field(
        description="Added, removed and changed trips, each by day of the pickup, one number per day of the month. "
        "Pickups on other days are not counted."
    )

    @property
    def rows(self) -> int:
        """The number of trips that differ: added, removed and changed ones."""
        return self.rows_added + self.rows_removed + self.rows_changed

    def sentence(self) -> str:
        """Return the outcome in words: "yellow 2021-01 was revised: 312 rows changed, +1,204.50 dollars"."""
        counts = [
            f"{count:,} row{'s' if count != 1 else ''} {change}"
            for change, count in zip(
                (CHANGED, ADDED, REMOVED), (self.rows_changed, self.rows_added, self.rows_removed), strict=True
            )
            if count
        ]
        parts = counts or ["no clean row differs"]
        if self.cents is not None and counts:
            parts.append(f"{dollars_text(self.cents)} dollars")
        for verb, names in (("new", self.columns_only_new), ("dropped", self.columns_only_old)):
            if names:
                parts.append(f"{verb} column{'s' if len(names) > 1 else ''} {', '.join(names)}")
        return f"{self.service} {self.month} was revised: {', '.join(parts)}"


def dollars_text(cents: int) -> str:
    """Return a difference in cents as dollars with a sign and thousands separators, such as +1,204.50."""
    sign = "+" if cents > 0 else "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100:,}.{abs(cents) % 100:02d}"


def compared_columns(service: Service, old: CleaningReport, new: CleaningReport) -> list[str]:
    """Return the published columns that both files have, in the service's order."""
    absent = {*old.absent_columns, *new.absent_columns}
    return [column.name for column in service.published_columns if column.name not in absent]


def columns_only_in(report: CleaningReport, other: CleaningReport) -> list[str]:
    """Return the columns that only the first of two files has: canonical names, then unknown columns as published."""
    canonical = [name for name in other.absent_columns if name not in report.absent_columns]
    unknown = {column.name for column in report.unknown_columns} - {column.name for column in other.unknown_columns}
    return [*canonical, *sorted(unknown)]
