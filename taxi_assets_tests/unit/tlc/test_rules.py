"""Every rule at its exact limits. A missing value violates only the rule for missing values."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from taxi_assets.errors import RunConfigError
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.rules import READING_REASONS, STREET_HAIL_RULES, repeated_hour, within_repeated_hour
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.registry import SERVICES

OCTOBER = Month(2020, 10)
NEW_YORK = ZoneInfo("America/New_York")
FINE: dict[str, Any] = {
    "pickup_datetime": "2020-10-05 10:00:00",
    "dropoff_datetime": "2020-10-05 10:12:30",
    "passenger_count": 1,
    "trip_distance": "2.600",
    "trip_seconds": 750,
}


def batch(*rows: dict[str, Any]) -> Any:
    """Return canonical rows. Times and decimals may be given as text; other columns are null."""

    def value(name: str, given: Any) -> Any:
        if isinstance(given, str):
            return dt.datetime.fromisoformat(given) if name.endswith("_datetime") else Decimal(given)
        return given

    values = [{name: value(name, given) for name, given in {**FINE, **row}.items()} for row in rows]
    return pa.RecordBatch.from_pylist(values, GREEN.arrow_schema)


def reasons(month: Month = OCTOBER, **changes: Any) -> list[str]:
    rows = batch(changes)
    return [rule.name for rule in STREET_HAIL_RULES if pc.fill_null(rule.is_violated(rows, month), False)[0].as_py()]


def test_an_ordinary_trip_violates_no_rule() -> None:
    assert reasons() == []


def test_a_missing_value_violates_only_the_rule_for_missing_values() -> None:
    missing: dict[str, Any] = dict.fromkeys(FINE)
    assert reasons(**missing) == ["pickup_missing"]
    for name in missing:
        changes: dict[str, Any] = {name: None}
        assert reasons(**changes) == (["pickup_missing"] if name == "pickup_datetime" else [])


@pytest.mark.parametrize(
    ("month", "pickup", "violated"),
    [
        ("2020-10", "2020-09-01 00:00:00", False),
        ("2020-10", "2020-08-31 23:59:59", True),
        ("2020-10", "2020-08-31 23:59:59.999999", True),
        ("2020-10", "2020-11-01 23:59:59.999999", False),
        ("2020-10", "2020-11-02 00:00:00", True),
        ("2020-10", "2009-01-01 00:00:00", True),
        ("2020-10", "2098-10-05 00:00:00", True),
        ("2021-01", "2020-12-01 00:00:00", False),
        ("2021-01", "2020-11-30 23:59:59", True),
        ("2020-12", "2021-01-01 23:59:59", False),
        ("2020-12", "2021-01-02 00:00:00", True),
        ("2020-03", "2020-02-01 00:00:00", False),
        ("2020-02", "2020-03-01 23:59:59", False),
        ("2020-02", "2020-03-02 00:00:00", True),
    ],
)
def test_a_pickup_may_be_in_the_previous_month_or_on_the_day_after_the_month(
    month: str, pickup: str, violated: bool
) -> None:
    dropoff = str(dt.datetime.fromisoformat(pickup) + dt.timedelta(minutes=5))
    found = reasons(Month.parse(month), pickup_datetime=pickup, dropoff_datetime=dropoff)
    assert found == (["pickup_outside_month"] if violated else [])


@pytest.mark.parametrize(
    ("dropoff", "violated"),
    [
        ("2020-10-05 10:00:00", True),
        ("2020-10-05 09:59:59.999999", True),
        ("2020-10-05 10:00:00.000001", False),
        ("2020-10-05 10:00:01", False),
        ("2019-10-05 10:00:01", True),
        (None, False),
    ],
)
def test_a_dropoff_must_be_later_than_its_pickup(dropoff: str | None, violated: bool) -> None:
    assert reasons(dropoff_datetime=dropoff) == (["dropoff_not_after_pickup"] if violated else [])


@pytest.mark.parametrize("year", range(2007, 2038))
def test_the_repeated_hour_is_that_of_new_york(year: int) -> None:
    start, end = repeated_hour(year)

    def comes_twice(time: dt.datetime) -> bool:
        local = time.replace(tzinfo=NEW_YORK)
        return local.utcoffset() != local.replace(fold=1).utcoffset()

    second = dt.timedelta(seconds=1)
    assert [comes_twice(time) for time in (start - second, start, end - second, end)] == [False, True, True, False]
    assert start.month == 11


@pytest.mark.parametrize(
    ("month", "pickup", "dropoff", "violated"),
    [
        ("2020-11", "2020-11-01 01:50:00", "2020-11-01 01:10:00", False),
        ("2020-11", "2020-11-01 01:00:00", "2020-11-01 01:00:00", False),
        ("2020-11", "2020-11-01 01:59:59", "2020-11-01 01:00:00", False),
        ("2020-11", "2020-11-01 02:00:00", "2020-11-01 01:10:00", True),
        ("2020-11", "2020-11-01 01:50:00", "2020-11-01 00:59:59", True),
        ("2020-11", "2020-11-02 01:50:00", "2020-11-02 01:10:00", True),
        ("2020-11", "2020-11-08 01:50:00", "2020-11-08 01:10:00", True),
        # The first of November in the file of October, and reported late in that of December.
        ("2020-10", "2020-11-01 01:50:00", "2020-11-01 01:10:00", False),
        ("2020-12", "2020-11-01 01:50:00", "2020-11-01 01:10:00", False),
        ("2009-11", "2009-11-01 01:50:00", "2009-11-01 01:10:00", False),
        ("2013-11", "2013-11-03 01:50:00", "2013-11-03 01:10:00", False),
        ("2013-11", "2013-11-10 01:50:00", "2013-11-10 01:10:00", True),
        ("2024-11", "2024-11-03 01:50:00", "2024-11-03 01:10:00", False),
        ("2021-03", "2021-03-14 01:50:00", "2021-03-14 01:10:00", True),
    ],
)
def test_within_the_repeated_hour_a_dropoff_may_seem_too_early(
    month: str, pickup: str, dropoff: str, violated: bool
) -> None:
    found = reasons(Month.parse(month), pickup_datetime=pickup, dropoff_datetime=dropoff)
    assert found == (["dropoff_not_after_pickup"] if violated else [])


def test_a_trip_is_within_the_repeated_hour_only_if_both_times_are() -> None:
    rows = batch(
        {"pickup_datetime": None, "dropoff_datetime": "2020-11-01 01:10:00"},
        {"pickup_datetime": "2020-11-01 01:10:00", "dropoff_datetime": None},
        {"pickup_datetime": "2020-11-01 01:10:00", "dropoff_datetime": "2020-11-01 01:05:00"},
        {"pickup_datetime": "2020-11-01 01:10:00", "dropoff_datetime": "2020-11-01 02:00:00"},
    )
    everywhere = pa.repeat(True, 4)
    inside = within_repeated_hour(rows["pickup_datetime"], rows["dropoff_datetime"], Month(2020, 11), where=everywhere)
    assert inside.to_pylist() == [False, False, True, False]


@pytest.mark.parametrize(("count", "violated"), [(0, True), (1, False), (-1, False), (9, False), (None, False)])
def test_only_zero_passengers_violate_the_rule(count: int | None, violated: bool) -> None:
    assert reasons(passenger_count=count) == (["zero_passengers"] if violated else [])


@pytest.mark.parametrize(
    ("miles", "violated"),
    [("0.000", False), ("-0.001", True), ("500.000", False), ("500.001", True), ("224481.360", True), (None, False)],
)
def test_distances_from_0_to_500_miles_pass(miles: str | None, violated: bool) -> None:
    assert reasons(trip_distance=miles) == (["distance_out_of_range"] if violated else [])


@pytest.mark.parametrize(("seconds", "violated"), [(86_400, False), (86_401, True), (1, False), (None, False)])
def test_trips_of_up_to_24_hours_pass(seconds: int | None, violated: bool) -> None:
    assert reasons(trip_seconds=seconds) == (["longer_than_24_hours"] if violated else [])


def test_all_rules_that_a_row_violates_are_found() -> None:
    assert reasons(
        pickup_datetime="2008-12-31 10:00:00",
        dropoff_datetime="2008-12-31 09:00:00",
        passenger_count=0,
        trip_distance="-1",
        trip_seconds=86_401,
    ) == [
        "pickup_outside_month",
        "dropoff_not_after_pickup",
        "zero_passengers",
        "distance_out_of_range",
        "longer_than_24_hours",
    ]


def test_a_rule_tests_each_row_of_a_batch_by_itself() -> None:
    rows = batch({}, {"passenger_count": 0}, {"passenger_count": None}, {"trip_distance": "501"}, {})
    violated = {
        rule.name: pc.fill_null(rule.is_violated(rows, OCTOBER), False).to_pylist() for rule in STREET_HAIL_RULES
    }
    assert violated.pop("zero_passengers") == [False, True, False, False, False]
    assert violated.pop("distance_out_of_range") == [False, False, False, True, False]
    assert not any(any(marks) for marks in violated.values())


def test_no_rule_has_the_name_of_a_reading_error() -> None:
    for service in SERVICES.values():
        names = [rule.name for rule in service.rules]
        assert len(set(names)) == len(names)
        assert not set(names) & set(READING_REASONS)


# --- choosing rules --------------------------------------------------------------------------------------------------


def test_rules_are_selected_by_name_and_kept_in_order() -> None:
    names = [rule.name for rule in GREEN.rules]
    assert [rule.name for rule in GREEN.select_rules(None)] == names
    assert [rule.name for rule in GREEN.select_rules(names[::-1])] == names
    assert [rule.name for rule in GREEN.select_rules([names[3], names[1]])] == [names[1], names[3]]
    assert GREEN.select_rules([]) == []


def test_an_unknown_rule_is_named_along_with_the_known_ones() -> None:
    with pytest.raises(RunConfigError, match=r"green has no rule 'no_tips'\. Choose from: pickup_missing, "):
        GREEN.select_rules(["zero_passengers", "no_tips"])
