"""Concurrent runs in child processes: all succeed, and the data is the same as after one run.

A barrier stops them at the worst crash points: all have computed their result, and none has published it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.contract.stores.postgres import postgres_server
from taxi_assets_tests.faults.child_runs import ChildRun, Plan, barrier
from taxi_assets_tests.faults.conftest import FILE, MONTH, OTHER_MONTH, SERVICE
from taxi_assets_tests.faults.crash_points import STEPS
from taxi_assets_tests.faults.stores import KINDS, observed_deployment
from taxi_assets_tests.google.bigquery import Fault
from taxi_assets_tests.pipeline_harness import Deployment, failure_messages, read_stored_month, stray_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taxi_assets_tests.faults.child_runs import Outcome
    from taxi_assets_tests.faults.conftest import Republished
    from taxi_assets_tests.faults.stores import ObservedDeployment, Rows

__all__ = ["postgres_server"]

TRIP_FILES = "warehouse.duckdb.trips/"


def run_concurrently(deployment: Deployment, months: Sequence[str], *, waits_at: str) -> None:
    shared = barrier(len(months))
    children = [ChildRun(deployment, SERVICE, month, Plan(waits_at=waits_at, barrier=shared)) for month in months]
    for outcome in [child.wait() for child in children]:
        assert outcome.succeeded, outcome
        assert waits_at in outcome.crash_points


@pytest.mark.parametrize(
    ("start", "waits_at"),
    [
        ("empty", "publishing raw object"),
        ("empty", "before loading"),
        ("outdated", "publishing quarantine"),
    ],
)
def test_two_runs_of_one_month_leave_the_result_of_one(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], start: str, waits_at: str
) -> None:
    deployment = copy_of(getattr(republished, start))
    run_concurrently(deployment, [MONTH, MONTH], waits_at=waits_at)
    assert read_stored_month(deployment, SERVICE, MONTH) == republished.newer
    assert stray_files(deployment) == []


@pytest.mark.parametrize(
    ("months", "waits_at"),
    [
        ([MONTH, OTHER_MONTH], "before loading"),
        ([MONTH, OTHER_MONTH, MONTH, OTHER_MONTH], "publishing raw object"),
    ],
)
def test_runs_of_two_months_of_a_service_do_not_affect_each_other(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], months: list[str], waits_at: str
) -> None:
    deployment = copy_of(republished.empty)
    run_concurrently(deployment, months, waits_at=waits_at)
    assert read_stored_month(deployment, SERVICE, MONTH) == republished.newer
    assert read_stored_month(deployment, SERVICE, OTHER_MONTH) == read_stored_month(
        republished.outdated, SERVICE, OTHER_MONTH
    )
    assert stray_files(deployment) == []


@pytest.mark.parametrize("waits_at", ["publishing quarantine", "publishing clean", "before loading"])
def test_a_run_continues_with_the_newer_file_that_another_run_has_published(
    republished: Republished, tmp_path: Path, waits_at: str
) -> None:
    """The slow run retries its step, which then loads the newer file."""
    deployment = Deployment(tmp_path / "home", str(tmp_path))
    (tmp_path / FILE).write_bytes(republished.older_file)
    shared = barrier(2)
    slow = ChildRun(deployment, SERVICE, MONTH, Plan(waits_at=waits_at, barrier=shared, waits_twice=True))
    shared.wait()
    (tmp_path / FILE).write_bytes(republished.newer_file)
    newer = deployment.run(SERVICE, MONTH)
    shared.wait()
    outcome = slow.wait()

    assert failure_messages(newer) == []
    assert outcome.succeeded, outcome
    assert blocking_checks_passed(outcome)
    found = read_stored_month(deployment, SERVICE, MONTH)
    assert found.is_consistent
    assert found.clean == republished.newer.clean
    assert stray_files(deployment) == []


def test_a_run_with_a_newer_file_succeeds_if_the_older_file_is_published_first(
    republished: Republished, tmp_path: Path
) -> None:
    """Both runs have cleaned their file when the older run publishes the object that the newer run will replace."""
    deployment = Deployment(tmp_path / "home", str(tmp_path))
    barriers = barrier(2), barrier(2)
    runs = []
    for own_barrier, content in zip(barriers, (republished.older_file, republished.newer_file), strict=True):
        (tmp_path / FILE).write_bytes(content)
        plan = Plan(waits_at="publishing quarantine", barrier=own_barrier, waits_twice=True)
        runs.append(ChildRun(deployment, SERVICE, MONTH, plan))
        own_barrier.wait()
    barriers[0].wait()
    wait_until(lambda: read_stored_month(deployment, SERVICE, MONTH).clean is not None or not runs[0].is_running)
    barriers[1].wait()
    for outcome in [run.wait() for run in runs]:
        assert outcome.succeeded, outcome
    found = read_stored_month(deployment, SERVICE, MONTH)
    assert found.is_consistent
    assert found.clean == republished.newer.clean
    assert stray_files(deployment) == []


def blocking_checks_passed(outcome: Outcome) -> bool:
    return outcome.checks["row_counts_reconcile"] and outcome.checks["matches_clean"]


def wait_until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < ends, "a hang"
        time.sleep(0.05)


# --- on every kind of store, with readers -----------------------------------------------------------------------------

WAIT_SECONDS = 600  # for a machine under load; otherwise it takes seconds


@pytest.fixture
def observed(
    kind: str, tmp_path: Path, republished: Republished, request: pytest.FixtureRequest
) -> Iterator[ObservedDeployment]:
    """Every layer has the older version of a month, and another month. The newer version is published."""
    with observed_deployment(kind, tmp_path, republished, request) as observed:
        other_file = f"{SERVICE}_tripdata_{OTHER_MONTH}.csv"
        content = Path(republished.outdated.source, other_file).read_bytes()
        Path(observed.deployment.source, other_file).write_bytes(content)
        observed.publish(republished.older_file)
        observed.run()
        observed.run(SERVICE, OTHER_MONTH)
        observed.publish(republished.newer_file)
        yield observed


REPLACING_STEPS = {
    "check_clean_green": "clean_green",
    "warehouse__green_trips_matches_clean": "warehouse__green_trips",
}
"""The step that checks a layer, and the step that replaces the layer."""


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """One Dagster instance for all runs of a test."""
    folder = tmp_path / "instance"
    folder.mkdir()
    return folder


def logged(history: Path, text: str) -> bool:
    """Whether any run has logged a line with the text."""
    with dg.DagsterInstance.local_temp(str(history)) as instance:
        runs = [run.run_id for run in instance.get_runs()]
        return any(text in entry.user_message for run_id in runs for entry in instance.all_logs(run_id))


@pytest.mark.timeout(3 * WAIT_SECONDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", REPLACING_STEPS)
def test_a_check_waits_for_a_newer_run_that_is_replacing_the_month(
    observed: ObservedDeployment, republished: Republished, history: Path, check: str
) -> None:
    """The newer run pauses after the first of the two layers that the older run's check compares."""
    checking, replacing = barrier(2), barrier(2)
    plan: dict[str, Any] = {"crash_points": STEPS, "waits_twice": True, "instance": history}
    observed.publish(republished.newer_file + republished.newer_file[-1:])
    older = observed.start(waits_at=f"before {check}", barrier=checking, **plan)
    checking.wait()
    observed.publish(republished.newer_file)
    newer = observed.start(waits_at=f"before {REPLACING_STEPS[check]}", barrier=replacing, **plan)
    replacing.wait()
    checking.wait()
    wait_until(lambda: logged(history, "is replacing the month; waiting.") or not older.is_running)
    replacing.wait()
    for outcome in (older.wait(), newer.wait()):
        assert outcome.succeeded, outcome
        assert blocking_checks_passed(outcome)
    assert observed.read_layers().is_consistent
    assert observed.read_layers().clean == republished.newer.clean


