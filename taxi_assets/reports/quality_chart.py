"""Draw the quality of all months.

Each service has a row of panels: the share of rows in quarantine by reason, the change of clean rows from month to
month, and the rows published. All panels have the same months, and one bar per month, so that one month is as readable
as two hundred.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING

from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, PercentFormatter

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
    from matplotlib.figure import Figure

    from taxi_assets.tlc.cleaning.report import CleaningReport

    Reports = Mapping[Month, CleaningReport]

_QUARANTINE, _CHANGES, _ROWS = "Rows in quarantine", "Clean rows: change by month", "Rows published"
_REASON_COLORS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE)
_OTHERS, _OTHERS_COLOR = "other reasons", "#c4c8ce"
_ROWS_COLOR = SKY
_MAX_CHANGE = 1.0  # the first months of a new service would flatten all others
_FEW_MONTHS = 36
_LEAST_MONTHS = 6  # the bar of a single month does not fill the panel
_MONTH_LABELS = 3
_YEAR_LABELS = 6
# In inches.
_ROW_HEIGHT, _REST_HEIGHT = 1.55, 1.5


def draw_quality(reports: Sequence[CleaningReport]) -> ChartImage:
    """Draw the quality of one or more months; a missing month is a gap."""
    by_service = {
        service.name: {Month.parse(report.month): report for report in reports if report.service == service.name}
        for service in SERVICES.values()
    }
    shown = {name: months for name, months in by_service.items() if months}
    with chart_style():
        height = _REST_HEIGHT + _ROW_HEIGHT * len(shown)
        figure = new_figure("Quality of the months in the lake", height=height)
        draw_panels(figure, shown)
        return ChartImage("quality_over_time", _alt(reports), to_png(figure))


def draw_panels(figure: Figure, by_service: Mapping[str, Reports]) -> dict[str, list[Axes]]:
    """Draw a row of panels for each service, and the legend of the reasons.

    Args:
        figure: An empty figure.
        by_service: The months of each service; each service has at least one.

    Returns:
        The panels by title, in the order of the services. If no month follows another, there are none of changes.
    """
    changes = {name: month_changes(months) for name, months in by_service.items()}
    titles = [_QUARANTINE, *([_CHANGES] if any(changes.values()) else []), _ROWS]
    grid = figure.subplots(len(by_service), len(titles), squeeze=False, sharex=True)
    panels = {title: list(grid[:, place]) for place, title in enumerate(titles)}
    colors = _reason_colors([report for months in by_service.values() for report in months.values()])
    stacks: dict[str, BarContainer] = {}
    for row, (name, months) in enumerate(by_service.items()):
        stacks |= _stack(panels[_QUARANTINE][row], months, colors)
        if _CHANGES in panels:
            _draw_changes(panels[_CHANGES][row], changes[name])
        _draw_rows(panels[_ROWS][row], months)
        grid[row, 0].set_ylabel(textwrap.fill(SERVICES[name].title, 16), fontsize=9)
    for title, axes in panels.items():
        axes[0].set_title(title, loc="left", fontsize=10, color=MUTED)
    _label_months(grid[0, 0], [month for months in by_service.values() for month in months])
    named = [name for name in colors if name in stacks]
    figure.legend(
        [stacks[name][0] for name in named], named, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5,
        title="Reasons; a row with two reasons counts under both" if named else "No row is in quarantine",
        title_fontsize=9,
    )  # fmt: skip
    return panels


# --- panels ------------------------------------------------------------------------------------------------------


def _reason_colors(reports: Sequence[CleaningReport]) -> dict[str, str]:
    """Return the colors of the most frequent reasons, the most frequent first, and of all others together."""
    rows: Counter[str] = Counter()
    for report in reports:
        rows.update({name: reason.rows for name, reason in report.reasons.items()})
    frequent = sorted(rows, key=lambda name: (-rows[name], name))
    return dict(zip(frequent, _REASON_COLORS, strict=False)) | {_OTHERS: _OTHERS_COLOR}


def _stack(axes: Axes, months: Reports, colors: Mapping[str, str]) -> dict[str, BarContainer]:
    """Stack the shares of the reasons; return the bars by reason, without reasons that have no rows."""
    base = [0.0] * len(months)
    drawn: dict[str, BarContainer] = {}
    for name, color in colors.items():
        shares = [_share(report, name, colors) for report in months.values()]
        if any(shares):
            drawn[name] = _bars(axes, list(months), shares, color, bottom=base)
            base = [low + share for low, share in zip(base, shares, strict=True)]
    axes.set_ylim(0, max(base) * 1.08 or 0.01)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _finish(axes)
    return drawn


def _share(report: CleaningReport, name: str, named: Mapping[str, object]) -> float:
    """Return the share of the published rows with a reason. `_OTHERS` adds up the reasons that are not named."""
    rows = 0
    for reason_name, reason in report.reasons.items():
        shown_as = reason_name if reason_name in named else _OTHERS
        if shown_as == name:
            rows += reason.rows
    return rows / report.rows_raw if report.rows_raw else 0.0


def _draw_changes(axes: Axes, changes: Mapping[Month, float]) -> None:
    if changes:
        _bars(axes, list(changes), list(changes.values()), MUTED)
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.margins(y=0.15)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: formatting.signed_percent(value)))
        _finish(axes)
    else:
        axes.text(0.5, 0.5, "no two consecutive months", transform=axes.transAxes, ha="center", va="center",
                  fontsize=8.5, color=MUTED)  # fmt: skip
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)


def _draw_rows(axes: Axes, months: Reports) -> None:
    rows = [report.rows_raw for report in months.values()]
    _bars(axes, list(months), rows, _ROWS_COLOR)
    axes.set_ylim(0, max(rows) * 1.08 or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: _short_count(value)))
    _finish(axes)


def month_changes(months: Reports) -> dict[Month, float]:
    """Return the change of clean rows from the month before as a share, at most 1, of the months that have one."""
    found = {}
    for month, report in months.items():
        before = months.get(month.shift(-1))
        if before is not None and before.clean.rows:
            found[month] = min(report.clean.rows / before.clean.rows - 1, _MAX_CHANGE)
    return found


def _short_count(value: float) -> str:
    """Format a count for an axis, such as 25 k or 1.5 M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return formatting.count(value)


