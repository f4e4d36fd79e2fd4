"""Assemble the `Definitions` of a deployment from its settings.

Read `build_definitions` first: it lists everything that the deployment consists of. Nothing here opens the lake, the
warehouse or a connection.
"""

from __future__ import annotations

import atexit
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.addresses import BigQueryAddress, DuckDBAddress, FolderAddress, PostgresAddress
from taxi_assets.assets.clean import clean_asset
from taxi_assets.assets.deployment_attributes import with_deployment_attributes
from taxi_assets.assets.iceberg_tables import iceberg_mart_asset, iceberg_trips_asset
from taxi_assets.assets.mart_tables import mart_asset
from taxi_assets.assets.published import published_asset
from taxi_assets.assets.quality import quality_asset
from taxi_assets.assets.raw import raw_asset
from taxi_assets.assets.reference import zones_asset
from taxi_assets.assets.reports import report_asset
from taxi_assets.assets.revision_differences import revisions_asset
from taxi_assets.assets.views import views_asset
from taxi_assets.assets.warehouse import warehouse_asset
from taxi_assets.automation.conditions import automation_conditions
from taxi_assets.automation.jobs import service_jobs, shared_jobs
from taxi_assets.automation.policies import freshness_policy, retry_policy
from taxi_assets.automation.schedules import publication_check_schedule, publication_schedules
from taxi_assets.automation.sensors.notification_sensors import notification_sensors
from taxi_assets.automation.sensors.orphaned_runs import fail_orphaned_runs, locking_in_process_executor
from taxi_assets.automation.sensors.publication_sensor import publication_sensor
from taxi_assets.automation.sensors.revision_notifications import revisions_sensor
from taxi_assets.checks.clean_checks import clean_checks
from taxi_assets.checks.publication_checks import publication_check
from taxi_assets.checks.warehouse_checks import warehouse_check
from taxi_assets.dagster_compat import ignore_preview_warnings
from taxi_assets.io_managers.lake_parquet import LakeParquetIOManager
from taxi_assets.io_managers.raw_files import RawFileIOManager
from taxi_assets.io_managers.report_pages import ReportIOManager
from taxi_assets.io_managers.warehouse_table import WarehouseTableIOManager
from taxi_assets.marts.mart import marts
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.storage.iceberg.iceberg_catalog import IcebergCatalog
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taxi_assets.dagster_compat import UnresolvedAssetJobDefinition
    from taxi_assets.settings import Settings
    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse
    from taxi_assets.tlc.schema import Service


ignore_preview_warnings()


class TaxiDefinitions(dg.Definitions):
    """Definitions whose `load_asset_value` accepts an asset key as the UI shows it: "warehouse/green_trips"."""

    def load_asset_value(self, asset_key: dg.CoercibleToAssetKey, **arguments: Any) -> object:
        """Load the value of an asset, or of one partition of it.

        Args:
            asset_key: A Dagster asset key, or its parts joined by slashes.
            **arguments: Those of `dagster.Definitions.load_asset_value`, such as `partition_key`.
        """
        key = dg.AssetKey.from_user_string(asset_key) if isinstance(asset_key, str) else asset_key
        return super().load_asset_value(key, **{"instance": _scratch_instance(), **arguments})


@cache
def _scratch_instance() -> dg.DagsterInstance:
    """Return an empty instance for loading values. Otherwise, Dagster creates three for each call, in 0.2 s."""
    instance = dg.DagsterInstance.ephemeral()
    atexit.register(instance.dispose)
    return instance


def merge_definitions(*definitions: dg.Definitions) -> TaxiDefinitions:
    """Return all given definitions as one, for example those of the platform and your own.

    `dagster.Definitions.merge` returns plain `Definitions`, whose `load_asset_value` takes an asset key only as a list
    of its parts: `["warehouse", "green_trips"]`.

    Args:
        *definitions: At most one of them may have an executor, and each resource key may have one value only.
    """
    merged = dg.Definitions.merge(*definitions)
    return TaxiDefinitions(**{name: getattr(merged, name) for name in dg.Definitions.__annotations__})


# Storage backends are imported only if the deployment uses them: Google's clients take most of a second to import, and
# DuckDB must not be imported before `definitions.py` has frozen the garbage collector.


