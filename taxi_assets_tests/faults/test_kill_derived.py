"""kill -9 while marts, report and quality are made: at everything that changes something, and at random.

What is found is compared with what runs made of both versions that were never killed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.contract.stores.postgres import postgres_server
from taxi_assets_tests.faults.conftest import LONG_SEEDS, MONTH, SERVICE
from taxi_assets_tests.faults.crash_points import STATEMENTS, WRITES
from taxi_assets_tests.faults.stores import KINDS, place_of
from taxi_assets_tests.faults.test_kill_stores import after, at_moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from taxi_assets_tests.faults.children import Outcome
    from taxi_assets_tests.faults.conftest import Republished
    from taxi_assets_tests.faults.stores import Derived, Place
    from taxi_assets_tests.faults.test_kill_stores import Kill

__all__ = ["postgres_server"]

pytestmark = pytest.mark.timeout(1800)

CHANGES = {"duckdb": WRITES, "postgres": STATEMENTS, "google": WRITES}
"""What changes something in the warehouse. In Google's no run tells of it: there it is killed at random alone."""

JOBS: list[tuple[str, str | None]] = [("marts", MONTH), (f"{SERVICE}_report", MONTH), ("quality", None)]


@dataclass
class Made:
    """A place, what good runs make of each version, and which version it was last made of."""

    place: Place
    good: list[Derived]
    names: set[str]
    seconds: dict[str, float]
    """Of the last good run of each job."""
    moments: list[int]
    """How many changes each of them told of."""
    holds: int = 0
    kills: int = 0

    def load_the_other(self) -> None:
        """The trips alone."""
        self.holds = 1 - self.holds
        self.place.offer((self.place.versions.older_file, self.place.versions.newer_file)[self.holds])
        self.place.run()

    def kill(self, kill: Kill, job: str, month: str | None) -> Outcome:
        """Kill a run of a job, or let it end; a reader finds the old or the new of each."""
        outcome = kill(self.place, job, month)
        assert outcome.killed or outcome.succeeded, outcome
        self.kills += outcome.killed
        found, (older, newer) = self.place.look_at_derived(), (self.good[1 - self.holds], self.good[self.holds])
        for name, rows in found.marts.items():
            assert rows in (older.marts[name], newer.marts[name]), name
        assert found.quality in (older.quality, newer.quality)
        for key, digest in found.report.items():
            assert digest in (older.report.get(key), newer.report.get(key)), key
        page = next(key for key in found.report if key.endswith("report.html"))
        if found.report[page] != older.report[page]:  # the page comes last
            assert found.report == newer.report
        return outcome

    def heal(self, job: str, month: str | None) -> None:
        """The next run does it."""
        self.place.run(job, month)


@pytest.fixture
def made(
    kind: str,
    tmp_path: Path,
    republished: Republished,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> Iterator[Made]:
    """Made of the older version, and has been made of the newer one."""
    with place_of(kind, tmp_path, republished, request) as place:
        place.offer(republished.older_file)
        place.run()
        place.run("reference", None)
        made = Made(place, [], set(), {}, [])
        for _ in range(2):
            outcomes = [place.run(job, month, moments=CHANGES[kind]) for job, month in JOBS]
            made.seconds = {job: outcome.seconds for (job, _), outcome in zip(JOBS, outcomes, strict=True)}
            made.moments = [len(outcome.moments) for outcome in outcomes]
            made.good.append(place.look_at_derived())
            made.names = place.names()
            made.load_the_other()
        assert made.moments[0] or kind == "google"
        older, newer = made.good
        assert older.marts != newer.marts
        assert older.quality != newer.quality
        assert older.report != newer.report
        yield made
        assert made.kills
        assert place.look_at_derived() == made.good[made.holds]
        assert place.names() == made.names  # what is left over goes when its store is next used
        for name in ("rows lost", "rows doubled"):
            record_property(name, 0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The short form is DuckDB's alone."""
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS if metafunc.config.getoption("--long") else ["duckdb"])


def test_killed_at_every_change_and_at_random(made: Made, kind: str, kill_seed: int, *, long: bool) -> None:
    """One after the other, each where the one before was killed; healed at the end. Then at random, healed at once.

    The short form: before the last change alone, when all before it are made.
    """
    for (job, month), count in zip(JOBS, made.moments, strict=True):
        for number in range(kill_seed, count, LONG_SEEDS) if long else range(count - 2, count - 1):
            outcome = made.kill(at_moment(CHANGES[kind], number), job, month)
            assert outcome.killed or len(outcome.moments) <= number  # what runs before it have made is not made again
    for job, month in JOBS:
        made.heal(job, month)
    chance = random.Random(f"{kill_seed} {kind}")  # noqa: S311  (no secret)
    for _ in range(3 if long else 0):
        made.load_the_other()
        for job, month in JOBS:
            made.kill(after(chance.uniform(0.4, 1) * made.seconds[job]), job, month)
            made.heal(job, month)
