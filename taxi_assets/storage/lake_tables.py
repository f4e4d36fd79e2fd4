"""The tables that readers find in the lake as Parquet, with one schema for all months of a table.

Trips, quarantine and revisions are written to the lake first. The taxi zones, the quality table and the marts are
tables of the warehouse. The lake has copies of them, so that readers of the lake need no warehouse.

Belongs here: names, keys, columns and descriptions of these tables, and writing a copy. Does not belong here: the views
over them (`duckdb_views.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from taxi_assets.marts.mart import marts
from taxi_assets.reports.quality_metrics import COLUMNS as QUALITY_COLUMNS
from taxi_assets.storage.parquet_rows import ASSET, write_rows
from taxi_assets.storage.table_values import Rows
from taxi_assets.tlc.cleaning.quarantine import QUARANTINE_COLUMNS
from taxi_assets.tlc.revision_report import revision_columns
from taxi_assets.tlc.schema import build_arrow_schema
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.zones import ZONE_COLUMNS, ZONES_TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from taxi_assets.marts.mart import Mart
    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Column, Service

VIEWS_KEY = "views.duckdb"
"""The key of the file with a DuckDB view for each table."""

VIEWS_SCHEMA = "taxi"
"""The schema of the views."""


@dataclass(frozen=True)
class LakeTable:
    """A table whose rows are in the lake."""

    name: str
    """Its name in SQL: for trips, marts, zones and quality, the same as in the warehouse."""
    asset: str
    """The asset key, which is also the prefix of its objects, such as "marts/zone_day"."""
    description: str
    columns: Sequence[Column]
    is_monthly: bool = True
    """Whether each month is an object in the folder; otherwise, the table is one object."""

    def key(self, month: Month | None = None) -> str:
        """Return the key of the object that contains a month, or of the table without months."""
        return f"{self.asset}/{month}.parquet" if self.is_monthly else f"{self.asset}.parquet"

    @property
    def pattern(self) -> str:
        """The glob pattern of the table's keys."""
        return f"{self.asset}/{'[0-9]' * 4}-{'[0-9]' * 2}.parquet" if self.is_monthly else self.key()

    def stored_keys(self, lake: Lake) -> list[str]:
        """Return the keys of the objects that are in the lake, in the order of months.

        Other objects in the folder of the months, such as `2021-01 (copy).parquet`, are left out.
        """
        if not self.is_monthly:
            return [key for key in [self.key()] if lake.version(key) is not None]
        return [key for key in list(lake.sizes_in(self.asset)) if fnmatchcase(key, self.pattern)]

    @property
    def schema(self) -> pa.Schema:
        """The columns with their Arrow types."""
        return build_arrow_schema(self.columns)

    def publish(
        self, lake: Lake, rows: pa.Table, *, month: Month | None = None, replaces: str | None, run_id: str
    ) -> None:
        """Replace a month, or the table without months, by rows of this table's schema.

        Args:
            lake: The lake.
            rows: All rows of the month or table.
            month: The month; None for a table without months.
            replaces: The version of the object before the rows were read or computed.
            run_id: The Dagster run that writes the object.

        Raises:
            LakeConflictError: Another run has replaced the object, which differs from `rows`.
        """
        with lake.staging() as folder:
            file = folder / "rows.parquet"
            write_rows(Rows(self.schema, iter(rows.cast(self.schema).to_batches())), file, {ASSET: self.asset})
            lake.publish(file, self.key(month), replaces=replaces, run_id=run_id)


ZONES = LakeTable(
    ZONES_TABLE,
    f"reference/{ZONES_TABLE}",
    "TLC's taxi zones: number, borough, name and service zone.",
    ZONE_COLUMNS,
    is_monthly=False,
)
QUALITY = LakeTable(
    "month_quality",
    "quality/month_quality",
    "Published, clean and quarantined rows of every month in the lake, with the reasons for quarantine.",
    QUALITY_COLUMNS,
    is_monthly=False,
)


def trips_table(service: Service) -> LakeTable:
    """Return the table of a service's clean trips."""
    return LakeTable(service.table, f"clean/{service.table}", f"{service.title}: clean trips.", service.columns)


def mart_table(mart: Mart) -> LakeTable:
    """Return the table of a mart."""
    return LakeTable(mart.name, f"marts/{mart.name}", mart.description, mart.columns)


def lake_tables() -> list[LakeTable]:
    """Return all tables: trips, quarantine and revisions of each service, taxi zones, marts and quality."""
    trips = [
        table
        for service in SERVICES.values()
        for table in (
            trips_table(service),
            LakeTable(
                f"{service.table}_quarantine",
                f"quarantine/{service.table}",
                f"{service.title}: rejected rows, each with all its reasons and its original text.",
                QUARANTINE_COLUMNS,
            ),
            LakeTable(
                f"{service.table}_revisions",
                f"revisions/{service.table}",
                f"{service.title}: rows that differ between the two newest revisions of a month.",
                tuple(revision_columns(service)),
            ),
        )
    ]
    return [*trips, ZONES, *map(mart_table, marts().values()), QUALITY]
