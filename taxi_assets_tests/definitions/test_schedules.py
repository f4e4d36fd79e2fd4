"""The schedules request the newest published month, and nothing else."""

from __future__ import annotations

import datetime as dt
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
from taxi_assets_tests.definitions.publication_harness import PublicationHarness
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def harness(tmp_path: Path, instance: dg.DagsterInstance) -> PublicationHarness:
    return PublicationHarness(tmp_path / "published", instance)


def month_of(request: dg.RunRequest | str) -> str:
    assert isinstance(request, dg.RunRequest), request
    return str(request.partition_key)


def test_a_schedule_requests_the_newest_published_month_with_the_sensor_s_run_key(harness: PublicationHarness) -> None:
    harness.publish("2021-01", "2021-02", "2021-03")
    request = harness.evaluate_schedule()
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2021-03"
    assert request.tags["taxi_assets/reason"] == "new"
    assert [request.run_key] == [request.run_key for request in harness.tick()]
    harness.record_run(request)
    assert (
        harness.evaluate_schedule()
        == f"green 2021-03 is the newest month published by {harness.source}: it is loaded and unchanged."
    )
    harness.publish("2021-03")
    request = harness.evaluate_schedule()
    assert isinstance(request, dg.RunRequest)
    assert request.tags["taxi_assets/reason"] == "revised"


def test_a_schedule_gives_the_reason_if_it_requests_nothing(harness: PublicationHarness, tmp_path: Path) -> None:
    assert harness.evaluate_schedule() == f"{harness.source} has published no green month from 2020-11 to 2021-04."
    harness.publish("2021-03")
    tags = {"dagster/partition": "2021-03"}
    harness.instance.add_run(dg.DagsterRun(job_name="green", status=dg.DagsterRunStatus.STARTED, tags=tags))
    assert "a run is in progress" in str(harness.evaluate_schedule())
    with LoopbackPublisher() as publisher:
        down = PublicationHarness(tmp_path / "published", harness.instance, source=publisher.base)
    assert "connection refused" in str(down.evaluate_schedule())


def test_a_month_whose_check_fails_is_passed_over_and_a_missing_folder_is_named(
    harness: PublicationHarness, tmp_path: Path
) -> None:
    with LoopbackPublisher({"green_tripdata_2021-03.csv": b"a"}) as publisher:
        publisher.script("green_tripdata_2021-04.csv.gz", then=Answer(status=500))
        served = PublicationHarness(tmp_path / "published", harness.instance, source=publisher.base)
        assert month_of(served.evaluate_schedule()) == "2021-03"
        publisher.script("green_tripdata_2021-03.csv.gz", then=Answer(status=404))
        publisher.script("green_tripdata_2021-03.csv", then=Answer(status=404))
        message = str(served.evaluate_schedule())
        assert "2021-04.csv.gz: HTTP 500" in message
        assert "has published no green month" in message
        for number in (1, 2, 3):
            publisher.script(f"green_tripdata_2021-{number:02}.csv.gz", then=Answer(status=500))
        publisher.requests.clear()
        message = str(served.evaluate_schedule())
        assert "2021-01.csv.gz: HTTP 500" in message
        assert message.endswith(f"Stopped after too many errors from {publisher.base}.")
        assert len(publisher.requests) == 4
    harness.folder.rmdir()
    assert "no such folder" in str(harness.evaluate_schedule())


