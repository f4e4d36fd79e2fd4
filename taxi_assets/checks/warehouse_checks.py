"""The check on a warehouse table: it holds exactly the clean trips of the month."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from taxi_assets.automation.step_failures import as_failures
from taxi_assets.checks.concurrent_runs import Replacement, compare_when_settled, newest_replacements
from taxi_assets.partitions import monthly_partitions
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, object_prefix
from taxi_assets.storage.warehouse.base_warehouse import LoadedMonth, Warehouse
from taxi_assets.tlc.cleaning.report import ControlTotals
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service


def warehouse_check(service: Service, retry: dg.RetryPolicy | None = None) -> dg.AssetChecksDefinition:
    """Compare the table's month with the Parquet file, by figures counted in each anew."""

    @dg.asset_check(
        asset=["warehouse", service.table],
        name="matches_clean",
        description="The table's month was loaded from this clean Parquet, and agrees with it in rows, in the cents of "
        "all money columns, and in the sum of row numbers. The table is counted anew, and so is the Parquet, unless "
        "its lake checks its bytes itself.",
        blocking=True,
        partitions_def=monthly_partitions(service),
        retry_policy=retry,
    )
    def matches_clean(context: dg.AssetCheckExecutionContext, lake: Lake, warehouse: Warehouse) -> dg.AssetCheckResult:
        month = Month.parse(context.partition_key)
        clean_key, table_key = dg.AssetKey(["clean", service.table]), dg.AssetKey(["warehouse", service.table])

        def find_replacements(compared: _Compared) -> Sequence[Replacement]:
            if compared.agree:
                return []
            found = [*newest_replacements(context, {clean_key: compared.clean.report.data_version})]
            if compared.replacing_run not in {None, context.run.run_id}:
                found.append(Replacement(compared.replacing_run))
            return found

        with as_failures(retry_number=context.retry_number):
            settled = compare_when_settled(
                context, table_key, lambda: _compare(lake, warehouse, service, month), find_replacements
            )
        compared = settled.compared
        found, wanted = compared.found, compared.wanted
        description = f"The table has {found}; the clean Parquet has {wanted}."
        if not compared.same_data:
            description += f" {compared.what_is_loaded} Materialize the month again."
        return dg.AssetCheckResult(
            passed=compared.agree,
            severity=settled.severity,
            description=settled.describe(description),
            metadata={
                "rows": found.rows, "rows_clean": wanted.rows, "cents": found.cents, "cents_clean": wanted.cents,
                "source_rows": found.source_rows, "source_rows_clean": wanted.source_rows, **settled.metadata,
            },
        )  # fmt: skip

    return matches_clean


@dataclass(frozen=True)
class _Compared:
    """A month of the table next to its clean Parquet."""

    clean: ParquetPartition
    wanted: ControlTotals
    found: ControlTotals
    loaded: LoadedMonth | None
    replacing_run: str | None

    @property
    def same_data(self) -> bool:
        return self.loaded is not None and self.loaded.data_version == self.clean.report.data_version

    @property
    def agree(self) -> bool:
        return self.same_data and self.found == self.wanted

    @property
    def what_is_loaded(self) -> str:
        if self.loaded is not None:
            return f"The run {self.loaded.run_id} has loaded another version of the month."
        if self.replacing_run is not None:
            return f"The run {self.replacing_run} has begun to replace the month in the table, and has not finished."
        return "The warehouse has no record of a complete load of the month."


def _compare(lake: Lake, warehouse: Warehouse, service: Service, month: Month) -> _Compared:
    """Read the ledger before and after the table, because another run may load in between."""
    while True:
        clean = ParquetPartition.get(lake, object_prefix("clean", service, month))
        with warehouse.session():
            before = warehouse.loaded_month(service, month)
            found = warehouse.totals(service, month)
            loaded = warehouse.loaded_month(service, month)
            replacing_run = warehouse.replacing_run_id(service, month) if loaded is None else None
        if before == loaded:
            return _Compared(clean, clean.control_totals(service), found, loaded, replacing_run)
