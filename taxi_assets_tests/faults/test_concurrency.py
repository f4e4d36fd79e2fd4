"""Runs beside each other, in processes of their own: they end well, and the data is as after one run.

They meet at a gate at the worst moments: when all have made something, and none has published it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.chain import Deployment, failures, leftovers, look
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.contract.stores.postgres import postgres_server
from taxi_assets_tests.faults.children import Child, Plan, meeting
from taxi_assets_tests.faults.conftest import FILE, MONTH, NEIGHBOUR, SERVICE
from taxi_assets_tests.faults.stores import KINDS, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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
    assert look(deployment, SERVICE, MONTH) == republished.newer
    assert leftovers(deployment) == []


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
    assert look(deployment, SERVICE, MONTH) == republished.newer
    assert look(deployment, SERVICE, NEIGHBOUR) == look(republished.held, SERVICE, NEIGHBOUR)
    assert leftovers(deployment) == []


@pytest.mark.parametrize("waits", ["publishing quarantine", "publishing clean", "before loading"])
def test_a_run_with_an_older_file_is_overtaken_by_one_with_a_newer(
    republished: Republished, tmp_path: Path, waits: str
) -> None:
    """The slow one fails, unless all that is held then belongs together; the next run puts it right."""
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
    assert look(deployment, SERVICE, MONTH).agree or not outcome.succeeded
    assert outcome.succeeded or len(outcome.failures) == 1 or not outcome.checks["rows_conserved"]
    assert failures(deployment.run(SERVICE, MONTH)) == []
    found = look(deployment, SERVICE, MONTH)
    assert found.agree
    assert found.clean == republished.newer.clean
    assert leftovers(deployment) == []


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
    assert looks > 1
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
    command = [sys.executable, "-m", "taxi_assets.automation.backfill", "backfill", *months]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as backfill:
        try:
            beside = [place.start(SERVICE, month) for month in (MONTH, NEIGHBOUR)]
            read_while(lambda: any(child.lives for child in beside), place, older)
            assert all(child.end().succeeded for child in beside)
            said = backfill.communicate(timeout=WAIT_SECONDS)[0].decode()
        finally:
            backfill.kill()
    assert "runs ended well" in said
    assert "green 2013-09 is not published" in said
    made_besides = place.names() - names  # marts and reports, which a backfill makes too
    assert all(name.startswith(("table ", "lake/re", "object re")) for name in made_besides), made_besides
    assert_all_is_well(place, republished, names | made_besides)