def test_a_schedule_s_version_checks_have_the_same_timeout_as_the_sensor_s(instance: dg.DagsterInstance) -> None:
    at, name = dt.datetime(2021, 5, 1, 5, tzinfo=dt.UTC), "green_tripdata_2021-03.csv"
    with LoopbackPublisher({name: b"a"}) as publisher:
        publisher.script("green_tripdata_2021-04.csv", then=Answer(delay=1e6))
        source = PublisherResource(source=publisher.base)
        request = request_newest(instance, GREEN, source, at, ScanLimits(seconds_per_month=2, pause_seconds=0))
        assert isinstance(request, dg.RunRequest)
        assert request.partition_key == "2021-03"


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTING", "STARTED", "CANCELED"])
def test_sensor_and_schedule_do_not_request_a_run_that_the_other_has_requested(
    harness: PublicationHarness, status: str
) -> None:
    """Dagster would not notice: it compares run keys only within one sensor, or one time of a schedule."""
    harness.publish("2021-02", "2021-03")
    harness.load("2021-02")
    by_sensor, by_schedule = harness.tick()[0], harness.evaluate_schedule()
    assert isinstance(by_schedule, dg.RunRequest)
    assert by_sensor.run_key == by_schedule.run_key
    harness.record_run(by_sensor, last_layer="none", status=status)
    assert (
        "its run has the status" in (message := str(harness.evaluate_schedule())) or "a run is in progress" in message
    )
    harness.publish("2021-04")
    by_schedule = harness.evaluate_schedule()
    assert isinstance(by_schedule, dg.RunRequest)
    harness.record_run(by_schedule, last_layer="none", status=status)
    assert harness.requested_months() == {}


def test_a_failed_run_is_retried_when_it_is_due(harness: PublicationHarness) -> None:
    harness.publish("2021-03")
    request = harness.evaluate_schedule("daily")
    assert isinstance(request, dg.RunRequest)
    harness.record_run(request, last_layer="none", status="FAILURE")
    assert "its run failed; the next attempt is due at" in str(harness.evaluate_schedule("daily"))
    harness.now += dt.timedelta(days=1)
    again = harness.evaluate_schedule("daily")
    assert isinstance(again, dg.RunRequest)
    assert again.tags["taxi_assets/reason"] == "retry"


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati", "Pacific/Niue"])
def test_over_a_year_each_month_is_requested_once_and_only_if_it_is_a_partition(tmp_path: Path, zone: str) -> None:
    """Each month is published two months later; Kiritimati is 14 hours ahead of UTC, Niue 11 behind."""
    first = Month(2021, 1)
    start = dt.datetime(2021, 3, 1, tzinfo=ZoneInfo(zone)) - dt.timedelta(seconds=1)
    requested = []
    with dg.DagsterInstance.ephemeral() as instance:
        harness = PublicationHarness(tmp_path / "published", instance)
        times = schedule_execution_time_iterator(start.timestamp(), MONTHLY, zone)
        for index, at in zip(range(13), times, strict=False):
            here = at.astimezone(ZoneInfo(zone))
            assert (here.day, here.hour) == (1, 5)
            for _ in range(2):  # a tick may be evaluated twice
                request = request_newest(instance, GREEN, PublisherResource(source=harness.source), at)
                if isinstance(request, dg.RunRequest):
                    requested.append(month_of(request))
                    assert month_of(request) in monthly_partitions(GREEN).get_partition_keys(current_time=at)
                    harness.record_run(request)
            harness.publish(str(first.shift(index)))
    assert requested == [str(first.shift(index)) for index in range(12)]


def test_a_published_month_that_has_not_ended_in_utc_is_not_requested(harness: PublicationHarness) -> None:
    harness.publish("2021-03", "2021-04", "2021-05")
    harness.now = dt.datetime(2021, 5, 1, 5, tzinfo=ZoneInfo("Pacific/Kiritimati"))  # the 30th of April in UTC
    assert month_of(harness.evaluate_schedule(timezone="Pacific/Kiritimati")) == "2021-03"
    harness.now = dt.datetime(2021, 5, 1, 5, tzinfo=ZoneInfo("Pacific/Niue"))
    assert month_of(harness.evaluate_schedule(timezone="Pacific/Niue")) == "2021-04"


def test_schedules_use_the_given_cron_and_time_zone() -> None:
    monthly, daily = publication_schedules(GREEN, cron="30 6 2 * *", timezone="Europe/Zurich")
    assert (monthly.name, monthly.cron_schedule, monthly.execution_timezone) == (
        "green_monthly", "30 6 2 * *", "Europe/Zurich",
    )  # fmt: skip
    assert (daily.name, daily.cron_schedule, daily.execution_timezone) == ("green_daily", "30 5 * * *", "Europe/Zurich")
