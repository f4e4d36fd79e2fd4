"""Not measured: prepares DuckDB files with a number of loaded months."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake.objects import ParquetPartition, StagedParquet
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse
from taxi_assets.tlc import synthetic
from taxi_assets.tlc.cleaning.clean_month import clean_month
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.sources.source_record import SourceRecord


def main(path: Path, folder: Path, months: int, *kinds: str) -> None:
    """Load the months up to January 2021, all with the rows of the same file.

    Without `kinds`, they are loaded into `warehouse.duckdb`. With the kinds `tables` and `views`, they are loaded into
    a file of each kind, which also gets the taxi zones, and they stay in the lake.
    """
    service = SERVICES["yellow"]
    record = SourceRecord.model_validate_json((folder / "record.json").read_text())
    warehouses = [
        DuckDBWarehouse(file=str(folder / f"{kind}.duckdb"), trip_views=kind == "views")
        for kind in kinds or ["warehouse"]
    ]
    lake = LocalLake(folder=str(folder / "lake"))
    for number in range(months):
        month = Month(2021, 1).shift(-number)
        prefix = f"clean/{service.table}/{month}"
        # Without rules, because the pickup times are not in these months.
        cleaned = clean_month(path, record, service, month, [], folder)
        ParquetPartition.publish(
            lake, prefix, StagedParquet(cleaned.clean, cleaned.report, replaces=None), run_id="benchmark"
        )
        for warehouse in warehouses:
            warehouse.replace_month(service, month, ParquetPartition.get(lake, prefix), run_id="benchmark")
        if not kinds:
            lake.delete(f"{prefix}.parquet")
    for kind in kinds:
        with duckdb.connect(str(folder / f"{kind}.duckdb")) as connection:
            connection.execute(
                "CREATE TABLE taxi.taxi_zones AS SELECT LocationID::BIGINT AS location_id, Borough AS borough, "
                "Zone AS zone, service_zone FROM read_csv(?)",
                [str(synthetic.zones_path())],
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
