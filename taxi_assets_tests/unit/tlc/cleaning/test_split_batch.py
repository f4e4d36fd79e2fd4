"""The split of a batch: each row is clean, with derived columns, or quarantined with all reasons."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from taxi_assets.tlc.cleaning.parse_batch import parse_batch
from taxi_assets.tlc.cleaning.quarantine import QUARANTINE_SCHEMA
from taxi_assets.tlc.cleaning.split_batch import evaluate_rules, split_batch
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.readers.open_trips import open_trips
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.trip_files import (
    LAYOUTS,
    format_of,
    month_of,
    service_of,
    trip,
    write_csv,
    write_parquet,
    write_trips,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LAYOUT = "green 2019"
OCTOBER = Month(2020, 10)
at = dt.datetime.fromisoformat


def split_file(
    path: Path, layout: str = LAYOUT, month: Month = OCTOBER, rules: Sequence[str] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the clean and the quarantined rows of a file, in order."""
    service = SERVICES[service_of(layout)]
    clean, quarantine = [], []
    with open_trips(path, format_of(path), service, label="", month=month_of(layout)) as reader:
        for raw in reader.batches():
            split = split_batch(raw, service, month, service.select_rules(rules))
            assert split.clean.schema == service.working_schema
            assert split.quarantine.schema == QUARANTINE_SCHEMA
            clean += split.clean.to_pylist()
            quarantine += split.quarantine.to_pylist()
    return clean, quarantine


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return tmp_path / "month.csv"


# --- values and derived columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_trip_has_the_same_values_in_every_layout(csv: Path, layout: str) -> None:
    clean, quarantine = split_file(write_trips(csv, layout, [trip()]), layout)
    assert quarantine == []
    (row,) = clean
    expected = {
        "vendor_id": 2,
        "pickup_datetime": at("2020-10-05 10:00:00"),
        "dropoff_datetime": at("2020-10-05 10:12:30"),
        "passenger_count": 1,
        "trip_distance": Decimal("2.600"),
        "rate_code_id": 1,
        "store_and_fwd_flag": "N",
        "pickup_location_id": 74,
        "dropoff_location_id": 42,
        "payment_type": 1,
        "fare_amount": Decimal("10.50"),
        "extra": Decimal("0.50"),
        "mta_tax": Decimal("0.50"),
        "tip_amount": Decimal("1.23"),
        "tolls_amount": Decimal("0.00"),
        "improvement_surcharge": Decimal("0.30"),
        "total_amount": Decimal("13.03"),
    }
    derived = {
        "pickup_date": dt.date(2020, 10, 5),
        "pickup_hour": 10,
        "pickup_isodow": 1,
        "trip_seconds": 750,
        "is_reversal": False,
        "data_month": dt.date(2020, 10, 1),
        "source_row": 1,
    }
    published = {name: value for name, value in expected.items() if name in LAYOUTS[layout].columns}
    assert row == {**dict.fromkeys(SERVICES[service_of(layout)].arrow_schema.names), **published, **derived}


def derived_of(csv: Path, month: Month = OCTOBER, **changes: str) -> dict[str, Any]:
    clean, quarantine = split_file(write_trips(csv, LAYOUT, [trip(**changes)]), month=month, rules=[])
    assert quarantine == []
    return clean[0]


@pytest.mark.parametrize(
    ("pickup", "date", "hour", "weekday"),
    [
        ("2020-10-04 23:59:59", "2020-10-04", 23, 7),
        ("2020-10-05 00:00:00", "2020-10-05", 0, 1),
        ("2020-02-29 12:30:00", "2020-02-29", 12, 6),
        ("1969-12-31 23:59:59", "1969-12-31", 23, 3),
        ("2020-10-05 10:59:59.999999", "2020-10-05", 10, 1),
    ],
)
def test_date_hour_and_weekday_are_those_of_the_pickup(
    csv: Path, pickup: str, date: str, hour: int, weekday: int
) -> None:
    row = derived_of(csv, pickup_datetime=pickup)
    assert (row["pickup_date"], row["pickup_hour"], row["pickup_isodow"]) == (
        dt.date.fromisoformat(date),
        hour,
        weekday,
    )
    assert weekday == row["pickup_date"].isoweekday()


@pytest.mark.parametrize(
    ("pickup", "dropoff", "seconds"),
    [
        ("2020-10-05 10:00:00", "2020-10-05 10:12:30", 750),
        ("2020-10-05 10:00:00", "2020-10-06 10:00:00", 86_400),
        ("2020-10-05 10:00:00", "2020-10-05 10:00:00", 0),
        ("2020-10-05 10:00:00", "2020-10-05 09:59:00", -60),
        ("2020-10-05 10:00:00", "", None),
        ("", "2020-10-05 10:00:00", None),
        # The clocks went back from 02:00 to 01:00 on 1 November 2020.
        ("2020-11-01 01:50:00", "2020-11-01 01:10:00", 20 * 60),
        ("2020-11-01 01:30:00", "2020-11-01 01:30:00", 3600),
        ("2020-11-01 01:59:59", "2020-11-01 01:00:00", 1),
        ("2020-11-01 01:10:00", "2020-11-01 01:50:00", 40 * 60),
        ("2020-11-01 01:10:00.0", "2020-11-01 01:10:00.5", 0),
        ("2020-11-01 00:50:00", "2020-11-01 02:10:00", 80 * 60),
        ("2020-11-01 02:10:00", "2020-11-01 01:50:00", -20 * 60),
        ("2020-11-02 01:50:00", "2020-11-02 01:10:00", -40 * 60),
    ],
)
def test_trip_seconds_across_the_change_of_clocks(csv: Path, pickup: str, dropoff: str, seconds: int | None) -> None:
    row = derived_of(csv, pickup_datetime=pickup, dropoff_datetime=dropoff)
    assert row["trip_seconds"] == seconds


