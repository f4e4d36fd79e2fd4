"""Charts: only of recorded data, with alternative text, and small enough for the event log."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from taxi_assets.reports import chart_style, revision_chart
from taxi_assets.reports.artifact import CHARTS
from taxi_assets.reports.charts import draw_charts
from taxi_assets.reports.metrics import ZoneMetrics
from taxi_assets.reports.quality_chart import draw_panels, draw_quality, month_changes
from taxi_assets.reports.revision_chart import draw_revision
from taxi_assets.tlc.cleaning.report import ReasonTotals
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.unit.reports.months import (
    metrics_without_money,
    month_metrics,
    no_metrics,
    report,
    revision_report,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from taxi_assets.reports.chart_style import ChartImage
    from taxi_assets.tlc.cleaning.report import CleaningReport

SMALL = 25_000


@pytest.fixture(scope="module")
def drawn() -> list[ChartImage]:
    """Of a month with everything, and two days that stand out."""
    days = [100] * 31
    days[19], days[0] = 140, 7
    return draw_charts(replace(month_metrics(), days=days), report())


def names(drawn: list[ChartImage]) -> list[str]:
    return [chart.name for chart in drawn]


def test_a_service_that_records_everything_has_every_chart(drawn: list[ChartImage]) -> None:
    assert [*names(drawn), "revision"] == list(CHARTS)
    for chart in drawn:
        with Image.open(io.BytesIO(chart.png)) as image:
            assert image.format == "PNG"
            assert image.width == 1440
            assert image.info == {}  # no clock, no version
        assert len(chart.thumbnail()) < SMALL
        assert len(chart.alt) > 40


def test_alternative_text_describes_the_chart(drawn: list[ChartImage]) -> None:
    words = {chart.name: chart.alt for chart in drawn}
    assert "Most: Friday 20 January, 140. Fewest: Sunday 1 January, 7." in words["trips_per_day"]
    assert "Friday 17:00\N{EN DASH}18:00" in words["hour_by_weekday"]
    assert "East Harlem North, Manhattan, 500 trips" in words["top_zones"]
    assert "zero_passengers, 50 rows" in words["quarantine"]
    assert "over trips paid by card, tips are 20.0% of fares" in words["fares_and_tips"]


def test_without_payment_types_tips_are_of_all_trips() -> None:
    words = {chart.name: chart.alt for chart in draw_charts(replace(month_metrics(), payments=[]), report())}
    assert "over all trips, tips are 20.0% of fares" in words["fares_and_tips"]


def test_data_that_is_not_recorded_has_no_chart() -> None:
    assert names(draw_charts(metrics_without_money(), report("fhv"))) == [
        "trips_per_day",
        "hour_by_weekday",
        "quarantine",
    ]


def test_a_month_without_trips_has_only_the_chart_of_the_quarantine() -> None:
    month = report("fhv", rows=0)
    assert names(draw_charts(no_metrics(), month)) == ["quarantine"]
    assert draw_charts(no_metrics(), month.model_copy(update={"reasons": {}})) == []


def test_names_from_data_are_drawn_unchanged() -> None:
    # matplotlib would read what is between dollars as mathematics, and refuse this.
    odd = "$\\frac{1$ _x_ ^{" + "long" * 60
    drawn = draw_charts(
        replace(no_metrics(), zones=[ZoneMetrics(odd, "$", 5)]),
        report("fhv").model_copy(update={"reasons": {odd: ReasonTotals(rows=1, total_cents=0)}}),
    )
    assert names(drawn) == ["top_zones", "quarantine"]


def test_settings_of_the_machine_do_not_change_a_chart() -> None:
    import matplotlib as mpl  # noqa: PLC0415  (as heavy as what it tests)

    (before,) = draw_charts(no_metrics(), report("fhv", rows=0))
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 30}):
        assert draw_charts(no_metrics(), report("fhv", rows=0)) == [before]


def test_the_trips_that_differ_are_stacked_by_day(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []

    def kept(*arguments: Any, **options: Any) -> Figure:
        figures.append(chart_style.new_figure(*arguments, **options))
        return figures[-1]

    monkeypatch.setattr(revision_chart, "new_figure", kept)
    (chart,) = draw_revision(GREEN, revision_report(rows_added=4, rows_changed=5, rows_removed=2))
    assert chart.name == "revision"
    assert "Most: Sunday 1 January, 6." in chart.alt
    (axes,) = figures[0].axes
    assert [labelled.get_label() for labelled in axes.containers] == ["changed", "added", "removed"]
    assert heights(axes) == [[*[0] * 30, 5], [4, *[0] * 30], [2, *[0] * 30]]
    tops = [bar.get_y() + bar.get_height() for bar in axes.containers[-1]]
    assert (tops[0], tops[1], tops[30]) == (6, 0, 5)
    with Image.open(io.BytesIO(chart.png)) as image:
        assert image.format == "PNG"
    assert draw_revision(GREEN, revision_report()) == []


def test_the_quality_of_all_months_is_one_small_chart() -> None:
    months = [
        report(service).model_copy(update={"month": f"{year}-{month:02d}"})
        for service in ("yellow", "green", "fhv", "fhvhv")
        for year in range(2019, 2026)
        for month in range(1, 13)
    ]
    chart = draw_quality(months)
    assert len(chart.thumbnail()) < SMALL
    assert "336 months" in chart.alt


def reasons_of(month: str, rows: int, reasons: dict[str, int]) -> CleaningReport:
    return report(rows=rows).model_copy(
        update={"month": month, "reasons": {name: ReasonTotals(rows=n, total_cents=0) for name, n in reasons.items()}}
    )


def heights(axes: Axes) -> list[list[float]]:
    """Of each stacked reason, by month."""
    return [[bar.get_height() for bar in bars] for bars in axes.containers]


QUARANTINE, CHANGES, ROWS = "Rows in quarantine", "Clean rows: change by month", "Rows published"


def test_quarantine_over_time_is_stacked_by_reason_and_rare_reasons_are_combined() -> None:
    few = {f"reason_{number}": number for number in range(1, 9)}
    months = {
        Month(2023, 1): reasons_of("2023-01", 950, {"a": 40, **few}),
        Month(2023, 2): reasons_of("2023-02", 150, {"a": 10}),
    }
    (axes,) = draw_panels(Figure(), {"green": months})[QUARANTINE]
    shares = heights(axes)
    assert [january for january, _ in shares] == pytest.approx(
        [0.04, 0.008, 0.007, 0.006, 0.005, (4 + 3 + 2 + 1) / 1000]
    )
    assert [february for _, february in shares] == pytest.approx([0.05, 0, 0, 0, 0, 0])
    tops = [bars[0].get_y() + bars[0].get_height() for bars in axes.containers]
    assert tops[-1] == pytest.approx(sum(january for january, _ in shares))
    colors = [to_hex(bars[0].get_facecolor()) for bars in axes.containers]
    assert len(set(colors)) == 6
    assert all(distance(one, other) > 0.25 for one, other in combinations(colors, 2)), colors


def distance(one: str, other: str) -> float:
    """Return the distance of two colors; that of black and white is 1.7."""
    return math.dist(to_rgb(one), to_rgb(other))


def months_from(first: Month, count: int) -> dict[Month, CleaningReport]:
    months = [first.shift(number) for number in range(count)]
    return {month: reasons_of(str(month), 900 + month.number, {"a": 40, "b": 9}) for month in months}


def labels(axes: Axes) -> list[str]:
    return [axes.xaxis.get_major_formatter()(place) for place in axes.get_xticks()]


@pytest.mark.parametrize(
    ("first", "count", "expected"),
    [
        (Month(2021, 1), 1, ["Jan 2021"]),
        (Month(2021, 1), 2, ["Jan 2021"]),
        (Month(2021, 1), 12, ["Jan 2021", "May 2021", "Sep 2021"]),
        (Month(2009, 1), 204, ["2009", "2012", "2015", "2018", "2021", "2024"]),
    ],
)
def test_one_month_is_as_readable_as_two_hundred(first: Month, count: int, expected: list[str]) -> None:
    panels = draw_panels(Figure(), {"green": months_from(first, count)})
    assert set(panels) == {QUARANTINE, ROWS} | ({CHANGES} if count > 1 else set())
    for title, (axes,) in panels.items():
        assert labels(axes) == expected
        bars = list(axes.containers[0])
        assert len(bars) == count - (title == CHANGES)
        low, high = axes.get_xlim()
        assert max(bar.get_width() for bar in bars) < 0.2 * (high - low)  # a single bar does not fill the panel
        assert low <= bars[0].get_x() < bars[-1].get_x() + bars[-1].get_width() < high + 0.01


def test_each_service_has_its_own_panels_over_the_same_months() -> None:
    panels = draw_panels(Figure(), {"green": months_from(Month(2021, 1), 1), "fhv": months_from(Month(2021, 1), 9)})
    for title, (green, fhv) in panels.items():
        assert green.get_xlim() == fhv.get_xlim()
        assert fhv.containers, title
    (empty, _) = panels[CHANGES]
    assert [text.get_text() for text in empty.texts] == ["no two consecutive months"]


def test_changes_are_relative_to_the_month_before_only() -> None:
    rows = {Month(2022, 11): 500, Month(2023, 1): 1000, Month(2023, 2): 900, Month(2023, 3): 0, Month(2023, 4): 5}
    found = month_changes({month: report(rows=number) for month, number in rows.items()})
    assert {str(month): round(value, 3) for month, value in found.items()} == {"2023-02": -0.1, "2023-03": -1.0}
    assert month_changes({Month(2023, 1): report(rows=10), Month(2023, 2): report(rows=500)})[Month(2023, 2)] == 1.0


def test_a_lake_of_one_month_without_quarantine_has_a_chart() -> None:
    chart = draw_quality([report().model_copy(update={"reasons": {}, "rows_quarantined": 0})])
    assert "1 month of" in chart.alt
    assert "Most often" not in chart.alt


def test_a_lake_of_one_empty_month_has_a_chart() -> None:
    empty = report(rows=0).model_copy(update={"reasons": {}, "rows_quarantined": 0, "rows_raw": 0})
    assert "1 month of" in draw_quality([empty]).alt
