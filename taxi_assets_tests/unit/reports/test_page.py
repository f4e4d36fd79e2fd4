"""The page of a month: it needs no other file, names missing data, and escapes values from data."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

from taxi_assets.reports.artifact import version
from taxi_assets.reports.chart_style import ChartImage
from taxi_assets.reports.charts import draw_charts
from taxi_assets.reports.metrics import MoneyMetrics, ZoneMetrics
from taxi_assets.reports.page import page_content, render
from taxi_assets.tlc.cleaning.report import ReasonTotals, UnknownColumn
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.html_pages import HtmlPage
from taxi_assets_tests.unit.reports.months import (
    metrics_without_money,
    month_metrics,
    no_metrics,
    report,
    revision_report,
    source,
)

HOSTILE = "<script>alert(1)</script>\"'><img src=https://evil.test/x onerror=alert(1)>{{ 7 * 7 }}</style>&amp;"
CHART = ChartImage("trips_per_day", "Bar chart of trips per day.", b"\x89PNG")


def test_the_page_starts_with_trips_revenue_busiest_hour_and_data_quality() -> None:
    page = HtmlPage(render(page_content(month_metrics(), report(), source(), [CHART])))
    assert page.text_after("Trips") == "3,100"
    assert page.text_after("Revenue") == "$62,000"
    assert page.text_after("Busiest hour") == "Fri 17:00\N{EN DASH}18:00"
    assert page.text_after("Data quality") == "98.41% clean"
    assert page.texts.index("Data quality") < page.texts.index("Comparison")


def test_other_months_are_compared_or_marked_as_not_loaded() -> None:
    page = HtmlPage(render(page_content(month_metrics(), report(), source(), [])))
    assert page.text_after("3,100", 1) == "+3.3% on Dec 2022"
    assert page.text_after("3,100", 2) == "Jan 2022: not loaded"
    row = page.texts.index("Trips per day")
    assert page.texts[row : row + 6] == ["Trips per day", "100", "97", "+3.3%", "not loaded", "\N{EN DASH}"]


def test_metrics_that_a_service_does_not_record_are_left_out() -> None:
    page = HtmlPage(render(page_content(metrics_without_money(), report("fhv"), source(), [])))
    message = " ".join(page.texts)
    for absent in ("Revenue", "$", "Mean distance", "Tips", "Money", "None", "nan", "null"):
        assert absent not in message, absent
    assert "fares are not recorded" in message
    assert "The taxi zone of the pickup is not recorded in this month's file." in message


def test_trips_without_a_zone_in_nyc_are_counted() -> None:
    page = HtmlPage(render(page_content(month_metrics(), report(), source(), [])))
    assert "Not shown: 31 trips (1.0%) whose pickup zone is unknown or outside NYC." in page.texts
    page = HtmlPage(render(page_content(replace(month_metrics(), trips_without_zone=0), report(), source(), [])))
    assert "Every trip has a known pickup zone in NYC." in page.texts


def test_tips_in_cash_are_shown_as_a_dash() -> None:
    paid = [
        MoneyMetrics(name, 10, Decimal(100), Decimal(tips), Decimal(120))
        for name, tips in (("Credit card", 20), ("Cash", 0))
    ]
    page = HtmlPage(render(page_content(replace(month_metrics(), payments=paid), report(), source(), [])))
    assert page.text_after("Credit card", 4) == "20.0%"
    assert page.text_after("Cash", 4) == "\N{EN DASH}"


def test_only_columns_expected_in_that_month_are_absent() -> None:
    # Of 2023-01: coordinates were published until 2016-06, and the congestion fee of 2025 was not yet.
    columns = ["pickup_longitude", "cbd_congestion_fee", "ehail_fee"]
    page = HtmlPage(
        render(page_content(month_metrics(), report().model_copy(update={"absent_columns": columns}), source(), []))
    )
    assert page.text_after("Absent columns") == "ehail_fee"
    page = HtmlPage(
        render(page_content(month_metrics(), report().model_copy(update={"absent_columns": columns[:2]}), source(), []))
    )
    assert page.text_after("Absent columns") == "none"


def test_the_interpretation_of_times_is_stated_if_there_is_one() -> None:
    sentence = "Times were marked as UTC and are New York local times."
    marked = report().model_copy(update={"interpretations": {"pickup_datetime": [sentence]}})
    page = HtmlPage(render(page_content(month_metrics(), marked, source(), [])))
    assert page.text_after("Interpretations") == f"pickup_datetime: {sentence}"
    assert "Interpretations" not in HtmlPage(render(page_content(month_metrics(), report(), source(), []))).texts


def test_a_month_without_trips_has_a_page_too() -> None:
    page = HtmlPage(render(page_content(no_metrics(), report("fhv", rows=0), None, [])))
    assert page.text_after("Trips") == "0"
    assert page.text_after("Data quality") == "0.00% clean"


def test_an_empty_quarantine_is_stated() -> None:
    clean = report().model_copy(update={"rows_quarantined": 0, "rows_raw": 3100, "reasons": {}})
    page = HtmlPage(render(page_content(month_metrics(), clean, source(), [])))
    assert page.text_after("Data quality") == "100% clean"
    assert "Of 3,100 published rows, 3,100 are clean. The quarantine is empty." in page.texts


def test_the_page_names_the_source_of_the_data() -> None:
    page = HtmlPage(render(page_content(month_metrics(), report(), source(), [])))
    assert page.text_after("Publisher") == "tlc"
    assert page.text_after("File") == source().url
    assert page.text_after("Fetched") == "2024-03-05 06:07 UTC"
    assert page.text_after("sha256 of the file") == report().raw_sha256
    assert page.text_after("Rules applied") == "zero_passengers"


def test_the_record_of_another_file_is_not_shown() -> None:
    other = source().model_copy(update={"sha256": "f" * 64})
    page = HtmlPage(render(page_content(month_metrics(), report(), other, [])))
    assert "Publisher" not in page.texts
    assert page.text_after("sha256 of the file") == report().raw_sha256


def test_a_revised_month_shows_how_the_revisions_differ_and_the_chart_if_there_is_one() -> None:
    report_of = revision_report(rows_added=2, cents=2345)
    chart = ChartImage("revision", "Bar chart of the trips that differ.", b"\x89PNG")
    for charts, images in (([chart], ["Bar chart of the trips that differ."]), ([], [])):
        page = HtmlPage(render(page_content(month_metrics(), report(), source(), charts, report_of)))
        assert page.text_after("Revision").startswith(
            "green 2023-01 was revised: 2 rows added, +23.45 dollars. The clean"
        )
        assert "with sha256 0123456789ab…" in page.text_after("Revision")
        assert [image["alt"] for image in page.images] == images
    assert "Revision" not in HtmlPage(render(page_content(month_metrics(), report(), source(), [chart]))).texts


def test_a_generated_month_is_marked() -> None:
    page = HtmlPage(
        render(page_content(month_metrics(), report().model_copy(update={"generated": True}), source(), []))
    )
    assert "Synthetic sample." in page.texts
    assert "Synthetic sample." not in HtmlPage(render(page_content(month_metrics(), report(), source(), []))).texts


def test_the_page_loads_no_other_file_and_every_chart_has_alternative_text() -> None:
    page = HtmlPage(render(page_content(month_metrics(), report(), source(), [CHART])))
    assert page.loaded_urls == []
    assert [image["alt"] for image in page.images] == [CHART.alt]
    assert page.png_bytes() == [CHART.png]


def test_values_from_data_are_escaped() -> None:
    hostile = report().model_copy(
        update={
            "reasons": {HOSTILE: ReasonTotals(rows=1, total_cents=5)},
            "rules": [HOSTILE],
            "unknown_columns": [UnknownColumn(name=HOSTILE, type="string", examples=[HOSTILE])],
            "absent_columns": [HOSTILE],
        }
    )
    figures_ = replace(month_metrics(), zones=[ZoneMetrics(HOSTILE, HOSTILE, 5)])
    from_ = source().model_copy(update={"url": HOSTILE, "publisher": HOSTILE, "last_modified": HOSTILE})
    chart = ChartImage("trips_per_day", HOSTILE, b"\x89PNG")

    page = HtmlPage(render(page_content(figures_, hostile, from_, [chart])))
    plain = HtmlPage(render(page_content(month_metrics(), report(), source(), [CHART])))
    assert page.tag_names == plain.tag_names
    assert page.event_handlers == []
    assert page.loaded_urls == []
    assert len(page.images) == 1
    assert page.images[0]["alt"] == HOSTILE
    assert HOSTILE in page.texts


def test_the_same_data_gives_the_same_bytes_in_any_process_and_time_zone() -> None:
    script = (
        "import hashlib; from taxi_assets_tests.unit.reports.months import *; from taxi_assets.reports.page import *\n"
        "from taxi_assets.reports.artifact import version\n"
        "from taxi_assets.reports.charts import draw_charts\n"
        "page = render(page_content(month_metrics(), report(), source(), draw_charts(no_metrics(), report())))\n"
        "print(hashlib.sha256(page.encode()).hexdigest(), version())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env={"PYTHONPATH": ".", "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = render(page_content(month_metrics(), report(), source(), draw_charts(no_metrics(), report())))
    assert elsewhere.stdout.split() == [hashlib.sha256(here.encode()).hexdigest(), version()]
