"""The charts of a month, one function each. Data that a service does not record has no chart."""

from __future__ import annotations

import calendar
from typing import TYPE_CHECKING

from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, StrMethodFormatter

from taxi_assets.reports import formatting
from taxi_assets.reports.chart_style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    VERMILION,
    ChartImage,
    chart_style,
    new_figure,
    show_grid,
    to_png,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from taxi_assets.reports.metrics import MonthMetrics
    from taxi_assets.tlc.cleaning.report import CleaningReport

_THOUSANDS = FuncFormatter(lambda value, _position: formatting.count(value))
_LETTERS = "MTWTFSS"
# Names come from data, so their length is limited.
_LABEL_CHARACTERS = 40
_MIN_BARS = 2  # a single bar would fill the chart


def draw_charts(metrics: MonthMetrics, report: CleaningReport) -> list[ChartImage]:
    """Draw every chart that has data, in the order of the page."""
    drawn = []
    with chart_style():
        if metrics.headline.trips:
            drawn += [_trips_per_day(metrics), _hour_by_weekday(metrics)]
        if metrics.zones:
            drawn.append(_top_zones(metrics))
        if any(fare.trips for fare in metrics.fares):
            drawn.append(_fares_and_tips(metrics))
        if report.reasons:
            drawn.append(_quarantine(metrics, report))
    return drawn


def _subject(metrics: MonthMetrics) -> str:
    return f"{metrics.service.title}, {formatting.month_name(metrics.month)}"


def _trips_per_day(metrics: MonthMetrics) -> ChartImage:
    month, days = metrics.month, metrics.days
    weekend = [calendar.weekday(month.year, month.number, day) >= 5 for day in range(1, month.days + 1)]
    figure = new_figure(f"Trips per day: {_subject(metrics)}", height=3.5)
    axes = figure.subplots()
    numbers = range(1, month.days + 1)
    axes.bar(numbers, days, color=[ORANGE if w else BLUE for w in weekend], width=0.78)
    axes.set_xlim(0.4, month.days + 0.6)
    axes.set_xticks(numbers, [f"{day}\n{_LETTERS[calendar.weekday(month.year, month.number, day)]}" for day in numbers])
    axes.set_xlabel("day of the pickup")
    _count_axis(axes, "trips")
    figure.legend(
        handles=[Patch(color=BLUE, label="Monday to Friday"), Patch(color=ORANGE, label="weekend")],
        loc="outside upper right",
        ncols=2,
        frameon=False,
    )
    most, least = max(days), min(days)
    alt = (
        "Bar chart of trips per day. "
        f"Most: {formatting.day_name(month, days.index(most) + 1)}, {formatting.count(most)}. "
        f"Fewest: {formatting.day_name(month, days.index(least) + 1)}, {formatting.count(least)}."
    )
    return ChartImage("trips_per_day", alt, to_png(figure))


def _hour_by_weekday(metrics: MonthMetrics) -> ChartImage:
    figure = new_figure(f"Trips by hour of the week: {_subject(metrics)}", height=3.5)
    axes = figure.subplots()
    values = [[float("nan") if value is None else value for value in day] for day in metrics.hours]
    axes.set_facecolor("#f1f2f4")
    image = axes.imshow(values, aspect="auto", cmap="cividis", vmin=0, interpolation="nearest")
    axes.set_yticks(range(7), formatting.WEEKDAYS)
    axes.set_xticks(range(0, 24, 2), [f"{hour:02d}" for hour in range(0, 24, 2)])
    axes.set_xlabel("hour of the pickup (18 is 18:00 to 19:00)")
    axes.spines[:].set_visible(False)
    axes.set_xticks([hour - 0.5 for hour in range(1, 24)], minor=True)
    axes.set_yticks([day - 0.5 for day in range(1, 7)], minor=True)
    axes.grid(visible=True, which="minor", color=PAPER, linewidth=1)
    axes.tick_params(which="minor", length=0)
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=16, format=_THOUSANDS)
    bar.set_label("trips per hour")
    bar.outline.set_visible(False)
    busiest = metrics.headline.busiest
    alt = "Heat map of trips by weekday and hour of the pickup."
    if busiest is not None:
        place = busiest.hour - 0.5, busiest.isodow - 1.5
        axes.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor=VERMILION, linewidth=2.2))
        figure.legend(
            handles=[Patch(facecolor="none", edgecolor=VERMILION, linewidth=2.2, label="busiest hour")],
            loc="outside upper right",
            frameon=False,
        )
        alt += (
            f" Busiest: {formatting.WEEKDAYS[busiest.isodow - 1]} {formatting.hour_name(busiest.hour)}, "
            f"with {formatting.count(busiest.trips)} trips per hour on average."
        )
    return ChartImage("hour_by_weekday", alt, to_png(figure))


