"""The publication sensor: which months it asks for, and when it does not."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemotePartitionSetOrigin,
    RemoteRepositoryOrigin,
)

from taxi_assets.automation.publication.materializations import latest_raw_materializations
from taxi_assets.automation.publication.run_planner import RETRY_WAITS
from taxi_assets.automation.publication.status import ScanLimits
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.definitions.publication_harness import YEAR, Publishing, instance, story

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["instance", "story"]


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_on_an_empty_instance_only_the_newest_published_month_is_taken(story: Publishing) -> None:
    story.publish(*YEAR, "2021-01", "2021-02")
    assert story.run_all() == {"2021-02": "new"}
    for _ in range(5):
        assert story.run_all() == {}


def test_a_new_month_is_asked_for_once_for_the_whole_chain_and_says_why(story: Publishing) -> None:
    story.publish("2021-01")
    story.load("2021-01")
    story.publish("2021-02")
    (request,) = story.tick()
    assert request.partition_key == "2021-02"
    assert {key.path[0] for key in request.asset_selection or []} == {
        "raw", "clean", "quarantine", "warehouse",
    }  # fmt: skip
    assert request.run_key == f"green 2021-02: {story.etag('2021-02')} replaces nothing, attempt 1"
    assert request.tags["taxi_assets/service"] == "green"
    assert request.tags["taxi_assets/month"] == request.tags["dagster/partition"] == "2021-02"
    assert request.tags["taxi_assets/reason"] == "new"
    story.run(request)
    assert story.asked() == {}


def test_several_months_published_at_once_are_all_asked_for(story: Publishing) -> None:
    story.publish("2020-12")
    story.load("2020-12")
    story.publish("2021-01", "2021-02", "2021-03")
    assert list(story.asked()) == ["2021-03", "2021-02", "2021-01"]


def test_a_month_that_appears_after_a_later_one_is_asked_for(story: Publishing) -> None:
    story.publish("2020-12", "2021-02")
    story.load("2020-12")
    assert story.run_all() == {"2021-02": "new"}
    story.publish("2021-01")
    assert story.run_all() == {"2021-01": "new"}


def test_after_a_long_gap_only_the_newest_month_is_taken(story: Publishing) -> None:
    story.publish("2019-01")
    story.load("2019-01")
    story.publish(*(f"2019-{number:02}" for number in range(2, 13)), *YEAR, "2021-01")
    assert story.run_all() == {"2021-01": "new"}
    assert story.run_all() == {}


def test_a_revised_month_is_asked_for_once_a_revision_and_an_etag_that_comes_back_is_noticed(
    story: Publishing,
) -> None:
    story.publish("2021-01")
    story.load("2021-01")
    assert story.run_all() == {}
    for _ in range(4):  # a, b, a, b
        for version in (1, 2):
            story.versions = version
            story.publish("2021-01")
            assert story.run_all() == {"2021-01": "revised"}
            assert story.run_all() == {}


def test_a_month_of_another_publisher_is_left_alone(story: Publishing, tmp_path: Path) -> None:
    story.publish("2021-01")
    story.load("2021-01")
    other = Publishing(tmp_path / "other", story.instance)
    other.publish("2020-12", "2021-01")
    assert other.asked() == {}
    other.publish("2021-02")
    assert other.asked() == {"2021-02": "new"}


def test_a_month_that_was_reported_by_hand_or_withdrawn_is_left_alone(story: Publishing) -> None:
    story.materialize(["raw", "green_trips"], "2021-01", {})
    story.publish("2021-01", "2021-02")
    story.load("2021-02")
    (story.folder / "green_tripdata_2021-02.csv").unlink()
    assert story.asked() == {}


# --- runs that are on their way, or failed ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["STARTING", "STARTED", "CANCELING"])
def test_nobody_s_run_is_doubled(story: Publishing, status: str) -> None:
    story.publish("2021-01")
    tags = {"dagster/partition": "2021-01"}
    run = dg.DagsterRun(
        job_name="__ASSET_JOB",
        status=dg.DagsterRunStatus(status),
        tags=tags,
        asset_selection=frozenset({dg.AssetKey(["raw", "green_trips"])}),
    )
    story.instance.add_run(run)
    assert story.asked() == {}
    assert "2021-01: a run is on its way" in story.said
    assert story.asked(SERVICES["yellow"]) == {}


def test_a_run_of_another_service_holds_nobody(story: Publishing) -> None:
    story.publish("2021-01")
    tags = {"dagster/partition": "2021-01"}
    story.instance.add_run(dg.DagsterRun(job_name="yellow", status=dg.DagsterRunStatus.STARTED, tags=tags))
    assert story.asked() == {"2021-01": "new"}


@pytest.mark.parametrize("tag", ["taxi_assets/backfill", "dagster/backfill"])
def test_while_a_backfill_runs_what_it_brings_home_is_not_asked_for(story: Publishing, tag: str) -> None:
    story.now = dt.datetime(2021, 1, 20, tzinfo=dt.UTC)
    story.publish(*YEAR)
    story.load("2020-01")
    story.load("2020-03")
    story.publish("2020-03")
    tags = {"dagster/partition": "2020-02", tag: "abcd"}
    run = dg.DagsterRun(job_name="green", status=dg.DagsterRunStatus.STARTED, tags=tags)
    story.instance.add_run(run)
    assert story.run_all() == {"2020-03": "revised"}
    assert story.asked() == {}
    assert "wait for the end of backfill abcd" in story.said
    story.instance.report_run_failed(run)
    assert list(story.asked()) == [*reversed(YEAR[3:]), "2020-02"]


@pytest.mark.parametrize("kind", ["assets", "job"])
def test_a_backfill_of_dagster_that_has_no_run_at_the_moment_holds_its_months_too(story: Publishing, kind: str) -> None:
    story.now = dt.datetime(2021, 1, 20, tzinfo=dt.UTC)
    story.publish(*YEAR)
    for month in ("2020-01", "2020-02", "2020-10"):
        story.load(month)
    story.publish("2020-01", "2020-02")
    if kind == "assets":
        key = dg.AssetKey(["raw", "green_trips"])
        months = {AssetKeyPartitionKey(key, month) for month in ("2020-02", "2020-03")}
        graph = story.defs.get_repository_def().asset_graph
        backfill = PartitionBackfill.from_asset_graph_subset(
            "abcd", 0.0, {}, story.instance, AssetGraphSubset.from_asset_partition_set(months, graph), None, None, None
        )
    else:
        location = RegisteredCodeLocationOrigin("taxi_assets.definitions")
        backfill = PartitionBackfill(
            "abcd", BulkActionStatus.REQUESTED, from_failure=False, tags={}, backfill_timestamp=0.0,
            partition_set_origin=RemotePartitionSetOrigin(
                repository_origin=RemoteRepositoryOrigin(location, "__repository__"),
                partition_set_name="green_partition_set",
            ),
            partition_names=["2020-02", "2020-03"],
        )  # fmt: skip
    story.instance.add_backfill(backfill)
    assert story.asked(SERVICES["yellow"]) == {}
    assert story.run_all() == {"2020-01": "revised"}
    assert story.asked() == {}
    assert "wait for the end of backfill abcd" in story.said
    assert "2020-02: a run is on its way" in story.said
    story.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    assert set(story.asked()) == set(YEAR) - {"2020-01", "2020-10"}


def test_months_that_are_given_up_do_not_starve_the_others(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    story = Publishing(
        tmp_path / "published", instance, limits=ScanLimits(seconds=0.05, pause_seconds=0.06)
    )  # a question a look
    story.publish("2020-12", "2021-01", "2021-02")
    story.now = dt.datetime(2021, 4, 10, tzinfo=dt.UTC)
    for month in ("2020-12", "2021-01", "2021-02"):
        story.load(month, to="raw")
        tags = {"service": "green", "month": month, "reason": "retry", "version": "x", "request": f"green {month}",
                "attempt": str(len(RETRY_WAITS) + 1), "requested_at": "2021-01-01T00:00:00+00:00"}  # fmt: skip
        given_up = dg.RunRequest(month, partition_key=month, tags={f"taxi_assets/{k}": v for k, v in tags.items()})
        story.run(given_up, to="none", status="FAILURE")
    story.publish("2021-03")
    assert story.asked() == {"2021-03": "new"}


def test_failed_months_beyond_the_limit_have_their_turn(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    story = Publishing(tmp_path / "published", instance, limits=ScanLimits(unfinished=1, history=0, pause_seconds=0))
    story.publish("2021-01", "2021-02")
    for request in story.tick():
        story.run(request, to="raw", status="FAILURE")
    story.publish("2021-03")
    for request in story.tick():
        story.run(request, to="raw", status="FAILURE")
    story.now += dt.timedelta(days=1)
    assert [story.asked() for _ in range(3)] == [{"2021-03": "retry"}, {"2021-02": "retry"}, {"2021-03": "retry"}]


@pytest.mark.parametrize("to", ["none", "raw"])
def test_a_failed_run_is_asked_for_again_ever_later_and_not_for_ever(story: Publishing, to: str) -> None:
    story.publish("2021-01")
    (request,) = story.tick()
    for number, wait in enumerate(RETRY_WAITS, start=2):
        story.run(request, to=to, status="FAILURE")
        story.now += wait - dt.timedelta(minutes=1)
        assert story.asked() == {}
        assert "its run failed; again after" in story.said
        story.now += dt.timedelta(minutes=1)
        (request,) = story.tick()
        assert request.tags["taxi_assets/reason"] == "retry"
        assert request.tags["taxi_assets/attempt"] == str(number)
    story.run(request, to=to, status="FAILURE")
    story.now += dt.timedelta(days=100)
    assert story.asked() == {}
    assert "given up after 5 failed runs" in story.said

    story.publish("2021-01")
    assert story.run_all() in ({"2021-01": "new"}, {"2021-01": "revised"})
    assert story.asked() == {}


def test_a_failed_run_that_somebody_has_made_good_is_not_asked_for_again(story: Publishing) -> None:
    story.publish("2021-01")
    (request,) = story.tick()
    story.run(request, to="raw", status="FAILURE")
    story.load("2021-01")
    story.now += dt.timedelta(days=1)
    assert story.asked() == {}


@pytest.mark.parametrize("to", ["none", "raw"])
def test_a_run_that_a_person_canceled_is_not_asked_for_again(story: Publishing, to: str) -> None:
    story.publish("2021-01")
    (request,) = story.tick()
    story.run(request, to=to, status="CANCELED")
    loaded = latest_raw_materializations(story.instance, SERVICES["green"])
    story.now = max([story.now, *(raw.timestamp for raw in loaded.values())]) + dt.timedelta(days=1)
    assert "2021-01" not in story.asked()
    story.publish("2021-01")
    assert story.asked()["2021-01"] == ("new" if to == "none" else "revised")


def test_a_newer_revision_does_not_wait_for_a_failed_one(story: Publishing) -> None:
    story.publish("2021-01")
    story.load("2021-01")
    story.publish("2021-01")
    (request,) = story.tick()
    story.run(request, to="none", status="FAILURE")
    story.publish("2021-01")
    assert story.asked() == {"2021-01": "revised"}


def test_a_publisher_that_answers_now_so_now_so_costs_no_more_than_one_run(story: Publishing) -> None:
    story.publish("2021-01")
    story.load("2021-01")
    story.versions = 7
    story.publish("2021-01")
    (request,) = story.tick()
    story.versions = 8
    story.publish("2021-01")
    story.run(request)  # what came is another version than the one that was announced
    story.versions = 7
    story.publish("2021-01")
    assert story.asked() == {}
