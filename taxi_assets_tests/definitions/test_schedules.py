"""The schedules: the newest published month, and nothing else."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from taxi_assets.automation.policies import MONTHLY
from taxi_assets.automation.publication.status import ScanLimits
from taxi_assets.automation.schedules import publication_schedules, request_newest
from taxi_assets.partitions import monthly_partitions
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.definitions.publication_harness import Publishing
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def scenario(tmp_path: Path, instance: dg.DagsterInstance) -> Publishing:
    return Publishing(tmp_path / "published", instance)


def month_of(asked: dg.RunRequest | str) -> str:
    assert isinstance(asked, dg.RunRequest), asked
    return str(asked.partition_key)


def test_it_asks_for_the_newest_published_month_as_the_sensor_would(scenario: Publishing) -> None:
    scenario.publish("2021-01", "2021-02", "2021-03")
    asked = scenario.on_schedule()
    assert isinstance(asked, dg.RunRequest)
    assert asked.partition_key == "2021-03"
    assert asked.tags["taxi_assets/reason"] == "new"
    assert [asked.run_key] == [request.run_key for request in scenario.tick()]
    scenario.run(asked)
    assert (
        scenario.on_schedule()
        == f"green 2021-03 is the newest month of {scenario.source}; it is loaded, and unchanged."
    )
    scenario.publish("2021-03")
    asked = scenario.on_schedule()
    assert isinstance(asked, dg.RunRequest)
    assert asked.tags["taxi_assets/reason"] == "revised"


def test_it_says_why_it_does_not_ask(scenario: Publishing, tmp_path: Path) -> None:
    assert scenario.on_schedule() == f"{scenario.source} has published no green month from 2020-11 to 2021-04."
    scenario.publish("2021-03")
    tags = {"dagster/partition": "2021-03"}
    scenario.instance.add_run(dg.DagsterRun(job_name="green", status=dg.DagsterRunStatus.STARTED, tags=tags))
    assert "a run is on its way" in str(scenario.on_schedule())
    with LoopbackPublisher() as publisher:
        down = Publishing(tmp_path / "published", scenario.instance, source=publisher.base)
    assert "connection refused" in str(down.on_schedule())


def test_a_month_that_is_answered_with_an_error_is_passed_and_a_folder_that_has_gone_is_named(
    scenario: Publishing, tmp_path: Path
) -> None:
    with LoopbackPublisher({"green_tripdata_2021-03.csv": b"a"}) as publisher:
        publisher.script("green_tripdata_2021-04.csv.gz", then=Answer(status=500))
        served = Publishing(tmp_path / "published", scenario.instance, source=publisher.base)
        assert month_of(served.on_schedule()) == "2021-03"
        publisher.script("green_tripdata_2021-03.csv.gz", then=Answer(status=404))
        publisher.script("green_tripdata_2021-03.csv", then=Answer(status=404))
        message = str(served.on_schedule())
        assert "2021-04.csv.gz: HTTP 500" in message
        assert "has published no green month" in message
        for number in (1, 2, 3):
            publisher.script(f"green_tripdata_2021-{number:02}.csv.gz", then=Answer(status=500))
        publisher.requests.clear()
        message = str(served.on_schedule())
        assert "2021-01.csv.gz: HTTP 500" in message
        assert message.endswith(f"That is too many errors of {publisher.base} for one look.")
        assert len(publisher.requests) == 4
    scenario.folder.rmdir()
    assert "no such folder" in str(scenario.on_schedule())


def test_it_has_the_same_deadline_for_a_question_as_the_sensor(instance: dg.DagsterInstance) -> None:
    at, name = dt.datetime(2021, 5, 1, 5, tzinfo=dt.UTC), "green_tripdata_2021-03.csv"
    with LoopbackPublisher({name: b"a"}) as publisher:
        publisher.script("green_tripdata_2021-04.csv", then=Answer(delay=60))
        source = PublisherResource(source=publisher.base)
        started = time.monotonic()
        asked = request_newest(instance, GREEN, source, at, ScanLimits(seconds_per_month=0.3, pause_seconds=0))
        assert time.monotonic() - started < 3
        assert isinstance(asked, dg.RunRequest)
        assert asked.partition_key == "2021-03"


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTING", "STARTED", "CANCELED"])
def test_schedule_and_sensor_do_not_double_the_run_that_the_other_has_asked_for(
    scenario: Publishing, status: str
) -> None:
    """Dagster would: it compares run keys within a sensor, or within a time of a schedule."""
    scenario.publish("2021-02", "2021-03")
    scenario.load("2021-02")
    by_sensor, by_schedule = scenario.tick()[0], scenario.on_schedule()
    assert isinstance(by_schedule, dg.RunRequest)
    assert by_sensor.run_key == by_schedule.run_key
    scenario.run(by_sensor, to="none", status=status)
    assert "its run is" in (message := str(scenario.on_schedule())) or "a run is on its way" in message
    scenario.publish("2021-04")
    by_schedule = scenario.on_schedule()
    assert isinstance(by_schedule, dg.RunRequest)
    scenario.run(by_schedule, to="none", status=status)
    assert scenario.asked() == {}


def test_a_failed_run_is_asked_for_again_when_its_time_has_come(scenario: Publishing) -> None:
    scenario.publish("2021-03")
    asked = scenario.on_schedule("daily")
    assert isinstance(asked, dg.RunRequest)
    scenario.run(asked, to="none", status="FAILURE")
    assert "its run failed; again after" in str(scenario.on_schedule("daily"))
    scenario.now += dt.timedelta(days=1)
    again = scenario.on_schedule("daily")
    assert isinstance(again, dg.RunRequest)
    assert again.tags["taxi_assets/reason"] == "retry"


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati", "Pacific/Niue"])
def test_over_a_year_each_month_is_asked_for_once_and_none_that_is_not_a_partition(tmp_path: Path, zone: str) -> None:
    """Each month is published two months later; Kiritimati is 14 hours ahead of UTC, Niue 11 behind."""
    first = Month(2021, 1)
    start = dt.datetime(2021, 3, 1, tzinfo=ZoneInfo(zone)) - dt.timedelta(seconds=1)
    asked = []
    with dg.DagsterInstance.ephemeral() as instance:
        scenario = Publishing(tmp_path / "published", instance)
        times = schedule_execution_time_iterator(start.timestamp(), MONTHLY, zone)
        for index, at in zip(range(13), times, strict=False):
            here = at.astimezone(ZoneInfo(zone))
            assert (here.day, here.hour) == (1, 5)
            for _ in range(2):  # a tick may be evaluated twice
                request = request_newest(instance, GREEN, PublisherResource(source=scenario.source), at)
                if isinstance(request, dg.RunRequest):
                    asked.append(month_of(request))
                    assert month_of(request) in monthly_partitions(GREEN).get_partition_keys(current_time=at)
                    scenario.run(request)
            scenario.publish(str(first.shift(index)))
    assert asked == [str(first.shift(index)) for index in range(12)]


def test_a_month_that_has_not_ended_in_utc_is_not_asked_for_though_it_is_there(scenario: Publishing) -> None:
    scenario.publish("2021-03", "2021-04", "2021-05")
    scenario.now = dt.datetime(2021, 5, 1, 5, tzinfo=ZoneInfo("Pacific/Kiritimati"))  # the 30th of April in UTC
    assert month_of(scenario.on_schedule(timezone="Pacific/Kiritimati")) == "2021-03"
    scenario.now = dt.datetime(2021, 5, 1, 5, tzinfo=ZoneInfo("Pacific/Niue"))
    assert month_of(scenario.on_schedule(timezone="Pacific/Niue")) == "2021-04"


def test_cron_and_time_zone_are_those_that_are_given() -> None:
    monthly, daily = publication_schedules(GREEN, cron="30 6 2 * *", timezone="Europe/Zurich")
    assert (monthly.name, monthly.cron_schedule, monthly.execution_timezone) == (
        "green_monthly", "30 6 2 * *", "Europe/Zurich",
    )  # fmt: skip
    assert (daily.name, daily.cron_schedule, daily.execution_timezone) == ("green_daily", "30 5 * * *", "Europe/Zurich")
