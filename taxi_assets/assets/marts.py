"""marts/…: tables that answer questions, computed in the warehouse from the trips of all services."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from taxi_assets import metadata
from taxi_assets.assets.zones import ZONES
from taxi_assets.automation.conditions import follow_services
from taxi_assets.errors import NoTripsLoadedError
from taxi_assets.failures import as_failures
from taxi_assets.marts.mart import Mart, MartMonth
from taxi_assets.partitions import partitions_of_all
from taxi_assets.storage.warehouse import Warehouse
from taxi_assets.tlc.catalogue import SERVICES
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service

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
    """A mart; `kind` is the engine's name, for the UI."""
    months = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)

    @dg.asset(
        key=mart_key(mart),
        description=_DESCRIPTION.format(description=mart.description, key=", ".join(mart.key), name=mart.name),
        partitions_def=partitions_of_all(),
        deps=[
            *(dg.AssetDep(["warehouse", service.table], partition_mapping=months) for service in mart.services),
            ZONES,
        ],
        group_name="marts",
        io_manager_key="warehouse_tables",
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
        output_required=False,
        automation_condition=follow_services(),
        retry_policy=retry,
    )
    def month_of_mart(context: dg.AssetExecutionContext, warehouse: Warehouse) -> Iterator[dg.Output[Any]]:
        month = Month.parse(context.partition_key)
        with as_failures(retry_number=context.retry_number), warehouse.session():
            versions = warehouse.versions(mart.services, month)
            services = [service for service in mart.services if service.name in versions]
            if not services:
                wanted = _names(mart.services)
                said = f"marts/{mart.name} {month}: no trips of this month are in the warehouse, of {wanted}."
                others = [
                    s for s in SERVICES.values() if s not in mart.services and warehouse.loaded_after_wait(s, month)
                ]
                if not others:
                    raise NoTripsLoadedError(said, remedy="Materialize the month of one of these services first.")
                # No fault of whoever runs all marts after a month of a service that this one does not count.
                context.log.warning("%s Nothing is made of %s alone.", said, _names(others))
                return
            lineage = metadata.column_lineage(mart, services)
        yield dg.Output(
            MartMonth(mart, month, services, versions),
            data_version=dg.DataVersion(data_version(mart, versions)),
            metadata={
                "services": _names(services),
                "services_not_loaded": _names([s for s in mart.services if s not in services]) or "none",
                "dagster/table_name": warehouse.table_name(mart.name),
                "dagster/column_lineage": lineage,
            },
        )

    return month_of_mart


def data_version(mart: Mart, versions: Mapping[str, str]) -> str:
    """Return the data version of a month of a mart, from the loaded versions of its services by name."""
    return hashlib.sha256(repr((mart.version, sorted(versions.items()))).encode()).hexdigest()[:16]


def _names(services: Sequence[Service]) -> str:
    return ", ".join(service.name for service in services)
