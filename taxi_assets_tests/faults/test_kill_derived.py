"""kill -9 while marts, the report and the quality table are computed: at every change, and at random.

The results are compared with those of runs that were never killed, for both versions of the trips.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.contract.stores.postgres import postgres_server
from taxi_assets_tests.faults.conftest import LONG_SEEDS, MONTH, SERVICE
from taxi_assets_tests.faults.crash_points import STATEMENTS, WRITES
from taxi_assets_tests.faults.stores import KINDS, observed_deployment
from taxi_assets_tests.faults.test_kill_stores import after_seconds, at_crash_point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from taxi_assets_tests.faults.child_runs import Outcome
    from taxi_assets_tests.faults.conftest import Republished
    from taxi_assets_tests.faults.stores import DerivedData, ObservedDeployment
    from taxi_assets_tests.faults.test_kill_stores import Kill

__all__ = ["postgres_server"]

pytestmark = pytest.mark.timeout(1800)

CHANGES = {"duckdb": WRITES, "postgres": STATEMENTS, "google": WRITES}
"""The crash points at changes of the warehouse. BigQuery has none, so its runs are killed only at random."""

JOBS: list[tuple[str, str | None]] = [("marts", MONTH), (f"{SERVICE}_report", MONTH), ("quality", None)]


@dataclass
class DerivedKillTester:
    """Kills runs that compute derived data, and compares the result with that of runs that were never killed."""

    observed: ObservedDeployment
    expected: list[DerivedData]
    inventory: set[str]
    seconds: dict[str, float]
    """Duration of the last successful run, by job."""
    crash_points: list[int]
    """Number of crash points in that run, by job."""
    loaded_version: int = 0
    kills: int = 0

    def load_other_version(self) -> None:
        """Load the other version of the trips, without derived data."""
        self.loaded_version = 1 - self.loaded_version
        self.observed.publish(
            (self.observed.versions.older_file, self.observed.versions.newer_file)[self.loaded_version]
        )
        self.observed.run()

    def kill(self, kill: Kill, job: str, month: str | None) -> Outcome:
        """Kill a run of a job, or let it finish, and check that each table and file is old or new."""
        outcome = kill(self.observed, job, month)
        assert outcome.killed or outcome.succeeded, outcome
        self.kills += outcome.killed
        found, (older, newer) = (
            self.observed.read_derived(),
            (self.expected[1 - self.loaded_version], self.expected[self.loaded_version]),
        )
        for name, rows in found.marts.items():
            assert rows in (older.marts[name], newer.marts[name]), name
        assert found.quality in (older.quality, newer.quality)
        for name, rows in found.copies.items():
            assert rows in (older.copies[name], newer.copies[name]), name
        for key, digest in found.report.items():
            assert digest in (older.report.get(key), newer.report.get(key)), key
        page = next(key for key in found.report if key.endswith("report.html"))
        if found.report[page] != older.report[page]:  # the page is published last
            assert found.report == newer.report
        return outcome

    def repair(self, job: str, month: str | None) -> None:
        """Run the job without a kill."""
        self.observed.run(job, month)


@pytest.fixture
def tester(
    kind: str,
    tmp_path: Path,
    republished: Republished,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> Iterator[DerivedKillTester]:
    """Derived data of the older version is stored; the results of both versions are known."""
    with observed_deployment(kind, tmp_path, republished, request) as observed:
        observed.publish(republished.older_file)
        observed.run()
        observed.run("reference", None)
        tester = DerivedKillTester(observed, [], set(), {}, [])
        for _ in range(2):
            outcomes = [observed.run(job, month, crash_points=CHANGES[kind]) for job, month in JOBS]
            tester.seconds = {job: outcome.seconds for (job, _), outcome in zip(JOBS, outcomes, strict=True)}
            tester.crash_points = [len(outcome.crash_points) for outcome in outcomes]
            tester.expected.append(observed.read_derived())
            tester.inventory = observed.inventory()
            tester.load_other_version()
        assert tester.crash_points[0] or kind == "google"
        older, newer = tester.expected
        assert older.marts != newer.marts
        assert older.quality != newer.quality
        assert older.report != newer.report
        for derived in tester.expected:
            tables = {**derived.marts, "month_quality": derived.quality}
            assert {name: Counter(rows) for name, rows in derived.copies.items()} == {
                name: Counter(rows) for name, rows in tables.items()
            }
        yield tester
        assert tester.kills
        assert observed.read_derived() == tester.expected[tester.loaded_version]
        assert observed.inventory() == tester.inventory  # the next use of a store deletes stray_files
        for name in ("rows lost", "rows duplicated"):
            record_property(name, 0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The short form tests only DuckDB."""
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS if metafunc.config.getoption("--long") else ["duckdb"])


def test_derived_data_survives_kills_at_every_change_and_at_random(
    tester: DerivedKillTester, kind: str, kill_seed: int, *, long: bool
) -> None:
    """Kill consecutive runs at consecutive changes, then repair. Then kill at random and repair each time.

    The short form kills one run, before its last change.
    """
    for (job, month), count in zip(JOBS, tester.crash_points, strict=True):
        for number in range(kill_seed, count, LONG_SEEDS) if long else range(count - 2, count - 1):
            outcome = tester.kill(at_crash_point(CHANGES[kind], number), job, month)
            # A run does not repeat the changes that killed runs have completed.
            assert outcome.killed or len(outcome.crash_points) <= number
    for job, month in JOBS:
        tester.repair(job, month)
    chance = random.Random(f"{kill_seed} {kind}")  # noqa: S311  (not a secret)
    for _ in range(3 if long else 0):
        tester.load_other_version()
        for job, month in JOBS:
            tester.kill(after_seconds(chance.uniform(0.4, 1) * tester.seconds[job]), job, month)
            tester.repair(job, month)
