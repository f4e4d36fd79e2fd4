"""The picture of all months: the share in quarantine, and the rows, of every service over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from taxi_assets.reports import wording
from taxi_assets.reports.drawing import BLUE, GREEN, MUTED, ORANGE, PURPLE, Picture, drawing, grid, new_figure, to_png
from taxi_assets.tlc.catalogue import SERVICES
from taxi_assets.tlc.month import Month

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from taxi_assets.tlc.report import MonthReport

# Told apart by shape as well.
_LOOKS = (ORANGE, "o"), (GREEN, "s"), (BLUE, "^"), (PURPLE, "D")
_FEW_MONTHS = 36


def draw_quality(reports: Sequence[MonthReport]) -> Picture:
    """Of one month at least; a month that is missing is a gap."""
    with drawing():
        figure = new_figure("Quality of the months in the lake", height=4.9)
        shares, rows = figure.subplots(2, 1, sharex=True)
        lines = []
        for service, (colour, marker) in zip(SERVICES.values(), _LOOKS, strict=True):
            of_service = {Month.parse(r.month): r for r in reports if r.service == service.name}
            if of_service:
                lines.append((service.title, _line(shares, of_service, lambda r: r.share_quarantined, colour, marker)))
                _line(rows, of_service, lambda r: r.rows_raw or float("nan"), colour, marker)
        shares.set_title("Share of the rows in quarantine", loc="left", fontsize=10, color=MUTED)
        shares.yaxis.set_major_formatter(PercentFormatter(1))
        shares.yaxis.set_major_locator(MaxNLocator(4))
        shares.set_ylim(bottom=0)
        rows.set_title("Rows published, on a scale of powers of ten", loc="left", fontsize=10, color=MUTED)
        rows.set_yscale("log")
        rows.yaxis.set_major_locator(LogLocator(10, numticks=6))
        rows.yaxis.set_minor_locator(NullLocator())
        rows.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: wording.count(value)))
        rows.margins(y=0.15)
        for axes in (shares, rows):
            grid(axes, "y")
        dates = AutoDateLocator(minticks=3, maxticks=9)  # type: ignore[no-untyped-call]  # matplotlib has not typed it
        rows.xaxis.set_major_locator(dates)
        written = ConciseDateFormatter(dates, show_offset=False)  # type: ignore[no-untyped-call]  # nor this
        rows.xaxis.set_major_formatter(written)
        rows.set_xlabel("published month")
        figure.legend(
            [line for _, line in lines], [title for title, _ in lines], loc="outside lower center", ncols=4,
            frameon=False,
        )  # fmt: skip
        return Picture("quality_over_time", _alt(reports), to_png(figure))


def _line(
    axes: Axes,
    of_service: dict[Month, MonthReport],
    value: Callable[[MonthReport], float],
    colour: str,
    marker: str,
) -> Line2D:
    days: list[dt.date] = []
    values: list[float] = []
    month, last = min(of_service), max(of_service)
    while month <= last:
        report = of_service.get(month)
        days.append(month.start)
        values.append(float("nan") if report is None else value(report))
        month = month.shift(1)
    # Markers show a month between two gaps, and would cover long lines.
    size = 4.5 if len(of_service) <= _FEW_MONTHS else 2.2
    (line,) = axes.plot(days, values, color=colour, marker=marker, markersize=size, linewidth=1.4, clip_on=False)  # type: ignore[arg-type]  # dates are fine
    return line


def _alt(reports: Sequence[MonthReport]) -> str:
    worst = max(reports, key=lambda report: report.share_quarantined)
    return (
        f"Line charts of {wording.counted(len(reports), 'month')} of all services. Largest share in quarantine: "
        f"{worst.service} {worst.month}, {wording.percent(worst.share_quarantined, 2)}."
    )
