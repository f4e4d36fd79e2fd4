"""quality/month_quality: what became of the rows of every month, over all services and years."""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import dagster as dg

from taxi_assets import metadata
from taxi_assets.automation.conditions import on_any_month_change
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.errors import ConcurrentUpdateError, LakeObjectMissingError
from taxi_assets.partitions import monthly_partitions
from taxi_assets.reports.quality_metrics import COLUMNS, VERSION, quality_frame, recent_months
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, object_prefix
from taxi_assets.storage.pandas_types import StagedFrame
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.tlc.services.registry import SERVICES

QUALITY = dg.AssetKey(["quality", "month_quality"])

_DESCRIPTION = """Quality over time: rows published, clean and in quarantine, by reason, of every month in the lake.

The table is `{table}` in the warehouse's schema: a row with the reason 'all' for each service and month, with the
change against the month before, and one for each reason of that month. It is read from what cleaning noted in the
footers of the clean Parquet, so it shows what is in the lake now; no trip is read."""

# Each month of a bucket is a few requests, which wait most of the time.
_READ_THREADS = 8


def quality_asset(kind: str, retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """The table of all months; `kind` is the engine's name, for the UI."""

    @dg.asset(
        key=QUALITY,
        description=_DESCRIPTION.format(table=QUALITY.path[-1]),
        deps=[dg.AssetKey(["clean", service.table]) for service in SERVICES.values()],
        group_name="quality",
        io_manager_key="warehouse_frames",
        metadata={"dagster/column_schema": metadata.column_schema(COLUMNS)},
        owners=metadata.OWNERS,
        kinds={kind, "table"},
        tags=metadata.asset_tags(),
        automation_condition=on_any_month_change(),
        retry_policy=retry,
    )
    def quality_over_time(lake: Lake, warehouse: Warehouse) -> Iterator[dg.Output[StagedFrame]]:
        # Drawing takes most of a second to import.
        from taxi_assets.reports.quality_chart import draw_quality  # noqa: PLC0415

        with as_failures():
            months = months_in(lake)
            reports = [month.report for month in months.values() if month is not None]
            if not reports:
                raise LakeObjectMissingError(
                    "There are no clean months in the lake to tell the quality of.",
                    remedy="Materialize a month of any service first.",
                )
        made_of = VERSION, sorted((r.service, r.month, r.data_version) for r in reports)
        recent = recent_months(reports)
        rows, quarantined = sum(r.rows_raw for r in reports), sum(r.rows_quarantined for r in reports)
        frame = quality_frame(reports)
        yield dg.Output(
            StagedFrame(frame, lambda: require_same(lake, months)),
            data_version=dg.DataVersion(hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]),
            metadata={
                "quality_over_time": metadata.image("quality over time", draw_quality(reports).small()),
                "newest_months": dg.MetadataValue.md(metadata.markdown_table(recent.headers, recent.rows)),
                "months": len(reports),
                "rows_raw": rows,
                "rows_quarantined": quarantined,
                "share_quarantined": quarantined / rows if rows else 0.0,
                "dagster/row_count": len(frame),
                "dagster/table_name": warehouse.table_name(QUALITY.path[-1]),
            },
        )

    return quality_over_time


def months_in(lake: Lake) -> dict[str, ParquetPartition | None]:
    """What stands at the stem of each month on the clean shelf, by service and month; only footers are read."""
    stems = [
        object_prefix("clean", service, month)
        for service in SERVICES.values()
        for month in monthly_partitions(service).get_partition_keys()
    ]
    first = ParquetPartition.find(lake, stems[0])  # by itself: it makes the client that the others share
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = [first, *pool.map(lambda prefix: ParquetPartition.find(lake, prefix), stems[1:])]
    return dict(zip(stems, found, strict=True))


def require_same(lake: Lake, months: Mapping[str, ParquetPartition | None]) -> None:
    """Raises `ConcurrentUpdateError` where another run has cleaned one of the months since they were looked at."""

    def changed(prefix: str) -> bool:
        month = months[prefix]
        # What was missing, or damaged, is looked for once more.
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
            f"{' and others' if changes[3:] else ''} since this one looked at what is in the lake.",
            remedy="Materialize it once more.",
        )
