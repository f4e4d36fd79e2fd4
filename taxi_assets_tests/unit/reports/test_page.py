"""The page of a month: complete in itself, honest about what is not there, and closed to what data could smuggle in."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

from taxi_assets.reports.chart_style import ChartImage
from taxi_assets.reports.charts import draw_charts
from taxi_assets.reports.metrics import MoneyMetrics, ZoneMetrics
from taxi_assets.reports.page import render, version
from taxi_assets.tlc.cleaning.report import ReasonTotals, UnknownColumn
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.html_pages import Page
from taxi_assets_tests.unit.reports.months import figures, figures_without_money, no_figures, report, source

HOSTILE = "<script>alert(1)</script>\"'><img src=https://evil.test/x onerror=alert(1)>{{ 7 * 7 }}</style>&amp;"
PICTURE = ChartImage("trips_per_day", "Bar chart of trips per day.", b"\x89PNG")


def test_trips_revenue_busiest_hour_and_data_quality_stand_at_the_top() -> None:
    page = Page(render(figures(), report(), source(), [PICTURE]))
    assert page.after("Trips") == "3,100"
    assert page.after("Revenue") == "$62,000"
    assert page.after("Busiest hour") == "Fri 17:00\N{EN DASH}18:00"
    assert page.after("Data quality") == "98.41% clean"
    assert page.text.index("Data quality") < page.text.index("Compared")


def test_months_are_compared_or_said_not_to_be_loaded() -> None:
    page = Page(render(figures(), report(), source(), []))
    assert page.after("3,100", 1) == "+3.3% on Dec 2022"
    assert page.after("3,100", 2) == "Jan 2022: not loaded"
    row = page.text.index("Trips a day")
    assert page.text[row : row + 6] == ["Trips a day", "100", "97", "+3.3%", "not loaded", "\N{EN DASH}"]


def test_what_a_service_does_not_record_is_left_out() -> None:
    page = Page(render(figures_without_money(), report("fhv"), source(), []))
    message = " ".join(page.text)
    for absent in ("Revenue", "$", "Mean distance", "Tips", "Money", "None", "nan", "null"):
        assert absent not in message, absent
    assert "money is not recorded" in message
    assert "The taxi zone of the pickup is not recorded in this month's file." in message


def test_trips_without_a_zone_in_the_city_are_unknown_or_outside_it() -> None:
    page = Page(render(figures(), report(), source(), []))
    assert "Not drawn: 31 trips (1.0%) whose pickup zone is unknown, or outside the city." in page.text
    page = Page(render(replace(figures(), trips_without_zone=0), report(), source(), []))
    assert "Every trip has a known pickup zone in the city." in page.text


def test_tips_in_cash_are_a_dash_and_no_share() -> None:
    paid = [
        MoneyMetrics(name, 10, Decimal(100), Decimal(tips), Decimal(120))
        for name, tips in (("Credit card", 20), ("Cash", 0))
    ]
    page = Page(render(replace(figures(), payments=paid), report(), source(), []))
    assert page.after("Credit card", 4) == "20.0%"
    assert page.after("Cash", 4) == "\N{EN DASH}"


def test_only_columns_that_files_of_that_time_have_are_absent() -> None:
    # Of 2023-01: coordinates were published until 2016-06, and the congestion fee of 2025 was not yet.
    columns = ["pickup_longitude", "cbd_congestion_fee", "ehail_fee"]
    page = Page(render(figures(), report().model_copy(update={"absent_columns": columns}), source(), []))
    assert page.after("Absent columns") == "ehail_fee"
    page = Page(render(figures(), report().model_copy(update={"absent_columns": columns[:2]}), source(), []))
    assert page.after("Absent columns") == "none"


def test_a_month_without_trips_has_a_page_too() -> None:
    page = Page(render(no_figures(), report("fhv", rows=0), None, []))
    assert page.after("Trips") == "0"
    assert page.after("Data quality") == "0.00% clean"


def test_nothing_left_out_is_said_so() -> None:
    clean = report().model_copy(update={"rows_quarantined": 0, "rows_raw": 3100, "reasons": {}})
    page = Page(render(figures(), clean, source(), []))
    assert page.after("Data quality") == "100% clean"
    assert "Of 3,100 published rows, 3,100 are clean: nothing was left out." in page.text


def test_where_the_data_comes_from() -> None:
    page = Page(render(figures(), report(), source(), []))
    assert page.after("Publisher") == "tlc"
    assert page.after("File") == source().url
    assert page.after("Fetched") == "2024-03-05 06:07 UTC"
    assert page.after("sha256 of the file") == report().raw_sha256
    assert page.after("Rules applied") == "zero_passengers"


def test_a_record_of_another_file_says_nothing_of_this_one() -> None:
    other = source().model_copy(update={"sha256": "f" * 64})
    page = Page(render(figures(), report(), other, []))
    assert "Publisher" not in page.text
    assert page.after("sha256 of the file") == report().raw_sha256


def test_generated_months_say_that_they_are() -> None:
    page = Page(render(figures(), report().model_copy(update={"generated": True}), source(), []))
    assert "Generated sample." in page.text
    assert "Generated sample." not in Page(render(figures(), report(), source(), [])).text


def test_nothing_is_loaded_and_every_picture_has_words() -> None:
    page = Page(render(figures(), report(), source(), [PICTURE]))
    assert page.loaded == []
    assert [image["alt"] for image in page.images] == [PICTURE.alt]
    assert page.pngs() == [PICTURE.png]


def test_what_comes_from_data_stays_text() -> None:
    hostile = report().model_copy(
        update={
            "reasons": {HOSTILE: ReasonTotals(rows=1, total_cents=5)},
            "rules": [HOSTILE],
            "unknown_columns": [UnknownColumn(name=HOSTILE, type="string", examples=[HOSTILE])],
            "absent_columns": [HOSTILE],
        }
    )
    figures_ = replace(figures(), zones=[ZoneMetrics(HOSTILE, HOSTILE, 5)])
    from_ = source().model_copy(update={"url": HOSTILE, "publisher": HOSTILE, "last_modified": HOSTILE})
    picture = ChartImage("trips_per_day", HOSTILE, b"\x89PNG")

    page = Page(render(figures_, hostile, from_, [picture]))
    plain = Page(render(figures(), report(), source(), [PICTURE]))
    assert page.tags == plain.tags
    assert page.handlers == []
    assert page.loaded == []
    assert len(page.images) == 1
    assert page.images[0]["alt"] == HOSTILE
    assert HOSTILE in page.text


def test_the_same_data_gives_the_same_bytes_in_any_process_and_time_zone() -> None:
    script = (
        "import hashlib; from taxi_assets_tests.unit.reports.months import *; from taxi_assets.reports.page import *\n"
        "from taxi_assets.reports.charts import draw_charts\n"
        "page = render(figures(), report(), source(), draw_charts(no_figures(), report()))\n"
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
    here = render(figures(), report(), source(), draw_charts(no_figures(), report()))
    assert elsewhere.stdout.split() == [hashlib.sha256(here.encode()).hexdigest(), version()]
