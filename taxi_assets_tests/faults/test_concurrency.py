"""Runs beside each other, in processes of their own: they end well, and the data is as after one run.

They meet at a gate at the worst moments: when all have made something, and none has published it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.contract.stores.postgres import postgres_server
from taxi_assets_tests.faults.children import Child, Plan, meeting
from taxi_assets_tests.faults.conftest import FILE, MONTH, NEIGHBOUR, SERVICE
from taxi_assets_tests.faults.crash_points import STEPS
from taxi_assets_tests.faults.stores import KINDS, place_of
from taxi_assets_tests.google.bigquery import Fault
from taxi_assets_tests.pipeline_harness import Deployment, failures, read_stored_month, stray_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taxi_assets_tests.faults.children import Outcome
    from taxi_assets_tests.faults.conftest import Republished
    from taxi_assets_tests.faults.stores import Place, Rows

__all__ = ["postgres_server"]


def run_at_once(deployment: Deployment, months: Sequence[str], *, meets: str) -> None:
    gate = meeting(len(months))
    children = [Child(deployment, SERVICE, month, Plan(meets=meets, gate=gate)) for month in months]
    for outcome in [child.end() for child in children]:
        assert outcome.succeeded, outcome
        assert meets in outcome.moments


@pytest.mark.parametrize(
    ("start", "meets"),
    [
        ("empty", "publishing raw object"),
        ("empty", "before loading"),
        ("held", "publishing quarantine"),
    ],
)
def test_the_same_month_twice(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], start: str, meets: str
) -> None:
    deployment = copy_of(getattr(republished, start))
    run_at_once(deployment, [MONTH, MONTH], meets=meets)
    assert read_stored_month(deployment, SERVICE, MONTH) == republished.newer
    assert stray_files(deployment) == []


@pytest.mark.parametrize(
    ("months", "meets"),
    [
        ([MONTH, NEIGHBOUR], "before loading"),
        ([MONTH, NEIGHBOUR, MONTH, NEIGHBOUR], "publishing raw object"),
    ],
)
def test_two_months_of_a_service(
    republished: Republished, copy_of: Callable[[Deployment], Deployment], months: list[str], meets: str
) -> None:
    deployment = copy_of(republished.empty)
    run_at_once(deployment, months, meets=meets)
    assert read_stored_month(deployment, SERVICE, MONTH) == republished.newer
    assert read_stored_month(deployment, SERVICE, NEIGHBOUR) == read_stored_month(republished.held, SERVICE, NEIGHBOUR)
    assert stray_files(deployment) == []


@pytest.mark.parametrize("waits", ["publishing quarantine", "publishing clean", "before loading"])
def test_a_run_with_an_older_file_is_overtaken_by_one_with_a_newer(
    republished: Republished, tmp_path: Path, waits: str
) -> None:
    """The slow run retries the step that was overtaken, and continues with the newer file."""
    deployment = Deployment(tmp_path / "home", str(tmp_path))
    (tmp_path / FILE).write_bytes(republished.older_file)
    gate = meeting(2)
    slow = Child(deployment, SERVICE, MONTH, Plan(meets=waits, gate=gate, stays=True))
    gate.wait()
    (tmp_path / FILE).write_bytes(republished.newer_file)
    overtaking = deployment.run(SERVICE, MONTH)
    gate.wait()
    outcome = slow.end()

    assert failures(overtaking) == []
    assert outcome.succeeded, outcome
    assert blocking_checks_passed(outcome)
    found = read_stored_month(deployment, SERVICE, MONTH)
    assert found.agree
    assert found.clean == republished.newer.clean
    assert stray_files(deployment) == []


def test_a_run_with_a_newer_file_succeeds_where_one_with_an_older_file_publishes_first(
    republished: Republished, tmp_path: Path
) -> None:
    """Both have cleaned their file when the older run publishes what the newer run is about to replace."""
    deployment = Deployment(tmp_path / "home", str(tmp_path))
    gates = meeting(2), meeting(2)
    runs = []
    for gate, content in zip(gates, (republished.older_file, republished.newer_file), strict=True):
        (tmp_path / FILE).write_bytes(content)
        runs.append(Child(deployment, SERVICE, MONTH, Plan(meets="publishing quarantine", gate=gate, stays=True)))
        gate.wait()
    gates[0].wait()
    wait_until(lambda: read_stored_month(deployment, SERVICE, MONTH).clean is not None or not runs[0].lives)
    gates[1].wait()
    for outcome in [run.end() for run in runs]:
        assert outcome.succeeded, outcome
    found = read_stored_month(deployment, SERVICE, MONTH)
    assert found.agree
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

WAIT_SECONDS = 600  # on a machine that is busy with other things; seconds otherwise


@pytest.fixture
def place(kind: str, tmp_path: Path, republished: Republished, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Holds the older version of a month, and the neighbour; the newer version is published."""
    with place_of(kind, tmp_path, republished, request) as place:
        neighbour = f"{SERVICE}_tripdata_{NEIGHBOUR}.csv"
        Path(place.deployment.source, neighbour).write_bytes(Path(republished.held.source, neighbour).read_bytes())
        place.offer(republished.older_file)
        place.run()
        place.run(SERVICE, NEIGHBOUR)
        place.offer(republished.newer_file)
        yield place


