"""quality/month_quality: what became of the rows of every month, over all services and years."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pandas as pd

from taxi_assets import metadata
from taxi_assets.automation.conditions import follow_months
from taxi_assets.errors import LakeObjectMissingError
from taxi_assets.failures import as_failures
from taxi_assets.partitions import monthly_partitions
from taxi_assets.reports.quality import COLUMNS, VERSION, quality_frame, recent_months
from taxi_assets.storage.lake import Lake
from taxi_assets.storage.shelves import ParquetMonth
from taxi_assets.storage.warehouse import Warehouse
from taxi_assets.tlc.catalogue import SERVICES
from taxi_assets.tlc.report import MonthReport

QUALITY = dg.AssetKey(["quality", "month_quality"])

_DESCRIPTION = """Quality over time: rows published, clean and in quarantine, by reason, of every month in the lake.

The table is `{table}` in the warehouse's schema: a row with the reason 'all' for each service and month, with the
change against the month before, and one for each reason of that month. It is read from what cleaning noted in the
footers of the clean Parquet, so it shows what is in the lake now; no trip is read."""

# Each month of a bucket is a few requests, which wait most of the time.
_AT_ONCE = 8


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
        automation_condition=follow_months(),
        retry_policy=retry,
    )
    def quality_over_time(lake: Lake, warehouse: Warehouse) -> Iterator[dg.Output[pd.DataFrame]]:
        # Drawing takes most of a second to import.
        from taxi_assets.reports.quality_picture import draw_quality  # noqa: PLC0415

        with as_failures():
            reports = reports_in(lake)
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
            frame,
            data_version=dg.DataVersion(hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]),
            metadata={
                "quality_over_time": metadata.picture("quality over time", draw_quality(reports).small()),
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


def reports_in(lake: Lake) -> list[MonthReport]:
    """The reports of all clean months in the lake, by service and month; only footers are read."""
    stems = [
        f"clean/{service.table}/{month}"
        for service in SERVICES.values()
        for month in monthly_partitions(service).get_partition_keys()
    ]
    first = ParquetMonth.find(lake, stems[0])  # by itself: it makes the client that the others share
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = [first, *pool.map(lambda stem: ParquetMonth.find(lake, stem), stems[1:])]
    return [month.report for month in found if month is not None]
