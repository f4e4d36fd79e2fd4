"""The asset reference/taxi_zones: the table that maps location IDs to names.

The asset also stores the zones file of the publisher in the lake, and the table as Parquet.
"""

from collections.abc import Iterator

import dagster as dg
import pandas as pd
import pyarrow as pa

from taxi_assets import metadata
from taxi_assets.assets.code_versions import columns_version
from taxi_assets.assets.raw import current_file
from taxi_assets.automation.conditions import on_first_trips_loaded
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.storage import lake_tables
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import RawFile, StagedRawFile
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.tlc.zones import ZONE_COLUMNS, ZONES_TABLE, read_zones

ZONES = dg.AssetKey(["reference", ZONES_TABLE])

_DESCRIPTION = """TLC's 265 taxi zones, each with its number, borough, name and service zone.

Join the table to a trip's pickup_location_id or dropoff_location_id. Zone 264 means Unknown, and zone 265 means Outside
of NYC. "NA" and "N/A" are text that TLC published, not missing values."""


def zones_asset(retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """Return the asset of the taxi zones: TLC's file in the lake, and a table in the warehouse."""

    @dg.asset(
        key=ZONES,
        description=_DESCRIPTION,
        group_name="reference",
        io_manager_key="warehouse_table",
        metadata={"dagster/column_schema": metadata.column_schema(ZONE_COLUMNS)},
        tags=metadata.asset_tags("reference"),
        code_version=columns_version(ZONE_COLUMNS),
        automation_condition=on_first_trips_loaded(),
        retry_policy=retry,
    )
    def taxi_zones(
        context: dg.AssetExecutionContext, lake: Lake, publisher: PublisherResource, warehouse: Warehouse
    ) -> Iterator[dg.Output[pd.DataFrame]]:
        prefix = f"raw/{ZONES_TABLE}"
        with as_failures():
            replaces = lake.version(lake_tables.ZONES.key())
        with current_file("taxi zones", publisher.publisher.zones(), prefix, lake, publisher) as file:
            with file.open() as stream:
                zones = read_zones(stream)
            with as_failures(retry_number=context.retry_number):
                if isinstance(file.output, StagedRawFile):
                    RawFile.publish(lake, prefix, file.output, run_id=context.run.run_id)
                rows = pa.Table.from_pandas(zones, preserve_index=False)
                lake_tables.ZONES.publish(lake, rows, replaces=replaces, run_id=context.run.run_id)
            yield dg.Output(
                zones,
                data_version=dg.DataVersion(file.record.sha256),
                metadata={
                    # This table has no partitions.
                    **{name: value for name, value in file.metadata.items() if name != "dagster/partition_row_count"},
                    "dagster/row_count": len(zones),
                    **metadata.table_location(warehouse, ZONES_TABLE),
                    **metadata.lake_uri(lake.uri(lake_tables.ZONES.key())),
                    "preview": metadata.preview(zones),
                },
            )

    return taxi_zones