# --- months on the axis ------------------------------------------------------------------------------------------


def _number(month: Month) -> int:
    return month.year * 12 + month.number - 1


def _bars(
    axes: Axes, months: Sequence[Month], heights: Sequence[float], color: str, *, bottom: Sequence[float] | float = 0
) -> BarContainer:
    # Gaps between the bars of many months would be wider than the bars.
    width = 0.8 if len(months) <= _FEW_MONTHS else 1
    return axes.bar([_number(month) for month in months], heights, bottom=bottom, width=width, color=color)


def _finish(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    show_grid(axes, "y")


def _label_months(axes: Axes, months: Sequence[Month]) -> None:
    """Set the range of the shared axis, and label its months, or its years if there are many months."""
    first, last = min(map(_number, months)), max(map(_number, months))
    count = last - first + 1
    margin = 0.5 + max(_LEAST_MONTHS - count, 0) / 2
    axes.set_xlim(first - margin, last + margin)
    if count <= _FEW_MONTHS:
        step = -(-max(count, _LEAST_MONTHS) // _MONTH_LABELS)
        places = list(range(first, last + 1, step))
        labels = [formatting.short_month(Month(place // 12, place % 12 + 1)) for place in places]
    else:
        years = -(-first // 12), last // 12
        step = -(-(years[1] - years[0] + 1) // _YEAR_LABELS)
        places = [year * 12 for year in range(years[0], years[1] + 1, step)]
        labels = [str(place // 12) for place in places]
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _position: dict(zip(places, labels, strict=True))[value])
    )


def _alt(reports: Sequence[CleaningReport]) -> str:
    worst = max(reports, key=lambda report: report.share_quarantined)
    frequent, *_ = _reason_colors(reports)
    often = f" Most frequent reason: {frequent}." if frequent != _OTHERS else ""
    return (
        f"Charts of {formatting.counted(len(reports), 'month')} of all services: the share in quarantine by reason, "
        "the change of clean rows from the month before, and the rows published. Largest share in quarantine: "
        f"{worst.service} {worst.month}, {formatting.percent(worst.share_quarantined, 2)}.{often}"
    )