def build_lake(settings: Settings) -> Lake:
    """Return the lake at the address in `TAXI_LAKE`."""
    address = settings.lake
    if isinstance(address, FolderAddress):
        return LocalLake(folder=str(address.folder), keep_revisions=settings.keep_revisions)
    from taxi_assets.resources.google import CloudStorageResource  # noqa: PLC0415
    from taxi_assets.storage.lake.gcs_lake import GcsLake  # noqa: PLC0415

    storage = CloudStorageResource(credentials=settings.google_key)
    return GcsLake(
        storage=storage, bucket=address.bucket, prefix=address.prefix, keep_revisions=settings.keep_revisions
    )


def build_warehouse(settings: Settings) -> Warehouse:
    """Return the warehouse at the address in `TAXI_WAREHOUSE`."""
    address = settings.warehouse
    if isinstance(address, DuckDBAddress):
        from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse  # noqa: PLC0415

        return DuckDBWarehouse(file=str(address.file), schema_name=address.schema_name, trip_views=address.trip_views)
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


def build_table_io_manager(warehouse: Warehouse, settings: Settings) -> Any:
    """Return the IO manager for tables of the warehouse."""
    if not isinstance(settings.warehouse, BigQueryAddress):
        return WarehouseTableIOManager(warehouse=warehouse)
    from taxi_assets.io_managers.bigquery_table import BigQueryTableIOManager  # noqa: PLC0415

    return BigQueryTableIOManager(warehouse=warehouse)


def build_service_assets(service: Service, settings: Settings) -> list[dg.AssetSpec | dg.AssetsDefinition]:
    """Return the assets of a service: one per layer, its monthly report, and the comparison of revisions.

    Args:
        service: The service.
        settings: Determines which steps are retried, and the delay.
    """
    assets = [
        raw_asset(service, retry_policy(settings.retry_delay_seconds)),
        clean_asset(service, lake_retry_policy(settings)),
        warehouse_asset(service, warehouse_retry_policy(settings)),
        report_asset(service, warehouse_retry_policy(settings)),
    ]
    if settings.catalog is not None:
        assets.append(iceberg_trips_asset(service, catalog_retry_policy(settings)))
    revisions = revisions_asset(service, lake_retry_policy(settings), automated=settings.keep_revisions != 0)
    return [published_asset(service), *map(with_freshness, assets), revisions]


def build_service_checks(service: Service, settings: Settings) -> list[dg.AssetChecksDefinition]:
    """Return the checks of a service, from its published months to its warehouse table."""
    return [
        publication_check(service),
        clean_checks(service, lake_retry_policy(settings)),
        warehouse_check(service, warehouse_retry_policy(settings)),
    ]


def build_shared_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """Return the assets that combine services: the taxi zones, the quality table, the marts and the file of views."""
    # Retried on local stores too: the taxi zones are downloaded, and the quality table uses both lake and warehouse.
    retry = retry_policy(settings.retry_delay_seconds)
    return [
        zones_asset(retry),
        with_freshness(quality_asset(retry)),
        *(with_freshness(mart_asset(mart, retry)) for mart in marts().values()),
        *(
            with_freshness(iceberg_mart_asset(mart, catalog_retry_policy(settings)))
            for mart in marts().values()
            if settings.catalog is not None
        ),
        views_asset(lake_retry_policy(settings)),
    ]


