"""A check while another run replaces the same month: it waits for that run, and any other mismatch is an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
import pytest
from dagster._core.events import StepMaterializationData

from taxi_assets.automation.sensors.orphaned_runs import lock_file
from taxi_assets.checks import concurrent_runs
from taxi_assets.checks.concurrent_runs import ComparisonOutcome, Replacement, compare_when_settled, newest_replacements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

MONTH = "2020-10"
TARGET, OTHER = dg.AssetKey("target"), dg.AssetKey("other")


@dg.asset(partitions_def=dg.MonthlyPartitionsDefinition("2020-01", fmt="%Y-%m"))
def target() -> None:
    pass


JOB = dg.Definitions([target], jobs=[dg.define_asset_job("job", [target])]).resolve_job_def("job")


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the pauses of a check; they take no time, but advance the clock."""
    slept: list[float] = []
    monkeypatch.setattr(concurrent_runs, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept)))
    return slept


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def context_in(instance: dg.DagsterInstance, run_id: str = "the checking run") -> dg.AssetCheckExecutionContext:
    log = SimpleNamespace(debug=lambda *_: None)
    run = SimpleNamespace(run_id=run_id)
    return cast(
        "dg.AssetCheckExecutionContext", SimpleNamespace(instance=instance, run=run, partition_key=MONTH, log=log)
    )


def started_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """Return a started run that has planned to materialize the target."""
    run = instance.create_run_for_job(JOB, tags={"dagster/partition": MONTH}, asset_selection=frozenset([TARGET]))
    instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", "job"), run.run_id)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.STARTED
    return found


def materialize(instance: dg.DagsterInstance, run_id: str, asset: dg.AssetKey, data_version: str) -> None:
    event: Any = dg.AssetMaterialization(asset, partition=MONTH, tags={"dagster/data_version": data_version})
    instance.report_dagster_event(
        dg.DagsterEvent("ASSET_MATERIALIZATION", "job", event_specific_data=StepMaterializationData(event)),
        run_id,
    )


def mismatch_next_to(
    instance: dg.DagsterInstance,
    run_id: str | None,
    *,
    actions: dict[int, Callable[[], object]] | None = None,
) -> ComparisonOutcome[bool]:
    """Compare two layers that differ, until the action for the given number of comparisons has been called."""
    agree, comparisons = False, 0

    def compare() -> bool:
        nonlocal agree, comparisons
        comparisons += 1
        if actions is not None and comparisons in actions:
            actions[comparisons]()
            agree = True
        return agree

    def find(compared: bool) -> Sequence[Replacement]:
        return [] if compared else [Replacement(run_id)]

    return compare_when_settled(context_in(instance), TARGET, compare, find)


def test_a_check_waits_for_a_run_in_progress_and_compares_again(
    instance: dg.DagsterInstance, sleeps: list[float]
) -> None:
    run = started_run(instance)
    settled = mismatch_next_to(instance, run.run_id, actions={5: lambda: None})
    assert settled == ComparisonOutcome(compared=True)
    assert len(sleeps) == 4


def test_a_run_still_in_progress_after_the_wait_is_a_warning_that_names_the_run(
    instance: dg.DagsterInstance, sleeps: list[float]
) -> None:
    run = started_run(instance)
    settled = mismatch_next_to(instance, run.run_id)
    assert settled.severity == dg.AssetCheckSeverity.WARN
    assert settled.metadata == {"replacing_run": run.run_id}
    assert settled.describe("They differ.").startswith(f"Run {run.run_id} is still replacing this month")
    assert sum(sleeps) > concurrent_runs.WAIT_SECONDS


def test_a_check_waits_for_a_run_of_another_instance_and_then_reports_an_error(
    instance: dg.DagsterInstance, sleeps: list[float]
) -> None:
    settled = mismatch_next_to(instance, "of another instance")
    assert settled.severity == dg.AssetCheckSeverity.ERROR
    assert settled.describe("They differ.") == "They differ."
    assert sum(sleeps) > concurrent_runs.WAIT_SECONDS


def fails(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_failed(run)


def is_killed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Leave only the lock file of the run, which no process holds."""
    path = lock_file(instance, run.run_id)
    path.parent.mkdir(parents=True)
    path.touch()


def has_materialized(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    materialize(instance, run.run_id, TARGET, "any")


@pytest.mark.parametrize("ends", [fails, is_killed, has_materialized])
def test_a_run_that_can_no_longer_replace_the_layer_is_an_error_without_a_wait(
    instance: dg.DagsterInstance, sleeps: list[float], ends: Callable[[dg.DagsterInstance, dg.DagsterRun], None]
) -> None:
    run = started_run(instance)
    ends(instance, run)
    assert mismatch_next_to(instance, run.run_id).severity == dg.AssetCheckSeverity.ERROR
    assert sleeps == []


def test_a_run_that_ends_right_after_the_comparison_leads_to_another_comparison(
    instance: dg.DagsterInstance, sleeps: list[float]
) -> None:
    run = started_run(instance)
    fails(instance, run)
    assert mismatch_next_to(instance, run.run_id, actions={2: lambda: None}) == ComparisonOutcome(compared=True)
    assert sleeps == []


def test_a_mismatch_that_no_other_run_has_caused_is_an_error_without_a_wait(
    instance: dg.DagsterInstance, sleeps: list[float]
) -> None:
    started_run(instance)  # in progress, but has not written anything
    checking = started_run(instance)
    materialize(instance, checking.run_id, OTHER, "1")
    context = context_in(instance, checking.run_id)
    assert newest_replacements(context, {OTHER: "1", TARGET: "2"}) == []
    settled = compare_when_settled(context, TARGET, lambda: None, lambda _: newest_replacements(context, {OTHER: "1"}))
    assert settled.severity == dg.AssetCheckSeverity.ERROR
    assert sleeps == []


def test_the_run_of_the_newest_materialization_has_replaced_the_layer(instance: dg.DagsterInstance) -> None:
    checking, newer = started_run(instance), started_run(instance)
    context = context_in(instance, checking.run_id)
    materialize(instance, checking.run_id, OTHER, "1")
    assert newest_replacements(context, {OTHER: "2"}) == [Replacement(None)], "published, but not logged yet"
    materialize(instance, newer.run_id, OTHER, "2")
    assert newest_replacements(context, {OTHER: "2"}) == [Replacement(newer.run_id)]
    assert newest_replacements(context_in(instance, newer.run_id), {OTHER: "2"}) == []
