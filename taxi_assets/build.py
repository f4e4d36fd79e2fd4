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
from taxi_assets.storage.local_lake import LocalLake
from taxi_assets.tlc.catalogue import SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taxi_assets.settings import Settings


# Data versions and checks with partitions are what this project is about; Dagster still marks both as young.
warnings.filterwarnings("ignore", message="Parameter `data_version` of initializer `Output.__init__`")
warnings.filterwarnings("ignore", message="Specifying a partitions_def on an AssetCheckSpec")


class TaxiDefinitions(dg.Definitions):
    """Definitions that take an asset key as the UI and the CLI write it, such as "warehouse/green_trips"."""

    def load_asset_value(self, asset_key: dg.CoercibleToAssetKey, **arguments: Any) -> object:
        """See `dagster.Definitions.load_asset_value`."""
        key = dg.AssetKey.from_user_string(asset_key) if isinstance(asset_key, str) else asset_key
        return super().load_asset_value(key, **arguments)


def build_definitions(settings: Settings, *, resources: Mapping[str, Any] | None = None) -> TaxiDefinitions:
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
    return TaxiDefinitions(
        assets=[
            *(
                asset
                for service in services
                for asset in (raw_asset(service), clean_asset(service), warehouse_asset(service, warehouse.kind))
            ),
            zones_asset(warehouse.kind),
        ],
        asset_checks=[check for service in services for check in (clean_checks(service), warehouse_check(service))],
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
