"""The check on a warehouse table: its month holds exactly the clean trips."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from taxi_assets.automation.step_failures import as_failures
from taxi_assets.checks.concurrent_runs import Replacement, compare_when_settled, newest_replacements
from taxi_assets.metadata import dollars
from taxi_assets.partitions import monthly_partitions
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, object_prefix
from taxi_assets.storage.warehouse.base_warehouse import LoadedMonth, Warehouse
from taxi_assets.tlc.cleaning.report import ControlTotals
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service


def warehouse_check(service: Service, retry: dg.RetryPolicy | None = None) -> dg.AssetChecksDefinition:
    """Return the check that compares a month of the table with its clean Parquet file."""

    @dg.asset_check(
        asset=["warehouse", service.table],
        name="matches_clean",
        description="The month in the table was loaded from the current clean trips and has the same control totals: "
        "the number of rows, the sum of all money columns, and the sum of row numbers. The check queries the table. It "
        "also reads the clean Parquet file again, unless the lake verifies checksums itself.",
        blocking=True,
        partitions_def=monthly_partitions(service),
        retry_policy=retry,
    )
    def matches_clean(context: dg.AssetCheckExecutionContext, lake: Lake, warehouse: Warehouse) -> dg.AssetCheckResult:
        month = Month.parse(context.partition_key)
        clean_key, table_key = dg.AssetKey(["clean", service.table]), dg.AssetKey(["warehouse", service.table])

        def find_replacements(compared: _Compared) -> Sequence[Replacement]:
            if compared.matches:
                return []
            found = [*newest_replacements(context, {clean_key: compared.clean.report.data_version})]
            if compared.replacing_run not in {None, context.run.run_id}:
                found.append(Replacement(compared.replacing_run))
            return found

        with as_failures(retry_number=context.retry_number):
            # Compares again while another run is replacing the month: until it ends, a mismatch is not an error.
            settled = compare_when_settled(
                context, table_key, lambda: _compare(lake, warehouse, service, month), find_replacements
            )
        compared = settled.compared
        table, clean = compared.table_totals, compared.clean_totals
        description = f"The table has {table}. The clean Parquet file has {clean}."
        if not compared.same_version:
            description += f" {compared.mismatch_reason} Materialize the month again."
        return dg.AssetCheckResult(
            passed=compared.matches,
            severity=settled.severity,
            description=settled.describe(description),
            metadata={
                "rows_table": table.rows,
                "rows_clean": clean.rows,
                "control_total_table_dollars": dollars(table.cents),
                "control_total_clean_dollars": dollars(clean.cents),
                "row_number_sum_table": table.source_rows,
                "row_number_sum_clean": clean.source_rows,
                **settled.metadata,
            },
        )

    return matches_clean


@dataclass(frozen=True)
class _Compared:
    """A month of the table, compared with its clean Parquet file."""

    clean: ParquetPartition
    clean_totals: ControlTotals
    table_totals: ControlTotals
    loaded: LoadedMonth | None
    replacing_run: str | None

    @property
    def same_version(self) -> bool:
        return self.loaded is not None and self.loaded.data_version == self.clean.report.data_version

    @property
    def matches(self) -> bool:
        return self.same_version and self.table_totals == self.clean_totals

    @property
    def mismatch_reason(self) -> str:
        if self.loaded is not None:
            return f"Run {self.loaded.run_id} has loaded a different version of the month."
        if self.replacing_run is not None:
            return f"Run {self.replacing_run} has started to replace the month in the table and has not finished."
        return "The warehouse has no record of a complete load of the month."


def _compare(lake: Lake, warehouse: Warehouse, service: Service, month: Month) -> _Compared:
    """Compare the table with the lake.

    The ledger is read before and after the totals: only DuckDB's session keeps other runs from loading in between.
    """
    while True:
        clean = ParquetPartition.get(lake, object_prefix("clean", service, month))
        with warehouse.session():
            before = warehouse.loaded_month(service, month)
            table_totals = warehouse.totals(service, month)
            loaded = warehouse.loaded_month(service, month)
            replacing_run = warehouse.replacing_run_id(service, month) if loaded is None else None
        if before == loaded:
            return _Compared(clean, clean.control_totals(service), table_totals, loaded, replacing_run)
