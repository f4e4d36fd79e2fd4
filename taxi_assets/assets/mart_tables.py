"""The assets marts/…: summary tables that the warehouse computes from the trips of all services."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import dagster as dg
import pyarrow as pa

from taxi_assets import metadata
from taxi_assets.assets.reference import ZONES
from taxi_assets.automation.conditions import on_service_change
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.checks.mart_checks import evaluate_mart, mart_check_specs
from taxi_assets.errors import ConcurrentUpdateError, LakeConflictError, NoTripsLoadedError
from taxi_assets.marts.mart import Mart, MartMonth
from taxi_assets.partitions import all_services_partitions
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake_tables import mart_table
from taxi_assets.storage.partition_rows import Condition
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services.registry import SERVICES

_DESCRIPTION = """{description}

The table has one row for each {key}. It contains only sums, so you can aggregate it further. A reversal cancels a
charge and does not count as a trip. A trip of more than 24 hours has no duration.

The table is `{name}` in the warehouse's schema, and its partition column is `data_month`. The lake has a copy of each
month as Parquet. A month is computed from the services that are loaded, at least one, and recomputed when one of them
changes. A run skips a month if no loaded service records the columns that the mart needs."""


_COPY_ATTEMPTS = 4
"""How often a month is copied to the lake again, because another run has copied it meanwhile."""


def mart_key(mart: Mart) -> dg.AssetKey:
    """Return the asset key of a mart, such as marts/zone_day."""
    return dg.AssetKey(["marts", mart.name])


def mart_asset(mart: Mart, retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """Return the asset of a mart, with its checks in the same step.

    The step opens the warehouse once. A check can also be executed without the mart.

    Args:
        mart: The mart.
        retry: Retry policy of the step.
    """
    key = mart_key(mart)
    months = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)

    @dg.multi_asset(
        name="__".join(key.path),
        outs={
            mart.name: dg.AssetOut(
                key=key,
                description=_DESCRIPTION.format(description=mart.description, key=", ".join(mart.key), name=mart.name),
                group_name="marts",
                io_manager_key="warehouse_table",
                metadata={
                    "dagster/column_schema": metadata.column_schema(mart.columns),
                    "partition_expr": "data_month",
                    "unique_key": ", ".join(mart.key),
                    "dagster/code_references": metadata.code_reference(mart.file, label="Query"),
                },
                kinds={"sql"},
                tags=metadata.asset_tags("mart"),
                code_version=mart.version,
                is_required=False,
                automation_condition=on_service_change(),
            )
        },
        check_specs=mart_check_specs(mart, key),
        can_subset=True,
        partitions_def=all_services_partitions(),
        deps=[
            *(dg.AssetDep(["warehouse", service.table], partition_mapping=months) for service in mart.services),
            ZONES,
        ],
        retry_policy=retry,
    )
    def compute_mart(
        context: dg.AssetExecutionContext, lake: Lake, warehouse: Warehouse
    ) -> Iterator[dg.Output[Any] | dg.AssetCheckResult]:
        month = Month.parse(context.partition_key)
        check_names = [check.name for check in context.selected_asset_check_keys]
        replaced, results, error = None, [], None
        with as_failures(retry_number=context.retry_number):
            replaces = lake.version(mart_table(mart).key(month)) if key in context.selected_asset_keys else None
            # Nothing is yielded inside the session: if Dagster failed at the yield, the session would stay open.
            with warehouse.session(writes=key in context.selected_asset_keys):
                if key in context.selected_asset_keys:
                    replaced = _replace_month(context, warehouse, mart, month)
                    if replaced is None:
                        return
                try:
                    computed = None if replaced is None else replaced.computed
                    results = evaluate_mart(
                        warehouse, mart, month, check_names, computed=computed, run_id=context.run.run_id
                    )
                except Exception as raised:  # noqa: BLE001  (first report the month that has been replaced)
                    error = raised
            if replaced is not None:
                copy_to_lake(lake, warehouse, replaced, replaces=replaces, run_id=context.run.run_id)
        if replaced is not None:
            location = metadata.lake_uri(lake.uri(mart_table(mart).key(month)))
            yield dg.Output(
                replaced.computed,
                output_name=mart.name,
                data_version=dg.DataVersion(_data_version(mart, replaced.computed.versions)),
                metadata={**replaced.metadata, **location},
            )
        if error is not None:
            with as_failures(retry_number=context.retry_number):
                raise error
        yield from results
        failed = [result for result in results if not result.passed and result.severity == dg.AssetCheckSeverity.ERROR]
        if failed:
            # Dagster also fails a step whose blocking check fails, but it would retry the step.
            messages = [f"check {result.check_name}: {result.description}" for result in failed]
            raise dg.Failure(f"marts/{mart.name} {month}, {' '.join(messages)}", allow_retries=False)

    return compute_mart


class ReplacedMonth(NamedTuple):
    """A month of a mart that has been replaced in the warehouse."""

    computed: MartMonth
    rows: pa.Table
    metadata: Mapping[str, Any]


def _replace_month(
    context: dg.AssetExecutionContext, warehouse: Warehouse, mart: Mart, month: Month
) -> ReplacedMonth | None:
    """Replace the month in the warehouse; return None if no loaded service records what the mart counts.

    Raises:
        NoTripsLoadedError: No service at all is loaded for the month.
    """
    versions = warehouse.loaded_versions(mart.services, month)
    services = [service for service in mart.services if service.name in versions]
    if not services:
        message = f"marts/{mart.name} {month}: the warehouse has no trips of {_names(mart.services)} for this month."
        others = [s for s in SERVICES.values() if s not in mart.services and warehouse.wait_for_loaded_month(s, month)]
        if not others:
            raise NoTripsLoadedError(message, remedy="Materialize the month of one of these services first.")
        # Not an error: the job of all marts also runs for months of services that this mart does not count.
        context.log.warning(
            "%s The mart skips this month, because %s does not record what it counts.", message, _names(others)
        )
        return None
    started = time.monotonic()
    computed = MartMonth(mart, month, services, versions)
    rows = replace_mart(warehouse, computed, run_id=context.run.run_id)
    first = next(iter(rows.to_batches(metadata.PREVIEW_ROWS)), None)
    return ReplacedMonth(
        computed,
        rows,
        {
            "services": _names(services),
            "services_not_loaded": _names([s for s in mart.services if s not in services]) or "none",
            **metadata.table_location(warehouse, mart.name),
            **metadata.mart_lineage(mart, services),
            **metadata.size_metadata(rows=rows.num_rows, seconds=time.monotonic() - started),
            **metadata.rows_preview(rows.schema, first),
        },
    )


def _data_version(mart: Mart, versions: Mapping[str, str]) -> str:
    """Return the data version of a month of a mart, from the loaded versions of its services by name."""
    return hashlib.sha256(repr((mart.version, sorted(versions.items()))).encode()).hexdigest()[:16]


def _names(services: Sequence[Service]) -> str:
    return ", ".join(service.name for service in services)


def replace_mart(warehouse: Warehouse, output: MartMonth, *, run_id: str) -> pa.Table:
    """Compute a month in the warehouse, replace its rows, and return them in the order of the mart's key.

    Raises:
        ConcurrentUpdateError: Another run has loaded other trips since `output.versions` was read.
    """
    with warehouse.session(writes=True):
        warehouse.replace_mart(
            output.mart,
            output.month,
            output.services,
            run_id=run_id,
            require_inputs_unchanged=lambda: _require_same_versions(warehouse, output),
        )
        return read_month(warehouse, output.mart, output.month)


def read_month(warehouse: Warehouse, mart: Mart, month: Month) -> pa.Table:
    """Return the rows of a month, in the order of the mart's key."""
    schema = mart_table(mart).schema
    conditions = [Condition("data_month", "=", month.start)]
    return warehouse.read_rows(mart.name, schema.names, conditions, order_by=mart.key).read_all().cast(schema)


