"""The refusal of a month names the columns that cannot be read, and recommends only what can help."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa
import pytest

from taxi_assets.automation.step_failures import as_failures
from taxi_assets.errors import AmbiguousTimesError, ColumnMismatchError, TooManyQuarantinedError, WrongMonthError
from taxi_assets.tlc.cleaning.clean_month import CleanedMonth, clean_month
from taxi_assets.tlc.cleaning.file_checks import DEFAULT_CHECKS, FileChecks
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.readers import csv_blocks
from taxi_assets.tlc.rules import Rule
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.trip_files import ANY_FILE, TRIP, source_record, trip, write_parquet, write_trips

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
LAYOUT = "green 2019"
OCTOBER = Month(2020, 10)
RUN_CONFIG = "run config"


def clean(
    path: Path, tmp_path: Path, rules: Sequence[Rule] = GREEN.rules, checks: FileChecks = DEFAULT_CHECKS
) -> CleanedMonth:
    return clean_month(path, source_record(path), GREEN, OCTOBER, rules, tmp_path, checks)


def refusal(path: Path, tmp_path: Path) -> TooManyQuarantinedError:
    with pytest.raises(TooManyQuarantinedError) as error:
        clean(path, tmp_path)
    return error.value


def test_the_refusal_names_column_published_type_examples_and_share_and_blames_nothing_else(tmp_path: Path) -> None:
    trips = [*(trip(pickup_datetime=f"{day}. Okt 2020") for day in range(1, 6)), trip()]
    error = refusal(write_trips(tmp_path / "m.csv", LAYOUT, trips), tmp_path)
    assert str(error) == (
        "green 2020-10: 5 of 6 rows would be quarantined (unreadable_value 5). pickup_datetime (lpep_pickup_datetime, "
        "text) cannot be read in 83% of the rows, such as '1. Okt 2020', '2. Okt 2020', '3. Okt 2020'. Nothing was "
        "written. Check these values in the file: its format may have changed. [TooManyQuarantinedError]"
    )


def test_the_type_of_a_parquet_column_is_named(tmp_path: Path) -> None:
    columns = {name: pa.array([text]) for name, text in TRIP.items()} | {"fare_amount": pa.array([b"\x01"])}
    error = refusal(write_parquet(tmp_path / "m.parquet", LAYOUT, columns), tmp_path)
    assert "fare_amount (fare_amount, binary) cannot be read in 100% of the rows, such as '\\x01'." in str(error)


def test_run_config_is_recommended_only_if_it_can_help(tmp_path: Path) -> None:
    by_rules = [trip(passenger_count="0"), trip(passenger_count="0"), trip()]
    by_values = [trip(passenger_count="0"), trip(fare_amount="x"), trip(fare_amount="y")]
    assert RUN_CONFIG in str(refusal(write_trips(tmp_path / "m.csv", LAYOUT, by_rules), tmp_path))
    assert RUN_CONFIG not in str(refusal(write_trips(tmp_path / "m.csv", LAYOUT, by_values), tmp_path))


def test_the_failure_of_a_run_has_the_facts_as_metadata(tmp_path: Path) -> None:
    path = write_trips(tmp_path / "m.csv", LAYOUT, [trip(fare_amount="x")])
    with pytest.raises(dg.Failure) as failure, as_failures():
        clean(path, tmp_path)
    shown = {name: value.value for name, value in failure.value.metadata.items()}
    assert shown == {
        "rows": 1,
        "rows_quarantined": 1,
        "quarantined_by_reason": "unreadable_value 1",
        "unreadable fare_amount": "fare_amount (fare_amount, text) cannot be read in 100% of the rows, such as 'x'",
    }


def test_the_report_has_the_unreadable_columns_the_most_affected_first(tmp_path: Path) -> None:
    trips = [*[trip()] * 5, trip(extra="x"), trip(tip_amount="1_5"), trip(tip_amount="inf", extra="x")]
    report = clean(write_trips(tmp_path / "m.csv", LAYOUT, trips), tmp_path, checks=ANY_FILE).report
    found = {name: (column.rows, column.examples) for name, column in report.unreadable_columns.items()}
    assert found == {"extra": (2, ["x"]), "tip_amount": (2, ["1_5", "inf"])}
    path = write_trips(tmp_path / "m.csv", LAYOUT, [*trips, trip(), trip(tip_amount="x")])
    more = clean(path, tmp_path, checks=ANY_FILE).report
    assert list(more.unreadable_columns) == ["tip_amount", "extra"]


def test_a_rule_does_not_list_a_row_because_of_a_value_that_cannot_be_read(tmp_path: Path) -> None:
    no_hour = Rule("no_hour", "", lambda batch, _: batch.column("pickup_hour").is_null())
    no_tip = Rule("no_tip", "", lambda batch, _: batch.column("tip_amount").is_null())
    trips = [trip()] * 4 + [trip(pickup_datetime="x"), trip(tip_amount=""), trip(pickup_datetime="", tip_amount="x")]
    path = write_trips(tmp_path / "m.csv", LAYOUT, trips)
    cleaned = clean(path, tmp_path, [*GREEN.rules, no_hour, no_tip], ANY_FILE)
    reasons = pa.parquet.read_table(cleaned.quarantine)["reasons"].to_pylist()
    assert reasons == [["unreadable_value"], ["no_tip"], ["pickup_missing", "no_hour", "unreadable_value"]]


def test_a_hopeless_file_is_refused_after_three_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 2000)
    bad = [trip(pickup_datetime="x")] * 300
    error = refusal(write_trips(tmp_path / "m.csv", LAYOUT, [*bad, *[trip()] * 900]), tmp_path)
    assert "of the first " in str(error)
    assert error.facts["rows"] == error.facts["rows_quarantined"]
    assert int(error.facts["rows"]) < 100


@pytest.mark.parametrize(
    "rows",
    [
        [trip(pickup_datetime="x")] * 48 + [trip()] * 2,
        [trip(passenger_count="0")] * 50,
    ],
    ids=["a few can be read", "rules reject them"],
)
def test_other_files_are_read_to_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, str]]
) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 6000)
    path = write_trips(tmp_path / "m.csv", LAYOUT, [*rows * 6, *[trip()] * 10])
    assert "of 310 rows" in str(refusal(path, tmp_path))


def test_more_than_five_percent_of_unreadable_rows_are_refused_unless_run_config_allows_them(tmp_path: Path) -> None:
    path = write_trips(tmp_path / "m.csv", LAYOUT, [trip(fare_amount="x")] * 2 + [trip()] * 18)
    message = str(refusal(path, tmp_path))
    assert "2 of 20 rows would be quarantined (unreadable_value 2). fare_amount (fare_amount, text)" in message
    assert "raise ops/clean_green/config/maximum_share_unreadable in the run config" in message
    assert clean(path, tmp_path, checks=FileChecks(maximum_share_unreadable=0.1)).report.rows_quarantined == 2
    few = write_trips(tmp_path / "few.csv", LAYOUT, [trip(fare_amount="x")] + [trip()] * 19)
    assert clean(few, tmp_path).report.rows_quarantined == 1


def test_rows_of_another_shape_are_refused_with_the_first_of_them(tmp_path: Path) -> None:
    path = write_trips(tmp_path / "m.csv", LAYOUT, [*[trip()] * 18, "1,2,3", "4,5"])
    with pytest.raises(ColumnMismatchError, match=r"2 of 20 rows do not have 20 fields.*data row 19: '1,2,3'"):
        clean(path, tmp_path)
    assert clean(path, tmp_path, checks=FileChecks(maximum_share_unreadable=0.1)).report.rows_quarantined == 2


def test_a_file_of_another_month_is_refused_unless_run_config_allows_it(tmp_path: Path) -> None:
    september = trip(pickup_datetime="2020-09-30 10:00:00", dropoff_datetime="2020-09-30 10:05:00")
    path = write_trips(tmp_path / "m.csv", LAYOUT, [september] * 11 + [trip()] * 9)
    with pytest.raises(WrongMonthError, match=r"9 of 20 pickups are in 2020-10; 11 in 2020-09\."):
        clean(path, tmp_path)
    assert clean(path, tmp_path, checks=FileChecks(allow_other_months=True)).report.clean.rows == 20
    half = write_trips(tmp_path / "half.csv", LAYOUT, [september] * 10 + [trip()] * 10)
    assert clean(half, tmp_path).report.clean.rows == 20


def test_a_clock_of_twelve_hours_without_am_or_pm_is_refused(tmp_path: Path) -> None:
    def at(hour: int) -> dict[str, str]:
        return trip(pickup_datetime=f"2020-10-05 {hour:02}:00:00", dropoff_datetime=f"2020-10-05 {hour:02}:10:00")

    twelve = [at(hour % 12 + 1) for hour in range(120)]
    with pytest.raises(AmbiguousTimesError, match="has only the hours 1 to 12, in 120 rows"):
        clean(write_trips(tmp_path / "m.csv", LAYOUT, twelve), tmp_path)
    assert clean(write_trips(tmp_path / "day.csv", LAYOUT, [*twelve, at(13)]), tmp_path).report.clean.rows == 121
    assert clean(write_trips(tmp_path / "few.csv", LAYOUT, twelve[:60]), tmp_path).report.clean.rows == 60


def test_a_file_in_another_encoding_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = write_trips(tmp_path / "m.csv", LAYOUT, [trip(store_and_fwd_flag="\xe9")] * 40)
    path.write_bytes(path.read_text("utf-8").encode("latin-1"))
    assert "Save the file in UTF-8, or set the encoding in the dialect" in str(refusal(path, tmp_path))
