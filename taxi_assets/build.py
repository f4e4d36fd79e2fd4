"""Assembly: from settings to one `Definitions`. Nothing here touches the network or a file."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.addresses import BigQueryAddress, DuckDBAddress, FolderAddress, PostgresAddress
from taxi_assets.assets.clean import clean_asset
from taxi_assets.assets.mart_tables import mart_asset
from taxi_assets.assets.published import published_asset
from taxi_assets.assets.quality import quality_asset
from taxi_assets.assets.raw import raw_asset
from taxi_assets.assets.reference import zones_asset
from taxi_assets.assets.reports import report_asset
from taxi_assets.assets.warehouse import warehouse_asset
from taxi_assets.automation.conditions import automation_conditions
from taxi_assets.automation.jobs import (
    marts_job,
    publication_job,
    quality_job,
    reference_job,
    report_job,
    service_job,
)
from taxi_assets.automation.policies import freshness_policy, retry_policy
from taxi_assets.automation.schedules import publication_check_schedule, publication_schedules
from taxi_assets.automation.sensors.notification_sensors import notification_sensors
from taxi_assets.automation.sensors.orphaned_runs import fail_orphaned_runs, watched_in_process_executor
from taxi_assets.automation.sensors.publication_sensor import publication_sensor
from taxi_assets.checks.clean_checks import clean_checks
from taxi_assets.checks.publication_checks import publication_check
from taxi_assets.checks.warehouse_checks import warehouse_check
from taxi_assets.io_managers.lake_parquet import LakeParquetIOManager
from taxi_assets.io_managers.raw_files import RawFileIOManager
from taxi_assets.io_managers.report_pages import ReportIOManager
from taxi_assets.io_managers.warehouse_frames import WarehouseFrameIOManager
from taxi_assets.io_managers.warehouse_marts import WarehouseMartIOManager
from taxi_assets.io_managers.warehouse_tables import WarehouseTableIOManager
from taxi_assets.marts.mart import marts
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taxi_assets.settings import Settings
    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse
    from taxi_assets.tlc.schema import Service


# Data versions, checks with partitions, months that a service has not, links to code: Dagster marks them all as young.
warnings.filterwarnings("ignore", message="Parameter `data_version` of initializer `Output.__init__`")
warnings.filterwarnings("ignore", message="Parameter `allow_nonexistent_upstream_partitions` of initializer")
warnings.filterwarnings("ignore", message="(Class|Function) `.*[cC]ode_?[rR]eference")
warnings.filterwarnings("ignore", message="Specifying a partitions_def on an AssetCheckSpec")


class TaxiDefinitions(dg.Definitions):
    """Definitions that take an asset key as the UI and the CLI write it, such as "warehouse/green_trips"."""

    def load_asset_value(self, asset_key: dg.CoercibleToAssetKey, **arguments: Any) -> object:
        """See `dagster.Definitions.load_asset_value`."""
        key = dg.AssetKey.from_user_string(asset_key) if isinstance(asset_key, str) else asset_key
        return super().load_asset_value(key, **arguments)


# Stores are loaded only where they are used: Google's clients take most of a second, and DuckDB must not be there
# before `definitions.py` has frozen what is.


def build_lake(settings: Settings) -> Lake:
    """The lake at the address of `TAXI_LAKE`."""
    address = settings.lake
    if isinstance(address, FolderAddress):
        return LocalLake(folder=str(address.folder))
    from taxi_assets.resources.google import CloudStorageResource  # noqa: PLC0415
    from taxi_assets.storage.lake.gcs_lake import GcsLake  # noqa: PLC0415

    storage = CloudStorageResource(credentials=settings.google_key)
    return GcsLake(storage=storage, bucket=address.bucket, prefix=address.prefix)


def build_warehouse(settings: Settings) -> Warehouse:
    """The warehouse at the address of `TAXI_WAREHOUSE`."""
    address = settings.warehouse
    if isinstance(address, DuckDBAddress):
        from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse  # noqa: PLC0415

        return DuckDBWarehouse(file=str(address.file), schema_name=address.schema_name)
    if isinstance(address, PostgresAddress):
        from taxi_assets.storage.warehouse.postgres import PostgresWarehouse  # noqa: PLC0415

        return PostgresWarehouse(url=address.url, schema_name=address.schema_name)
    from taxi_assets.resources.google import BigQueryClientResource  # noqa: PLC0415
    from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse  # noqa: PLC0415

    api = BigQueryClientResource(
        project=address.project,
        credentials=settings.google_key,
        maximum_bytes_billed=address.maximum_bytes_billed,
    )
    return BigQueryWarehouse(api=api, project=address.project, dataset=address.dataset, location=address.location)


def build_frame_io_manager(warehouse: Warehouse, settings: Settings) -> Any:
    """The IO manager for small tables that are pandas frames."""
    address = settings.warehouse
    if not isinstance(address, BigQueryAddress):
        return WarehouseFrameIOManager(warehouse=warehouse)
    from taxi_assets.io_managers.bigquery_frames import BigQueryFrameIOManager  # noqa: PLC0415

    return BigQueryFrameIOManager(project=address.project, dataset=address.dataset, warehouse=warehouse)


def notification_sensors_for(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors that tell the notifiers of `TAXI_NOTIFY_URLS`; none where there are none."""
    if settings.notify_urls is None:
        return []
    return notification_sensors(settings.notify_urls, ui_url=settings.ui_url, success=settings.notify_success)


