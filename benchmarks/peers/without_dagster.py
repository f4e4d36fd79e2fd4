"""This project without Dagster: cleaning a month, loading a clean month, or both in one process.

python -m benchmarks.peers.without_dagster clean|load|"load tables"|"load views"|both FILE FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import measure_here
from taxi_assets.tlc.cleaning.clean_month import clean_month
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.sources.source_record import SourceRecord

if TYPE_CHECKING:
    from taxi_assets.tlc.cleaning.clean_month import CleanedMonth

_MONTH = Month(2021, 1)


def clean(path: Path, folder: Path) -> CleanedMonth:
    """Clean a file whose source record is in `record.json`."""
    service = SERVICES[path.name.partition("_")[0]]
    record = SourceRecord.model_validate_json((folder / "record.json").read_text())
    return clean_month(path, record, service, _MONTH, service.rules, folder)


def load(path: Path, folder: Path, cleaned: CleanedMonth | None = None, *, trip_views: bool = False) -> None:
    """Load the clean month of a lake into the warehouse. A newly cleaned month is published in the lake first."""
    from taxi_assets.storage.lake.local_lake import LocalLake  # noqa: PLC0415
    from taxi_assets.storage.lake.objects import ParquetPartition, StagedParquet  # noqa: PLC0415
    from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse  # noqa: PLC0415  (cleaning does not need it)

    service = SERVICES[path.name.partition("_")[0]]
    lake, prefix = LocalLake(folder=str(folder / "lake")), f"clean/{service.table}/{_MONTH}"
    if cleaned is not None:
        ParquetPartition.publish(
            lake, prefix, StagedParquet(cleaned.clean, cleaned.report, replaces=None), run_id="benchmark"
        )
    warehouse = DuckDBWarehouse(file=str(folder / "warehouse.duckdb"), trip_views=trip_views)
    warehouse.replace_month(service, _MONTH, ParquetPartition.get(lake, prefix), run_id="benchmark")


def main(part: str, path: Path, folder: Path) -> None:
    """Measure one of them, without its imports."""
    if part == "clean":
        measure_here(lambda: clean(path, folder), written=[folder / "clean.parquet"])
        return
    import taxi_assets.storage.warehouse.duckdb  # noqa: F401, PLC0415

    if part.startswith("load"):
        views = part == "load views"
        measure_here(lambda: load(path, folder, trip_views=views), written=[folder / "warehouse.duckdb"])
    else:
        written = [folder / name for name in ("lake", "quarantine.parquet", "warehouse.duckdb")]
        measure_here(lambda: load(path, folder, clean(path, folder)), written=written)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