def test_a_trip_within_the_repeated_hour_does_not_lengthen_other_trips(csv: Path) -> None:
    trips = [
        trip(pickup_datetime="2020-11-01 01:50:00", dropoff_datetime="2020-11-01 01:10:00"),
        trip(pickup_datetime="2020-11-01 01:10:00", dropoff_datetime="2020-11-01 01:11:00"),
        trip(pickup_datetime="2020-10-05 01:10:00", dropoff_datetime="2020-10-05 01:11:00"),
    ]
    clean, _ = split_file(write_trips(csv, LAYOUT, trips))
    assert [row["trip_seconds"] for row in clean] == [1200, 60, 60]


@pytest.mark.parametrize(
    ("total", "reversal"), [("-13.03", True), ("-0.01", True), ("-0.004", False), ("0", False), ("", False)]
)
def test_a_trip_with_a_negative_total_is_a_clean_reversal(csv: Path, total: str, reversal: bool) -> None:
    clean, quarantine = split_file(write_trips(csv, LAYOUT, [trip(total_amount=total)]))
    assert quarantine == []
    assert clean[0]["is_reversal"] is reversal


# --- quarantine ------------------------------------------------------------------------------------------------------


def test_a_row_goes_to_quarantine_with_every_reason_and_its_text(csv: Path) -> None:
    bad = trip(
        pickup_datetime="2008-12-31 10:00:00",
        dropoff_datetime="2008-12-31 10:00:00",
        passenger_count="0",
        trip_distance="500.001",
        fare_amount="ten",
        rate_code_id="1e3",
        total_amount="-7.005",
    )
    clean, quarantine = split_file(write_trips(csv, LAYOUT, [trip(), bad, trip()]))
    assert [row["source_row"] for row in clean] == [1, 3]
    assert quarantine == [
        {
            "source_row": 2,
            "reasons": [
                "pickup_outside_month",
                "dropoff_not_after_pickup",
                "zero_passengers",
                "distance_out_of_range",
                "unreadable_value",
            ],
            "unreadable_columns": ["rate_code_id", "fare_amount"],
            "pickup_datetime": at("2008-12-31 10:00:00"),
            "total_amount": Decimal("-7.01"),
            "original": LAYOUTS[LAYOUT].line(bad),
            "data_month": dt.date(2020, 10, 1),
        }
    ]


@pytest.mark.parametrize("column", [name for name in LAYOUTS[LAYOUT].columns if name])
def test_an_unreadable_value_in_any_column_is_named(csv: Path, column: str) -> None:
    clean, quarantine = split_file(write_trips(csv, LAYOUT, [trip(), trip(**{column: "?"})]))
    assert len(clean) == 1
    assert "unreadable_value" in quarantine[0]["reasons"]
    assert quarantine[0]["unreadable_columns"] == [column]


@pytest.mark.parametrize("column", [name for name in LAYOUTS[LAYOUT].columns if name])
def test_an_empty_value_is_null_and_only_the_pickup_is_required(csv: Path, column: str) -> None:
    clean, quarantine = split_file(write_trips(csv, LAYOUT, [trip(**{column: ""})]))
    if column == "pickup_datetime":
        assert [row["reasons"] for row in quarantine] == [["pickup_missing"]]
    else:
        assert quarantine == []
        assert clean[0][column] is None


def test_each_rule_gives_one_boolean_per_row(csv: Path) -> None:
    path = write_trips(csv, LAYOUT, [trip(), trip(passenger_count="0"), trip(passenger_count="")])
    with open_trips(path, format_of(path), GREEN, label="", month=OCTOBER) as reader:
        (raw,) = reader.batches()
        parsed = parse_batch(raw, GREEN, OCTOBER)
    violations = evaluate_rules(parsed, OCTOBER, GREEN.rules)
    assert {name: mask.to_pylist() for name, mask in violations.items()} == {
        rule.name: [False, rule.name == "zero_passengers", False] for rule in GREEN.rules
    }


def test_a_rule_that_is_not_applied_rejects_no_rows(csv: Path) -> None:
    path = write_trips(
        csv,
        LAYOUT,
        [trip(passenger_count="0"), trip(trip_distance="-1"), trip(passenger_count="0", trip_distance="-1")],
    )
    clean, quarantine = split_file(path, rules=["distance_out_of_range"])
    assert [row["source_row"] for row in clean] == [1]
    assert [row["reasons"] for row in quarantine] == [["distance_out_of_range"]] * 2


