"""Draw the quality of all months.

The charts show the rows in quarantine by reason, the rows published, and the change of clean rows from month to month.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import cycle
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from taxi_assets.reports import formatting
from taxi_assets.reports.chart_style import (
    BLUE,
    GREEN,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    ChartImage,
    chart_style,
    new_figure,
    show_grid,
    to_png,
)
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D

    from taxi_assets.tlc.cleaning.report import CleaningReport

    Reports = Mapping[Month, CleaningReport]

# Colors and markers: series can be distinguished by shape as well.
_SERIES_STYLES = (ORANGE, "o"), (GREEN, "s"), (BLUE, "^"), (PURPLE, "D"), (VERMILION, "v"), (SKY, "P")
_FEW_MONTHS = 36
_MAX_REASONS = 5
_OTHERS = "other reasons"
_MAX_CHANGE = 1.0  # the first months of a new service would flatten all other lines


def draw_quality(reports: Sequence[CleaningReport]) -> ChartImage:
    """Draw the quality of one or more months; a missing month is a gap."""
    by_service = {
        service.name: {Month.parse(report.month): report for report in reports if report.service == service.name}
        for service in SERVICES.values()
    }
    with chart_style():
        figure = new_figure("Quality of the months in the lake", height=6.6)
        upper, lower = figure.subfigures(2, 1, height_ratios=[2, 3], squeeze=False)[:, 0]
        draw_reasons(upper, {name: months for name, months in by_service.items() if months})
        _draw_rows(lower, by_service)
        return ChartImage("quality_over_time", _alt(reports), to_png(figure))


# --- quarantine by reason ----------------------------------------------------------------------------------------


def draw_reasons(figure: Figure | SubFigure, by_service: Mapping[str, Reports]) -> list[Axes]:
    """Draw one panel per service, with the shares of the reasons stacked for each month."""
    shown = _most_frequent_reasons([report for months in by_service.values() for report in months.values()])
    shades = mpl.colormaps["cividis"].resampled(_MAX_REASONS)
    colors = {name: shades(place) for place, name in enumerate(shown)} | {_OTHERS: "#c4c8ce"}
    panels = figure.subplots(1, len(by_service), squeeze=False)[0]
    stacks: dict[str, BarContainer] = {}
    for axes, (service, months) in zip(panels, by_service.items(), strict=True):
        stacks |= _stack(axes, months, {name: colors[name] for name in (*shown, _OTHERS)})
        axes.set_title(SERVICES[service].title, loc="left", fontsize=8.5, color=MUTED)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        _dates(axes, most=4)
        show_grid(axes, "y")
    panels[0].set_ylabel("rows in quarantine")
    legend = [name for name in (*shown, _OTHERS) if name in stacks]
    message = "Share of the published rows, by reason; a row with two reasons counts under both"
    figure.legend(
        [stacks[name][0] for name in legend], legend, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5,
        title=message if legend else "No row is in quarantine", title_fontsize=9,
    )  # fmt: skip
    return list(panels)


def _most_frequent_reasons(reports: Sequence[CleaningReport]) -> list[str]:
    """Return the reasons that get their own color, the most frequent first."""
    rows: Counter[str] = Counter()
    for report in reports:
        rows.update({name: reason.rows for name, reason in report.reasons.items()})
    return sorted(rows, key=lambda name: (-rows[name], name))[:_MAX_REASONS]


def _stack(axes: Axes, months: Reports, colors: Mapping[str, object]) -> dict[str, BarContainer]:
    """Stack the shares of the reasons; return the bars by reason, without reasons that have no rows."""
    days = [month.start for month in months]
    base = [0.0] * len(months)
    drawn: dict[str, BarContainer] = {}
    for name, color in colors.items():
        shares = [_share(report, name, colors) for report in months.values()]
        if any(shares):
            drawn[name] = axes.bar(
                days, shares, bottom=base, width=[month.days for month in months], align="edge", color=color  # type: ignore[arg-type]  # dates are fine
            )  # fmt: skip
            base = [low + share for low, share in zip(base, shares, strict=True)]
    axes.set_xlim(min(months).start, max(months).end)  # type: ignore[arg-type]  # dates are fine
    axes.set_ylim(0, max(base) * 1.08 or 0.01)
    return drawn


def _share(report: CleaningReport, name: str, named: Mapping[str, object]) -> float:
    """Return the share of the published rows with a reason. `_OTHERS` adds up the reasons that are not named."""
    rows = 0
    for reason_name, reason in report.reasons.items():
        shown_as = reason_name if reason_name in named else _OTHERS
        if shown_as == name:
            rows += reason.rows
    return rows / report.rows_raw if report.rows_raw else 0.0


# --- rows and their change ---------------------------------------------------------------------------------------


def _draw_rows(figure: SubFigure, by_service: Mapping[str, Reports]) -> None:
    change, rows = figure.subplots(2, 1, sharex=True)
    lines = {}
    for (service, months), (color, marker) in zip(by_service.items(), cycle(_SERIES_STYLES), strict=False):
        if months:
            _line(change, month_changes(months), color, marker)
            published = {month: report.rows_raw or float("nan") for month, report in months.items()}
            lines[SERVICES[service].title] = _line(rows, published, color, marker)
    change.set_title(
        "Clean rows: change from the month before (changes above +100% are shown at +100%)",
        loc="left", fontsize=10, color=MUTED,
    )  # fmt: skip
    change.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: formatting.signed_percent(value)))
    change.yaxis.set_major_locator(MaxNLocator(4))
    change.margins(y=0.15)
    rows.set_title("Rows published (logarithmic scale)", loc="left", fontsize=10, color=MUTED)
    rows.set_yscale("log")
    rows.margins(y=0.15)
    low, high = (math.log10(end) for end in rows.get_ylim())
    rows.set_ylim(10 ** math.floor(low), 10 ** math.ceil(high))  # at least two labels on the axis
    rows.yaxis.set_major_locator(LogLocator(10, numticks=6))
    rows.yaxis.set_minor_locator(NullLocator())
    rows.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: formatting.count(value)))
    for axes in (change, rows):
        show_grid(axes, "y")
    _dates(rows, most=9)
    rows.set_xlabel("published month")
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=4, frameon=False)


def month_changes(months: Reports) -> dict[Month, float]:
    """Return the change of clean rows from the month before as a share, at most 1; NaN without that month."""
    found = {}
    for month, report in months.items():
        before = months.get(month.shift(-1))
        rows_before = before.clean.rows if before is not None else 0
        found[month] = min(report.clean.rows / rows_before - 1, _MAX_CHANGE) if rows_before else float("nan")
    return found


def _line(axes: Axes, values: Mapping[Month, float], color: str, marker: str) -> Line2D:
    month, last = min(values), max(values)
    drawn: dict[Month, float] = {}
    while month <= last:
        drawn[month] = values.get(month, float("nan"))
        month = month.shift(1)
    # Markers show a single month between two gaps; large ones would cover a long line.
    size = 4.5 if len(values) <= _FEW_MONTHS else 2.2
    days = [month.start for month in drawn]
    (line,) = axes.plot(
        days, list(drawn.values()), color=color, marker=marker, markersize=size, linewidth=1.4, clip_on=False  # type: ignore[arg-type]  # dates are fine
    )  # fmt: skip
    return line


def _dates(axes: Axes, *, most: int) -> None:
    dates = AutoDateLocator(minticks=2, maxticks=most)  # type: ignore[no-untyped-call]  # matplotlib has not typed it
    axes.xaxis.set_major_locator(dates)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(dates, show_offset=False))  # type: ignore[no-untyped-call]  # nor this


def _alt(reports: Sequence[CleaningReport]) -> str:
    worst = max(reports, key=lambda report: report.share_quarantined)
    frequent = _most_frequent_reasons(reports)
    often = f" Most frequent reason: {frequent[0]}." if frequent else ""
    return (
        f"Charts of {formatting.counted(len(reports), 'month')} of all services: the share in quarantine by reason, "
        "the change of clean rows from the month before, and the rows published. Largest share in quarantine: "
        f"{worst.service} {worst.month}, {formatting.percent(worst.share_quarantined, 2)}.{often}"
    )
