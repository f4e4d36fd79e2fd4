"""The publication sensor: which months it requests, and when it does not."""

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

from taxi_assets.automation.publication.decision import RETRY_WAITS
from taxi_assets.automation.publication.materializations import latest_raw_materializations
from taxi_assets.automation.publication.status import ScanLimits
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.definitions.publication_harness import MONTHS_OF_2020, PublicationHarness, harness, instance
from taxi_assets_tests.loopback_publisher import HTML_PAGE, Answer, LoopbackPublisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["harness", "instance"]


# --- requested months -------------------------------------------------------------------------------------------------


def test_an_empty_instance_requests_only_the_newest_published_month(harness: PublicationHarness) -> None:
    harness.publish(*MONTHS_OF_2020, "2021-01", "2021-02")
    assert harness.run_requested_months() == {"2021-02": "new"}
    for _ in range(5):
        assert harness.run_requested_months() == {}


def test_a_tick_without_a_request_is_skipped_with_what_it_checked_as_the_reason(harness: PublicationHarness) -> None:
    harness.publish("2021-03", "2021-04")
    for month in ("2021-03", "2021-04"):
        harness.load(month)
    assert harness.tick() == []
    assert harness.skip_message == (
        f"Checked 2 months of {harness.source} between 2021-03 and 2021-04: no run requested."
    )