@contextmanager
def invalidated_ledger(observed: ObservedDeployment) -> Iterator[tuple[ChildRun, ChildRun, threading.Event]]:
    """Run the same load twice: the first run is at its check, the second has started to replace the month.

    Yields both runs, and the event that lets the second one continue.
    """
    assert observed.google is not None
    service = observed.google[1]
    counting, counted, invalidated, resume = (threading.Event() for _ in range(4))
    checking = barrier(2)

    def pause(reached: threading.Event, until: threading.Event) -> Callable[[], None]:
        def act() -> None:
            reached.set()
            until.wait(WAIT_SECONDS)

        return act

    # When the second run counts the new version, it has already read the old version in the ledger.
    service.script(Fault(before=pause(counting, counted)), method="POST", path="/jobs")
    second = observed.start()
    assert counting.wait(WAIT_SECONDS)
    first = observed.start(
        crash_points=STEPS,
        waits_at="before warehouse__green_trips_matches_clean",
        barrier=checking,
        waits_twice=True,
    )
    checking.wait()
    # Its next job invalidates the ledger row; the one after that loads the trips.
    service.script(Fault(), Fault(before=pause(invalidated, resume)), method="POST", path="/jobs")
    counted.set()
    assert invalidated.wait(WAIT_SECONDS)
    checking.wait()
    try:
        yield first, second, resume
    finally:
        resume.set()


@pytest.mark.timeout(3 * WAIT_SECONDS)
@pytest.mark.parametrize("kind", ["google"])
def test_a_check_waits_for_a_run_that_is_replacing_the_month_with_the_same_data(
    observed: ObservedDeployment, republished: Republished
) -> None:
    assert observed.google is not None
    service = observed.google[1]
    with invalidated_ledger(observed) as (first, second, resume):
        known = len(service.requests)

        def times_read() -> int:
            return sum("green_trips_loads$" in request.path for request in service.requests[known:])

        wait_until(lambda: times_read() > 5 or not first.is_running)
        resume.set()
        for outcome in (first.wait(), second.wait()):
            assert outcome.succeeded, outcome
            assert blocking_checks_passed(outcome)
    assert observed.read_layers().is_consistent
    assert observed.read_layers().clean == republished.newer.clean