def copy_to_lake(
    lake: Lake, warehouse: Warehouse, replaced: ReplacedMonth, *, replaces: str | None, run_id: str
) -> None:
    """Write the month to the lake as Parquet.

    If another run writes a copy meanwhile, the rows are read again: that run may have copied older or newer rows.

    Args:
        lake: The lake.
        warehouse: The warehouse.
        replaced: The month, with its rows.
        replaces: The version of the copy before the rows were replaced.
        run_id: The Dagster run.

    Raises:
        LakeConflictError: Other runs kept writing copies.
    """
    mart, month, rows = replaced.computed.mart, replaced.computed.month, replaced.rows
    table = mart_table(mart)
    for is_last in [*[False] * _COPY_ATTEMPTS, True]:
        try:
            table.publish(lake, rows, month=month, replaces=replaces, run_id=run_id)
        except LakeConflictError:
            if is_last:
                raise
            replaces = lake.version(table.key(month))
            rows = read_month(warehouse, mart, month)
        else:
            return


def _require_same_versions(warehouse: Warehouse, output: MartMonth) -> None:
    found = warehouse.loaded_versions(output.mart.services, output.month)
    if found != output.versions:
        changed = sorted({name for name, _ in found.items() ^ output.versions.items()})
        raise ConcurrentUpdateError(
            f"marts/{output.mart.name} {output.month}: another run has loaded {', '.join(changed)} since this run "
            "read the loaded versions.",
            remedy="Materialize it again.",
        )
