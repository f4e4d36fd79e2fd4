"""Times in every form that tools write: what each means, or that it cannot be read."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_assets.tlc.services import street_hail
from taxi_assets.tlc.values.new_york import NEW_YORK, utc_offsets
from taxi_assets.tlc.values.parse_column import parse_column
from taxi_assets.tlc.values.time_forms import TimeForm

TIME, _ = street_hail.pickup_and_dropoff("tpep")
UNREADABLE = "unreadable"
LOCAL, MONTH_FIRST, ZONE, UTC = TimeForm.LOCAL, TimeForm.MONTH_FIRST, TimeForm.NEW_YORK_ZONE, TimeForm.UTC
SECONDS, MILLIS = TimeForm.EPOCH_SECONDS, TimeForm.EPOCH_MILLISECONDS
MICROS, NANOS = TimeForm.EPOCH_MICROSECONDS, TimeForm.EPOCH_NANOSECONDS
at = dt.datetime.fromisoformat


def read(published: Any) -> list[Any]:
    """Return time and form of each value; `UNREADABLE`, or None for a missing value."""
    values, unreadable, forms = parse_column(TIME, published)
    marks = [False] * len(values) if unreadable is None else unreadable.to_pylist()
    found = [LOCAL] * len(values) if forms is None else [TimeForm(form) for form in forms.tolist()]
    return [
        UNREADABLE if mark else None if value is None else (value, form)
        for value, mark, form in zip(values.to_pylist(), marks, found, strict=True)
    ]


WINTER, SUMMER = at("2021-03-01 04:36:54"), at("2021-07-01 16:36:54")
TEXTS: dict[str, Any] = {
    "2021-03-01T04:36:54": (WINTER, LOCAL),
    "2021-03-01T04:36:54.000000000": (WINTER, LOCAL),
    "2021-03-01 04:36:54.123456789": (at("2021-03-01 04:36:54.123456"), LOCAL),
    "2021-03-01 04:36:54.1": (at("2021-03-01 04:36:54.100000"), LOCAL),
    "2021-03-01 4:36": (at("2021-03-01 04:36"), LOCAL),
    "2021-3-1 4:36:54": (WINTER, LOCAL),
    # NYC Open Data and spreadsheets
    "03/01/2021 04:36:54 AM": (WINTER, MONTH_FIRST),
    "07/01/2021 04:36:54 PM": (SUMMER, MONTH_FIRST),
    "3/1/2021 4:36:54 am": (WINTER, MONTH_FIRST),
    "3/1/2021 4:36 AM": (at("2021-03-01 04:36"), MONTH_FIRST),
    "03/01/2021 12:00:00 AM": (at("2021-03-01"), MONTH_FIRST),
    "03/01/2021 12:00:00 PM": (at("2021-03-01 12:00"), MONTH_FIRST),
    "3/1/2021 4:36": (at("2021-03-01 04:36"), MONTH_FIRST),
    "7/1/2021 16:36:54": (SUMMER, MONTH_FIRST),
    "2/29/2020 0:00": (at("2020-02-29"), MONTH_FIRST),
    # zones
    "2021-03-01T04:36:54-05:00": (WINTER, ZONE),
    "2021-03-01 04:36:54-05": (WINTER, ZONE),
    "2021-03-01 04:36:54.000000-0500": (WINTER, ZONE),
    "2021-07-01T16:36:54-04:00": (SUMMER, ZONE),
    "2021-03-01 04:36:54 EST": (WINTER, ZONE),
    "2021-07-01 16:36:54 EDT": (SUMMER, ZONE),
    "2021-07-01 16:36:54 America/New_York": (SUMMER, ZONE),
    "2021-11-07 01:30:00-04:00": (at("2021-11-07 01:30"), ZONE),  # both occur in the night of the clock change
    "2021-11-07 01:30:00-05:00": (at("2021-11-07 01:30"), ZONE),
    # UTC, if it is true
    "2021-03-01T04:36:54Z": (WINTER, UTC),
    "2021-03-01T04:36:54.123Z": (at("2021-03-01 04:36:54.123000"), UTC),
    "2021-03-01 04:36:54+00:00": (WINTER, UTC),
    "2021-03-01 04:36:54+00": (WINTER, UTC),
    "2021-03-01 04:36:54 UTC": (WINTER, UTC),
    "1614573414": (WINTER, SECONDS),
    "1614573414123": (at("2021-03-01 04:36:54.123000"), MILLIS),
    "1614573414123456": (at("2021-03-01 04:36:54.123456"), MICROS),
    "1614573414123456789": (at("2021-03-01 04:36:54.123456"), NANOS),
    **dict.fromkeys(
        [
            "13/01/2021 04:36:54", "02/29/2021 04:36:54", "04/31/2021 04:36", "0/1/2021 4:36", "1/0/2021 4:36",
            "03/01/2021", "03/01/21 04:36", "03/01/2021 24:00", "03/01/2021 13:00:00 PM", "03/01/2021 00:30:00 AM",
            "03/01/2021 4:6", "03/01/2021 04:60", "03/01/2021 04:36:60", "03-01-2021 04:36", "2021/03/01 04:36",
            "3/1/0000 4:36",
            # New York's clocks did not show this at that instant.
            "2021-03-01T04:36:54-04:00", "2021-07-01T16:36:54-05:00", "2021-07-01 16:36:54 EST",
            "2021-03-01 04:36:54 EDT", "2021-03-01 04:36:54+01:00", "2021-03-01 04:36:54-05:30",
            "2021-03-01 04:36:54 CET", "2021-03-01 04:36:54 Europe/Berlin", "2021-03-01 04:36:54+5",
            "2021-03-01Z", "2021-03-01 04:36:54ZZ", "03/01/2021 04:36:54Z",
            # no time from 1990 to 2100 in any unit
            "0", "20210301", "20210301043654", "161457341", "16145734140", "01614573414", "-1614573414",
            "1614573414.0", "9999999999999999999",
        ],
        UNREADABLE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_time_that_a_tool_writes_is_read_only_where_its_meaning_is_certain(text: str) -> None:
    assert read(pa.array([text])) == [TEXTS[text]]


def test_times_of_all_forms_are_read_together_as_they_are_alone() -> None:
    assert read(pa.array([*TEXTS, None, "NaT"])) == [*TEXTS.values(), None, None]


def instants(unit: str, zone: str) -> Any:
    """Return the instants at which New York's clocks showed `WINTER` and `SUMMER`, and a missing value."""
    local = [time.replace(tzinfo=ZoneInfo(NEW_YORK)) for time in (WINTER, SUMMER)]
    return pa.array([*local, None], pa.timestamp(unit, tz=zone))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_typed_times_of_every_unit_and_zone_have_the_meaning_of_their_texts(unit: str) -> None:
    expected = [(WINTER, ZONE), (SUMMER, ZONE), None]
    for zone in ("America/New_York", "US/Eastern", "America/Toronto"):
        assert read(instants(unit, zone)) == expected
    assert read(instants(unit, "-05:00")) == [(WINTER, ZONE), UNREADABLE, None]
    assert read(instants(unit, "-04:00")) == [UNREADABLE, (SUMMER, ZONE), None]
    for zone in ("Europe/Berlin", "America/Chicago", "Asia/Kolkata", "No/Such_Zone"):
        assert read(instants(unit, zone)) == [UNREADABLE, UNREADABLE, None]
    for zone in ("UTC", "Etc/UTC", "+00:00"):
        marked = pa.array([WINTER, SUMMER, None], pa.timestamp(unit)).cast(pa.int64()).cast(pa.timestamp(unit, zone))
        assert read(marked) == [(WINTER, UTC), (SUMMER, UTC), None]


def test_typed_numbers_are_read_like_their_texts() -> None:
    texts = ["1614573414", "1614573414123", "1614573414123456", "1614573414123456789", "0", "20210301", None]
    assert read(pa.array([None if t is None else int(t) for t in texts], pa.int64())) == read(pa.array(texts))


@settings(max_examples=100)
@given(st.datetimes(dt.datetime(1950, 1, 1), dt.datetime(2100, 1, 1)))  # noqa: DTZ001  (UTC, without a zone)
def test_offsets_of_new_york_are_those_of_the_zone_database(time: dt.datetime) -> None:
    instant = time.replace(tzinfo=dt.UTC)
    microseconds = (instant - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    expected = instant.astimezone(ZoneInfo(NEW_YORK)).utcoffset()
    assert expected is not None
    assert utc_offsets(pa.array([microseconds]).to_numpy()).tolist() == [expected // dt.timedelta(microseconds=1)]
