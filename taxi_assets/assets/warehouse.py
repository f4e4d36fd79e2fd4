"""The assets warehouse/…_trips: the clean trips as a warehouse table with one partition per month."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from taxi_assets import metadata
from taxi_assets.assets.code_versions import columns_version
from taxi_assets.automation.conditions import on_upstream_change
from taxi_assets.partitions import monthly_partitions
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.storage.lake.revisions import Revisions
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.tlc.schema import Service

_DESCRIPTION = """The clean trips as a table to query: {title} ({description}).

The table is `{table}` in the warehouse's schema. Its partition column is `data_month`, the month of the published file.
A run replaces one month as a whole and leaves the other months alone. It first verifies that the new rows match the
clean trips in number, cents and row numbers.

    SELECT pickup_date, count(*) AS trips
    FROM taxi.{table}
    WHERE data_month = DATE '2021-01-01'
    GROUP BY pickup_date ORDER BY pickup_date"""


def warehouse_asset(service: Service, retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """Return the asset of a service's warehouse table."""
    clean = dg.AssetKey(["clean", service.table])

    @dg.asset(
        key=["warehouse", service.table],
        description=_DESCRIPTION.format(title=service.title, description=service.description, table=service.table),
        partitions_def=monthly_partitions(service),
        ins={"trips": dg.AssetIn(clean)},
        group_name=service.name,
        io_manager_key="warehouse_table",
        metadata={
            "dagster/column_schema": metadata.column_schema(service.columns),
            "partition_expr": "data_month",
        },
        tags=metadata.asset_tags("warehouse", service),
        code_version=columns_version(service.columns),
        automation_condition=on_upstream_change(),
        retry_policy=retry,
    )
    def warehouse_trips(
        context: dg.AssetExecutionContext, trips: ParquetPartition, lake: Lake, warehouse: Warehouse
    ) -> Iterator[dg.Output[Any]]:
        # `trips` is a handle to Parquet in the lake. The IO manager makes the warehouse load the rows from there.
        raw = Revisions.of(lake, service, context.partition_key).file_of(trips.report)
        yield dg.Output(
            trips,
            data_version=dg.DataVersion(trips.report.data_version),
            metadata={
                **metadata.size_metadata(rows=trips.report.clean.rows, file_bytes=trips.bytes),
                **metadata.table_location(warehouse, service.table),
                "control_total_dollars": metadata.dollars(trips.report.clean.cents),
                **(metadata.source_metadata(raw.record) if raw is not None else {}),
                # The file that these rows come from; the lake may contain a newer one by now.
                "raw_sha256": trips.report.raw_sha256,
                **metadata.report_metadata(trips.report),
                **metadata.same_name_lineage(clean, service.columns),
            },
        )

    return warehouse_trips
