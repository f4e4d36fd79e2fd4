"""The publication sensor: how far it looks, when it has little time, and two years of it as a whole."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import time
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.automation.publication.scan import ScanCursor
from taxi_assets.automation.publication.status import ScanLimits
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.definitions.publication_harness import YEAR, Publishing, instance, scenario
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["instance", "scenario"]


# --- how far a look goes ----------------------------------------------------------------------------------------------


def test_the_history_is_looked_over_in_turn_and_the_cursor_is_small_and_readable(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    scenario = Publishing(tmp_path / "published", instance, limits=ScanLimits(newer=2, history=5, pause_seconds=0))
    scenario.publish(*YEAR)
    for month in YEAR:
        scenario.load(month)
    scenario.now = dt.datetime(2021, 1, 15, tzinfo=dt.UTC)
    seen = []
    for _ in range(3):
        scenario.asked()
        seen.append(json.loads(scenario.cursor or ""))
    assert [cursor["history_from"] for cursor in seen] == ["2020-07", "2020-02", None]
    assert set(seen[0]) == {"version", "newer_from", "gaps_from", "unfinished_from", "history_from"}

    scenario.publish("2020-01")
    assert [scenario.run_all() for _ in range(3)] == [{}, {}, {"2020-01": "revised"}]


def test_a_publisher_that_stopped_years_ago_is_searched_a_part_at_a_time(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    scenario = Publishing(tmp_path / "published", instance, limits=ScanLimits(newer=10, pause_seconds=0))
    scenario.now = dt.datetime(2024, 1, 15, tzinfo=dt.UTC)
    scenario.publish("2021-06", "2021-07")
    assert [scenario.run_all() for _ in range(4)] == [{}, {}, {"2021-07": "new"}, {}]


@pytest.mark.parametrize(
    "cursor",
    ["", "{", "[]", '"2021-01"', '{"version": 0, "month": "2021-01"}', '{"version": 1, "newer_from": "1999-01"}',
     '{"version": 1, "history_from": 7}'],
)  # fmt: skip
def test_an_old_or_broken_cursor_is_rebuilt(scenario: Publishing, cursor: str) -> None:
    scenario.publish("2021-01", "2021-02")
    scenario.load("2021-01")
    scenario.cursor = cursor
    assert scenario.run_all() == {"2021-02": "new"}
    assert json.loads(scenario.cursor)["version"] == 1


def test_a_look_ends_when_its_time_is_up_and_the_next_one_goes_on(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    scenario = Publishing(tmp_path / "published", instance, limits=ScanLimits(seconds=0.05, pause_seconds=0.06))
    scenario.publish("2021-01")
    looks = 0
    while not scenario.run_all():
        assert "Newer months: their time was up; the next look goes on from 2021-0" in scenario.message
        looks += 1
        assert looks < 10
    assert looks >= 1  # 2021-04, 2021-03, 2021-02 come first


def test_a_publisher_that_is_down_gives_a_reason_to_skip_and_the_cursor_stays(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    with LoopbackPublisher({"green_tripdata_2021-01.csv": b"a"}) as publisher:
        base = publisher.base
        scenario = Publishing(tmp_path / "published", instance, source=base)
        scenario.cursor = before = '{"version":1,"newer_from":"2021-03","history_from":null}'
        publisher.script("green_tripdata_2021-03.csv.gz", Answer(status=503))
        assert scenario.asked() == {"2021-01": "new"}  # one answer is not the publisher
        scenario.cursor = before
    assert scenario.asked() == {}
    assert f"{base}/green_tripdata_2021-03.csv.gz: connection refused" in scenario.message
    assert scenario.cursor == before


def test_a_publisher_s_folder_that_has_gone_gives_a_reason_to_skip(scenario: Publishing) -> None:
    scenario.publish("2021-01")
    scenario.load("2021-01")
    scenario.cursor = before = '{"version":1,"newer_from":"2021-03","history_from":null}'
    shutil.rmtree(scenario.folder)
    assert scenario.asked() == {}
    assert "no such folder" in scenario.message
    assert "\n" not in scenario.message
    assert scenario.cursor == before


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_a_month_that_is_answered_with_an_error_does_not_hold_up_the_others(
    tmp_path: Path, instance: dg.DagsterInstance, status: int
) -> None:
    with LoopbackPublisher({"green_tripdata_2021-01.csv": b"a"}) as publisher:
        scenario = Publishing(tmp_path / "published", instance, source=publisher.base)
        refused = Answer(status=status)
        publisher.script("green_tripdata_2021-03.csv.gz", then=refused)
        assert scenario.asked() == {"2021-01": "new"}
        assert ScanCursor.read(scenario.cursor) == ScanCursor()
        for number in range(1, 5):
            publisher.script(f"green_tripdata_2021-{number:02}.csv.gz", then=refused)
        publisher.requests.clear()
        assert scenario.asked() == {}
        assert f"HTTP {status}" in scenario.message
        assert "2021-03: " in scenario.message
        assert len(publisher.requests) == 4


def test_a_part_of_the_history_that_fails_does_not_hold_up_the_rest_of_it(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    names = {month: f"green_tripdata_{month}.csv" for month in YEAR}
    with LoopbackPublisher(dict.fromkeys(names.values(), b"a")) as publisher:
        scenario = Publishing(
            tmp_path / "published", instance, source=publisher.base, limits=ScanLimits(history=4, pause_seconds=0)
        )
        scenario.now = dt.datetime(2021, 1, 15, tzinfo=dt.UTC)
        for month, name in names.items():
            found = publisher.find(name)
            assert found is not None
            etag = '"old"' if month == "2020-01" else found.etag
            message = {"url": publisher.url(name), "publisher": publisher.base, "etag": etag}
            scenario.materialize(["raw", "green_trips"], month, message)
        for month in YEAR[4:10]:
            publisher.script(f"{names[month]}.gz", then=Answer(status=503))
        assert [scenario.asked() for _ in range(3)] == [{}, {}, {"2020-01": "revised"}]


def test_a_month_whose_answer_does_not_come_holds_up_nobody(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    names = [f"green_tripdata_2021-{number:02}.csv" for number in (1, 2, 3)]
    with LoopbackPublisher(dict.fromkeys(names[:2], b"a")) as publisher:
        limits = ScanLimits(pause_seconds=0, seconds_per_month=0.3)
        scenario = Publishing(tmp_path / "published", instance, source=publisher.base, limits=limits)
        publisher.script(names[2], then=Answer(delay=60))
        (request,) = scenario.tick()
        assert request.partition_key == "2021-02"
        scenario.run(request, to="none", status="STARTED")
        assert scenario.asked() == {}
        assert f"{names[2]}: the answer was not complete in time" in scenario.message
        assert ScanCursor.read(scenario.cursor) == ScanCursor()


def test_every_part_of_a_look_has_its_turn_though_the_publisher_is_slow(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """A question a part: newer months, gaps, failed months and the history, each goes on where it was."""
    scenario = Publishing(tmp_path / "published", instance, limits=ScanLimits(seconds=0, pause_seconds=0))
    scenario.now = dt.datetime(2021, 5, 10, tzinfo=dt.UTC)
    scenario.publish("2020-01", "2020-12")
    for month in ("2020-01", "2020-12"):
        scenario.load(month)
    scenario.publish("2020-01", "2020-02")
    looks = []
    for number in range(11):
        looks.append(scenario.asked())
        if number == 0:
            place = ScanCursor(newer_from="2021-03", gaps_from="2020-10", history_from="2020-01")
            assert ScanCursor.read(scenario.cursor) == place
    assert [number for number, look in enumerate(looks) if "2020-01" in look] == [1, 3, 5, 7, 9]
    assert [number for number, look in enumerate(looks) if "2020-02" in look] == [9]


def test_failed_months_have_their_turn_though_newer_months_and_gaps_take_all_the_time(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    scenario = Publishing(tmp_path / "published", instance, limits=ScanLimits(seconds=0, pause_seconds=0))
    scenario.publish("2020-11", "2021-01")
    while not (requests := scenario.tick()):
        pass
    scenario.run(requests[0], to="none", status="FAILURE")
    scenario.load("2020-11")
    scenario.now += dt.timedelta(days=1)
    assert {"2021-01": "retry"} in [scenario.asked() for _ in range(2)]


def test_a_part_whose_months_are_all_answered_with_errors_does_not_hold_up_the_others(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    name = "green_tripdata_2019-01.csv"
    with LoopbackPublisher({name: b"a"}) as publisher:
        scenario = Publishing(tmp_path / "published", instance, source=publisher.base)
        message = {"url": publisher.url(name), "publisher": publisher.base, "etag": '"old"'}
        scenario.materialize(["raw", "green_trips"], "2019-01", message)
        for month in [Month(2019, 1).shift(months) for months in range(1, 28)]:
            publisher.script(f"green_tripdata_{month}.csv.gz", then=Answer(status=503))
        (request,) = scenario.tick()
        assert request.partition_key == "2019-01"
        scenario.run(request, to="none", status="STARTED")
        scenario.cursor = None
        assert scenario.asked() == {}
        assert (
            "Newer months: that is too many errors for one look; the next look goes on from 2020-12."
            in scenario.message
        )
        assert ScanCursor.read(scenario.cursor) == ScanCursor(newer_from="2020-12")


def test_a_cursor_from_before_gaps_had_a_place_is_read() -> None:
    old = '{"version":1,"newer_from":"2021-03","unfinished_from":null,"history_from":"2020-01"}'
    assert ScanCursor.read(old) == ScanCursor(newer_from="2021-03", history_from="2020-01")


# --- as a whole -------------------------------------------------------------------------------------------------------


def test_in_24_months_of_ticks_each_month_is_asked_for_once_a_revision_and_never_before_it_is_published(
    scenario: Publishing,
) -> None:
    """A month comes out on the 20th two months later, at 23:30 in New York; every third is revised after five weeks."""
    first, wanted = Month(2019, 1), []
    asked: list[str] = []
    scenario.publish(str(first))
    scenario.load(str(first))
    publications: dict[dt.datetime, Month] = {}
    for index in range(24):
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
            scenario.publish(str(month))
            wanted.append(str(month))
        scenario.now = clock
        asked += scenario.run_all()
        # Every third day, and on both sides of midnight at a month's end, in New York and in UTC.
        ends = dt.datetime.combine(Month(clock.year, clock.month).end, dt.time(), dt.UTC)
        edges = [ends + dt.timedelta(hours=hours) for hours in (-1, 1, 4, 6)]
        clock = min([clock + dt.timedelta(days=3), *(edge for edge in edges if edge > clock)])
    asked += scenario.run_all()
    assert asked == wanted
    assert len(asked) == 24 + 8


def test_a_tick_over_four_services_and_200_months_is_quick_and_its_cursor_small(tmp_path: Path) -> None:
    preview = dg.MetadataValue.md("| a column of the file | another |\n" * 150)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        scenario = Publishing(tmp_path / "published", instance)
        scenario.now = dt.datetime(2026, 1, 15, tzinfo=dt.UTC)
        for service in SERVICES.values():
            for index in range(200):
                month = str(Month(2009, 5).shift(index))
                message = {
                    "url": "https://elsewhere/x",
                    "publisher": scenario.source,
                    "etag": '"1"',
                    "preview": preview,
                }
                scenario.materialize(["raw", service.table], month, message, run_id="one run")
                if index == 199:
                    scenario.publish(month, service=service)
        started, cursors = time.monotonic(), []
        for service in SERVICES.values():
            scenario.cursor = None  # for each service its own
            assert scenario.asked(service) == {"2025-12": "revised"}
            cursors.append(str(scenario.cursor))
        seconds = time.monotonic() - started
    assert seconds < 5
    assert 0 < max(map(len, cursors)) < 200
