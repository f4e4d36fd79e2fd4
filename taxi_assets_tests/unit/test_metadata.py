"""Metadata: the UI shows correct values, and no text from a file can break out of its table cell."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_assets import metadata
from taxi_assets.tlc.cleaning.report import CleaningReport
from taxi_assets.tlc.file_format import TLC_DIALECT, FileFormat
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.trips import MONTH, clean_generated_month, csv_lines, write_download

if TYPE_CHECKING:
    from pathlib import Path

PUBLISHED = "".join(f"{line}\n" for line in csv_lines(MONTH, 12)).encode()


def cells(table: str) -> list[list[str]]:
    """Return the cells of a GFM pipe table as a reader sees them: unescaped, without the line under the header."""
    rows = []
    for line in table.split("\n"):
        assert line.startswith("|")
        assert line.endswith("|")
        inner = re.findall(r"((?:[^\\|]|\\.)*)\|", line[1:])
        rows.append([re.sub(r"\\(.)", r"\1", cell).strip() for cell in inner])
    del rows[1]
    return rows


def unescaped(table: str, special: str) -> bool:
    """Return whether a character of the table's cells keeps its Markdown meaning."""
    body = re.sub(r"\\.", "", table)
    return special in body


# --- tables -----------------------------------------------------------------------------------------------------------


def test_every_value_is_in_its_own_cell() -> None:
    table = metadata.markdown_table(["zone", "trips"], [["Newark", 1], ["NA", "1e5"], ["nan", None]])
    assert cells(table) == [["zone", "trips"], ["Newark", "1"], ["NA", "1e5"], ["nan", ""]]


BREAKOUTS = [
    "a|b",
    "a\\|b",
    "a\\",
    "\\\\|",
    "line\nbreak",
    "line\r\nbreak\x0b\x85\u2028\u2029",
    "| --- |",
    "`code`",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](http://tracker/x.png)",
    "[x](javascript:alert(1))",
    "**bold** __bold__ ~~gone~~",
    "&lt;b&gt;",
    "\u202edesrever",
    "\x1b[31mred\x00",
    "\x01",
]


@pytest.mark.parametrize("text", BREAKOUTS)
def test_markup_in_data_is_shown_as_text(text: str) -> None:
    table = metadata.markdown_table([text, "b"], [[text, 1], [2, text]])
    shown = "".join(c if c.isprintable() else " " for c in text).strip()
    assert cells(table) == [[shown, "b"], [shown, "1"], ["2", shown]]
    assert not any(unescaped(table, special) for special in "`<>[]!*_~&")
    assert table.replace("\n", "").isprintable()


@given(st.lists(st.lists(st.text(max_size=60), min_size=3, max_size=3), max_size=4))
def test_any_text_stays_in_its_own_cell(rows: list[list[str]]) -> None:
    shown = cells(metadata.markdown_table(["a", "b", "c"], rows))
    assert shown == [["a", "b", "c"]] + [
        ["".join(c if c.isprintable() else " " for c in text).strip() for text in row] for row in rows
    ]


@pytest.mark.parametrize("character", ["x", "|", "\\", "ü"])
def test_a_long_text_is_truncated_with_an_ellipsis(character: str) -> None:
    ((_,), (shown,)) = cells(metadata.markdown_table(["a"], [[character * 500]]))
    assert shown == character * 60 + "…"
    ((_,), (shown,)) = cells(metadata.markdown_table(["a"], [[character * 60]]))
    assert shown == character * 60


@pytest.mark.parametrize("missing", [None, pd.NA, pd.NaT, float("nan")])
def test_a_missing_value_is_an_empty_cell(missing: object) -> None:
    assert cells(metadata.markdown_table(["a", "b"], [[missing, 1]])) == [["a", "b"], ["", "1"]]


