"""The assets reports/…_trips: a page with charts for each month."""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow.parquet

from taxi_assets import metadata
from taxi_assets.assets.reference import ZONES
from taxi_assets.automation.conditions import on_warehouse_change
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.errors import WarehouseTableMissingError
from taxi_assets.partitions import monthly_partitions
from taxi_assets.reports.artifact import FILE_NAMES, PAGE, StagedReport, version
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, object_prefix
from taxi_assets.storage.lake.revisions import Revisions
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.revision_report import RevisionReport
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    from decimal import Decimal

    import pandas as pd

    from taxi_assets.reports.metrics import MonthMetrics
    from taxi_assets.tlc.cleaning.report import CleaningReport

_DESCRIPTION = """A month of {title} on one page: trips, revenue, the busiest hour, data quality, and the source of the
data. The page compares the month with the month before and the year before, if they are loaded.

Automation rebuilds the page when the warehouse table changes for its month or the month before. A change in the year
before, or in the taxi zones, does not rebuild it.

To read the report of a month, choose the month under *Partitions*, and select *Show Markdown* next to `report`. That is
the main content of the page. The whole page is `report.html` in the lake, a single file that needs no network. The
metadata `page` is a link to it if the lake is a bucket, and otherwise its path: a browser does not open files from
Dagster's UI. The charts are PNG files next to the page."""


def report_asset(service: Service, retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """Return the asset of a service's monthly report."""
    clean = dg.AssetKey(["clean", service.table])
    # An asset has one mapping per upstream asset, and a window that includes the year before includes all months since.
    with_month_before = dg.TimeWindowPartitionMapping(start_offset=-1, allow_nonexistent_upstream_partitions=True)

    @dg.asset(
        key=["reports", service.table],
        description=_DESCRIPTION.format(title=service.title),
        partitions_def=monthly_partitions(service),
        ins={"trips": dg.AssetIn(clean)},
        deps=[
            dg.AssetDep(["warehouse", service.table], partition_mapping=with_month_before),
            dg.AssetDep(["revisions", service.table]),
            ZONES,
        ],
        group_name=service.name,
        io_manager_key="reports",
        kinds={"html"},
        tags=metadata.asset_tags("report", service),
        code_version=version(),
        automation_condition=on_warehouse_change(service),
        retry_policy=retry,
    )
    def month_report(
        context: dg.AssetExecutionContext, trips: ParquetPartition, lake: Lake, warehouse: Warehouse
    ) -> Iterator[dg.Output[Any]]:
        from taxi_assets.reports.metrics import read_metrics  # noqa: PLC0415
        from taxi_assets.reports.page import page_content, render  # noqa: PLC0415

        month = Month.parse(context.partition_key)
        prefix = object_prefix("reports", service, month)
        with as_failures(retry_number=context.retry_number), lake.staging() as folder:
            replaces = {name: lake.version(f"{prefix}/{name}") for name in FILE_NAMES}
            with warehouse.session():
                zones = _zones(warehouse)
                inputs = _report_inputs(warehouse, service, month, trips, zones)
                revision = _revision(lake, service, month, trips.report)
                inputs += [] if revision is None else [revision.data_version]
                metrics = read_metrics(warehouse.read_portable_frame, service, month, zones)
            # The import takes most of a second and 60 MB, so it comes after the warehouse has freed its memory.
            from taxi_assets.assets.report_markdown import report_markdown  # noqa: PLC0415
            from taxi_assets.reports.charts import draw_charts  # noqa: PLC0415

            raw = Revisions.of(lake, service, month).file_of(trips.report)
            charts = draw_charts(metrics, trips.report)
            if revision is not None:
                from taxi_assets.reports.revision_chart import draw_revision  # noqa: PLC0415

                charts += draw_revision(service, revision)
            content = page_content(metrics, trips.report, None if raw is None else raw.record, charts, revision)
            page, uri = render(content), lake.uri(f"{prefix}/{PAGE}")
            files = [folder / chart.file for chart in charts] + [folder / PAGE]
            contents = [chart.png for chart in charts] + [page.encode()]
            for path, written in zip(files, contents, strict=True):
                path.write_bytes(written)
            yield dg.Output(
                StagedReport(files, replaces),
                data_version=dg.DataVersion(hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]),
                metadata={
                    "report": report_markdown(content, charts, uri),
                    "page": metadata.display_uri(uri),
                    **metadata.lake_uri(uri),
                    "file_bytes": len(contents[-1]),
                    **_headline(metrics, trips.report),
                    **metadata.generated_note(trips.report.generated),
                },
            )

    return month_report


