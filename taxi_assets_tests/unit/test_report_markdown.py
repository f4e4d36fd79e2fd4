"""The report of a month as Markdown: text of the data has no meaning in it, and missing data has no section."""

from __future__ import annotations

import re

from taxi_assets.assets.report_markdown import report_markdown
from taxi_assets.reports.page import page_content
from taxi_assets.tlc.cleaning.report import ReasonTotals, UnknownColumn
from taxi_assets_tests.unit.reports.months import metrics_without_money, month_metrics, report, source

HOSTILE = "<img src=x onerror=alert(1)>|`[x](javascript:alert(1))`\n# Heading"


def test_text_of_the_data_has_no_meaning_in_markdown() -> None:
    hostile = report().model_copy(
        update={
            "unknown_columns": [UnknownColumn(name=HOSTILE, type=HOSTILE, examples=[])],
            "reasons": {HOSTILE: ReasonTotals(rows=50, total_cents=0)},
            "interpretations": {"pickup_datetime": [HOSTILE]},
        }
    )
    content = page_content(month_metrics(), hostile, source(), [])
    markdown = report_markdown(content, [], "gs://lake/reports/green_trips/2023-01/report.html").md_str or ""
    plain = re.sub(r"\\.", "", markdown)
    assert not re.findall(r"[<>`\[\]]", plain)
    headings = [line for line in markdown.splitlines() if line.startswith("#")]
    assert headings == ["# Green taxi, January 2023", "## Comparison", "## Payment types", "## Data quality"]


def test_a_service_without_payments_and_amounts_has_no_section_and_no_column_for_them() -> None:
    content = page_content(metrics_without_money(), report("fhv"), None, [])
    markdown = report_markdown(content, [], "/lake/reports/fhv_trips/2023-01/report.html").md_str or ""
    for absent in ("Payment types", "total amount", "$", "None"):
        assert absent not in markdown, absent