def test_a_preview_has_ten_rows_with_missing_values_empty() -> None:
    frame = pd.DataFrame(
        {
            "id": pd.array([None, *range(1, 20)], "Int64"),
            "zone": pd.array(["NA", None, *["x|y"] * 18], "string"),
            "fare": [Decimal("-0.10")] * 20,
        }
    )
    header, first, second, third, *others = cells(metadata.preview(frame).md_str or "")
    assert header == ["id", "zone", "fare"]
    assert (first, second, third) == (["", "NA", "-0.10"], ["1", "", "-0.10"], ["2", "x|y", "-0.10"])
    assert len(others) == 7


def test_a_preview_of_an_empty_frame_is_its_header() -> None:
    assert cells(metadata.preview(pd.DataFrame({"a": [], "b": []})).md_str or "") == [["a", "b"]]


def test_a_published_file_shows_its_columns_and_types(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(b'\xef\xbb\xbfa, b ,"c",a\n1,2,3,4,5\n')
    with path.open("rb") as file:
        schema = metadata.file_contents(file, FileFormat.CSV, TLC_DIALECT)["dagster/column_schema"]
    assert [(c.name, c.type) for c in schema.columns] == [(n, "text") for n in ("a", "b", "c", "(field 5)")]

    pyarrow.parquet.write_table(pa.table({"Fee": [1.5], "note": ["x"]}), path)
    with path.open("rb") as file:
        schema = metadata.file_contents(file, FileFormat.PARQUET, TLC_DIALECT)["dagster/column_schema"]
    assert [(c.name, c.type) for c in schema.columns] == [("Fee", "double"), ("note", "string")]


def test_lineage_is_left_out_if_the_report_is_of_a_version_that_did_not_record_names(tmp_path: Path) -> None:
    raw, report = dg.AssetKey(["raw", "green_trips"]), clean_generated_month(tmp_path, rows=3).report
    older = CleaningReport.model_validate(report.model_dump(exclude={"published_columns"}))
    assert metadata.published_lineage(raw, GREEN.columns, older) == {}
    lineage = metadata.published_lineage(raw, GREEN.columns, report)["dagster/column_lineage"]
    assert lineage.deps_by_column["vendor_id"] == [dg.TableColumnDep(raw, "VendorID")]
    assert "pickup_date" not in lineage.deps_by_column  # derived


def test_a_preview_of_a_file_shows_the_values_as_published(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(b"a,b \n\n1,nan,|x\r\n\xff,`2`\n")
    with path.open("rb") as file:
        shown = cells(metadata.file_contents(file, FileFormat.CSV, TLC_DIALECT)["preview"].md_str)
    assert shown == [["a", "b", ""], ["1", "nan", "|x"], ["\\xff", "`2`", ""]]


def test_rules_are_shown_with_their_limits() -> None:
    shown = metadata.rules_metadata(GREEN, GREEN.rules)
    assert "- `distance_out_of_range`: The distance is below 0 or above 500 miles." in shown["rules"].md_str
    assert dict(shown["code_parts"].value["rules"])["longer_than_24_hours"].startswith(
        "The trip took longer than 24 hours."
    )
    assert metadata.rules_metadata(GREEN, [])["rules"].md_str == "none"


# --- numbers and sources ----------------------------------------------------------------------------------------------


def test_the_outcome_of_cleaning_is_shown_in_rows_percent_and_dollars(tmp_path: Path) -> None:
    report = clean_generated_month(tmp_path, rows=30, dirty=2).report
    shown = metadata.report_metadata(report)
    assert (shown["rows_raw"], shown["rows_clean"], shown["rows_quarantined"]) == (32, 30, 2)
    assert shown["quarantined_percent"] == 6.25
    assert shown["quarantined_dollars"] == report.quarantined_total_cents / 100
    (header, row) = cells(shown["quarantined_by_reason"].md_str)
    assert header == ["reason", "rows", "total_amount (US dollars)"]
    assert row == ["zero_passengers", "2", f"{report.quarantined_total_cents / 100:,.2f}"]
    assert shown["rules"].startswith("pickup_missing, ")
    assert "sample" not in shown


def test_unreadable_columns_and_interpretations_are_shown_and_older_reports_have_none(tmp_path: Path) -> None:
    older = clean_generated_month(tmp_path, rows=5).report.model_dump(exclude={"unreadable_columns", "interpretations"})
    shown = metadata.report_metadata(CleaningReport.model_validate(older))
    assert (shown["unreadable_columns"], shown["interpretations"]) == ("none", "none")
    found = {
        "unreadable_columns": {"extra": {"published_as": "Extra, text", "rows": 1200, "examples": ["x", "y"]}},
        "interpretations": {"pickup_datetime": ["One sentence.", "Another."]},
    }
    shown = metadata.report_metadata(CleaningReport.model_validate(older | found))
    assert shown["unreadable_columns"] == "extra (Extra, text): 1,200 rows, such as x, y"
    assert shown["interpretations"] == "pickup_datetime: One sentence. Another."


def test_only_columns_expected_in_the_month_are_absent_as_in_the_report(tmp_path: Path) -> None:
    report = clean_generated_month(tmp_path, rows=5).report
    # Of 2020-10: coordinates were published until 2016-06, and the congestion fee of 2025 was not yet.
    absent = ["pickup_longitude", "cbd_congestion_fee", "ehail_fee"]
    shown = metadata.report_metadata(report.model_copy(update={"absent_columns": absent}))
    assert shown["absent_columns"] == "ehail_fee"
    shown = metadata.report_metadata(report.model_copy(update={"absent_columns": absent[:2]}))
    assert shown["absent_columns"] == "none"


def test_a_month_without_quarantined_rows_is_described_as_such(tmp_path: Path) -> None:
    shown = metadata.report_metadata(clean_generated_month(tmp_path, rows=5).report)
    assert shown["quarantined_by_reason"].md_str == "No rows were quarantined."


def test_generated_rows_are_marked_as_generated(tmp_path: Path) -> None:
    record = write_download(PUBLISHED, tmp_path).record
    assert "sample" not in metadata.source_metadata(record)
    assert "Generated" in metadata.source_metadata(record.model_copy(update={"generated": True}))["sample"]
    report = clean_generated_month(tmp_path, rows=5).report.model_copy(update={"generated": True})
    assert "Generated" in metadata.report_metadata(report)["sample"]


def test_the_source_is_a_link_if_its_url_is_http(tmp_path: Path) -> None:
    record = write_download(PUBLISHED, tmp_path).record
    assert metadata.source_metadata(record)["url"] == dg.MetadataValue.url(record.url)
    local = record.model_copy(update={"url": "file:///x.csv", "etag": None})
    assert metadata.source_metadata(local)["url"] == "file:///x.csv"
    assert "etag" not in metadata.source_metadata(local)


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ({"rows": 3}, {"dagster/partition_row_count": 3}),
        ({"rows": 0, "file_bytes": 0}, {"dagster/partition_row_count": 0, "file_bytes": 0}),
        (
            {"rows": 3, "file_bytes": 9, "seconds": 0.12345},
            {"dagster/partition_row_count": 3, "file_bytes": 9, "duration_seconds": 0.123},
        ),
    ],
)
def test_sizes_are_shown_if_they_are_known(given_: dict[str, Any], shown: dict[str, Any]) -> None:
    assert metadata.size_metadata(**given_) == shown


def test_every_column_is_described_with_its_unit() -> None:
    columns = {column.name: column for column in metadata.column_schema(GREEN.columns).columns}
    assert list(columns) == [column.name for column in GREEN.columns]
    assert columns["total_amount"].type == "decimal(12,2)"
    assert (columns["total_amount"].description or "").endswith("[US dollars]")


def test_all_metadata_can_be_stored_in_an_event(tmp_path: Path) -> None:
    cleaned = clean_generated_month(tmp_path, rows=5, dirty=1)
    record = write_download(PUBLISHED, tmp_path).record
    shown = metadata.source_metadata(record) | metadata.report_metadata(cleaned.report)
    dg.AssetMaterialization("x", metadata=shown)
