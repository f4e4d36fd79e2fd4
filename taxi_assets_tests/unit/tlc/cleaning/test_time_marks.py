"""Times that are marked as UTC: read as local times if the pickups fit the month, otherwise refused."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from taxi_assets.errors import AmbiguousTimesError, TooManyQuarantinedError
from taxi_assets.tlc.cleaning.clean_month import CleanedMonth, clean_month
from taxi_assets.tlc.cleaning.file_checks import FileChecks
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.values.new_york import NEW_YORK
from taxi_assets_tests.trip_files import ANY_FILE, TRIP, source_record, trip, write_parquet, write_trips

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LAYOUT = "green 2019"
OCTOBER = Month(2020, 10)
FIRST, MIDDLE, LAST = (dt.datetime(2020, 10, day, hour) for day, hour in ((1, 1), (15, 12), (31, 23)))  # noqa: DTZ001
MINUTES = dt.timedelta(minutes=10)
UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
MARKS: dict[str, Callable[[dt.datetime], str]] = {
    "Z": lambda time: f"{time:%Y-%m-%dT%H:%M:%S}Z",
    "+00:00": lambda time: f"{time}+00:00",
    " UTC": lambda time: f"{time} UTC",
    **{
        unit: lambda time, factor=factor: str(int(time.replace(tzinfo=dt.UTC).timestamp()) * factor)  # type: ignore[misc]
        for unit, factor in UNITS.items()
    },
}


def in_utc(local: dt.datetime) -> dt.datetime:
    """Return the UTC time at which New York's clocks showed a time."""
    return local.replace(tzinfo=ZoneInfo(NEW_YORK)).astimezone(dt.UTC).replace(tzinfo=None)


def clean(path: Path, tmp_path: Path, checks: FileChecks = ANY_FILE) -> CleanedMonth:
    return clean_month(path, source_record(path), GREEN, OCTOBER, GREEN.rules, tmp_path, checks)


def write(tmp_path: Path, times: Sequence[dt.datetime], mark: Callable[[dt.datetime], str]) -> Path:
    trips = [trip(pickup_datetime=mark(time), dropoff_datetime=mark(time + MINUTES)) for time in times]
    return write_trips(tmp_path / "m.csv", LAYOUT, trips)


def pickups(cleaned: CleanedMonth) -> list[Any]:
    times: list[Any] = pa.parquet.read_table(cleaned.clean)["pickup_datetime"].to_pylist()
    return times


@pytest.mark.parametrize("mark", MARKS)
def test_local_times_that_are_marked_as_utc_are_read_as_local_times_and_the_report_says_so(
    tmp_path: Path, mark: str
) -> None:
    cleaned = clean(write(tmp_path, [FIRST, MIDDLE, LAST], MARKS[mark]), tmp_path)
    assert pickups(cleaned) == [FIRST, MIDDLE, LAST]
    kind = f"were numbers of {mark} since 1970" if mark in UNITS else "were marked as UTC"
    sentence = f"Times {kind} and are New York local times."
    assert cleaned.report.interpretations == {"pickup_datetime": [sentence], "dropoff_datetime": [sentence]}


@pytest.mark.parametrize("mark", MARKS)
def test_times_in_utc_are_refused_with_the_column_its_type_both_counts_and_the_remedy(
    tmp_path: Path, mark: str
) -> None:
    path = write(tmp_path, [in_utc(time) for time in (FIRST, MIDDLE, LAST)], MARKS[mark])
    with pytest.raises(AmbiguousTimesError) as error:
        clean(path, tmp_path)
    kind = f"numbers of {mark} since 1970" if mark in UNITS else "marked as UTC"
    assert str(error.value) == (
        f"green 2020-10: the times of pickup_datetime (lpep_pickup_datetime, text) are {kind}. Pickups outside the "
        "month: 1 of 3 if these are New York local times, and 0 if they are in UTC, so they are in UTC. Nothing was "
        "written. "
        "Write the times of all columns as New York local times without a time zone, such as 2021-03-01 04:36:54. "
        "[AmbiguousTimesError]"
    )
    assert error.value.facts["pickups outside the month if these are New York local times"] == 1


def test_marked_times_that_fit_both_readings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AmbiguousTimesError, match=r": 0 of 1 if .*, and 0 if .*, so the meaning is uncertain"):
        clean(write(tmp_path, [MIDDLE], MARKS["Z"]), tmp_path)


def test_a_file_that_mixes_marks_is_judged_by_each_mark(tmp_path: Path) -> None:
    local = [(time, "Z") for time in (FIRST, MIDDLE, FIRST)]
    utc = [(in_utc(time), "seconds") for time in (MIDDLE, LAST)]
    trips = [
        trip(pickup_datetime=MARKS[mark](time), dropoff_datetime=MARKS[mark](time + MINUTES))
        for time, mark in local + utc
    ]
    with pytest.raises(AmbiguousTimesError, match="are numbers of seconds since 1970"):
        clean(write_trips(tmp_path / "m.csv", LAYOUT, trips), tmp_path)
    cleaned = clean(write_trips(tmp_path / "m.csv", LAYOUT, trips[: len(local)]), tmp_path)
    assert pickups(cleaned) == [FIRST, MIDDLE, FIRST]


