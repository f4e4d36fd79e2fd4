"""Months as tools write them, in CSV and Parquet: each value is right, or the row or the file is refused."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_assets.errors import AmbiguousTimesError, TooManyQuarantinedError
from taxi_assets.tlc.cleaning.clean_month import CleanedMonth, clean_month
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.values.new_york import NEW_YORK
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.trip_files import TRIP, service_and_month, source_record, write_parquet, write_trips

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

CASES = REPOSITORY / ".." / "shared" / "cases"
LAYOUT = "green 2019"
MONTHS = (Month(2020, 10), Month(2020, 11), Month(2021, 3))
ZONE = ZoneInfo(NEW_YORK)
SHORTEST, LONGEST = dt.timedelta(minutes=2), dt.timedelta(minutes=25)  # trips
SECOND, MILLISECOND, MICROSECOND = 1_000_000, 1000, 1


# --- cases that people had -------------------------------------------------------------------------------------------

UTC_SENTENCE = "Times were marked as UTC and are New York local times."
MONTH_FIRST_SENTENCE = "Times were written with the month first, such as 03/01/2021 04:36:54 AM."


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("03-timestamps-adjusted-to-utc", UTC_SENTENCE),
        ("06-open-data-csv", MONTH_FIRST_SENTENCE),
        ("10-both-airport-fees", None),
        ("14a-ehail-a", None),
        ("16a-polars-ns", None),
        ("16c-z-suffix", UTC_SENTENCE),
        ("28-dlt-layout", UTC_SENTENCE),
    ],
)
def test_a_file_that_people_had_is_read_with_the_right_times(tmp_path: Path, case: str, sentence: str | None) -> None:
    if not CASES.is_dir():
        pytest.skip("the inputs are missing: ../shared/cases")
    (path,) = (CASES / case).iterdir()
    name, month = service_and_month(path)
    service = SERVICES[name]
    cleaned = clean_month(path, source_record(path), service, month, service.rules, tmp_path)
    assert (cleaned.report.clean.rows, cleaned.report.rows_quarantined) == (60, 0)
    trips = pa.parquet.read_table(cleaned.clean)
    # All cases hold the same trips.
    assert trips["pickup_datetime"][0].as_py() == dt.datetime.fromisoformat("2021-03-01 04:36:54")
    assert trips["dropoff_datetime"][2].as_py() == dt.datetime.fromisoformat("2021-03-03 13:14:01")
    assert trips["total_amount"][0].as_py() == Decimal("23.30")
    if case.startswith("14a"):
        assert trips["ehail_fee"].null_count == len(trips)
    times = ("pickup_datetime", "dropoff_datetime")
    assert cleaned.report.interpretations == ({column: [sentence] for column in times} if sentence else {})


# --- generated months ------------------------------------------------------------------------------------------------


def microseconds(local: dt.datetime) -> int:
    return (local - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)  # noqa: DTZ001  (local time)


def offset(local: dt.datetime) -> dt.timedelta:
    """Return New York's offset from UTC when its clocks showed a time, the first one if they showed it twice."""
    return local.replace(tzinfo=ZONE).utcoffset() or dt.timedelta()


def is_certain(local: dt.datetime) -> bool:
    """Return whether New York's clocks showed a time exactly once. They skip or repeat an hour when they change."""
    return offset(local) == (local.replace(tzinfo=ZONE, fold=1).utcoffset())


def offset_text(local: dt.datetime) -> str:
    return f"{local}-{-offset(local).total_seconds() / 3600:02.0f}:00"


def instants(times: Sequence[dt.datetime | None]) -> list[int | None]:
    return [None if time is None else microseconds(time - offset(time)) for time in times]


def timestamps(unit: str, zone: str | None = None) -> Callable[[Sequence[dt.datetime | None]], Any]:
    """Return a function that stores times as they are, whatever the zone is."""
    return lambda times: pa.array(times, pa.timestamp(unit)).cast(pa.int64()).cast(pa.timestamp(unit, zone))