def test_without_rules_only_unreadable_rows_are_quarantined(csv: Path) -> None:
    lines: list[dict[str, str] | str | bytes] = [
        trip(pickup_datetime="1999-01-01 00:00:00", passenger_count="0", trip_distance="-1"),
        trip(pickup_datetime="", dropoff_datetime=""),
        trip(tip_amount="0x1F"),
        trip(),
        "1,2,3",
        LAYOUTS[LAYOUT].line(trip()).encode().replace(b",N,", b",\xff,"),
        LAYOUTS[LAYOUT].line(trip(store_and_fwd_flag="")).encode() + b",\xff",
    ]
    clean, quarantine = split_file(write_trips(csv, LAYOUT, lines), rules=[])
    assert [row["source_row"] for row in clean] == [1, 2, 4]
    assert {row["source_row"]: row["reasons"] for row in quarantine} == {
        3: ["unreadable_value"],
        5: ["wrong_field_count"],
        6: ["unreadable_value", "not_utf8"],
        7: ["wrong_field_count", "not_utf8"],
    }


def test_invalid_utf8_in_an_unnamed_field_sends_the_row_to_quarantine(csv: Path) -> None:
    layout = "green 2013"  # has two fields without a name
    row = LAYOUTS[layout].line(trip()).encode()
    clean, quarantine = split_file(write_trips(csv, layout, [row, row[:-1] + b"\xe9,", row]), layout)
    assert [row["source_row"] for row in clean] == [1, 3]
    assert [(row["reasons"], row["original"]) for row in quarantine] == [
        (["wrong_field_count", "not_utf8"], row[:-1].decode() + "\\xe9,")
    ]


def test_a_row_with_a_value_in_an_unnamed_field_does_not_shift_the_texts_of_other_rows(csv: Path) -> None:
    layout = "green 2013"
    # The text of the amounts is needed, because doubles do not determine how they are rounded.
    rows = [LAYOUTS[layout].line(trip(tip_amount=tip)) for tip in ("1.005", "2.675", "3.005", "nan")]
    rows[1] = rows[1][:-1] + "late,"
    clean, quarantine = split_file(write_trips(csv, layout, rows), layout)
    assert [(row["source_row"], str(row["tip_amount"])) for row in clean] == [(1, "1.01"), (3, "3.01"), (4, "None")]
    assert [(row["source_row"], row["reasons"]) for row in quarantine] == [(2, ["wrong_field_count"])]


def test_quarantine_is_in_file_order_including_malformed_rows(csv: Path) -> None:
    lines: list[dict[str, str] | str] = [
        "x",
        trip(passenger_count="0"),
        trip(),
        "y",
        "z",
        trip(passenger_count="0"),
        trip(),
        "1,2",
    ]
    path = write_csv(csv, LAYOUTS[LAYOUT].file([*[trip()] * 20, *lines]))
    _, quarantine = split_file(path)
    assert [row["source_row"] for row in quarantine] == [21, 22, 24, 25, 26, 28]
    malformed_rows = [row for row in quarantine if row["reasons"] == ["wrong_field_count"]]
    assert [row["original"] for row in malformed_rows] == ["x", "y", "z", "1,2"]
    for row in malformed_rows:
        assert row["unreadable_columns"] == []
        assert row["data_month"] == dt.date(2020, 10, 1)
        assert row["pickup_datetime"] is row["total_amount"] is None


def test_a_parquet_row_goes_to_quarantine_as_json(tmp_path: Path) -> None:
    columns = {
        "vendor_id": pa.array([1, 2]),
        "pickup_datetime": pa.array([at("2020-10-05 10:00:00")] * 2),
        "dropoff_datetime": pa.array([at("2020-10-05 10:05:00"), None]),
        "passenger_count": pa.array([1.0, 1.5]),
        "trip_distance": pa.array([1.005, 2.0]),
        "total_amount": pa.array([10.005, -3.5]),
        "store_and_fwd_flag": pa.array(["N", "Y"], pa.large_string()),
    }
    clean, quarantine = split_file(write_parquet(tmp_path / "m.parquet", LAYOUT, columns))
    assert [(row["trip_distance"], row["total_amount"]) for row in clean] == [(Decimal("1.005"), Decimal("10.01"))]
    (row,) = quarantine
    assert (row["source_row"], row["reasons"], row["unreadable_columns"]) == (
        2,
        ["unreadable_value"],
        ["passenger_count"],
    )
    assert row["total_amount"] == Decimal("-3.50")
    original = json.loads(row["original"])
    assert list(original) == LAYOUTS[LAYOUT].header.split(",")
    assert {name: value for name, value in original.items() if value is not None} == {
        "VendorID": 2,
        "lpep_pickup_datetime": "2020-10-05 10:00:00",
        "passenger_count": 1.5,
        "trip_distance": 2.0,
        "total_amount": -3.5,
        "store_and_fwd_flag": "Y",
    }
