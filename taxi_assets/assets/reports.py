"""reports/…_trips: the page of a month, for people who would rather look than query."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets import metadata
from taxi_assets.assets.reference import ZONES
from taxi_assets.automation.conditions import on_warehouse_change
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.errors import WarehouseTableMissingError
from taxi_assets.partitions import monthly_partitions
from taxi_assets.reports.artifact import NAMES, PAGE, StagedReport
from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.lake.objects import ParquetPartition, RawFile, object_prefix
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    import pandas as pd

    from taxi_assets.reports.chart_style import ChartImage
    from taxi_assets.reports.metrics import MonthMetrics
    from taxi_assets.tlc.cleaning.report import CleaningReport

_DESCRIPTION = """A month of {title} on one page: trips, revenue, the busiest hour, data quality, and where the data
comes from; against the month before and the year before, where these are loaded.

It is made anew when the table of its month, or of the month before, has other data: not for the year before alone, nor
for the taxi zones; what it says of these stands as it was when the page was made.

The page is `report.html` in the lake, one file to open or send on, which needs no network; its charts stand beside it
as PNG. Two of them are shown here, in the metadata of each month."""

# The event log holds them, so they are few and small.
_SHOWN = ("trips_per_day", "hour_by_weekday")


def report_asset(service: Service, retry: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """The monthly report of a service."""
    clean = dg.AssetKey(["clean", service.table])
    # One mapping for each upstream asset is all there is: the year before would bring all months between with it.
    with_month_before = dg.TimeWindowPartitionMapping(start_offset=-1, allow_nonexistent_upstream_partitions=True)

    @dg.asset(
        key=["reports", service.table],
        description=_DESCRIPTION.format(title=service.title),
        partitions_def=monthly_partitions(service),
        ins={"trips": dg.AssetIn(clean)},
        deps=[dg.AssetDep(["warehouse", service.table], partition_mapping=with_month_before), ZONES],
        group_name=service.name,
        io_manager_key="reports",
        owners=metadata.OWNERS,
        kinds={"report", "html"},
        tags=metadata.asset_tags(service),
        automation_condition=on_warehouse_change(service),
        retry_policy=retry,
    )
    def month_report(
        context: dg.AssetExecutionContext, trips: ParquetPartition, lake: Lake, warehouse: Warehouse
    ) -> Iterator[dg.Output[Any]]:
        from taxi_assets.reports.metrics import read_metrics  # noqa: PLC0415
        from taxi_assets.reports.page import render  # noqa: PLC0415

        month = Month.parse(context.partition_key)
        prefix = object_prefix("reports", service, month)
        with as_failures(retry_number=context.retry_number), lake.staging() as folder:
            replaces = {name: lake.version(f"{prefix}/{name}") for name in NAMES}
            with warehouse.session():
                zones = _zones(warehouse)
                made_of = _data_version(warehouse, service, month, trips, zones)
                metrics = read_metrics(warehouse.read_portable_frame, service, month, zones)
            # Most of a second and 60 MB to import: only now, when the warehouse has given back its memory.
            from taxi_assets.reports.charts import draw_charts  # noqa: PLC0415

            raw = RawFile.find(lake, object_prefix("raw", service, month))
            charts = draw_charts(metrics, trips.report)
            page = render(metrics, trips.report, None if raw is None else raw.record, charts)
            files = [folder / chart.file for chart in charts] + [folder / PAGE]
            contents = [chart.png for chart in charts] + [page.encode()]
            for path, content in zip(files, contents, strict=True):
                path.write_bytes(content)
            yield dg.Output(
                StagedReport(files, replaces),
                data_version=dg.DataVersion(hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]),
                metadata={
                    "page": metadata.display_uri(lake.uri(f"{prefix}/{PAGE}")),
                    "bytes": len(contents[-1]),
                    **_chart_metadata(charts),
                    **_headline(metrics, trips.report),
                    **metadata.generated_note(trips.report.generated),
                },
            )

    return month_report


def _data_version(
    warehouse: Warehouse, service: Service, month: Month, trips: ParquetPartition, zones: "pd.DataFrame | None"
) -> list[Any]:
    """What decides the page: the trips, those of the months they are compared with, the zones, and how it is made.

    Raises `WarehouseTableMissingError` where the warehouse does not hold just these trips.
    """
    from taxi_assets.reports.metrics import compared_months  # noqa: PLC0415
    from taxi_assets.reports.page import version  # noqa: PLC0415

    loaded = warehouse.loaded_month_after_wait(service, month)
    if loaded is None or loaded.data_version != trips.report.data_version:
        raise WarehouseTableMissingError(
            f"{warehouse.table_name(service.table)} does not hold the clean trips of {service.name} {month} that are "
            "in the lake now.",
            remedy="Materialize its warehouse asset for this month first.",
        )
    others = [
        (str(other), warehouse.loaded_month_after_wait(service, other)) for other in compared_months(service, month)
    ]
    compared = [(other, held.data_version) for other, held in others if held is not None]
    named = None if zones is None else zones.sort_values("location_id").to_csv(index=False)
    return [trips.report.data_version, compared, named, version()]


def _zones(warehouse: Warehouse) -> "pd.DataFrame | None":
    try:
        return warehouse.read_frame(ZONES.path[-1])
    except WarehouseTableMissingError:
        return None  # a report that is asked for by hand may come first; a zone then goes by its number


def _chart_metadata(charts: "Sequence[ChartImage]") -> dict[str, dg.MarkdownMetadataValue]:
    return {
        f"picture_{drawn.name}": metadata.image(drawn.name.replace("_", " "), drawn.small())
        for drawn in charts
        if drawn.name in _SHOWN
    }


def _headline(metrics: "MonthMetrics", report: "CleaningReport") -> dict[str, Any]:
    """The metrics that the UI plots over months; none for what the service does not record."""
    from taxi_assets.reports.month_comparison import busiest_hour  # noqa: PLC0415

    headline = metrics.headline
    numbers = {
        "trips": headline.trips,
        "revenue_dollars": headline.revenue,
        "trips_per_day": headline.trips_per_day,
        "trips_in_the_busiest_hour": None if headline.busiest is None else headline.busiest.trips,
        "miles_per_trip": headline.miles_per_trip,
        "minutes_per_trip": headline.minutes_per_trip,
        "fare_per_trip_dollars": headline.fare_per_trip,
        "tips_per_fare": headline.tips_per_fare,
        "share_quarantined": report.share_quarantined,
    }
    figures_ = {name: value if isinstance(value, int) else float(value) for name, value in numbers.items()
                if value is not None}  # fmt: skip
    return figures_ | ({"busiest_hour": busiest_hour(headline.busiest)} if headline.busiest else {})
