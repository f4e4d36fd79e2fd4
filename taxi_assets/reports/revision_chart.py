"""The chart of a month that the publisher has revised: the trips that differ, by day of the pickup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter, MaxNLocator

from taxi_assets.reports import formatting
from taxi_assets.reports.chart_style import (
    BLUE,
    PURPLE,
    VERMILION,
    ChartImage,
    chart_style,
    new_figure,
    show_grid,
    to_png,
)
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.revision_report import ADDED, CHANGED, REMOVED

if TYPE_CHECKING:
    from taxi_assets.tlc.revision_report import RevisionReport
    from taxi_assets.tlc.schema import Service

_COLORS = {CHANGED: PURPLE, ADDED: BLUE, REMOVED: VERMILION}


def draw_revision(service: Service, report: RevisionReport) -> list[ChartImage]:
    """Draw the changed, added and removed trips of each day, as stacked bars.

    Returns:
        The chart, or an empty list if no trip of the month's own days differs.
    """
    month = Month.parse(report.month)
    if not any(map(any, report.rows_by_day.values())):
        return []
    days, below = range(1, month.days + 1), [0] * month.days
    with chart_style():
        figure = new_figure(f"Revised trips per day: {service.title}, {formatting.month_name(month)}", height=3.5)
        axes = figure.subplots()
        for change, color in _COLORS.items():
            rows = report.rows_by_day[change]
            axes.bar(days, rows, bottom=below, color=color, width=0.78, label=change)
            below = [lower + row for lower, row in zip(below, rows, strict=True)]
        axes.set_xlim(0.4, month.days + 0.6)
        axes.set_xticks(days)
        axes.set_xlabel("day of the pickup")
        axes.set_ylabel("trips that differ")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: formatting.count(value)))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        show_grid(axes, "y")
        figure.legend(loc="outside upper right", ncols=3, frameon=False)
        most = max(days, key=lambda day: below[day - 1])
        alt = (
            f"Bar chart of the trips that differ between the two newest revisions, by day. Most: "
            f"{formatting.day_name(month, most)}, {formatting.count(below[most - 1])}."
        )
        return [ChartImage("revision", alt, to_png(figure))]
