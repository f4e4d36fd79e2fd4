"""Not measured: prepares a DuckDB file with a number of loaded months."""

from __future__ import annotations

import sys
from pathlib import Path

from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake.objects import ParquetPartition, StagedParquet
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse
from taxi_assets.tlc.cleaning.clean_month import clean_month
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.sources.source_record import SourceRecord


def main(path: Path, folder: Path, months: int) -> None:
    """Load the months up to January 2021, all with the rows of the same file."""
    service = SERVICES["yellow"]
    record = SourceRecord.model_validate_json((folder / "record.json").read_text())
    warehouse = DuckDBWarehouse(file=str(folder / "warehouse.duckdb"))
    lake = LocalLake(folder=str(folder / "lake"))
    for number in range(months):
        month = Month(2021, 1).shift(-number)
        prefix = f"clean/{service.table}/{month}"
        # Without rules, because the pickup times are not in these months.
        cleaned = clean_month(path, record, service, month, [], folder)
        ParquetPartition.publish(
            lake, prefix, StagedParquet(cleaned.clean, cleaned.report, replaces=None), run_id="benchmark"
        )
        warehouse.replace_month(service, month, ParquetPartition.get(lake, prefix), run_id="benchmark")
        lake.delete(f"{prefix}.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