STEPS_OF_CHECKS = {
    "check_clean_green": "clean_green",
    "warehouse__green_trips_matches_clean": "warehouse__green_trips",
}
"""Each step that checks a layer, and the step that replaces the layer."""


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
@pytest.mark.parametrize("check", STEPS_OF_CHECKS)
def test_a_check_waits_for_a_newer_run_that_is_replacing_the_month(
    place: Place, republished: Republished, history: Path, check: str
) -> None:
    """The newer run pauses between the two layers that the older run's check compares."""
    checking, replacing = meeting(2), meeting(2)
    plan: dict[str, Any] = {"moments": STEPS, "stays": True, "instance": history}
    place.offer(republished.newer_file + republished.newer_file[-1:])
    older = place.start(meets=f"before {check}", gate=checking, **plan)
    checking.wait()
    place.offer(republished.newer_file)
    newer = place.start(meets=f"before {STEPS_OF_CHECKS[check]}", gate=replacing, **plan)
    replacing.wait()
    checking.wait()
    wait_until(lambda: logged(history, "is replacing the month; waiting.") or not older.lives)
    replacing.wait()
    for outcome in (older.end(), newer.end()):
        assert outcome.succeeded, outcome
        assert blocking_checks_passed(outcome)
    assert place.look().agree
    assert place.look().clean == republished.newer.clean


@contextmanager
def invalidated_ledger(place: Place) -> Iterator[tuple[Child, Child, threading.Event]]:
    """Two runs load the same data into BigQuery: the first is at its check, the second has begun to replace the month.

    Gives both runs, and the event that lets the second one go on.
    """
    assert place.google is not None
    service = place.google[1]
    looked, noted, invalidated, goes_on = (threading.Event() for _ in range(4))
    checking = meeting(2)

    def pause(reached: threading.Event, until: threading.Event) -> Callable[[], None]:
        def act() -> None:
            reached.set()
            until.wait(WAIT_SECONDS)

        return act

    # The second run has found the old version in the ledger when it counts the new one.
    service.script(Fault(before=pause(looked, noted)), method="POST", path="/jobs")
    second = place.start()
    assert looked.wait(WAIT_SECONDS)
    first = place.start(moments=STEPS, meets="before warehouse__green_trips_matches_clean", gate=checking, stays=True)
    checking.wait()
    # Its next job invalidates the ledger row; the one after that loads the trips.
    service.script(Fault(), Fault(before=pause(invalidated, goes_on)), method="POST", path="/jobs")
    noted.set()
    assert invalidated.wait(WAIT_SECONDS)
    checking.wait()
    try:
        yield first, second, goes_on
    finally:
        goes_on.set()


