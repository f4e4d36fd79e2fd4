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
from taxi_assets_tests.definitions.publication_harness import YEAR, Publishing, instance, scenario

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["instance", "scenario"]


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_on_an_empty_instance_only_the_newest_published_month_is_taken(scenario: Publishing) -> None:
    scenario.publish(*YEAR, "2021-01", "2021-02")
    assert scenario.run_all() == {"2021-02": "new"}
    for _ in range(5):
        assert scenario.run_all() == {}


def test_a_new_month_is_asked_for_once_for_the_whole_chain_and_says_why(scenario: Publishing) -> None:
    scenario.publish("2021-01")
    scenario.load("2021-01")
    scenario.publish("2021-02")
    (request,) = scenario.tick()
    assert request.partition_key == "2021-02"
    assert {key.path[0] for key in request.asset_selection or []} == {
        "raw", "clean", "quarantine", "warehouse",
    }  # fmt: skip
    assert request.run_key == f"green 2021-02: {scenario.etag('2021-02')} replaces nothing, attempt 1"
    assert request.tags["taxi_assets/service"] == "green"
    assert request.tags["taxi_assets/month"] == request.tags["dagster/partition"] == "2021-02"
    assert request.tags["taxi_assets/reason"] == "new"
    scenario.run(request)
    assert scenario.asked() == {}


def test_several_months_published_at_once_are_all_asked_for(scenario: Publishing) -> None:
    scenario.publish("2020-12")
    scenario.load("2020-12")
    scenario.publish("2021-01", "2021-02", "2021-03")
    assert list(scenario.asked()) == ["2021-03", "2021-02", "2021-01"]


def test_a_month_that_appears_after_a_later_one_is_asked_for(scenario: Publishing) -> None:
    scenario.publish("2020-12", "2021-02")
    scenario.load("2020-12")
    assert scenario.run_all() == {"2021-02": "new"}
    scenario.publish("2021-01")
    assert scenario.run_all() == {"2021-01": "new"}


def test_after_a_long_gap_only_the_newest_month_is_taken(scenario: Publishing) -> None:
    scenario.publish("2019-01")
    scenario.load("2019-01")
    scenario.publish(*(f"2019-{number:02}" for number in range(2, 13)), *YEAR, "2021-01")
    assert scenario.run_all() == {"2021-01": "new"}
    assert scenario.run_all() == {}


def test_a_revised_month_is_asked_for_once_a_revision_and_an_etag_that_comes_back_is_noticed(
    scenario: Publishing,
) -> None:
    scenario.publish("2021-01")
    scenario.load("2021-01")
    assert scenario.run_all() == {}
    for _ in range(4):  # a, b, a, b
        for version in (1, 2):
            scenario.versions = version
            scenario.publish("2021-01")
            assert scenario.run_all() == {"2021-01": "revised"}
            assert scenario.run_all() == {}


def test_a_month_of_another_publisher_is_left_alone(scenario: Publishing, tmp_path: Path) -> None:
    scenario.publish("2021-01")
    scenario.load("2021-01")
    other = Publishing(tmp_path / "other", scenario.instance)
    other.publish("2020-12", "2021-01")
    assert other.asked() == {}
    other.publish("2021-02")
    assert other.asked() == {"2021-02": "new"}


def test_a_month_that_was_reported_by_hand_or_withdrawn_is_left_alone(scenario: Publishing) -> None:
    scenario.materialize(["raw", "green_trips"], "2021-01", {})
    scenario.publish("2021-01", "2021-02")
    scenario.load("2021-02")
    (scenario.folder / "green_tripdata_2021-02.csv").unlink()
    assert scenario.asked() == {}