def us_time(local: dt.datetime) -> str:
    return f"{local.month}/{local.day}/{local.year} {local.hour}:{local.minute:02}:{local.second:02}"


@dataclass(frozen=True)
class TimeWriter:
    """A way to write times: as text, and as the typed column that has the same meaning.

    Attributes:
        text: Returns the text of a local time.
        typed: Returns an Arrow array of local times; None if only text has this form.
        resolution: The smallest unit that is written, in microseconds.
        true_utc: Whether the instants are in UTC, so that the file must be refused.
    """

    text: Callable[[dt.datetime], str]
    typed: Callable[[Sequence[dt.datetime | None]], Any] | None = None
    resolution: int = MICROSECOND
    true_utc: bool = False


TIME_WRITERS: Mapping[str, TimeWriter] = {
    "str": TimeWriter(str, timestamps("us")),
    "ISO": TimeWriter(dt.datetime.isoformat, timestamps("ns")),
    "nanoseconds": TimeWriter(lambda t: f"{t:%Y-%m-%dT%H:%M:%S.%f}999", timestamps("ns")),
    "milliseconds": TimeWriter(
        lambda t: t.isoformat(" ", "milliseconds"),
        lambda times: pa.array(times, pa.timestamp("us")).cast(pa.timestamp("ms"), safe=False),
        MILLISECOND,
    ),
    "no leading zero": TimeWriter(
        lambda t: f"{t:%Y-%m-%d} {t.hour}:{t:%M:%S}",
        lambda times: pa.array(times, pa.timestamp("us")).cast(pa.timestamp("s"), safe=False),
        SECOND,
    ),
    "minutes": TimeWriter(lambda t: f"{t:%Y-%m-%d} {t.hour}:{t:%M}", None, 60 * SECOND),
    "NYC Open Data": TimeWriter(lambda t: f"{t:%m/%d/%Y %I:%M:%S %p}", None, SECOND),
    "spreadsheet": TimeWriter(us_time, None, SECOND),
    "offset": TimeWriter(
        offset_text, lambda times: pa.array(instants(times), pa.int64()).cast(pa.timestamp("us", NEW_YORK))
    ),
    "local marked as UTC": TimeWriter(lambda t: f"{t.isoformat()}Z", timestamps("us", "UTC")),
    "local with offset 0": TimeWriter(lambda t: f"{t}+00:00", timestamps("ns", "+00:00")),
    "local epoch": TimeWriter(
        lambda t: str(microseconds(t) // SECOND),
        lambda times: pa.array([None if t is None else microseconds(t) // SECOND for t in times], pa.int64()),
        SECOND,
    ),
    "local epoch in nanoseconds": TimeWriter(
        lambda t: str(microseconds(t) * 1000),
        lambda times: pa.array([None if t is None else microseconds(t) * 1000 for t in times], pa.int64()),
    ),
    "UTC": TimeWriter(
        lambda t: f"{(t - offset(t)).isoformat()}Z",
        lambda times: pa.array(instants(times), pa.int64()).cast(pa.timestamp("us", "UTC")),
        true_utc=True,
    ),
    "epoch": TimeWriter(
        lambda t: str(microseconds(t - offset(t)) // MILLISECOND),
        lambda times: pa.array([None if i is None else i // MILLISECOND for i in instants(times)], pa.int64()),
        MILLISECOND,
        true_utc=True,
    ),
}
NULL_TEXTS = ("", "NaN", "nan", "NULL", "None", "\\N", "NaT", "<NA>")
FLAG_WRITERS: Mapping[str, tuple[Mapping[bool, str], Callable[[list[bool | None]], Any] | None]] = {
    "Y": ({True: "Y", False: "N"}, None),
    "1": ({True: "1", False: "0"}, lambda flags: pa.array([None if f is None else int(f) for f in flags], pa.int8())),
    "True": ({True: "True", False: "False"}, lambda flags: pa.array(flags, pa.bool_())),
    "t": ({True: "t", False: "f"}, None),
    "1.0": ({True: "1.0", False: "0.0"}, lambda flags: pa.array([None if f is None else float(f) for f in flags])),
}
TEXT_TYPES = (
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()),
    pa.dictionary(pa.int32(), pa.string()),
)


@dataclass(frozen=True)
class GeneratedMonth:
    """The true values of some trips, and how they are written."""

    month: Month
    pickups: Sequence[dt.datetime]
    dropoffs: Sequence[dt.datetime | None]
    counts: Sequence[int | None]
    fares: Sequence[Decimal | None]
    flags: Sequence[bool | None]
    writer: str
    null_text: str
    flag_writer: str

    def texts(self) -> dict[str, list[str]]:
        """Return the columns as text."""
        text = TIME_WRITERS[self.writer].text
        flags, _ = FLAG_WRITERS[self.flag_writer]
        columns: dict[str, list[str | None]] = {
            "pickup_datetime": [text(time) for time in self.pickups],
            "dropoff_datetime": [None if time is None else text(time) for time in self.dropoffs],
            "passenger_count": [None if count is None else str(count) for count in self.counts],
            "fare_amount": [None if fare is None else str(fare) for fare in self.fares],
            "store_and_fwd_flag": [None if flag is None else flags[flag] for flag in self.flags],
            "ehail_fee": [None] * len(self.pickups),
        }
        return {name: [self.null_text if t is None else t for t in found] for name, found in columns.items()}

    def typed(self) -> dict[str, Any]:
        """Return the columns as typed arrays, where the writer has a type."""
        times = TIME_WRITERS[self.writer].typed
        _, flags = FLAG_WRITERS[self.flag_writer]
        columns: dict[str, Any] = {
            "passenger_count": pa.array(self.counts, pa.float64()),
            "fare_amount": pa.array([None if fare is None else float(fare) for fare in self.fares], pa.float64()),
        }
        if times:
            columns |= {"pickup_datetime": times(self.pickups), "dropoff_datetime": times(self.dropoffs)}
        if flags:
            columns["store_and_fwd_flag"] = flags(list(self.flags))
        return columns

    def expected(self) -> list[dict[str, Any]]:
        """Return the values that cleaning must read."""
        resolution = dt.timedelta(microseconds=TIME_WRITERS[self.writer].resolution)

        def written(time: dt.datetime | None) -> dt.datetime | None:
            return None if time is None else time - (time - dt.datetime(1970, 1, 1)) % resolution  # noqa: DTZ001

        return [
            {
                "pickup_datetime": written(pickup),
                "dropoff_datetime": written(dropoff),
                "passenger_count": count,
                "fare_amount": fare,
                "store_and_fwd_flag": None if flag is None else "Y" if flag else "N",
                "ehail_fee": None,
            }
            for pickup, dropoff, count, fare, flag in zip(
                self.pickups, self.dropoffs, self.counts, self.fares, self.flags, strict=True
            )
        ]


@st.composite
def months(draw: st.DrawFn) -> GeneratedMonth:
    month = draw(st.sampled_from(MONTHS))
    start, end = (dt.datetime.combine(m.start, dt.time()) for m in (month, month.shift(1)))
    # The first and the last hours of a month show whether times are local.
    drawn = draw(st.lists(st.datetimes(start, end - dt.timedelta(days=1)), max_size=8))
    pickups = [start + dt.timedelta(minutes=5), end - dt.timedelta(minutes=30), *drawn]
    pickups = [time for time in pickups if is_certain(time) and is_certain(time + LONGEST)]
    rows = len(pickups)

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(st.none() | values, min_size=rows, max_size=rows))

    return GeneratedMonth(
        month,
        pickups,
        [t and pickup + t for pickup, t in zip(pickups, column(st.timedeltas(SHORTEST, LONGEST)), strict=True)],
        column(st.integers(1, 9)),
        column(st.decimals(-1000, 1000, places=2)),
        column(st.booleans()),
        draw(st.sampled_from(list(TIME_WRITERS))),
        draw(st.sampled_from(NULL_TEXTS)),
        draw(st.sampled_from(list(FLAG_WRITERS))),
    )


def write_as_csv(folder: Path, drawn: GeneratedMonth, _: Any) -> Path:
    texts = drawn.texts()
    rows = [{**TRIP, **dict(zip(texts, values, strict=True))} for values in zip(*texts.values(), strict=True)]
    return write_trips(folder / "m.csv", LAYOUT, rows)


def text_columns(drawn: GeneratedMonth, type_: Any) -> dict[str, Any]:
    columns = {name: [text] * len(drawn.pickups) for name, text in TRIP.items()} | drawn.texts()
    dictionary = pa.types.is_dictionary(type_)
    return {n: pa.array(t).dictionary_encode() if dictionary else pa.array(t).cast(type_) for n, t in columns.items()}


def write_as_text(folder: Path, drawn: GeneratedMonth, type_: Any) -> Path:
    return write_parquet(folder / "m.parquet", LAYOUT, text_columns(drawn, type_))


def write_as_types(folder: Path, drawn: GeneratedMonth, type_: Any) -> Path:
    return write_parquet(folder / "m.parquet", LAYOUT, text_columns(drawn, type_) | drawn.typed())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written")


def clean(path: Path, month: Month, folder: Path) -> CleanedMonth:
    service = SERVICES["green"]
    return clean_month(path, source_record(path), service, month, service.select_rules([]), folder)


@pytest.mark.parametrize("write", [write_as_csv, write_as_text, write_as_types])
@settings(max_examples=60)
@given(drawn=months(), type_=st.sampled_from(TEXT_TYPES))
def test_a_month_is_read_with_the_right_values_or_refused_whatever_tool_has_written_it(
    folder: Path, write: Callable[[Path, GeneratedMonth, Any], Path], drawn: GeneratedMonth, type_: Any
) -> None:
    path = write(folder, drawn, type_)
    if TIME_WRITERS[drawn.writer].true_utc:
        with pytest.raises(AmbiguousTimesError, match="pickup_datetime"):
            clean(path, drawn.month, folder)
        return
    cleaned = clean(path, drawn.month, folder)
    assert cleaned.report.rows_quarantined == 0
    expected = drawn.expected()
    assert pa.parquet.read_table(cleaned.clean).select(list(expected[0])).to_pylist() == expected


@pytest.mark.parametrize("writer", TIME_WRITERS)
@pytest.mark.parametrize("write", [write_as_csv, write_as_types])
def test_the_dropoffs_of_another_tool_are_right_or_unreadable(folder: Path, writer: str, write: Any) -> None:
    # The pickups are written as local times, so they do not show what marked dropoffs mean.
    pickup = dt.datetime(2021, 3, 5, 10)  # noqa: DTZ001
    drawn = GeneratedMonth(Month(2021, 3), [pickup], [pickup], [1], [None], [None], writer, "", "Y")
    texts, typed = drawn.texts(), drawn.typed()
    texts["pickup_datetime"], _ = ["2021-03-05 10:00:00"], typed.pop("pickup_datetime", None)
    if write is write_as_csv:
        path = write_trips(folder / "m.csv", LAYOUT, [{**TRIP, **{name: value for name, (value,) in texts.items()}}])
    else:
        columns = {name: pa.array([text]) for name, text in TRIP.items()} | {n: pa.array(t) for n, t in texts.items()}
        path = write_parquet(folder / "m.parquet", LAYOUT, columns | typed)
    month = Month(2021, 3)
    if writer in {"UTC", "epoch"} or writer.startswith("local"):
        with pytest.raises(TooManyQuarantinedError, match=r"\(unreadable_value 1\)\. dropoff_datetime .* in 100% of"):
            clean(path, month, folder)
    else:
        cleaned = clean(path, month, folder)
        assert pa.parquet.read_table(cleaned.clean)["dropoff_datetime"].to_pylist() == [pickup]
