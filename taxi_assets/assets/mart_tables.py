"""marts/…: tables that answer questions, computed in the warehouse from the trips of all services."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from taxi_assets import metadata
from taxi_assets.assets.reference import ZONES
from taxi_assets.automation.conditions import on_service_change
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.checks.mart_checks import evaluate_mart, mart_check_specs
from taxi_assets.errors import NoTripsLoadedError
from taxi_assets.io_managers.warehouse_marts import replace_mart
from taxi_assets.marts.mart import Mart, MartMonth
from taxi_assets.partitions import partitions_of_all
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services.registry import SERVICES

_DESCRIPTION = """{description}

One row for each {key}. Sums only, so any of them can be added up further; a reversal takes back a charge and is no
trip, and a trip of more than 24 hours is not timed. The table is `{name}` in the warehouse's schema, its partition
column `data_month`. A month is made of whichever services are loaded, and is made anew when one of them changes; it can
be materialized as soon as one is there. Where only services are loaded that do not record what it counts, nothing is
made."""


def mart_key(mart: Mart) -> dg.AssetKey:
    """Such as marts/zone_day."""
    return dg.AssetKey(["marts", mart.name])


def mart_asset(mart: Mart, kind: str, retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """A mart and its checks, in one step; `kind` is the engine's name, for the UI.

    The step opens the warehouse once. A check can be executed without the mart as well.
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
                io_manager_key="warehouse_marts",
                metadata={
                    "dagster/column_schema": metadata.column_schema(mart.columns),
                    "partition_expr": "data_month",
                    "unique_key": ", ".join(mart.key),
                    "dagster/code_references": metadata.code_reference(mart.file, label="the query"),
                },
                owners=metadata.OWNERS,
                kinds={kind, "mart", "table"},
                tags=metadata.asset_tags(),
                code_version=mart.version,
                is_required=False,
                automation_condition=on_service_change(),
            )
        },
        check_specs=mart_check_specs(mart, key),
        can_subset=True,
        partitions_def=partitions_of_all(),
        deps=[
            *(dg.AssetDep(["warehouse", service.table], partition_mapping=months) for service in mart.services),
            ZONES,
        ],
        retry_policy=retry,
    )
    def month_of_mart(
        context: dg.AssetExecutionContext, warehouse: Warehouse
    ) -> Iterator[dg.Output[Any] | dg.AssetCheckResult]:
        month = Month.parse(context.partition_key)
        names = [check.name for check in context.selected_asset_check_keys]
        output, results, error = None, [], None
        # Nothing is yielded within the session: where Dagster fails afterwards, nothing would end it.
        with as_failures(retry_number=context.retry_number), warehouse.session():
            if key in context.selected_asset_keys:
                output = _replace_month(context, warehouse, mart, month)
                if output is None:
                    return
            try:
                made = None if output is None else output.value
                results = evaluate_mart(warehouse, mart, month, names, made=made, run_id=context.run.run_id)
            except Exception as raised:  # noqa: BLE001  (the month is replaced, and Dagster has to know of it first)
                error = raised
        if output is not None:
            yield output
        if error is not None:
            with as_failures(retry_number=context.retry_number):
                raise error
        yield from results
        errors = [one for one in results if not one.passed and one.severity == dg.AssetCheckSeverity.ERROR]
        failed = [f"check {result.check_name}: {result.description}" for result in errors]
        if failed:
            # Dagster fails the step of a failed blocking check by itself, but would retry it.
            raise dg.Failure(f"marts/{mart.name} {month}, {' '.join(failed)}", allow_retries=False)

    return month_of_mart


def _replace_month(
    context: dg.AssetExecutionContext, warehouse: Warehouse, mart: Mart, month: Month
) -> dg.Output[Any] | None:
    """Replace the month in the warehouse; None where no service is loaded that records what the mart counts."""
    versions = warehouse.loaded_versions(mart.services, month)
    services = [service for service in mart.services if service.name in versions]
    if not services:
        wanted = _names(mart.services)
        message = f"marts/{mart.name} {month}: no trips of this month are in the warehouse, of {wanted}."
        others = [
            s for s in SERVICES.values() if s not in mart.services and warehouse.loaded_month_after_wait(s, month)
        ]
        if not others:
            raise NoTripsLoadedError(message, remedy="Materialize the month of one of these services first.")
        # Not an error: all marts may be run after a month of a service that this one does not count.
        context.log.warning("%s Nothing is made of %s alone.", message, _names(others))
        return None
    started = time.monotonic()
    made = MartMonth(mart, month, services, versions)
    replaced = replace_mart(warehouse, made, run_id=context.run.run_id)
    return dg.Output(
        made,
        output_name=mart.name,
        data_version=dg.DataVersion(_data_version(mart, versions)),
        metadata={
            "services": _names(services),
            "services_not_loaded": _names([s for s in mart.services if s not in services]) or "none",
            "dagster/table_name": warehouse.table_name(mart.name),
            "dagster/column_lineage": metadata.column_lineage(mart, services),
            **metadata.size_metadata(rows=replaced.rows, seconds=time.monotonic() - started),
            "preview": metadata.preview(replaced.first),
        },
    )


def _data_version(mart: Mart, versions: Mapping[str, str]) -> str:
    """Return the data version of a month of a mart, from the loaded versions of its services by name."""
    return hashlib.sha256(repr((mart.version, sorted(versions.items()))).encode()).hexdigest()[:16]


def _names(services: Sequence[Service]) -> str:
    return ", ".join(service.name for service in services)
