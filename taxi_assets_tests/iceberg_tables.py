"""Commit generated months to Iceberg tables, and read them with PyIceberg and Polars, without this package."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow.compute as pc
import pyarrow.parquet
from pyiceberg.catalog import load_catalog

from taxi_assets.storage.iceberg.iceberg_catalog import IcebergCatalog
from taxi_assets.storage.iceberg.iceberg_names import lake_root
from taxi_assets.storage.iceberg.month_commit import CommittedMonth, commit_month
from taxi_assets.storage.lake_tables import trips_table
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.trips import publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pyiceberg.table import Table

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.storage.lake_tables import LakeTable
    from taxi_assets.tlc.month import Month

SOURCE = trips_table(GREEN)

Content = dict[str, tuple[int, Decimal]]
"""Rows and the sum of `total_amount`, by month."""


def open_catalog(lake: Lake, folder: Path) -> IcebergCatalog:
    """Return a catalog in a SQLite file of a folder."""
    return IcebergCatalog(lake=lake, address=f"sqlite:///{folder / 'catalog.db'}")


def commit(
    catalog: IcebergCatalog,
    month: Month,
    clean: ParquetPartition,
    *,
    run_id: str = "a-run",
    source: LakeTable = SOURCE,
    properties: Mapping[str, str] = {},
) -> CommittedMonth:
    """Commit a month of green trips."""
    return commit_month(catalog, source, month, version=clean.version, run_id=run_id, properties=properties)


def publish_and_commit(
    catalog: IcebergCatalog, month: Month, rows: int, *, seed: int = 0, run_id: str = "a-run"
) -> Any:
    """Publish a generated month to the lake, and commit it."""
    clean = publish_generated_month(catalog.lake, month, rows, seed=seed)
    return commit(catalog, month, clean, run_id=run_id)


def table_folder(catalog: IcebergCatalog) -> str:
    """Return the folder of the table in the lake, such as iceberg/green_trips-3f1c9a0b7d52."""
    return catalog.open().load_table("taxi.green_trips").location().removeprefix(f"{lake_root(catalog.lake)}/")


def content_of(trips: Any) -> Content:
    """Return the content of a table in memory."""
    found = trips.group_by("data_month").aggregate([("source_row", "count"), ("total_amount", "sum")])
    return {f"{r['data_month']:%Y-%m}": (r["source_row_count"], r["total_amount_sum"]) for r in found.to_pylist()}


def lake_content(lake: Lake, *months: Month) -> Content:
    """Return the content of clean months in the lake."""
    found: Content = {}
    for month in months:
        with lake.open(SOURCE.key(month)) as file:
            found |= content_of(pyarrow.parquet.read_table(file))
    return found


def table_content(catalog: IcebergCatalog, snapshot_id: int | None = None) -> Content:
    """Return the content of a snapshot: pyiceberg names the files, which are read from the lake."""
    table, tables = catalog.open().load_table("taxi.green_trips"), []
    for task in table.scan(snapshot_id=snapshot_id).plan_files():
        with catalog.lake.open(task.file.file_path.removeprefix(f"{lake_root(catalog.lake)}/")) as file:
            tables.append(pyarrow.parquet.read_table(file, columns=["data_month", "source_row", "total_amount"]))
    return content_of(pyarrow.concat_tables(tables)) if tables else {}


def independent_table(folder: Path, **properties: str) -> Table:
    """Return the table as a reader opens it that knows only the catalog, and properties of pyiceberg."""
    catalog = load_catalog("taxi", uri=f"sqlite:///{folder / 'catalog.db'}", **properties)
    return catalog.load_table("taxi.green_trips")


def pyiceberg_content(table: Table, snapshot_id: int | None = None) -> Content:
    """Return the content of a snapshot, read with PyIceberg."""
    return content_of(table.scan(snapshot_id=snapshot_id).to_arrow())


def polars_content(table: Table, snapshot_id: int | None = None, **options: Any) -> Content:
    """Return the content of a snapshot, read with Polars and these options of `scan_iceberg`."""
    os.environ["POLARS_ICEBERG_PLANNER"] = "pyiceberg"  # without it, Polars warns that another planner is faster
    trips = pl.scan_iceberg(table, snapshot_id=snapshot_id, **options).group_by("data_month")
    found = trips.agg(pl.len(), pl.col("total_amount").sum()).collect().to_arrow()
    months = [f"{month:%Y-%m}" for month in found["data_month"].to_pylist()]
    totals = pc.cast(found["total_amount"], pyarrow.decimal128(38, 2)).to_pylist()
    return dict(zip(months, zip(found["len"].to_pylist(), totals, strict=True), strict=True))