def with_freshness(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """Return the asset with the freshness policy of data that is published every month."""
    policy = freshness_policy()
    return asset.map_asset_specs(lambda spec: spec.replace_attributes(freshness_policy=policy))


def lake_retry_policy(settings: Settings) -> dg.RetryPolicy | None:
    """Return the retry policy of steps that use only the lake.

    Local stores get no retries: their failures are not transient.
    """
    return None if isinstance(settings.lake, FolderAddress) else retry_policy(settings.retry_delay_seconds)


def catalog_retry_policy(settings: Settings) -> dg.RetryPolicy | None:
    """Return the retry policy of steps that use the Iceberg catalog; none if both it and the lake are local."""
    if (settings.catalog or "").startswith("sqlite:"):
        return lake_retry_policy(settings)
    return retry_policy(settings.retry_delay_seconds)


def warehouse_retry_policy(settings: Settings) -> dg.RetryPolicy | None:
    """Return the retry policy of steps that use the warehouse.

    A DuckDB file gets no retries: its failures are not transient, and the warehouse itself waits for the file's lock.
    """
    return None if isinstance(settings.warehouse, DuckDBAddress) else retry_policy(settings.retry_delay_seconds)


def build_jobs() -> list[UnresolvedAssetJobDefinition]:
    """Return all jobs: two for each service, and those that span services."""
    return [*chain.from_iterable(map(service_jobs, SERVICES.values())), *shared_jobs()]


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Return all schedules, in the time zone of the settings."""
    timezone, switched_on = settings.schedule_timezone, settings.switched_on
    of_services = (
        publication_schedules(service, cron=settings.schedule_cron, timezone=timezone, switched_on=switched_on)
        for service in SERVICES.values()
    )
    return [
        *chain.from_iterable(of_services),
        publication_check_schedule(timezone=timezone, switched_on=switched_on),
    ]


def build_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """Return all sensors; those that send notifications only if `TAXI_NOTIFY_URLS` is set."""
    interval, switched_on = settings.publication_interval_seconds, settings.switched_on
    return [
        fail_orphaned_runs,
        automation_conditions(),
        *(
            publication_sensor(service, interval_seconds=interval, switched_on=switched_on)
            for service in SERVICES.values()
        ),
        *build_notification_sensors(settings),
    ]


def build_notification_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """Return the sensors that notify the addresses in `TAXI_NOTIFY_URLS`; none if it is not set."""
    if settings.notify_urls is None:
        return []
    urls, ui_url = settings.notify_urls, settings.ui_url
    return [
        *notification_sensors(urls, ui_url=ui_url, success=settings.notify_success),
        revisions_sensor(urls, ui_url=ui_url),
    ]


def build_stores(settings: Settings) -> dict[str, Any]:
    """Return the resources that read and write data: `lake`, `warehouse`, `publisher`, and `catalog` if it is set."""
    lake = build_lake(settings)
    return {
        **({} if settings.catalog is None else {"catalog": IcebergCatalog(lake=lake, address=settings.catalog)}),
        "lake": lake,
        "warehouse": build_warehouse(settings),
        "publisher": PublisherResource(
            source=settings.publisher_source,
            service_sources=settings.publisher_service_sources,
            google_key=settings.google_key,
            max_file_bytes=settings.max_file_bytes,
            max_expansion_ratio=settings.max_expansion_ratio,
        ),
    }


def build_io_managers(lake: Lake, warehouse: Warehouse, settings: Settings) -> dict[str, Any]:
    """Return the IO managers by name, one for each kind of asset."""
    return {
        "raw_files": RawFileIOManager(lake=lake),
        "lake_parquet": LakeParquetIOManager(lake=lake),
        "reports": ReportIOManager(lake=lake),
        "warehouse_table": build_table_io_manager(warehouse, settings),
    }


def build_definitions(settings: Settings, *, resources: Mapping[str, Any] | None = None) -> TaxiDefinitions:
    """Return the assets, checks, jobs, schedules, sensors and resources of a deployment.

    Args:
        settings: The settings of the deployment.
        resources: Replaces resources by name (`lake`, `warehouse`, `publisher`), for tests.
    """
    stores = build_stores(settings) | dict(resources or {})
    lake, warehouse = stores["lake"], stores["warehouse"]
    services = SERVICES.values()
    service_assets = (build_service_assets(service, settings) for service in services)
    assets = [*chain.from_iterable(service_assets), *build_shared_assets(settings)]
    return TaxiDefinitions(
        assets=dg.with_source_code_references(
            with_deployment_attributes(assets, lake=lake, warehouse=warehouse, owners=settings.owners)
        ),
        asset_checks=[check for service in services for check in build_service_checks(service, settings)],
        jobs=build_jobs(),
        schedules=build_schedules(settings),
        sensors=build_sensors(settings),
        resources=stores | build_io_managers(lake, warehouse, settings),
        # The steps of a run take turns in one process. Months run in parallel, because each is a run.
        executor=locking_in_process_executor,
    )
