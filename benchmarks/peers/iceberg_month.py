"""Commit a clean month to an Iceberg table that has a number of months, with a catalog in SQLite.

python -m benchmarks.peers.iceberg_month FOLDER MONTHS
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import measure_here
from benchmarks.months import MONTH
from taxi_assets.storage.iceberg.iceberg_catalog import IcebergCatalog
from taxi_assets.storage.iceberg.month_commit import commit_month
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake_tables import trips_table
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from taxi_assets.tlc.month import Month


def commit(folder: Path, month: Month) -> None:
    """Commit the object that the lake has for a month."""
    lake = LocalLake(folder=str(folder / "lake"))
    catalog, table = IcebergCatalog(lake=lake, address=f"sqlite:///{folder / 'catalog.db'}"), trips_table(_YELLOW)
    version = str(lake.version(table.key(month)))
    commit_month(catalog, table, month, version=version, run_id="benchmark", properties={})


def main(folder: Path, months: int) -> None:
    """Measure the commit of one month. The other months are links to the same file, and are committed before."""
    for module in ("catalog.sql", "io.pyarrow"):
        import_module(f"pyiceberg.{module}")  # imports are not measured
    clean = folder / "lake" / "clean" / _YELLOW.table
    for number in range(1, months):
        other = MONTH.shift(number)
        os.link(clean / f"{MONTH}.parquet", clean / f"{other}.parquet")
        commit(folder, other)
    measure_here(lambda: commit(folder, MONTH), written=[folder / "lake" / "iceberg"])


_YELLOW = SERVICES["yellow"]

if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
