"""Assembly: from settings to one `Definitions`. Nothing here touches the network or a file."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.addresses import BigQueryAddress, DuckDBAddress, FolderAddress
from taxi_assets.assets.clean import clean_asset
from taxi_assets.assets.raw import raw_asset
from taxi_assets.assets.warehouse import warehouse_asset
from taxi_assets.assets.zones import zones_asset
from taxi_assets.automation.abandoned import end_abandoned_runs, watched_in_process_executor
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
    from taxi_assets.storage.lake import Lake
    from taxi_assets.storage.warehouse import Warehouse


# Data versions and checks with partitions are what this project is about; Dagster still marks both as young.
warnings.filterwarnings("ignore", message="Parameter `data_version` of initializer `Output.__init__`")
warnings.filterwarnings("ignore", message="Specifying a partitions_def on an AssetCheckSpec")


class TaxiDefinitions(dg.Definitions):
    """Definitions that take an asset key as the UI and the CLI write it, such as "warehouse/green_trips"."""

    def load_asset_value(self, asset_key: dg.CoercibleToAssetKey, **arguments: Any) -> object:
        """See `dagster.Definitions.load_asset_value`."""
        key = dg.AssetKey.from_user_string(asset_key) if isinstance(asset_key, str) else asset_key
        return super().load_asset_value(key, **arguments)


# What stands on Google Cloud is loaded only where it is used: its clients take most of a second.


def lake_at(settings: Settings) -> Lake:
    """The lake at the address of `TAXI_LAKE`."""
    address = settings.lake
    if isinstance(address, FolderAddress):
        return LocalLake(folder=str(address.folder))
    from taxi_assets.google_resources import CloudStorageResource  # noqa: PLC0415
    from taxi_assets.storage.gcs_lake import GcsLake  # noqa: PLC0415

    storage = CloudStorageResource(credentials=settings.google_key)
    return GcsLake(storage=storage, bucket=address.bucket, prefix=address.prefix)


def warehouse_at(settings: Settings) -> Warehouse:
    """The warehouse at the address of `TAXI_WAREHOUSE`."""
    address = settings.warehouse
    if isinstance(address, DuckDBAddress):
        return DuckDBWarehouse(file=str(address.file), schema_name=address.schema_name)
    from taxi_assets.google_resources import BigQueryClientResource  # noqa: PLC0415
    from taxi_assets.storage.bigquery import BigQueryWarehouse  # noqa: PLC0415

    api = BigQueryClientResource(
        project=address.project,
        credentials=settings.google_key,
        maximum_bytes_billed=address.maximum_bytes_billed,
    )
    return BigQueryWarehouse(api=api, project=address.project, dataset=address.dataset, location=address.location)


def frames_in(warehouse: Warehouse, settings: Settings) -> Any:
    """The IO manager for small tables that are pandas frames."""
    address = settings.warehouse
    if not isinstance(address, BigQueryAddress):
        return WarehouseIOManager(warehouse=warehouse)
    from taxi_assets.storage.bigquery_frames import BigQueryFrameIOManager  # noqa: PLC0415

    return BigQueryFrameIOManager(project=address.project, dataset=address.dataset, warehouse=warehouse)


def build_definitions(settings: Settings, *, resources: Mapping[str, Any] | None = None) -> TaxiDefinitions:
    """All assets, checks, jobs and resources of a deployment.

    `resources` replaces single ones by name (`lake`, `warehouse`, `publisher`), for tests.
    """
    base = {
        "lake": lake_at(settings),
        "warehouse": warehouse_at(settings),
        "publisher": PublisherResource(source=settings.source, google_key=settings.google_key),
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
            "warehouse_frames": frames_in(warehouse, settings),
        },
        sensors=[end_abandoned_runs],
        executor=watched_in_process_executor,  # months run beside each other as runs
    )
