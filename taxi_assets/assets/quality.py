"""The asset quality/month_quality: how many rows of each month are clean and how many are in quarantine."""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pyarrow as pa

from taxi_assets import metadata
from taxi_assets.assets.code_versions import columns_version
from taxi_assets.automation.conditions import on_any_month_change
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.errors import ConcurrentUpdateError, LakeObjectMissingError
from taxi_assets.partitions import monthly_partitions
from taxi_assets.reports.quality_metrics import COLUMNS, VERSION, quality_frame, recent_months
from taxi_assets.storage import lake_tables
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, object_prefix
from taxi_assets.storage.pandas_types import StagedFrame
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.tlc.services.registry import SERVICES

QUALITY = dg.AssetKey(["quality", "month_quality"])

_DESCRIPTION = """Data quality over time: published, clean and quarantined rows of every month in the lake.

The table is `{table}` in the warehouse's schema. It has one row per service, month and reason for quarantine. A further
row per service and month, with the reason 'all', has the totals and the change from the month before. The numbers come
from the footers of the clean Parquet files, so they describe what the lake contains now. No trip is read."""

# In a bucket, each month takes a few requests, which spend most of their time waiting.
_READ_THREADS = 8


def quality_asset(retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """Return the asset of the quality table, which covers all services and months."""

    @dg.asset(
        key=QUALITY,
        description=_DESCRIPTION.format(table=QUALITY.path[-1]),
        deps=[dg.AssetKey(["clean", service.table]) for service in SERVICES.values()],
        group_name="quality",
        io_manager_key="warehouse_table",
        metadata={"dagster/column_schema": metadata.column_schema(COLUMNS)},
        tags=metadata.asset_tags("quality"),
        code_version=columns_version(COLUMNS, VERSION),
        automation_condition=on_any_month_change(),
        retry_policy=retry,
    )
    def quality_over_time(
        context: dg.AssetExecutionContext, lake: Lake, warehouse: Warehouse
    ) -> Iterator[dg.Output[StagedFrame]]:
        from taxi_assets.reports.quality_chart import draw_quality  # noqa: PLC0415  (takes most of a second to import)

        with as_failures():
            replaces = lake.version(lake_tables.QUALITY.key())
            months = months_in(lake)
            reports = [month.report for month in months.values() if month is not None]
            if not reports:
                raise LakeObjectMissingError(
                    f"{QUALITY.to_user_string()} cannot be computed: there are no clean months in the lake.",
                    remedy="Materialize a month of any service first.",
                )
        inputs = VERSION, sorted((r.service, r.month, r.data_version) for r in reports)
        recent = recent_months(reports)
        rows, quarantined = sum(r.rows_raw for r in reports), sum(r.rows_quarantined for r in reports)
        frame = quality_frame(reports)
        with as_failures(retry_number=context.retry_number):
            # The version was read before the months, so a run that has read older months cannot replace newer rows.
            copy = pa.Table.from_pandas(frame, preserve_index=False)
            lake_tables.QUALITY.publish(lake, copy, replaces=replaces, run_id=context.run.run_id)
        yield dg.Output(
            StagedFrame(frame, lambda: require_same(lake, months)),
            data_version=dg.DataVersion(hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]),
            metadata={
                "quality_over_time": metadata.image("quality over time", draw_quality(reports).thumbnail()),
                "newest_months": dg.MetadataValue.md(metadata.markdown_table(recent.headers, recent.rows)),
                "months": len(reports),
                "rows_raw": rows,
                "rows_quarantined": quarantined,
                "quarantined_percent": metadata.percent(quarantined / rows) if rows else 0.0,
                "dagster/row_count": len(frame),
                **metadata.table_location(warehouse, QUALITY.path[-1]),
                **metadata.lake_uri(lake.uri(lake_tables.QUALITY.key())),
            },
        )

    return quality_over_time


def months_in(lake: Lake) -> dict[str, ParquetPartition | None]:
    """Return the clean partition of each month of each service, by its prefix in the lake; None if there is none.

    Only the footers of the Parquet files are read.
    """
    prefixes = [
        object_prefix("clean", service, month)
        for service in SERVICES.values()
        for month in monthly_partitions(service).get_partition_keys()
    ]
    # The first request creates the client that the threads share.
    first = ParquetPartition.find(lake, prefixes[0])
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = [first, *pool.map(lambda prefix: ParquetPartition.find(lake, prefix), prefixes[1:])]
    return dict(zip(prefixes, found, strict=True))


def require_same(lake: Lake, months: Mapping[str, ParquetPartition | None]) -> None:
    """Raise an error if another run has cleaned a month since the months were read.

    Args:
        lake: The lake.
        months: The result of `months_in`.

    Raises:
        ConcurrentUpdateError: A month has been cleaned since.
    """

    def changed(prefix: str) -> bool:
        month = months[prefix]
        # A month that was missing or damaged has no version to compare, so read it again.
        return (
            ParquetPartition.find(lake, prefix) is not None
            if month is None
            else lake.version(month.key) != month.version
        )

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        changes = [prefix for prefix, is_changed in zip(months, pool.map(changed, months), strict=True) if is_changed]
    if changes:
        raise ConcurrentUpdateError(
            f"{QUALITY.to_user_string()}: another run has cleaned {', '.join(changes[:3])}"
            f"{' and others' if changes[3:] else ''} since this run read the lake.",
            remedy="Materialize it again.",
        )