# --- runs that are on their way, or failed ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["STARTING", "STARTED", "CANCELING"])
def test_nobody_s_run_is_doubled(scenario: Publishing, status: str) -> None:
    scenario.publish("2021-01")
    tags = {"dagster/partition": "2021-01"}
    run = dg.DagsterRun(
        job_name="__ASSET_JOB",
        status=dg.DagsterRunStatus(status),
        tags=tags,
        asset_selection=frozenset({dg.AssetKey(["raw", "green_trips"])}),
    )
    scenario.instance.add_run(run)
    assert scenario.asked() == {}
    assert "2021-01: a run is on its way" in scenario.message
    assert scenario.asked(SERVICES["yellow"]) == {}


def test_a_run_of_another_service_holds_nobody(scenario: Publishing) -> None:
    scenario.publish("2021-01")
    tags = {"dagster/partition": "2021-01"}
    scenario.instance.add_run(dg.DagsterRun(job_name="yellow", status=dg.DagsterRunStatus.STARTED, tags=tags))
    assert scenario.asked() == {"2021-01": "new"}


@pytest.mark.parametrize("tag", ["taxi_assets/backfill", "dagster/backfill"])
def test_while_a_backfill_runs_what_it_brings_home_is_not_asked_for(scenario: Publishing, tag: str) -> None:
    scenario.now = dt.datetime(2021, 1, 20, tzinfo=dt.UTC)
    scenario.publish(*YEAR)
    scenario.load("2020-01")
    scenario.load("2020-03")
    scenario.publish("2020-03")
    tags = {"dagster/partition": "2020-02", tag: "abcd"}
    run = dg.DagsterRun(job_name="green", status=dg.DagsterRunStatus.STARTED, tags=tags)
    scenario.instance.add_run(run)
    assert scenario.run_all() == {"2020-03": "revised"}
    assert scenario.asked() == {}
    assert "wait for the end of backfill abcd" in scenario.message
    scenario.instance.report_run_failed(run)
    assert list(scenario.asked()) == [*reversed(YEAR[3:]), "2020-02"]


