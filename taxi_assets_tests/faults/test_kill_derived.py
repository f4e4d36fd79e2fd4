"""kill -9 while marts, report and quality are made: at everything that changes something, and at random.

What is found is compared with what runs made of both versions that were never killed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.contract.stores.postgres import postgres_server
from taxi_assets_tests.faults.conftest import MONTH, SERVICE
from taxi_assets_tests.faults.moments import STATEMENTS, WRITES
from taxi_assets_tests.faults.stores import KINDS, place_of
from taxi_assets_tests.faults.test_kill_stores import after, at_moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from taxi_assets_tests.faults.conftest import Republished
    from taxi_assets_tests.faults.stores import Derived, Place
    from taxi_assets_tests.faults.test_kill_stores import Kill

__all__ = ["postgres_server"]

pytestmark = pytest.mark.timeout(1800)

JOBS: list[tuple[str, str | None]] = [("marts", MONTH), (f"{SERVICE}_report", MONTH), ("quality", None)]


@dataclass
class Made:
    """A place, what good runs make of each version, and which version it was last made of."""

    place: Place
    good: list[Derived]
    names: set[str]
    seconds: dict[str, float]
    holds: int = 0
    kills: int = 0

    def load_the_other(self) -> None:
        """The trips alone."""
        self.holds = 1 - self.holds
        self.place.offer((self.place.versions.older_file, self.place.versions.newer_file)[self.holds])
        self.place.run()

    def kill(self, kill: Kill, job: str, month: str | None) -> None:
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

    def heal(self, job: str, month: str | None) -> None:
        """The next run does it, and leaves what one leaves that was never disturbed."""
        self.place.run(job, month)
        assert self.place.names() == self.names


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
        made = Made(place, [], set(), {})
        for _ in range(2):
            made.seconds = {job: place.run(job, month).seconds for job, month in JOBS}
            made.good.append(place.look_at_derived())
            made.names = place.names()
            made.load_the_other()
        older, newer = made.good
        assert older.marts != newer.marts
        assert older.quality != newer.quality
        assert older.report != newer.report
        yield made
        assert made.kills
        assert place.look_at_derived() == made.good[made.holds]
        for name in ("rows lost", "rows doubled"):
            record_property(name, 0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The short form leaves out stores on which the other test has killed already."""
    long = metafunc.config.getoption("--long")
    if "moments" in metafunc.fixturenames:
        every = [("duckdb", WRITES), ("postgres", STATEMENTS)]
        metafunc.parametrize(("kind", "moments"), every if long else every[:1])
    elif "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS if long else ["google"])


def test_killed_at_a_random_moment(made: Made, kind: str, kill_seed: int, *, long: bool) -> None:
    chance = random.Random(f"{kill_seed} {kind}")  # noqa: S311  (no secret)
    for flip in range(3 if long else 1):
        if flip:
            made.load_the_other()
        for job, month in JOBS:
            made.kill(after(chance.uniform(0.4, 1) * made.seconds[job]), job, month)
            made.heal(job, month)


def test_killed_at_every_change(made: Made, moments: str, *, long: bool) -> None:
    """One after the other, each where the one before was killed; healed at the end."""
    counts = [len(made.place.run(job, month, moments=moments).moments) for job, month in JOBS]
    made.load_the_other()
    for (job, month), count in zip(JOBS, counts, strict=True):
        for number in range(count) if long else (count // 2, count - 1):
            made.kill(at_moment(moments, number), job, month)
    for job, month in JOBS:
        made.heal(job, month)
