"""The assets iceberg/…: trips and marts as Iceberg tables, which share the files of the lake."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from taxi_assets import metadata
from taxi_assets.assets.code_versions import columns_version
from taxi_assets.automation.conditions import on_upstream_change
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.marts.mart import Mart
from taxi_assets.partitions import all_services_partitions, monthly_partitions
from taxi_assets.storage.iceberg.iceberg_catalog import IcebergCatalog
from taxi_assets.storage.iceberg.iceberg_names import FOLDER, table_name
from taxi_assets.storage.iceberg.month_commit import DATA_VERSION, RAW_DIGEST, CommittedMonth, commit_month
from taxi_assets.storage.lake.base_lake import Lake, missing_error
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.storage.lake_tables import LakeTable, mart_table, trips_table
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service

_DESCRIPTION = """{description} As an Iceberg table: `{name}` in the catalog, partitioned by `data_month`.

A run replaces a month by one snapshot, which names the run and the data version. If the rows have not changed, there is
no new snapshot. The data files are those of {upstream}: they are linked, or copied within the bucket."""


def iceberg_trips_asset(service: Service, retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """Return the asset of the Iceberg table with a service's trips."""
    partitions, tags = monthly_partitions(service), metadata.asset_tags("iceberg", service)
    return _iceberg_asset(trips_table(service), partitions, service.name, tags, retry)


def iceberg_mart_asset(mart: Mart, retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """Return the asset of the Iceberg table with a mart."""
    return _iceberg_asset(mart_table(mart), all_services_partitions(), "marts", metadata.asset_tags("iceberg"), retry)


def _iceberg_asset(
    source: LakeTable,
    partitions: dg.PartitionsDefinition[str],
    group: str,
    tags: dict[str, str],
    retry: dg.RetryPolicy | None,
) -> dg.AssetsDefinition:
    upstream = dg.AssetKey.from_user_string(source.asset)

    @dg.asset(
        key=[FOLDER, source.name],
        description=_DESCRIPTION.format(description=source.description, name=table_name(source), upstream=source.asset),
        partitions_def=partitions,
        deps=[upstream],
        group_name=group,
        metadata={
            "dagster/column_schema": metadata.column_schema(source.columns),
            "dagster/table_name": table_name(source),
            "partition_expr": "data_month",
        },
        kinds={"iceberg"},
        tags=tags,
        code_version=columns_version(source.columns),
        automation_condition=on_upstream_change(),
        retry_policy=retry,
    )
    def iceberg_table(
        context: dg.AssetExecutionContext, lake: Lake, catalog: IcebergCatalog
    ) -> Iterator[dg.MaterializeResult[None]]:
        month = Month.parse(context.partition_key)
        with as_failures(retry_number=context.retry_number):
            version, properties = _current_object(lake, source, month)
            committed = commit_month(
                catalog, source, month, version=version, run_id=context.run.run_id, properties=properties
            )
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(properties.get(DATA_VERSION, committed.sha256[:16])),
            metadata={
                **_metadata(committed),
                **({"raw_sha256": properties[RAW_DIGEST]} if RAW_DIGEST in properties else {}),
                **metadata.same_name_lineage(upstream, source.columns),
            },
        )

    return iceberg_table


def _current_object(lake: Lake, source: LakeTable, month: Month) -> tuple[str, dict[str, str]]:
    """Return the version of the month's object in the lake, and the properties of its snapshot."""
    key = source.key(month)
    if source.asset.startswith("clean/"):
        trips = ParquetPartition.get(lake, key.removesuffix(".parquet"))
        return trips.version, {DATA_VERSION: trips.report.data_version, RAW_DIGEST: trips.report.raw_sha256}
    version = lake.version(key)
    if version is None:
        raise missing_error(lake.uri(key))
    return version, {}


def _metadata(committed: CommittedMonth) -> dict[str, Any]:
    return {
        **metadata.size_metadata(rows=committed.rows),
        "outcome": "committed" if committed.is_new else "unchanged",
        "snapshot_id": str(committed.snapshot_id),  # a number of this size loses digits in the UI
        **metadata.lake_uri(committed.location),
        "metadata_location": committed.metadata_location,
        "sha256": committed.sha256,
    }
