"""The assets marts/…: summary tables that the warehouse computes from the trips of all services."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import dagster as dg
import pandas as pd

from taxi_assets import metadata
from taxi_assets.assets.reference import ZONES
from taxi_assets.automation.conditions import on_service_change
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.checks.mart_checks import evaluate_mart, mart_check_specs
from taxi_assets.errors import ConcurrentUpdateError, NoTripsLoadedError
from taxi_assets.marts.mart import Mart, MartMonth
from taxi_assets.partitions import all_services_partitions
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services.registry import SERVICES

_DESCRIPTION = """{description}

The table has one row for each {key}. It contains only sums, so you can aggregate it further. A reversal cancels a
charge and does not count as a trip. A trip of more than 24 hours has no duration.

The table is `{name}` in the warehouse's schema, and its partition column is `data_month`. A month is computed from the
services that are loaded, at least one, and recomputed when one of them changes. A run skips a month if no loaded
service records the columns that the mart needs."""


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
        context: dg.AssetExecutionContext, warehouse: Warehouse
    ) -> Iterator[dg.Output[Any] | dg.AssetCheckResult]:
        month = Month.parse(context.partition_key)
        check_names = [check.name for check in context.selected_asset_check_keys]
        output, results, error = None, [], None
        # Nothing is yielded inside the session: if Dagster failed at the yield, the session would stay open.
        with as_failures(retry_number=context.retry_number), warehouse.session():
            if key in context.selected_asset_keys:
                output = _replace_month(context, warehouse, mart, month)
                if output is None:
                    return
            try:
                computed = None if output is None else output.value
                results = evaluate_mart(
                    warehouse, mart, month, check_names, computed=computed, run_id=context.run.run_id
                )
            except Exception as raised:  # noqa: BLE001  (first report the month that has been replaced)
                error = raised
        if output is not None:
            yield output
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


def _replace_month(
    context: dg.AssetExecutionContext, warehouse: Warehouse, mart: Mart, month: Month
) -> dg.Output[Any] | None:
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
    mart_month = MartMonth(mart, month, services, versions)
    replaced = replace_mart(warehouse, mart_month, run_id=context.run.run_id)
    return dg.Output(
        mart_month,
        output_name=mart.name,
        data_version=dg.DataVersion(_data_version(mart, versions)),
        metadata={
            "services": _names(services),
            "services_not_loaded": _names([s for s in mart.services if s not in services]) or "none",
            **metadata.table_location(warehouse, mart.name),
            **metadata.mart_lineage(mart, services),
            **metadata.size_metadata(rows=replaced.rows, seconds=time.monotonic() - started),
            "preview": metadata.preview(replaced.preview),
        },
    )


def _data_version(mart: Mart, versions: Mapping[str, str]) -> str:
    """Return the data version of a month of a mart, from the loaded versions of its services by name."""
    return hashlib.sha256(repr((mart.version, sorted(versions.items()))).encode()).hexdigest()[:16]


def _names(services: Sequence[Service]) -> str:
    return ", ".join(service.name for service in services)


class ReplacedMart(NamedTuple):
    """A month of a mart that has been replaced."""

    rows: int
    """Number of rows."""
    preview: pd.DataFrame
    """The first rows."""


def replace_mart(warehouse: Warehouse, output: MartMonth, *, run_id: str) -> ReplacedMart:
    """Compute a month in the warehouse and replace its rows.

    Raises:
        ConcurrentUpdateError: Another run has loaded other trips since `output.versions` was read.
    """
    mart, month = output.mart, output.month
    with warehouse.session():
        rows = warehouse.replace_mart(
            mart,
            month,
            output.services,
            run_id=run_id,
            require_inputs_unchanged=lambda: _require_same_versions(warehouse, output),
        )
        return ReplacedMart(rows, warehouse.read_portable_frame(_month_query(mart, month, metadata.PREVIEW_ROWS)))


def _require_same_versions(warehouse: Warehouse, output: MartMonth) -> None:
    found = warehouse.loaded_versions(output.mart.services, output.month)
    if found != output.versions:
        changed = sorted({name for name, _ in found.items() ^ output.versions.items()})
        raise ConcurrentUpdateError(
            f"marts/{output.mart.name} {output.month}: another run has loaded {', '.join(changed)} since this run "
            "read the loaded versions.",
            remedy="Materialize it again.",
        )


def _month_query(mart: Mart, month: Month, rows: int | None = None) -> str:
    columns = ", ".join(column.name for column in mart.columns)
    query = f"SELECT {columns} FROM {mart.name} WHERE data_month = CAST('{month.start}' AS DATE) "  # noqa: S608  (names from the mart's definition)
    return query + f"ORDER BY {', '.join(mart.key)}" + (f" LIMIT {rows}" if rows else "")