def _report_inputs(
    warehouse: Warehouse, service: Service, month: Month, trips: ParquetPartition, zones: "pd.DataFrame | None"
) -> list[Any]:
    """Return the versions of everything that decides the page: trips, compared months, zones, and the page's code.

    Raises:
        WarehouseTableMissingError: The warehouse does not contain the trips of the clean partition.
    """
    from taxi_assets.reports.metrics import compared_months  # noqa: PLC0415

    loaded = warehouse.wait_for_loaded_month(service, month)
    if loaded is None or loaded.data_version != trips.report.data_version:
        raise WarehouseTableMissingError(
            f"{warehouse.table_name(service.table)} does not contain the clean trips of {service.name} {month} that "
            "are in the lake now.",
            remedy="Materialize its warehouse asset for this month first.",
        )
    others = [
        (str(other), warehouse.wait_for_loaded_month(service, other)) for other in compared_months(service, month)
    ]
    compared = [(other, loaded.data_version) for other, loaded in others if loaded is not None]
    zone_names = None if zones is None else zones.sort_values("location_id").to_csv(index=False)
    return [trips.report.data_version, compared, zone_names, version()]


def _revision(lake: Lake, service: Service, month: Month, report: "CleaningReport") -> RevisionReport | None:
    """Return the comparison of the trips with the revision before; None if there is none of this file."""
    key = f"{object_prefix('revisions', service, month)}.parquet"
    version = lake.version(key)
    if version is None:
        return None
    with lake.open(key, version) as file:
        found = RevisionReport.from_footer(pyarrow.parquet.read_metadata(file).metadata)
    return found if found is not None and found.new_sha256 == report.raw_sha256 else None


def _zones(warehouse: Warehouse) -> "pd.DataFrame | None":
    try:
        return warehouse.read_frame(ZONES.path[-1])
    except WarehouseTableMissingError:
        return None  # A report that you request yourself can run before the zones are loaded; it shows zone numbers.


def _headline(metrics: "MonthMetrics", report: "CleaningReport") -> dict[str, Any]:
    """Return the metrics that the UI plots over months, rounded as on the page.

    Metrics that the service does not record are left out.
    """
    from taxi_assets.reports.month_comparison import busiest_hour  # noqa: PLC0415

    headline, tips = metrics.headline, metrics.headline.tips_per_fare
    found = {
        "trips": headline.trips,
        "trips_per_day": _count(headline.trips_per_day),
        "trips_in_busiest_hour": None if headline.busiest is None else _count(headline.busiest.trips),
        "busiest_hour": None if headline.busiest is None else busiest_hour(headline.busiest),
        "revenue_dollars": _rounded(headline.revenue, 0),
        "fare_per_trip_dollars": _rounded(headline.fare_per_trip, 2),
        "tips_per_fare_percent": None if tips is None else round(100 * tips, 1),
        "miles_per_trip": _rounded(headline.miles_per_trip, 2),
        "minutes_per_trip": _rounded(headline.minutes_per_trip, 1),
        "quarantined_percent": metadata.percent(report.share_quarantined),
    }
    return {name: value for name, value in found.items() if value is not None}


def _count(mean: float) -> float:
    return round(mean, 1 if mean < 10 else None)


def _rounded(value: "float | Decimal | None", decimals: int) -> float | None:
    return None if value is None else round(float(value), decimals)