@pytest.mark.timeout(3 * WAIT_SECONDS)
@pytest.mark.parametrize("kind", ["google"])
def test_a_check_waits_for_a_run_that_is_replacing_the_month_by_the_same_data(
    place: Place, republished: Republished
) -> None:
    assert place.google is not None
    service = place.google[1]
    with invalidated_ledger(place) as (first, second, goes_on):
        known = len(service.requests)

        def times_read() -> int:
            return sum("green_trips_loads$" in request.path for request in service.requests[known:])

        wait_until(lambda: times_read() > 5 or not first.lives)
        goes_on.set()
        for outcome in (first.end(), second.end()):
            assert outcome.succeeded, outcome
            assert blocking_checks_passed(outcome)
    assert place.look().agree
    assert place.look().clean == republished.newer.clean


def read_while(running: Callable[[], bool], place: Place, older: Rows) -> int:
    """Read over and over: the month is the old one or the new one, each time. Returns how often it was read."""
    seen: list[Rows] = []
    looks, ends = 0, time.monotonic() + WAIT_SECONDS
    while running():
        assert time.monotonic() < ends, "a hang: the runs have not ended"
        trips, notes = place.read()
        if trips not in seen:
            seen.append(trips)
        if place.deployment.warehouse_address is None:  # others have no one moment for both: docs/postgres.md
            assert notes[0][1] == len(trips)
        looks += 1
        time.sleep(0.1)  # a look takes as long
    newer = place.read()[0]
    assert newer != older
    assert all(trips in (older, newer) for trips in seen)
    return looks


def assert_all_is_well(place: Place, republished: Republished, names: set[str]) -> None:
    for month in (MONTH, NEIGHBOUR):
        assert place.look(month).agree
    assert place.look().clean == republished.newer.clean
    assert place.names() == names


@pytest.mark.timeout(3 * WAIT_SECONDS)
@pytest.mark.parametrize("kind", KINDS)
def test_processes_that_load_overlapping_months_beside_readers(
    place: Place, republished: Republished, record_property: Callable[[str, object], None], *, long: bool
) -> None:
    names, older = place.names(), place.read()[0]
    children = [place.start(SERVICE, month) for month in [MONTH, NEIGHBOUR] * (4 if long else 2)]
    looks = read_while(lambda: any(child.lives for child in children), place, older)
    for child in children:
        outcome = child.end()
        assert outcome.succeeded, outcome
    assert looks > 0
    assert_all_is_well(place, republished, names)
    for name in ("rows lost", "rows doubled"):
        record_property(name, 0)


@pytest.mark.timeout(3 * WAIT_SECONDS)
@pytest.mark.parametrize("kind", ["duckdb"])
def test_a_backfill_beside_a_run_that_a_sensor_launched_beside_readers(
    place: Place, republished: Republished, tmp_path: Path
) -> None:
    """The backfill is the real command; one of its months is not published."""
    names, older, history = place.names(), place.read()[0], tmp_path / "history"
    history.mkdir()
    settings = {
        "TAXI_LAKE": str(place.deployment.lake),
        "TAXI_WAREHOUSE": f"duckdb:///{place.deployment.warehouse}",
        "TAXI_SOURCE": place.deployment.source,
        "DAGSTER_HOME": str(history),
    }
    months = ["--service", SERVICE, "--from", MONTH, "--to", "2013-09"]
    command = [sys.executable, "-m", "taxi_assets.cli.backfill", "backfill", *months]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as backfill:
        try:
            beside = [place.start(SERVICE, month) for month in (MONTH, NEIGHBOUR)]
            read_while(lambda: any(child.lives for child in beside), place, older)
            assert all(child.end().succeeded for child in beside)
            message = backfill.communicate(timeout=WAIT_SECONDS)[0].decode()
        finally:
            backfill.kill()
    assert "runs succeeded" in message
    assert "green 2013-09 is not published" in message
    made_besides = place.names() - names  # marts and reports, which a backfill makes too
    assert all(name.startswith(("table ", "lake/re", "object re")) for name in made_besides), made_besides
    assert_all_is_well(place, republished, names | made_besides)