def day_first(time: dt.datetime) -> str:
    return f"{time:%d/%m/%Y %H:%M}"


def test_times_with_the_day_first_are_refused_where_they_could_be_read_with_the_month_first(tmp_path: Path) -> None:
    times = [dt.datetime(2020, 10, day, 12) for day in range(1, 13)]  # noqa: DTZ001
    with pytest.raises(AmbiguousTimesError, match=r"/2021\. .* 11 of 11 if the month is first, and 0 if the day"):
        # These files also have months that are not theirs, which the run allows.
        clean(write(tmp_path, times, day_first), tmp_path, FileChecks(allow_other_months=True))
    joined = [*[trip()] * 30, *(trip(pickup_datetime=day_first(time)) for time in times)]
    with pytest.raises(AmbiguousTimesError):
        clean(write_trips(tmp_path / "m.csv", LAYOUT, joined), tmp_path)


def test_times_whose_day_and_month_are_equal_need_no_decision(tmp_path: Path) -> None:
    time = dt.datetime(2020, 10, 10, 12)  # noqa: DTZ001
    assert pickups(clean(write(tmp_path, [time], day_first), tmp_path)) == [time]


def test_a_few_marked_rows_whose_meaning_is_uncertain_go_to_quarantine(tmp_path: Path) -> None:
    marked = trip(pickup_datetime=MARKS["Z"](MIDDLE), dropoff_datetime=MARKS["Z"](MIDDLE + MINUTES))
    cleaned = clean(write_trips(tmp_path / "m.csv", LAYOUT, [*[trip()] * 38, marked, marked]), tmp_path)
    assert pickups(cleaned) == [dt.datetime.fromisoformat(TRIP["pickup_datetime"])] * 38
    assert {name: found.rows for name, found in cleaned.report.unreadable_columns.items()} == {
        "pickup_datetime": 2,
        "dropoff_datetime": 2,
    }
    assert cleaned.report.interpretations == {}
    with pytest.raises(AmbiguousTimesError):
        clean(write_trips(tmp_path / "m.csv", LAYOUT, [*[trip()] * 37, marked, marked]), tmp_path)


@pytest.mark.parametrize("dropoff", ["2020-10-05T10:12:30Z", "1601892750"])
def test_a_marked_dropoff_is_unreadable_unless_the_pickup_of_the_row_has_the_same_mark(
    tmp_path: Path, dropoff: str
) -> None:
    trips = [trip(), trip(), trip(dropoff_datetime=dropoff)]
    cleaned = clean(write_trips(tmp_path / "m.csv", LAYOUT, trips), tmp_path)
    assert cleaned.report.reasons.keys() == {"unreadable_value"}
    assert cleaned.report.unreadable_columns["dropoff_datetime"].examples == [dropoff]
    with pytest.raises(TooManyQuarantinedError, match=r"dropoff_datetime .* cannot be read in 100%"):
        clean(write_trips(tmp_path / "m.csv", LAYOUT, trips[2:]), tmp_path)


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_typed_times_in_utc_are_judged_like_texts(tmp_path: Path, unit: str) -> None:
    def parquet(times: Sequence[dt.datetime]) -> Path:
        columns = {name: pa.array([text] * len(times)) for name, text in TRIP.items()}
        columns["pickup_datetime"] = pa.array(times, pa.timestamp(unit, "UTC"))
        columns["dropoff_datetime"] = pa.array([time + MINUTES for time in times], pa.timestamp(unit, "UTC"))
        return write_parquet(tmp_path / "m.parquet", LAYOUT, columns)

    assert pickups(clean(parquet([FIRST, MIDDLE, LAST]), tmp_path)) == [FIRST, MIDDLE, LAST]
    with pytest.raises(AmbiguousTimesError, match=rf"lpep_pickup_datetime, timestamp\[{unit}, tz=UTC\]"):
        clean(parquet([in_utc(time) for time in (FIRST, MIDDLE, LAST)]), tmp_path)


def test_local_times_need_no_decision(tmp_path: Path) -> None:
    cleaned = clean(write(tmp_path, [MIDDLE], str), tmp_path)
    assert cleaned.report.interpretations == {}
    first = clean(write(tmp_path, [MIDDLE], lambda time: f"{time:%m/%d/%Y %I:%M:%S %p}"), tmp_path)
    assert pickups(first) == [MIDDLE]
    assert list(first.report.interpretations) == ["pickup_datetime", "dropoff_datetime"]
