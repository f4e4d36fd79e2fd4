"""Assembly: from settings to one `Definitions`. Nothing here touches the network or a file."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.assets.clean import clean_asset
from taxi_assets.assets.raw import raw_asset
from taxi_assets.assets.warehouse import warehouse_asset
from taxi_assets.assets.zones import zones_asset
from taxi_assets.automation.jobs import reference_job, service_job
from taxi_assets.checks.clean import clean_checks
from taxi_assets.checks.warehouse import warehouse_check
from taxi_assets.publisher import PublisherResource
from taxi_assets.storage.duckdb import DuckDBWarehouse
from taxi_assets.storage.io_managers import ParquetIOManager, PublishedFileIOManager, WarehouseIOManager
from taxi_assets.storage.lake import LocalLake
from taxi_assets.tlc.catalogue import SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taxi_assets.settings import Settings


def build_definitions(settings: Settings, *, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All assets, checks, jobs and resources of a deployment.

    `resources` replaces single ones by name (`lake`, `warehouse`, `publisher`), for tests.
    """
    base = {
        "lake": LocalLake(folder=str(settings.lake.folder)),
        "warehouse": DuckDBWarehouse(file=str(settings.warehouse.file), schema_name=settings.warehouse.schema_name),
        "publisher": PublisherResource(source=settings.source),
    } | dict(resources or {})
    lake, warehouse = base["lake"], base["warehouse"]
    services = list(SERVICES.values())
    with warnings.catch_warnings():
        # Checks with partitions are marked as preview; without, a check would not say which month it is about.
        warnings.filterwarnings("ignore", message=r".*partitions_def.*", category=Warning)
        checks = [check for service in services for check in (clean_checks(service), warehouse_check(service))]
    return dg.Definitions(
        assets=[
            *(
                asset
                for service in services
                for asset in (raw_asset(service), clean_asset(service), warehouse_asset(service, warehouse.kind))
            ),
            zones_asset(warehouse.kind),
        ],
        asset_checks=checks,
        jobs=[*(service_job(service) for service in services), reference_job()],
        resources=base
        | {
            "published_files": PublishedFileIOManager(lake=lake),
            "parquet_months": ParquetIOManager(lake=lake),
            "warehouse_tables": WarehouseIOManager(warehouse=warehouse),
        },
        # A step in this process takes 0.06 s, in one of its own 2 s; months run beside each other as runs.
        executor=dg.in_process_executor,
    )
