"""The publication sensor: the limits of a tick, its cursor, and a year of ticks."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from typing import TYPE_CHECKING

import dagster as dg
import pytest
import sqlalchemy
import sqlalchemy.event

from taxi_assets.automation.publication.scan import ScanCursor
from taxi_assets.automation.publication.status import ScanLimits
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.definitions.publication_harness import MONTHS_OF_2020, PublicationHarness, harness, instance
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["harness", "instance"]


# --- limits and cursor ------------------------------------------------------------------------------------------------


def test_loaded_months_are_checked_in_turn_and_the_cursor_is_readable(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    harness = PublicationHarness(
        tmp_path / "published", instance, limits=ScanLimits(newer=2, loaded=5, pause_seconds=0)
    )
    harness.publish(*MONTHS_OF_2020)
    for month in MONTHS_OF_2020:
        harness.load(month)
    harness.now = dt.datetime(2021, 1, 15, tzinfo=dt.UTC)
    seen = []
    for _ in range(3):
        harness.requested_months()
        seen.append(json.loads(harness.cursor or ""))
    assert [cursor["loaded_from"] for cursor in seen] == ["2020-07", "2020-02", None]
    assert set(seen[0]) == {"version", "newer_from", "gaps_from", "incomplete_from", "loaded_from"}

    harness.publish("2020-01")
    assert [harness.run_requested_months() for _ in range(3)] == [{}, {}, {"2020-01": "revised"}]


def test_months_of_a_publisher_that_stopped_years_ago_are_searched_over_several_ticks(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    harness = PublicationHarness(tmp_path / "published", instance, limits=ScanLimits(newer=10, pause_seconds=0))
    harness.now = dt.datetime(2024, 1, 15, tzinfo=dt.UTC)
    harness.publish("2021-06", "2021-07")
    assert [harness.run_requested_months() for _ in range(4)] == [{}, {}, {"2021-07": "new"}, {}]


@pytest.mark.parametrize(
    "cursor",
    ["", "{", "[]", '"2021-01"', '{"version": 0, "month": "2021-01"}', '{"version": 1, "newer_from": "1999-01"}',
     '{"version": 1, "loaded_from": 7}'],
)  # fmt: skip
def test_an_invalid_cursor_is_replaced(harness: PublicationHarness, cursor: str) -> None:
    harness.publish("2021-01", "2021-02")
    harness.load("2021-01")
    harness.cursor = cursor
    assert harness.run_requested_months() == {"2021-02": "new"}
    assert json.loads(harness.cursor)["version"] == 1


def test_a_tick_stops_when_its_time_is_up_and_the_next_one_resumes(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    harness = PublicationHarness(tmp_path / "published", instance, limits=ScanLimits(seconds=0.05, pause_seconds=0.06))
    harness.publish("2021-01")
    ticks = 0
    while not harness.run_requested_months():
        assert "Newer months: time limit reached. The next tick resumes at 2021-0" in harness.skip_message
        ticks += 1
        assert ticks < 10
    assert ticks >= 1  # 2021-04, 2021-03, 2021-02 come first


def test_if_the_publisher_is_down_the_tick_is_skipped_and_the_cursor_kept(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    with LoopbackPublisher({"green_tripdata_2021-01.csv": b"a"}) as publisher:
        base = publisher.base
        harness = PublicationHarness(tmp_path / "published", instance, source=base)
        harness.cursor = before = '{"version":1,"newer_from":"2021-03","loaded_from":null}'
        publisher.script("green_tripdata_2021-03.csv.gz", Answer(status=503))
        assert harness.requested_months() == {
            "2021-01": "new"
        }  # an error for one file does not mean that the publisher is down
        harness.cursor = before
    assert harness.requested_months() == {}
    assert f"{base}/green_tripdata_2021-03.csv.gz: connection refused" in harness.skip_message
    assert harness.cursor == before


def test_if_the_publisher_s_folder_is_gone_the_tick_is_skipped(harness: PublicationHarness) -> None:
    harness.publish("2021-01")
    harness.load("2021-01")
    harness.cursor = before = '{"version":1,"newer_from":"2021-03","loaded_from":null}'
    shutil.rmtree(harness.folder)
    assert harness.requested_months() == {}
    assert "no such folder" in harness.skip_message
    assert "\n" not in harness.skip_message
    assert harness.cursor == before


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_an_error_for_one_month_does_not_delay_the_others(
    tmp_path: Path, instance: dg.DagsterInstance, status: int
) -> None:
    with LoopbackPublisher({"green_tripdata_2021-01.csv": b"a"}) as publisher:
        harness = PublicationHarness(tmp_path / "published", instance, source=publisher.base)
        refused = Answer(status=status)
        publisher.script("green_tripdata_2021-03.csv.gz", then=refused)
        assert harness.requested_months() == {"2021-01": "new"}
        assert ScanCursor.read(harness.cursor) == ScanCursor()
        for number in range(1, 5):
            publisher.script(f"green_tripdata_2021-{number:02}.csv.gz", then=refused)
        publisher.requests.clear()
        assert harness.requested_months() == {}
        assert f"HTTP {status}" in harness.skip_message
        assert "2021-03: " in harness.skip_message
        assert len(publisher.requests) == 4


def test_errors_for_some_loaded_months_do_not_delay_the_rest(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    names = {month: f"green_tripdata_{month}.csv" for month in MONTHS_OF_2020}
    with LoopbackPublisher(dict.fromkeys(names.values(), b"a")) as publisher:
        harness = PublicationHarness(
            tmp_path / "published", instance, source=publisher.base, limits=ScanLimits(loaded=4, pause_seconds=0)
        )
        harness.now = dt.datetime(2021, 1, 15, tzinfo=dt.UTC)
        for month, name in names.items():
            found = publisher.find(name)
            assert found is not None
            etag = '"old"' if month == "2020-01" else found.etag
            message = {"url": publisher.url(name), "publisher": publisher.base, "etag": etag}
            harness.materialize(["raw", "green_trips"], month, message)
        for month in MONTHS_OF_2020[4:10]:
            publisher.script(f"{names[month]}.gz", then=Answer(status=503))
        assert [harness.requested_months() for _ in range(3)] == [{}, {}, {"2020-01": "revised"}]


def test_a_month_whose_check_times_out_does_not_delay_the_others(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    names = [f"green_tripdata_2021-{number:02}.csv" for number in (1, 2, 3)]
    with LoopbackPublisher(dict.fromkeys(names[:2], b"a")) as publisher:
        limits = ScanLimits(pause_seconds=0, seconds_per_month=2)
        harness = PublicationHarness(tmp_path / "published", instance, source=publisher.base, limits=limits)
        publisher.script(names[2], then=Answer(delay=1e6))
        (request,) = harness.tick()
        assert request.partition_key == "2021-02"
        harness.record_run(request, last_layer="none", status="STARTED")
        assert harness.requested_months() == {}
        assert f"{names[2]}: the answer was not complete in time" in harness.skip_message
        assert ScanCursor.read(harness.cursor) == ScanCursor()


def test_every_group_of_months_is_checked_even_if_the_publisher_is_slow(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """One version check per group and tick; each group resumes where it stopped."""
    harness = PublicationHarness(tmp_path / "published", instance, limits=ScanLimits(seconds=0, pause_seconds=0))
    harness.now = dt.datetime(2021, 5, 10, tzinfo=dt.UTC)
    harness.publish("2020-01", "2020-12")
    for month in ("2020-01", "2020-12"):
        harness.load(month)
    harness.publish("2020-01", "2020-02")
    ticks = []
    for number in range(11):
        ticks.append(harness.requested_months())
        if number == 0:
            expected = ScanCursor(newer_from="2021-03", gaps_from="2020-10", loaded_from="2020-01")
            assert ScanCursor.read(harness.cursor) == expected
    assert [number for number, months in enumerate(ticks) if "2020-01" in months] == [1, 3, 5, 7, 9]
    assert [number for number, months in enumerate(ticks) if "2020-02" in months] == [9]


def test_failed_months_are_checked_even_if_newer_and_missing_months_take_all_the_time(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    harness = PublicationHarness(tmp_path / "published", instance, limits=ScanLimits(seconds=0, pause_seconds=0))
    harness.publish("2020-11", "2021-01")
    while not (requests := harness.tick()):
        pass
    harness.record_run(requests[0], last_layer="none", status="FAILURE")
    harness.load("2020-11")
    harness.now += dt.timedelta(days=1)
    assert {"2021-01": "retry"} in [harness.requested_months() for _ in range(2)]


def test_a_group_whose_months_all_fail_does_not_delay_the_others(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    name = "green_tripdata_2019-01.csv"
    with LoopbackPublisher({name: b"a"}) as publisher:
        harness = PublicationHarness(tmp_path / "published", instance, source=publisher.base)
        message = {"url": publisher.url(name), "publisher": publisher.base, "etag": '"old"'}
        harness.materialize(["raw", "green_trips"], "2019-01", message)
        for month in [Month(2019, 1).shift(months) for months in range(1, 28)]:
            publisher.script(f"green_tripdata_{month}.csv.gz", then=Answer(status=503))
        (request,) = harness.tick()
        assert request.partition_key == "2019-01"
        harness.record_run(request, last_layer="none", status="STARTED")
        harness.cursor = None
        assert harness.requested_months() == {}
        assert "Newer months: too many errors. The next tick resumes at 2020-12." in harness.skip_message
        assert ScanCursor.read(harness.cursor) == ScanCursor(newer_from="2020-12")


def test_a_cursor_without_a_place_for_missing_months_is_read() -> None:
    old = '{"version":1,"newer_from":"2021-03","incomplete_from":null,"loaded_from":"2020-01"}'
    assert ScanCursor.read(old) == ScanCursor(newer_from="2021-03", loaded_from="2020-01")


# --- many ticks -------------------------------------------------------------------------------------------------------


def test_over_a_year_each_version_is_requested_once_and_only_after_it_is_published(
    harness: PublicationHarness,
) -> None:
    """Months are published two months later, on the 20th at 23:30 in New York; every third is revised 5 weeks later."""
    first, expected = Month(2019, 1), []
    requested: list[str] = []
    harness.publish(str(first))
    harness.load(str(first))
    publications: dict[dt.datetime, Month] = {}
    for index in range(12):
        month = first.shift(index + 1)
        day = month.shift(2).start + dt.timedelta(days=19)
        at = dt.datetime.combine(day, dt.time(4, 30), dt.UTC)
        publications[at] = month
        if index % 3 == 0:
            publications[at + dt.timedelta(weeks=5)] = month
    clock = min(publications) - dt.timedelta(days=1)
    while publications:
        due = [at for at in sorted(publications) if at <= clock]
        for at in due:
            month = publications.pop(at)
            harness.publish(str(month))
            expected.append(str(month))
        harness.now = clock
        requested += harness.run_requested_months()
        # Every sixth day, and on both sides of midnight at a month's end, in New York and in UTC.
        ends = dt.datetime.combine(Month(clock.year, clock.month).end, dt.time(), dt.UTC)
        edges = [ends + dt.timedelta(hours=hours) for hours in (-1, 1, 4, 6)]
        clock = min([clock + dt.timedelta(days=6), *(edge for edge in edges if edge > clock)])
    requested += harness.run_requested_months()
    assert requested == expected
    assert len(requested) == 12 + 4


def test_a_tick_takes_the_same_number_of_queries_and_the_same_short_cursor_for_any_number_of_months(
    tmp_path: Path,
) -> None:
    statements: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM kvs" not in statement:  # which Dagster reads once per instance
            statements.append(statement)

    def load(harness: PublicationHarness, months: Sequence[Month]) -> None:
        message = {"url": "https://elsewhere/x", "publisher": harness.source, "etag": '"1"'}
        for month in months:
            harness.materialize(["raw", GREEN.table], str(month), message, run_id="one run")

    newest = Month(2025, 12)
    ticks = []
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        harness = PublicationHarness(tmp_path / "published", instance)
        harness.now = dt.datetime(2026, 1, 15, tzinfo=dt.UTC)
        harness.publish(str(newest))
        loaded = 0
        for number in (20, 80):  # both are more than one tick checks
            load(harness, [newest.shift(-index) for index in range(loaded, number)])
            loaded = number
            harness.cursor = None
            statements.clear()
            sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", count)
            try:
                assert harness.requested_months() == {"2025-12": "revised"}
            finally:
                sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", count)
            ticks.append((len(statements), harness.cursor))
    assert ticks[0] == ticks[1]
    assert 0 < ticks[0][0] < 50
    assert 0 < len(str(harness.cursor)) < 200
