"""The table of quality over time: one row per month and per reason, with sums that add up."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest

from taxi_assets.reports.quality_metrics import ALL, COLUMNS, quality_frame, recent_months
from taxi_assets.tlc.cleaning.report import CleaningReport, ControlTotals, ReasonTotals, UnknownColumn
from taxi_assets_tests.unit.reports.months import report


def month(key: str, rows: int, service: str = "green") -> CleaningReport:
    return report(service).model_copy(
        update={
            "month": key,
            "rows_raw": rows,
            "rows_quarantined": 60,
            "clean": ControlTotals(rows=rows - 60, cents=0, source_rows=0),
            "reasons": {
                "zero_passengers": ReasonTotals(rows=50, total_cents=100),
                "not_utf8": ReasonTotals(rows=20, total_cents=0),
            },
        }
    )


def row(frame: pd.DataFrame, service: str, key: str, reason: str = ALL) -> pd.Series:
    chosen = frame[(frame["service"] == service) & (frame["reason"] == reason)]
    (found,) = [r for _, r in chosen.iterrows() if f"{r['data_month']:%Y-%m}" == key]
    return found


def test_there_is_one_row_for_the_month_and_one_for_each_reason() -> None:
    frame = quality_frame([month("2023-02", 1060), month("2023-01", 2060), month("2023-02", 500, "yellow")])
    assert list(frame.columns) == [column.name for column in COLUMNS]
    assert frame[["service", "reason"]].to_numpy().tolist() == [
        [service, reason] for service in ("yellow", "green", "green") for reason in (ALL, "not_utf8", "zero_passengers")
    ]
    whole = row(frame, "green", "2023-02")
    assert (whole["rows_raw"], whole["rows_clean"], whole["rows_quarantined"]) == (1060, 1000, 60)
    assert whole["share_quarantined"] == pytest.approx(60 / 1060)
    assert row(frame, "green", "2023-02", "zero_passengers")["rows_quarantined"] == 50


def test_months_add_up_without_counting_reasons_twice() -> None:
    frame = quality_frame([month("2023-01", 1060), month("2023-02", 1060)])
    assert frame["rows_raw"].sum() == 2120
    assert frame["rows_clean"].sum() == 2000


def test_the_change_of_rows_is_relative_to_the_month_before_only() -> None:
    frame = quality_frame([month("2022-11", 560), month("2023-01", 1060), month("2023-02", 2060)])
    assert pd.isna(row(frame, "green", "2023-01")["change_of_rows"])
    assert row(frame, "green", "2023-02")["change_of_rows"] == pytest.approx(1.0)


def test_money_is_null_for_services_that_do_not_record_it() -> None:
    frame = quality_frame([month("2023-01", 1060), month("2023-01", 1060, "fhv")])
    assert row(frame, "green", "2023-01")["dollars_quarantined"] == pytest.approx(1234.56)
    assert pd.isna(row(frame, "fhv", "2023-01")["dollars_quarantined"])


def test_unknown_and_absent_columns_are_named_for_the_month() -> None:
    # Of 2023-01: coordinates were published until 2016-06, and the congestion fee of 2025 was not yet.
    changed = month("2023-01", 1060).model_copy(
        update={
            "unknown_columns": [UnknownColumn(name="a", type="int", examples=[])],
            "absent_columns": ["ehail_fee", "extra", "dropoff_latitude", "cbd_congestion_fee"],
        }
    )
    whole = row(quality_frame([changed]), "green", "2023-01")
    assert (whole["unknown_columns"], whole["absent_columns"]) == ("a", "ehail_fee, extra")


def test_types_do_not_depend_on_the_months_in_the_lake() -> None:
    only_fhv = quality_frame([month("2023-01", 1060, "fhv").model_copy(update={"reasons": {}})])
    types = pa.Table.from_pandas(only_fhv, preserve_index=False).schema
    assert types.field("data_month").type == pa.date32()
    assert types.field("dollars_quarantined").type == pa.float64()
    assert types.field("rows_raw").type == pa.int64()


def test_the_table_for_readers_has_the_newest_months_first() -> None:
    reports = [month(f"2022-{number:02d}", 1060 + number) for number in range(1, 13)] + [month("2023-01", 2060)]
    recent = recent_months(reports, 12)
    assert [line[0] for line in recent.rows][:2] == ["2023-01", "2022-12"]
    assert len(recent.rows) == 12
    assert recent.rows[0] == ["2023-01", "green", "2,060", "+97.6%", "60", "2.91%", "zero_passengers (50)"]
