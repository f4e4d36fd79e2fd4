"""The check on a warehouse table: it holds exactly the clean trips of the month."""

import dagster as dg

from taxi_assets.failures import as_failures
from taxi_assets.partitions import monthly_partitions
from taxi_assets.storage.lake import Lake
from taxi_assets.storage.shelves import ParquetMonth, stem_of
from taxi_assets.storage.warehouse import Warehouse
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service


def warehouse_check(service: Service, retry: dg.RetryPolicy | None = None) -> dg.AssetChecksDefinition:
    """Compare the table's month with the Parquet file, by figures counted in each anew."""

    @dg.asset_check(
        asset=["warehouse", service.table],
        name="equals_clean",
        description="The table's month was loaded from this clean Parquet, and agrees with it in rows, in the cents of "
        "all money columns, and in the sum of row numbers. The table is counted anew, and so is the Parquet, unless "
        "its lake checks its bytes itself.",
        blocking=True,
        partitions_def=monthly_partitions(service),
        retry_policy=retry,
    )
    def equals_clean(context: dg.AssetCheckExecutionContext, lake: Lake, warehouse: Warehouse) -> dg.AssetCheckResult:
        month = Month.parse(context.partition_key)
        with as_failures():
            clean = ParquetMonth.get(lake, stem_of("clean", service, month))
            with warehouse.session():
                found = warehouse.totals(service, month)
                loaded = warehouse.loaded(service, month)
            wanted = clean.counted(service)
        same_data = loaded is not None and loaded.data_version == clean.report.data_version
        note = "" if same_data else " The table was loaded from another version of the month: materialize it again."
        return dg.AssetCheckResult(
            passed=same_data and found == wanted,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"The table has {found}; the clean Parquet has {wanted}.{note}",
            metadata={
                "rows": found.rows, "rows_clean": wanted.rows, "cents": found.cents, "cents_clean": wanted.cents,
                "source_rows": found.source_rows, "source_rows_clean": wanted.source_rows,
            },
        )  # fmt: skip

    return equals_clean