def _top_zones(metrics: MonthMetrics) -> ChartImage:
    zones = metrics.zones
    names = [f"{zone.name}, {zone.borough}" if zone.borough else zone.name for zone in zones]
    figure = new_figure(f"Where trips begin: {_subject(metrics)}", height=0.9 + 0.28 * max(len(zones), _MIN_BARS))
    axes = figure.subplots()
    _bars(axes, names, [zone.trips for zone in zones], BLUE, metrics.headline.trips)
    axes.set_xlabel("trips, and their share of all trips")
    first = zones[0]
    alt = (
        f"Bar chart of the {len(zones)} taxi zones where most trips begin. "
        f"First: {names[0]}, {formatting.counted(first.trips, 'trip')}."
    )
    return ChartImage("top_zones", alt, to_png(figure))


def _fares_and_tips(metrics: MonthMetrics) -> ChartImage:
    fares, tips = metrics.fares, metrics.tip_by_fare
    by_card = bool(metrics.payments)
    tipped = any(tips)
    figure = new_figure(f"Fares and tips: {_subject(metrics)}", height=3.4)
    panels = figure.subplots(1, 2 if tipped else 1, squeeze=False)[0]
    labels = [fare.name.removesuffix(" and more").split(" to ")[0].removeprefix("$") for fare in fares]
    labels[-1] += "+"
    trips = [fare.trips for fare in fares]
    panels[0].bar([step + 0.5 for step in range(len(fares))], trips, color=BLUE, width=0.9)
    panels[0].set_title("Trips by fare", loc="left", fontsize=10, color=MUTED)
    _count_axis(panels[0], "trips")
    if tipped:
        shown = [(step + 0.5, tip) for step, tip in enumerate(tips) if tip is not None]
        panels[1].bar([at for at, _ in shown], [tip for _, tip in shown], color=GREEN, width=0.9)
        panels[1].set_title(
            f"Mean tip by fare{', trips paid by card' if by_card else ''}", loc="left", fontsize=10, color=MUTED
        )
        panels[1].set_ylabel("tip, US dollars")
        panels[1].yaxis.set_major_locator(MaxNLocator(5))
        panels[1].yaxis.set_major_formatter(StrMethodFormatter("{x:,.2f}"))
        show_grid(panels[1], "y")
    for axes in panels:
        axes.set_xlim(-0.1, len(fares) + 0.1)
        axes.set_xticks(range(len(fares)), labels)
        axes.set_xlabel("fare, US dollars")
    most = fares[trips.index(max(trips))]
    mean = metrics.headline.tips_per_fare
    alt = f"Bar chart of trips by fare; most cost {most.name}."
    if tipped and mean is not None:
        whose = "trips paid by card" if by_card else "all trips"
        alt += f" Next to it, the mean tip by fare; over {whose}, tips are {formatting.percent(mean)} of fares."
    return ChartImage("fares_and_tips", alt, to_png(figure))


def _quarantine(metrics: MonthMetrics, report: CleaningReport) -> ChartImage:
    reasons = sorted(report.reasons.items(), key=lambda item: (-item[1].rows, item[0]))
    names = [name for name, _ in reasons]
    figure = new_figure(f"Rows in quarantine: {_subject(metrics)}", height=0.95 + 0.32 * max(len(reasons), _MIN_BARS))
    axes = figure.subplots()
    _bars(axes, names, [reason.rows for _, reason in reasons], ORANGE, report.rows_raw, digits=2)
    axes.set_xlabel("rows, and their share of the published file; a row with two reasons counts under both")
    alt = "Bar chart of the rows in quarantine, by reason: " + "; ".join(
        f"{name}, {formatting.counted(reason.rows, 'row')}" for name, (_, reason) in zip(names, reasons, strict=True)
    )
    return ChartImage("quarantine", alt + ".", to_png(figure))


# --- axes --------------------------------------------------------------------------------------------------------


def _count_axis(axes: Axes, label: str) -> None:
    axes.set_ylabel(label)
    axes.yaxis.set_major_formatter(_THOUSANDS)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    show_grid(axes, "y")


def _bars(axes: Axes, names: Sequence[str], values: Sequence[int], color: str, whole: int, *, digits: int = 1) -> None:
    """Draw horizontal bars from top to bottom, each labeled with its value and its share of the whole."""
    places = range(len(values))
    axes.barh(places, values, color=color, height=0.72)
    # Names come from data, so a dollar sign must not start a formula.
    axes.set_yticks(places, [_shortened(name) for name in names], parse_math=False)
    axes.set_ylim(max(len(values), _MIN_BARS) - 0.5, -0.5)
    for place, value in zip(places, values, strict=True):
        share = formatting.percent(value / whole, digits) if whole else ""
        axes.annotate(
            f"{formatting.count(value)}  ({share})", (value, place), (5, 0), textcoords="offset points", va="center",
            color=INK, fontsize=9,
        )  # fmt: skip
    axes.set_xlim(0, (max(values) or 1) * 1.18)
    axes.set_xticks([])
    axes.spines[["left", "bottom"]].set_visible(False)


def _shortened(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= _LABEL_CHARACTERS else line[:_LABEL_CHARACTERS] + "…"