def build_service_assets(service: Service, settings: Settings, kind: str) -> list[dg.AssetSpec | dg.AssetsDefinition]:
    """The shelves of a service, from its publisher to its table in a warehouse of this kind, and its report."""
    made = [
        raw_asset(service, retry_policy(settings.retry_delay_seconds)),
        clean_asset(service, lake_retry_policy(settings)),
        warehouse_asset(service, kind, warehouse_retry_policy(settings)),
        report_asset(service, warehouse_retry_policy(settings)),
    ]
    return [published_asset(service), *map(with_freshness, made)]


def build_service_checks(service: Service, settings: Settings) -> list[dg.AssetChecksDefinition]:
    """The checks of a service, from what is published to its table."""
    return [
        publication_check(service),
        clean_checks(service, lake_retry_policy(settings)),
        warehouse_check(service, warehouse_retry_policy(settings)),
    ]


def with_freshness(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """What is made every month says so."""
    policy = freshness_policy()
    return asset.map_asset_specs(lambda spec: spec.replace_attributes(freshness_policy=policy))


def lake_retry_policy(settings: Settings) -> dg.RetryPolicy | None:
    """What is embedded fails for no reason that passes."""
    return None if isinstance(settings.lake, FolderAddress) else retry_policy(settings.retry_delay_seconds)


def warehouse_retry_policy(settings: Settings) -> dg.RetryPolicy | None:
    """What is embedded fails for no reason that passes, and waits for its lock itself."""
    return None if isinstance(settings.warehouse, DuckDBAddress) else retry_policy(settings.retry_delay_seconds)


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """All schedules, in the time zone of the settings."""
    cron, timezone = settings.schedule_cron, settings.schedule_timezone
    return [
        *(s for service in SERVICES.values() for s in publication_schedules(service, cron=cron, timezone=timezone)),
        publication_check_schedule(timezone=timezone),
    ]


def build_definitions(settings: Settings, *, resources: Mapping[str, Any] | None = None) -> TaxiDefinitions:
    """All assets, checks, jobs and resources of a deployment.

    `resources` replaces single ones by name (`lake`, `warehouse`, `publisher`), for tests.
    """
    base = {
        "lake": build_lake(settings),
        "warehouse": build_warehouse(settings),
        "publisher": PublisherResource(
            source=settings.publisher_source,
            google_key=settings.google_key,
            max_file_bytes=settings.max_file_bytes,
            max_expansion_ratio=settings.max_expansion_ratio,
        ),
    } | dict(resources or {})
    lake, warehouse = base["lake"], base["warehouse"]
    services = list(SERVICES.values())
    # What is made of several services may be overtaken by another run in every warehouse.
    of_several = retry_policy(settings.retry_delay_seconds)
    return TaxiDefinitions(
        assets=dg.with_source_code_references(
            [
                *(asset for service in services for asset in build_service_assets(service, settings, warehouse.kind)),
                zones_asset(warehouse.kind, of_several),
                with_freshness(quality_asset(warehouse.kind, of_several)),
                *(with_freshness(mart_asset(mart, warehouse.kind, of_several)) for mart in marts().values()),
            ]
        ),
        asset_checks=[check for service in services for check in build_service_checks(service, settings)],
        jobs=[
            *(job for service in services for job in (service_job(service), report_job(service))),
            marts_job(),
            quality_job(),
            reference_job(),
            publication_job(),
        ],
        schedules=build_schedules(settings),
        resources=base
        | {
            "raw_files": RawFileIOManager(lake=lake),
            "lake_parquet": LakeParquetIOManager(lake=lake),
            "reports": ReportIOManager(lake=lake),
            "warehouse_tables": WarehouseTableIOManager(warehouse=warehouse),
            "warehouse_marts": WarehouseMartIOManager(warehouse=warehouse),
            "warehouse_frames": build_frame_io_manager(warehouse, settings),
        },
        sensors=[
            fail_orphaned_runs,
            automation_conditions(),
            *(
                publication_sensor(service, interval_seconds=settings.publication_interval_seconds)
                for service in services
            ),
            *notification_sensors_for(settings),
        ],
        executor=watched_in_process_executor,  # months run beside each other as runs
    )