@pytest.mark.parametrize("kind", ["assets", "job"])
def test_a_backfill_of_dagster_that_has_no_run_at_the_moment_holds_its_months_too(
    scenario: Publishing, kind: str
) -> None:
    scenario.now = dt.datetime(2021, 1, 20, tzinfo=dt.UTC)
    scenario.publish(*YEAR)
    for month in ("2020-01", "2020-02", "2020-10"):
        scenario.load(month)
    scenario.publish("2020-01", "2020-02")
    if kind == "assets":
        key = dg.AssetKey(["raw", "green_trips"])
        months = {AssetKeyPartitionKey(key, month) for month in ("2020-02", "2020-03")}
        graph = scenario.defs.get_repository_def().asset_graph
        backfill = PartitionBackfill.from_asset_graph_subset(
            "abcd",
            0.0,
            {},
            scenario.instance,
            AssetGraphSubset.from_asset_partition_set(months, graph),
            None,
            None,
            None,
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
    scenario.instance.add_backfill(backfill)
    assert scenario.asked(SERVICES["yellow"]) == {}
    assert scenario.run_all() == {"2020-01": "revised"}
    assert scenario.asked() == {}
    assert "wait for the end of backfill abcd" in scenario.message
    assert "2020-02: a run is on its way" in scenario.message
    scenario.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    assert set(scenario.asked()) == set(YEAR) - {"2020-01", "2020-10"}


def test_months_that_are_given_up_do_not_starve_the_others(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    scenario = Publishing(
        tmp_path / "published", instance, limits=ScanLimits(seconds=0.05, pause_seconds=0.06)
    )  # a question a look
    scenario.publish("2020-12", "2021-01", "2021-02")
    scenario.now = dt.datetime(2021, 4, 10, tzinfo=dt.UTC)
    for month in ("2020-12", "2021-01", "2021-02"):
        scenario.load(month, to="raw")
        tags = {"service": "green", "month": month, "reason": "retry", "version": "x", "request": f"green {month}",
                "attempt": str(len(RETRY_WAITS) + 1), "requested_at": "2021-01-01T00:00:00+00:00"}  # fmt: skip
        given_up = dg.RunRequest(month, partition_key=month, tags={f"taxi_assets/{k}": v for k, v in tags.items()})
        scenario.run(given_up, to="none", status="FAILURE")
    scenario.publish("2021-03")
    assert scenario.asked() == {"2021-03": "new"}


def test_failed_months_beyond_the_limit_have_their_turn(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    scenario = Publishing(tmp_path / "published", instance, limits=ScanLimits(unfinished=1, history=0, pause_seconds=0))
    scenario.publish("2021-01", "2021-02")
    for request in scenario.tick():
        scenario.run(request, to="raw", status="FAILURE")
    scenario.publish("2021-03")
    for request in scenario.tick():
        scenario.run(request, to="raw", status="FAILURE")
    scenario.now += dt.timedelta(days=1)
    assert [scenario.asked() for _ in range(3)] == [{"2021-03": "retry"}, {"2021-02": "retry"}, {"2021-03": "retry"}]


@pytest.mark.parametrize("to", ["none", "raw"])
def test_a_failed_run_is_asked_for_again_ever_later_and_not_for_ever(scenario: Publishing, to: str) -> None:
    scenario.publish("2021-01")
    (request,) = scenario.tick()
    for number, wait in enumerate(RETRY_WAITS, start=2):
        scenario.run(request, to=to, status="FAILURE")
        scenario.now += wait - dt.timedelta(minutes=1)
        assert scenario.asked() == {}
        assert "its run failed; again after" in scenario.message
        scenario.now += dt.timedelta(minutes=1)
        (request,) = scenario.tick()
        assert request.tags["taxi_assets/reason"] == "retry"
        assert request.tags["taxi_assets/attempt"] == str(number)
    scenario.run(request, to=to, status="FAILURE")
    scenario.now += dt.timedelta(days=100)
    assert scenario.asked() == {}
    assert "given up after 5 failed runs" in scenario.message

    scenario.publish("2021-01")
    assert scenario.run_all() in ({"2021-01": "new"}, {"2021-01": "revised"})
    assert scenario.asked() == {}


def test_a_failed_run_that_somebody_has_made_good_is_not_asked_for_again(scenario: Publishing) -> None:
    scenario.publish("2021-01")
    (request,) = scenario.tick()
    scenario.run(request, to="raw", status="FAILURE")
    scenario.load("2021-01")
    scenario.now += dt.timedelta(days=1)
    assert scenario.asked() == {}


@pytest.mark.parametrize("to", ["none", "raw"])
def test_a_run_that_a_person_canceled_is_not_asked_for_again(scenario: Publishing, to: str) -> None:
    scenario.publish("2021-01")
    (request,) = scenario.tick()
    scenario.run(request, to=to, status="CANCELED")
    loaded = latest_raw_materializations(scenario.instance, SERVICES["green"])
    scenario.now = max([scenario.now, *(raw.timestamp for raw in loaded.values())]) + dt.timedelta(days=1)
    assert "2021-01" not in scenario.asked()
    scenario.publish("2021-01")
    assert scenario.asked()["2021-01"] == ("new" if to == "none" else "revised")


def test_a_newer_revision_does_not_wait_for_a_failed_one(scenario: Publishing) -> None:
    scenario.publish("2021-01")
    scenario.load("2021-01")
    scenario.publish("2021-01")
    (request,) = scenario.tick()
    scenario.run(request, to="none", status="FAILURE")
    scenario.publish("2021-01")
    assert scenario.asked() == {"2021-01": "revised"}


def test_a_publisher_that_answers_now_so_now_so_costs_no_more_than_one_run(scenario: Publishing) -> None:
    scenario.publish("2021-01")
    scenario.load("2021-01")
    scenario.versions = 7
    scenario.publish("2021-01")
    (request,) = scenario.tick()
    scenario.versions = 8
    scenario.publish("2021-01")
    scenario.run(request)  # what came is another version than the one that was announced
    scenario.versions = 7
    scenario.publish("2021-01")
    assert scenario.asked() == {}
