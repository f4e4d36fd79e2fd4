"""The desk where runs are asked for: after runs that failed, and among what others have in the instance."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from taxi_assets.addresses import DuckDBAddress, FolderAddress
from taxi_assets.automation.publication.materializations import latest_raw_materializations, warehouse_digests
from taxi_assets.automation.publication.run_planner import RETRY_WAITS
from taxi_assets.build import build_definitions
from taxi_assets.partitions import monthly_partitions
from taxi_assets.settings import Settings
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.definitions.publication_harness import Publishing, instance

__all__ = ["instance"]

MONTH = "2021-01"
RAW, WAREHOUSE = (dg.AssetKey([layer, "green_trips"]) for layer in ("raw", "warehouse"))


@pytest.fixture
def scenario(tmp_path: Path, instance: dg.DagsterInstance) -> Publishing:
    scenario = Publishing(tmp_path / "published", instance)
    scenario.publish(MONTH)
    return scenario


# --- after failed runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["an error page for a file", "a blocking check"])
def test_a_run_that_failed_for_what_does_not_pass_waits_for_another_version(
    scenario: Publishing, tmp_path: Path, label: str
) -> None:
    (request,) = scenario.tick()
    if label == "a blocking check":
        defs = dg.Definitions(assets=[rows], jobs=[dg.define_asset_job("green")])
    else:  # what is published here is no CSV
        defs = build_definitions(
            Settings(
                lake=FolderAddress(tmp_path / "lake"),
                warehouse=DuckDBAddress(tmp_path / "warehouse.duckdb"),
                source=scenario.source,
            )
        )
    result = defs.resolve_job_def("green").execute_in_process(
        instance=scenario.instance,
        partition_key=MONTH,
        tags=dict(request.tags),
        raise_on_error=False,
    )
    assert not result.success
    scenario.now = dt.datetime.now(dt.UTC) + dt.timedelta(days=100)
    assert MONTH not in scenario.asked()
    assert f"{MONTH}: its run failed for what does not pass" in scenario.message
    scenario.publish(MONTH)
    assert scenario.asked()[MONTH] == "new"


@dg.asset(
    partitions_def=monthly_partitions(GREEN),
    check_specs=[dg.AssetCheckSpec("conserved", asset="rows", blocking=True)],
)
def rows() -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    yield dg.MaterializeResult()
    yield dg.AssetCheckResult(check_name="conserved", passed=False)


def test_the_wait_begins_when_the_run_ends(scenario: Publishing) -> None:
    (request,) = scenario.tick()
    run = scenario.run(request, to="none", status="STARTED")
    scenario.instance.report_run_failed(run)
    record = scenario.instance.get_run_record_by_id(run.run_id)
    assert record is not None
    assert record.end_time is not None
    ended = dt.datetime.fromtimestamp(record.end_time, dt.UTC)  # years after the request
    scenario.now = ended + RETRY_WAITS[0] - dt.timedelta(seconds=1)
    assert MONTH not in scenario.asked()
    assert f"{MONTH}: its run failed; again after" in scenario.message
    scenario.now = ended + RETRY_WAITS[0] + dt.timedelta(seconds=1)
    assert scenario.asked()[MONTH] == "retry"


def test_a_run_that_dagster_runs_again_is_left_to_it(scenario: Publishing) -> None:
    (request,) = scenario.tick()
    run = scenario.run(request, to="none", status="FAILURE")
    scenario.instance.add_run_tags(run.run_id, {"dagster/will_retry": "true"})
    scenario.now += dt.timedelta(days=1)
    assert scenario.asked() == {}
    assert "Dagster runs it again itself" in scenario.message
    again = dg.DagsterRun(
        job_name="green",
        status=dg.DagsterRunStatus.FAILURE,
        tags={"dagster/parent_run_id": run.run_id, "dagster/partition": MONTH},
    )
    scenario.instance.add_run(again)
    assert scenario.asked() == {MONTH: "retry"}


def test_a_month_whose_materializations_were_wiped_is_asked_for_again_each_time(scenario: Publishing) -> None:
    for _ in range(3):
        assert scenario.run_all() == {MONTH: "new"}
        assert scenario.run_all() == {}
        scenario.instance.wipe_assets([RAW, WAREHOUSE])


def test_a_month_that_a_person_left_half_loaded_is_finished(scenario: Publishing) -> None:
    scenario.load(MONTH, to="raw")
    loaded = latest_raw_materializations(scenario.instance, GREEN)[Month.parse(MONTH)]
    scenario.now = loaded.timestamp + RETRY_WAITS[0] - dt.timedelta(seconds=1)
    assert MONTH not in scenario.asked()  # the automation conditions may be at it
    scenario.now = loaded.timestamp + RETRY_WAITS[0]
    run = dg.DagsterRun(
        job_name="__ASSET_JOB",
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": MONTH},
        asset_selection=frozenset({WAREHOUSE}),
    )
    scenario.instance.add_run(run)
    assert MONTH not in scenario.asked()
    scenario.instance.report_run_failed(run)
    (request,) = scenario.tick()
    assert (request.partition_key, request.tags["taxi_assets/reason"]) == (MONTH, "retry")
    scenario.run(request)
    assert scenario.asked() == {}


# --- what others have in the instance ---------------------------------------------------------------------------------


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
def test_runs_of_others_hold_nobody(
    scenario: Publishing, job: str, key: list[str] | None, partition: str | None
) -> None:
    tags = {} if partition is None else {"dagster/partition": partition}
    selected = None if key is None else frozenset({dg.AssetKey(key)})
    scenario.instance.add_run(
        dg.DagsterRun(job_name=job, status=dg.DagsterRunStatus.STARTED, tags=tags, asset_selection=selected)
    )
    assert scenario.asked() == {MONTH: "new"}


def test_partitions_that_are_no_months_are_passed_over(scenario: Publishing) -> None:
    scenario.load(MONTH)
    for key in (RAW, WAREHOUSE):
        scenario.materialize(list(key.path), "2021-01-05", {"sha256": "a"})
    assert list(latest_raw_materializations(scenario.instance, GREEN)) == [Month.parse(MONTH)]
    assert list(warehouse_digests(scenario.instance, GREEN)) == [Month.parse(MONTH)]
    assert scenario.asked() == {}


def test_a_run_that_ended_before_the_clock_was_set_back_does_not_wait_until_the_clock_is_there_again(
    scenario: Publishing,
) -> None:
    (request,) = scenario.tick()
    run = scenario.run(request, to="none", status="STARTED")
    scenario.instance.report_run_failed(run)
    record = scenario.instance.get_run_record_by_id(run.run_id)
    assert record is not None
    assert record.end_time is not None
    scenario.now = dt.datetime.fromtimestamp(record.end_time, dt.UTC) - dt.timedelta(
        minutes=4
    )  # another machine's clock
    assert MONTH not in scenario.asked()
    scenario.now -= dt.timedelta(days=300)
    assert scenario.asked()[MONTH] == "retry"
