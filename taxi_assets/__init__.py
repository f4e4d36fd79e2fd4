"""New York's taxi records as Dagster assets. README.md has an overview."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

__all__ = ["scan"]

# pyarrow reads this when it is first imported. Cleaning uses three threads, and memory that one thread allocates is
# freed by another. With pyarrow's default allocator, the peak is 40 to 70 MB higher.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")


def scan(asset_key: str, first: str | None = None, last: str | None = None) -> Dataset:
    """Return the rows of an asset as a dataset, which pandas, Polars, DuckDB and ibis can read.

    No rows are read yet. Each query reads the columns and months that it needs: the old or the new version of a month
    that is replaced meanwhile. It never waits for a run, and no run waits for it.

        trips = taxi_assets.scan("clean/green_trips", "2021-01", "2021-12")
        polars.scan_pyarrow_dataset(trips).select("total_amount").sum().collect()
        duckdb.sql("SELECT sum(total_amount) FROM trips")

    docs/how-to/python.md has examples for each library.

    Args:
        asset_key: The asset as Dagster's UI shows it: trips (`clean/green_trips`), rejected rows
            (`quarantine/green_trips`), a mart (`marts/zone_day`), `reference/taxi_zones`, `quality/month_quality`, a
            table of trips in the warehouse (`warehouse/green_trips`), or your own asset in the lake or the warehouse.
        first: The first month, such as "2021-01". By default, the first one that is stored.
        last: The last month, inclusive. By default, the last one that is stored.

    Raises:
        ScanArgumentError: There is no such asset or month.
        LakeObjectMissingError: A month between the bounds is not stored in the lake. Without bounds: no month is.
        WarehouseTableMissingError: The same, for an asset in the warehouse.
    """
    from taxi_assets.datasets.open_dataset import open_dataset  # noqa: PLC0415  (a second)

    return open_dataset(asset_key, first, last)
