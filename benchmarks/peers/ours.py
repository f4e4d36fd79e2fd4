"""The platform's own parts without Dagster: cleaning a month, loading a clean one, or both in one process.

python -m benchmarks.peers.ours clean|load|both FILE FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import timed
from taxi_assets.tlc.cleaning.clean_month import clean_month
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.sources.source_record import SourceRecord

if TYPE_CHECKING:
    from taxi_assets.tlc.cleaning.clean_month import CleanedMonth

_MONTH = Month(2021, 1)


def clean(path: Path, folder: Path) -> CleanedMonth:
    """Clean a file that was recorded in `record.json`, as a download would have."""
    service = SERVICES[path.name.partition("_")[0]]
    record = SourceRecord.model_validate_json((folder / "record.json").read_text())
    return clean_month(path, record, service, _MONTH, service.rules, folder)


def load(path: Path, folder: Path, cleaned: CleanedMonth | None = None) -> None:
    """Load the clean month of a lake into its warehouse; one that was just cleaned goes into the lake first."""
    from taxi_assets.storage.lake.local_lake import LocalLake  # noqa: PLC0415
    from taxi_assets.storage.lake.objects import ParquetPartition, StagedParquet  # noqa: PLC0415
    from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse  # noqa: PLC0415  (cleaning alone does not need it)

    service = SERVICES[path.name.partition("_")[0]]
    lake, prefix = LocalLake(folder=str(folder / "lake")), f"clean/{service.table}/{_MONTH}"
    if cleaned is not None:
        ParquetPartition.publish(
            lake, prefix, StagedParquet(cleaned.clean, cleaned.report, replaces=None), run_id="benchmark"
        )
    warehouse = DuckDBWarehouse(file=str(folder / "warehouse.duckdb"))
    warehouse.replace_month(service, _MONTH, ParquetPartition.get(lake, prefix), run_id="benchmark")


def main(label: str, path: Path, folder: Path) -> None:
    """One of them; imports are not measured."""
    if label == "clean":
        timed(lambda: clean(path, folder), written=[folder / "clean.parquet"])
        return
    import taxi_assets.storage.warehouse.duckdb  # noqa: F401, PLC0415

    if label == "load":
        timed(lambda: load(path, folder), written=[folder / "warehouse.duckdb"])
    else:
        written = [folder / name for name in ("lake", "quarantine.parquet", "warehouse.duckdb")]
        timed(lambda: load(path, folder, clean(path, folder)), written=written)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
