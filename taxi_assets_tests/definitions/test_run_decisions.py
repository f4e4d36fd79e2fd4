"""Requests for runs: after failed runs, and next to what other projects have in the instance."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from taxi_assets.addresses import DuckDBAddress, FolderAddress
from taxi_assets.automation.publication.decision import RETRY_WAITS
from taxi_assets.automation.publication.materializations import latest_raw_materializations, warehouse_digests
from taxi_assets.build import build_definitions
from taxi_assets.partitions import monthly_partitions
from taxi_assets.settings import Settings
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.definitions.publication_harness import PublicationHarness, instance

__all__ = ["instance"]

MONTH = "2021-01"
RAW, WAREHOUSE = (dg.AssetKey([layer, "green_trips"]) for layer in ("raw", "warehouse"))


@pytest.fixture
def harness(tmp_path: Path, instance: dg.DagsterInstance) -> PublicationHarness:
    harness = PublicationHarness(tmp_path / "published", instance)
    harness.publish(MONTH)
    return harness


# --- after failed runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["a file that is not CSV", "a blocking check"])
def test_a_permanent_failure_is_not_retried_until_another_version_is_published(
    harness: PublicationHarness, tmp_path: Path, label: str
) -> None:
    (request,) = harness.tick()
    if label == "a blocking check":
        defs = dg.Definitions(assets=[rows], jobs=[dg.define_asset_job("green")])
    else:
        defs = build_definitions(
            Settings(
                lake=FolderAddress(tmp_path / "lake"),
                warehouse=DuckDBAddress(tmp_path / "warehouse.duckdb"),
                source=harness.source,
            )
        )
    result = defs.resolve_job_def("green").execute_in_process(
        instance=harness.instance,
        partition_key=MONTH,
        tags=dict(request.tags),
        raise_on_error=False,
    )
    assert not result.success
    harness.now = dt.datetime.now(dt.UTC) + dt.timedelta(days=100)
    assert MONTH not in harness.requested_months()
    assert f"{MONTH}: its run failed with a permanent error" in harness.skip_message
    harness.publish(MONTH)
    assert harness.requested_months()[MONTH] == "new"


@dg.asset(
    partitions_def=monthly_partitions(GREEN),
    check_specs=[dg.AssetCheckSpec("rows_reconcile", asset="rows", blocking=True)],
)
def rows() -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    yield dg.MaterializeResult()
    yield dg.AssetCheckResult(check_name="rows_reconcile", passed=False)


def test_the_wait_for_a_retry_starts_when_the_run_ends(harness: PublicationHarness) -> None:
    (request,) = harness.tick()
    run = harness.record_run(request, last_layer="none", status="STARTED")
    harness.instance.report_run_failed(run)
    record = harness.instance.get_run_record_by_id(run.run_id)
    assert record is not None
    assert record.end_time is not None
    ended = dt.datetime.fromtimestamp(record.end_time, dt.UTC)  # years after the request
    harness.now = ended + RETRY_WAITS[0] - dt.timedelta(seconds=1)
    assert MONTH not in harness.requested_months()
    assert f"{MONTH}: its run failed; the next attempt is due at" in harness.skip_message
    harness.now = ended + RETRY_WAITS[0] + dt.timedelta(seconds=1)
    assert harness.requested_months()[MONTH] == "retry"


def test_a_run_that_dagster_will_retry_is_not_requested(harness: PublicationHarness) -> None:
    (request,) = harness.tick()
    run = harness.record_run(request, last_layer="none", status="FAILURE")
    harness.instance.add_run_tags(run.run_id, {"dagster/will_retry": "true"})
    harness.now += dt.timedelta(days=1)
    assert harness.requested_months() == {}
    assert "Dagster will retry its run" in harness.skip_message
    again = dg.DagsterRun(
        job_name="green",
        status=dg.DagsterRunStatus.FAILURE,
        tags={"dagster/parent_run_id": run.run_id, "dagster/partition": MONTH},
    )
    harness.instance.add_run(again)
    assert harness.requested_months() == {MONTH: "retry"}


def test_a_month_is_requested_again_each_time_its_materializations_are_wiped(harness: PublicationHarness) -> None:
    for _ in range(3):
        assert harness.run_requested_months() == {MONTH: "new"}
        assert harness.run_requested_months() == {}
        harness.instance.wipe_assets([RAW, WAREHOUSE])


def test_a_month_of_which_a_person_loaded_only_the_raw_file_is_completed(harness: PublicationHarness) -> None:
    harness.load(MONTH, last_layer="raw")
    loaded = latest_raw_materializations(harness.instance, GREEN)[Month.parse(MONTH)]
    harness.now = loaded.timestamp + RETRY_WAITS[0] - dt.timedelta(seconds=1)
    assert MONTH not in harness.requested_months()  # the automation conditions may be about to continue
    harness.now = loaded.timestamp + RETRY_WAITS[0]
    run = dg.DagsterRun(
        job_name="__ASSET_JOB",
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": MONTH},
        asset_selection=frozenset({WAREHOUSE}),
    )
    harness.instance.add_run(run)
    assert MONTH not in harness.requested_months()
    harness.instance.report_run_failed(run)
    (request,) = harness.tick()
    assert (request.partition_key, request.tags["taxi_assets/reason"]) == (MONTH, "retry")
    harness.record_run(request)
    assert harness.requested_months() == {}


# --- what other projects have in the instance -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "key", "partition"),
    [
        ("__ASSET_JOB", ["other", "green_trips"], MONTH),
        ("green", ["other", "green_trips"], MONTH),
        ("__ASSET_JOB", ["raw", "green_trips"], "2021-01-05"),
        ("green", None, "x"),
        ("green", None, None),
    ],
)
def test_runs_of_other_projects_defer_nothing(
    harness: PublicationHarness, job: str, key: list[str] | None, partition: str | None
) -> None:
    tags = {} if partition is None else {"dagster/partition": partition}
    selected = None if key is None else frozenset({dg.AssetKey(key)})
    harness.instance.add_run(
        dg.DagsterRun(job_name=job, status=dg.DagsterRunStatus.STARTED, tags=tags, asset_selection=selected)
    )
    assert harness.requested_months() == {MONTH: "new"}


def test_partitions_that_are_not_months_are_ignored(harness: PublicationHarness) -> None:
    harness.load(MONTH)
    for key in (RAW, WAREHOUSE):
        harness.materialize(list(key.path), "2021-01-05", {"sha256": "a"})
    assert list(latest_raw_materializations(harness.instance, GREEN)) == [Month.parse(MONTH)]
    assert list(warehouse_digests(harness.instance, GREEN)) == [Month.parse(MONTH)]
    assert harness.requested_months() == {}


def test_if_the_clock_is_set_back_a_failed_run_is_retried_without_a_long_wait(
    harness: PublicationHarness,
) -> None:
    (request,) = harness.tick()
    run = harness.record_run(request, last_layer="none", status="STARTED")
    harness.instance.report_run_failed(run)
    record = harness.instance.get_run_record_by_id(run.run_id)
    assert record is not None
    assert record.end_time is not None
    clock_skew = dt.timedelta(minutes=4)
    harness.now = dt.datetime.fromtimestamp(record.end_time, dt.UTC) - clock_skew
    assert MONTH not in harness.requested_months()
    harness.now -= dt.timedelta(days=300)
    assert harness.requested_months()[MONTH] == "retry"