def read_while(running: Callable[[], bool], observed: ObservedDeployment, older: Rows) -> int:
    """Read the month repeatedly, assert that it is always the old or the new version, and count the reads."""
    seen: list[Rows] = []
    reads, ends = 0, time.monotonic() + WAIT_SECONDS
    while running():
        assert time.monotonic() < ends, "a hang: the runs have not ended"
        trips, ledger_rows = observed.read_during_writes()
        if trips not in seen:
            seen.append(trips)
        if (observed.deployment.warehouse_address or "duckdb").startswith("duckdb"):  # only it updates both atomically
            assert ledger_rows[0][1] == len(trips)
        reads += 1
        time.sleep(0.1)  # as long as a read
    newer = observed.read_during_writes()[0]
    assert newer != older
    assert all(trips in (older, newer) for trips in seen)
    return reads


def assert_newer_version_loaded(observed: ObservedDeployment, republished: Republished, names: set[str]) -> None:
    for month in (MONTH, OTHER_MONTH):
        assert observed.read_layers(month).is_consistent
    assert observed.read_layers().clean == republished.newer.clean
    added = without_trip_files(observed.inventory()) - without_trip_files(names)
    assert without_trip_files(names) <= observed.inventory()
    # The older raw file is kept, and nothing else remains.
    assert added
    assert all(f"/revisions/{MONTH}/" in name for name in added), added
    assert trip_file_counts(observed.inventory()).keys() == trip_file_counts(names).keys()
    # The previous version is kept until the month is loaded once more, which a second run of the month does.
    assert all(count in (1, 2) for count in trip_file_counts(observed.inventory()).values())


def trip_file_counts(names: set[str]) -> Counter[str]:
    """Count the files of each month, if trips are views."""
    return Counter(Path(name).name[: len(MONTH)] for name in names if name.startswith(TRIP_FILES))


def without_trip_files(names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith(TRIP_FILES)}


@pytest.mark.timeout(3 * WAIT_SECONDS)
@pytest.mark.parametrize("kind", KINDS)
def test_concurrent_loads_of_overlapping_months_never_show_a_reader_a_mixture(
    observed: ObservedDeployment,
    republished: Republished,
    record_property: Callable[[str, object], None],
    *,
    long: bool,
) -> None:
    names, older = observed.inventory(), observed.read_during_writes()[0]
    children = [observed.start(SERVICE, month) for month in [MONTH, OTHER_MONTH] * (4 if long else 2)]
    reads = read_while(lambda: any(child.is_running for child in children), observed, older)
    for child in children:
        outcome = child.wait()
        assert outcome.succeeded, outcome
    assert reads > 0
    assert_newer_version_loaded(observed, republished, names)
    for name in ("rows lost", "rows duplicated"):
        record_property(name, 0)


@pytest.mark.timeout(3 * WAIT_SECONDS)
@pytest.mark.parametrize("kind", ["duckdb"])
def test_a_backfill_and_runs_of_a_sensor_never_show_a_reader_a_mixture(
    observed: ObservedDeployment, republished: Republished, tmp_path: Path
) -> None:
    """The backfill is the real command. One of its months is not published."""
    names, older, history = observed.inventory(), observed.read_during_writes()[0], tmp_path / "history"
    history.mkdir()
    settings = {
        "TAXI_LAKE": str(observed.deployment.lake),
        "TAXI_WAREHOUSE": f"duckdb:///{observed.deployment.warehouse}",
        "TAXI_SOURCE": observed.deployment.source,
        "DAGSTER_HOME": str(history),
    }
    months = ["--service", SERVICE, "--from", MONTH, "--to", "2013-09"]
    command = [sys.executable, "-m", "taxi_assets.cli.backfill", "backfill", *months]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as backfill:
        try:
            other_runs = [observed.start(SERVICE, month) for month in (MONTH, OTHER_MONTH)]
            read_while(lambda: any(child.is_running for child in other_runs), observed, older)
            assert all(child.wait().succeeded for child in other_runs)
            message = backfill.communicate(timeout=WAIT_SECONDS)[0].decode()
        finally:
            backfill.kill()
    assert "runs succeeded" in message
    assert "green 2013-09 is not published" in message
    # What a backfill computes too.
    added = {name for name in observed.inventory() - names if f"/revisions/{MONTH}/" not in name}
    folders = ("marts/", "quality/", "raw/taxi_zones.", "reference/", "reports/", "snapshots/", "views.duckdb")
    derived = ("table ", *(f"{place}{folder}" for place in ("lake/", "object ") for folder in folders))
    assert all(name.startswith(derived) for name in added), added
    assert_newer_version_loaded(observed, republished, names | added)