def test_the_sensor_and_its_runs_use_the_publisher_of_the_service(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "published"
    harness = PublicationHarness(folder, instance, source="sample", service_sources={"green": str(folder)})
    harness.publish("2021-01", content="a,b\n1,2\n")
    assert harness.requested_months() == {"2021-01": "new"}
    result = harness.defs.resolve_job_def("green").execute_in_process(
        instance=instance, partition_key="2021-01", asset_selection=[dg.AssetKey(["raw", "green_trips"])]
    )
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["publisher"].value == str(folder)


def test_a_new_month_is_requested_once_for_all_layers_with_its_reason(harness: PublicationHarness) -> None:
    harness.publish("2021-01")
    harness.load("2021-01")
    harness.publish("2021-02")
    (request,) = harness.tick()
    assert request.partition_key == "2021-02"
    assert {key.path[0] for key in request.asset_selection or []} == {
        "raw", "clean", "quarantine", "warehouse",
    }  # fmt: skip
    assert request.run_key == f"green 2021-02: {harness.etag('2021-02')} replaces nothing, attempt 1"
    assert request.tags["taxi_assets/service"] == "green"
    assert request.tags["taxi_assets/month"] == request.tags["dagster/partition"] == "2021-02"
    assert request.tags["taxi_assets/reason"] == "new"
    harness.record_run(request)
    assert harness.requested_months() == {}


def test_several_months_published_at_once_are_all_requested(harness: PublicationHarness) -> None:
    harness.publish("2020-12")
    harness.load("2020-12")
    harness.publish("2021-01", "2021-02", "2021-03")
    assert list(harness.requested_months()) == ["2021-03", "2021-02", "2021-01"]


def test_a_month_published_after_a_later_one_is_requested(harness: PublicationHarness) -> None:
    harness.publish("2020-12", "2021-02")
    harness.load("2020-12")
    assert harness.run_requested_months() == {"2021-02": "new"}
    harness.publish("2021-01")
    assert harness.run_requested_months() == {"2021-01": "new"}


def test_after_a_long_gap_only_the_newest_month_is_requested(harness: PublicationHarness) -> None:
    harness.publish("2019-01")
    harness.load("2019-01")
    harness.publish(*(f"2019-{number:02}" for number in range(2, 13)), *MONTHS_OF_2020, "2021-01")
    assert harness.run_requested_months() == {"2021-01": "new"}
    assert harness.run_requested_months() == {}


def test_a_revised_month_is_requested_once_per_revision_even_if_an_old_etag_returns(
    harness: PublicationHarness,
) -> None:
    harness.publish("2021-01")
    harness.load("2021-01")
    assert harness.run_requested_months() == {}
    for _ in range(4):  # a, b, a, b
        for version in (1, 2):
            harness.versions = version
            harness.publish("2021-01")
            assert harness.run_requested_months() == {"2021-01": "revised"}
            assert harness.run_requested_months() == {}


def test_a_month_loaded_from_another_publisher_is_not_requested(harness: PublicationHarness, tmp_path: Path) -> None:
    harness.publish("2021-01")
    harness.load("2021-01")
    other = PublicationHarness(tmp_path / "other", harness.instance)
    other.publish("2020-12", "2021-01")
    assert other.requested_months() == {}
    other.publish("2021-02")
    assert other.requested_months() == {"2021-02": "new"}


def test_a_month_reported_by_hand_or_no_longer_published_is_not_requested(harness: PublicationHarness) -> None:
    harness.materialize(["raw", "green_trips"], "2021-01", {})
    harness.publish("2021-01", "2021-02")
    harness.load("2021-02")
    (harness.folder / "green_tripdata_2021-02.csv").unlink()
    assert harness.requested_months() == {}


# --- runs that are in progress, or failed -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["STARTING", "STARTED", "CANCELING"])
def test_a_month_with_a_run_in_progress_is_not_requested(harness: PublicationHarness, status: str) -> None:
    harness.publish("2021-01")
    tags = {"dagster/partition": "2021-01"}
    run = dg.DagsterRun(
        job_name="__ASSET_JOB",
        status=dg.DagsterRunStatus(status),
        tags=tags,
        asset_selection=frozenset({dg.AssetKey(["raw", "green_trips"])}),
    )
    harness.instance.add_run(run)
    assert harness.requested_months() == {}
    assert "2021-01: a run is in progress" in harness.skip_message
    assert harness.requested_months(SERVICES["yellow"]) == {}


def test_a_run_of_another_service_defers_nothing(harness: PublicationHarness) -> None:
    harness.publish("2021-01")
    tags = {"dagster/partition": "2021-01"}
    harness.instance.add_run(dg.DagsterRun(job_name="yellow", status=dg.DagsterRunStatus.STARTED, tags=tags))
    assert harness.requested_months() == {"2021-01": "new"}


@pytest.mark.parametrize("tag", ["taxi_assets/backfill", "dagster/backfill"])
def test_months_that_are_not_loaded_wait_while_a_backfill_runs(harness: PublicationHarness, tag: str) -> None:
    harness.now = dt.datetime(2021, 1, 20, tzinfo=dt.UTC)
    harness.publish(*MONTHS_OF_2020)
    harness.load("2020-01")
    harness.load("2020-03")
    harness.publish("2020-03")
    tags = {"dagster/partition": "2020-02", tag: "abcd"}
    run = dg.DagsterRun(job_name="green", status=dg.DagsterRunStatus.STARTED, tags=tags)
    harness.instance.add_run(run)
    assert harness.run_requested_months() == {"2020-03": "revised"}
    assert harness.requested_months() == {}
    assert "wait for the end of backfill abcd" in harness.skip_message
    harness.instance.report_run_failed(run)
    assert list(harness.requested_months()) == [*reversed(MONTHS_OF_2020[3:]), "2020-02"]


@pytest.mark.parametrize("kind", ["assets", "job"])
def test_months_of_a_dagster_backfill_without_active_runs_are_not_requested(
    harness: PublicationHarness, kind: str
) -> None:
    harness.now = dt.datetime(2021, 1, 20, tzinfo=dt.UTC)
    harness.publish(*MONTHS_OF_2020)
    for month in ("2020-01", "2020-02", "2020-10"):
        harness.load(month)
    harness.publish("2020-01", "2020-02")
    if kind == "assets":
        key = dg.AssetKey(["raw", "green_trips"])
        months = {AssetKeyPartitionKey(key, month) for month in ("2020-02", "2020-03")}
        graph = harness.defs.get_repository_def().asset_graph
        backfill = PartitionBackfill.from_asset_graph_subset(
            "abcd",
            0.0,
            {},
            harness.instance,
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
    harness.instance.add_backfill(backfill)
    assert harness.requested_months(SERVICES["yellow"]) == {}
    assert harness.run_requested_months() == {"2020-01": "revised"}
    assert harness.requested_months() == {}
    assert "wait for the end of backfill abcd" in harness.skip_message
    assert "2020-02: a run is in progress" in harness.skip_message
    harness.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    assert set(harness.requested_months()) == set(MONTHS_OF_2020) - {"2020-01", "2020-10"}


def test_months_that_were_given_up_do_not_starve_the_others(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    harness = PublicationHarness(
        tmp_path / "published", instance, limits=ScanLimits(seconds=0.05, pause_seconds=0.06)
    )  # one version check per group
    harness.publish("2020-12", "2021-01", "2021-02")
    harness.now = dt.datetime(2021, 4, 10, tzinfo=dt.UTC)
    for month in ("2020-12", "2021-01", "2021-02"):
        harness.load(month, last_layer="raw")
        tags = {"service": "green", "month": month, "reason": "retry", "version": "x", "request": f"green {month}",
                "attempt": str(len(RETRY_WAITS) + 1), "requested_at": "2021-01-01T00:00:00+00:00"}  # fmt: skip
        given_up = dg.RunRequest(month, partition_key=month, tags={f"taxi_assets/{k}": v for k, v in tags.items()})
        harness.record_run(given_up, last_layer="none", status="FAILURE")
    harness.publish("2021-03")
    assert harness.requested_months() == {"2021-03": "new"}


def test_failed_months_beyond_the_limit_are_requested_by_later_ticks(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    harness = PublicationHarness(
        tmp_path / "published", instance, limits=ScanLimits(incomplete=1, loaded=0, pause_seconds=0)
    )
    harness.publish("2021-01", "2021-02")
    for request in harness.tick():
        harness.record_run(request, last_layer="raw", status="FAILURE")
    harness.publish("2021-03")
    for request in harness.tick():
        harness.record_run(request, last_layer="raw", status="FAILURE")
    harness.now += dt.timedelta(days=1)
    assert [harness.requested_months() for _ in range(3)] == [
        {"2021-03": "retry"},
        {"2021-02": "retry"},
        {"2021-03": "retry"},
    ]


@pytest.mark.parametrize("last_layer", ["none", "raw"])
def test_a_failed_run_is_retried_with_growing_waits_until_it_is_given_up(
    harness: PublicationHarness, last_layer: str
) -> None:
    harness.publish("2021-01")
    (request,) = harness.tick()
    for number, wait in enumerate(RETRY_WAITS, start=2):
        harness.record_run(request, last_layer=last_layer, status="FAILURE")
        harness.now += wait - dt.timedelta(minutes=1)
        assert harness.requested_months() == {}
        assert "its run failed; the next attempt is due at" in harness.skip_message
        harness.now += dt.timedelta(minutes=1)
        (request,) = harness.tick()
        assert request.tags["taxi_assets/reason"] == "retry"
        assert request.tags["taxi_assets/attempt"] == str(number)
    harness.record_run(request, last_layer=last_layer, status="FAILURE")
    harness.now += dt.timedelta(days=100)
    assert harness.requested_months() == {}
    assert "attempt 5 failed; no further run until" in harness.skip_message

    harness.publish("2021-01")
    assert harness.run_requested_months() in ({"2021-01": "new"}, {"2021-01": "revised"})
    assert harness.requested_months() == {}


def test_a_failed_month_that_was_loaded_by_hand_is_not_requested_again(harness: PublicationHarness) -> None:
    harness.publish("2021-01")
    (request,) = harness.tick()
    harness.record_run(request, last_layer="raw", status="FAILURE")
    harness.load("2021-01")
    harness.now += dt.timedelta(days=1)
    assert harness.requested_months() == {}


@pytest.mark.parametrize("last_layer", ["none", "raw"])
def test_a_canceled_run_is_not_requested_again(harness: PublicationHarness, last_layer: str) -> None:
    harness.publish("2021-01")
    (request,) = harness.tick()
    harness.record_run(request, last_layer=last_layer, status="CANCELED")
    loaded = latest_raw_materializations(harness.instance, SERVICES["green"])
    harness.now = max([harness.now, *(raw.timestamp for raw in loaded.values())]) + dt.timedelta(days=1)
    assert "2021-01" not in harness.requested_months()
    harness.publish("2021-01")
    assert harness.requested_months()["2021-01"] == ("new" if last_layer == "none" else "revised")


def test_a_newer_revision_does_not_wait_for_the_retry_of_a_failed_one(harness: PublicationHarness) -> None:
    harness.publish("2021-01")
    harness.load("2021-01")
    harness.publish("2021-01")
    (request,) = harness.tick()
    harness.record_run(request, last_layer="none", status="FAILURE")
    harness.publish("2021-01")
    assert harness.requested_months() == {"2021-01": "revised"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackPublisher]:
    with LoopbackPublisher(tmp_path / "published") as server:
        yield server


def test_a_publisher_that_alternates_between_two_versions_causes_only_one_run(
    tmp_path: Path, instance: dg.DagsterInstance, server: LoopbackPublisher
) -> None:
    harness = PublicationHarness(tmp_path / "published", instance, source=server.base)
    harness.publish("2021-01", content="first")
    harness.load("2021-01")
    harness.publish("2021-01", content="announced")
    (request,) = harness.tick()
    harness.publish("2021-01", content="sent")
    harness.record_run(request)  # the downloaded version is not the announced one
    harness.publish("2021-01", content="announced")
    assert harness.requested_months() == {}


def test_a_page_in_place_of_a_missing_month_requests_no_run(
    tmp_path: Path, instance: dg.DagsterInstance, server: LoopbackPublisher
) -> None:
    harness = PublicationHarness(tmp_path / "published", instance, source=server.base)
    harness.publish("2021-01")
    harness.load("2021-01")
    page = Answer(body=HTML_PAGE, headers={"Content-Type": "text/csv"})
    for extension in FileFormat:
        server.script(f"green_tripdata_2021-02.{extension}", then=page)
    assert harness.requested_months() == {}
    server.script("green_tripdata_2021-02.csv", then=Answer(status=403, body=HTML_PAGE))
    assert harness.requested_months() == {}
    assert "2021-02: The version of green 2021-02 could not be checked" in harness.skip_message
    harness.publish("2021-02")
    server.script("green_tripdata_2021-02.csv")
    assert harness.requested_months() == {"2021-02": "new"}
