"""kill -9 on every kind of store: at changes of a Postgres server, at requests to Google, between steps, at random.

After each kill, readers see the old or the new version, and the next run repairs the month and leaves no other objects,
files or tables than a run that was never killed. The published version alternates, so that every kill interrupts the
replacement of a month. The short form tries some of the crash points.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from taxi_assets_tests.contract.stores.postgres import postgres_server
from taxi_assets_tests.faults.conftest import LONG_SEEDS, MONTH, SERVICE
from taxi_assets_tests.faults.crash_points import STATEMENTS, STEPS, WRITES
from taxi_assets_tests.faults.stores import KINDS, observed_deployment
from taxi_assets_tests.google import bigquery, cloud_storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taxi_assets_tests.faults.child_runs import ChildRun, Outcome
    from taxi_assets_tests.faults.conftest import Republished
    from taxi_assets_tests.faults.stores import ObservedDeployment
    from taxi_assets_tests.pipeline_harness import StoredMonth

__all__ = ["postgres_server"]

# A test has many kills. Each wait within has its own timeout.
pytestmark = pytest.mark.timeout(1800)

# Runs a job, kills it, and returns its outcome.
Kill = Callable[["ObservedDeployment", str, "str | None"], "Outcome"]


def at_crash_point(kind: str, number: int) -> Kill:
    """Return a kill by the run itself, at the crash point of this number."""

    def kill(observed: ObservedDeployment, job: str, month: str | None) -> Outcome:
        return observed.start(job, month, crash_points=kind, dies_at=number).wait()

    return kill


def at_request(service: str, path: str, number: int, *, method: str = "POST", effect: bool) -> Kill:
    """Return a kill by a test double, before it answers the request of this number.

    `effect` decides whether the request takes effect.
    """

    def kill(observed: ObservedDeployment, job: str, month: str | None) -> Outcome:
        assert observed.google is not None
        running: list[ChildRun] = []

        def kill_run() -> None:
            running[0].kill()

        storage, warehouse = observed.google
        if service == "storage":
            fault = cloud_storage.Fault(before=kill_run, reset=not effect)
            storage.script(*[cloud_storage.Fault()] * number, fault, method=method, path=path)
        else:
            job_fault = bigquery.Fault(before=kill_run, reset=not effect)
            warehouse.script(*[bigquery.Fault()] * number, job_fault, method=method, path=path)
        running.append(observed.start(job, month))
        return running[0].wait()

    return kill


def after_seconds(seconds: float) -> Kill:
    """Return a kill from outside, after this time."""

    def kill(observed: ObservedDeployment, job: str, month: str | None) -> Outcome:
        return observed.start(job, month).wait(kill_after=seconds)

    return kill


# --- a month of trips -------------------------------------------------------------------------------------------------


@dataclass
class KillTester:
    """Kills runs of a deployment, and compares the result with that of runs that were never killed."""

    observed: ObservedDeployment
    kills: int = 0
    attempts: int = 0
    repairs: int = 0
    last_run_seconds: float = 0
    """Duration of the last successful run."""
    _expected: list[StoredMonth | None] = field(default_factory=lambda: [None, None])
    _inventory: set[str] = field(default_factory=set)
    _published_version: int = 0

    def run(self, **plan: Any) -> Outcome:
        """Load the published version, and check the result."""
        outcome = self.observed.run(**plan)
        self.last_run_seconds = outcome.seconds
        found = self.observed.read_layers()
        assert found.is_consistent
        if self._expected[self._published_version] is None:
            self._expected[self._published_version] = found
            self._inventory = self.observed.inventory()
        assert found == self._expected[self._published_version]
        assert self.observed.inventory() == self._inventory
        return outcome

    def publish_other_version(self) -> None:
        self._published_version = 1 - self._published_version
        versions = self.observed.versions
        self.observed.publish((versions.older_file, versions.newer_file)[self._published_version])

    def kill(self, kill: Kill, *, may_finish: bool = False) -> None:
        """Kill a run that replaces the month, check that each layer is old or new, and repair the month by a run."""
        self.attempts += 1
        self.publish_other_version()
        outcome = kill(self.observed, SERVICE, MONTH)
        assert outcome.killed or (outcome.succeeded and may_finish), outcome
        self.kills += outcome.killed
        self._assert_old_or_new(self.observed.read_layers())
        if self.observed.google is not None:
            self.observed.google[1].settle()  # jobs finish without the run
            self._assert_old_or_new(self.observed.read_layers())
        self.run()
        self.repairs += 1

    def _assert_old_or_new(self, found: StoredMonth) -> None:
        older, newer = self._expected
        assert older is not None
        assert newer is not None
        assert found.raw in (older.raw, newer.raw)
        assert found.record is not None
        assert found.record["sha256"] in [digest for version in (older, newer) for digest in version.raw.values()]
        assert found.quarantine in (older.quarantine, newer.quarantine)
        assert found.clean in (older.clean, newer.clean)
        assert found.warehouse in (older.warehouse, newer.warehouse)
        if self.observed.google is None:
            assert (found.warehouse, found.loaded) in [
                (version.warehouse, version.loaded) for version in (older, newer)
            ]
        else:  # BigQuery has no transaction over both: a month without a ledger row is loaded again
            assert found.loaded in (older.loaded, newer.loaded, None)


@pytest.fixture
def tester(
    kind: str,
    tmp_path: Path,
    republished: Republished,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> Iterator[KillTester]:
    """Every layer has the older version; the results of both versions are known."""
    with observed_deployment(kind, tmp_path, republished, request) as observed:
        tester = KillTester(observed)
        for _ in range(2):
            tester.publish_other_version()
            tester.run()
        yield tester
        if tester.attempts == tester.repairs:
            record_property("rows lost", 0)
            record_property("rows duplicated", 0)


# The statements that change something on a Postgres server while a month is replaced, in this order.
CHANGES = [
    *("after DROP", "after CREATE", "before COMMIT", "after COMMIT", "after TRUNCATE", "before COPY", "after COPY"),
    *("after ADD CONSTRAINT", "after CREATE", "after CREATE"),
    *("before COMMIT", "after COMMIT", "after LOCK", "after LOCK", "after DETACH PARTITION", "after DROP"),
    *("after RENAME TO", "after ATTACH PARTITION", "after DELETE", "after INSERT", "before COMMIT", "after COMMIT"),
    *("after DROP", "before COMMIT", "after COMMIT"),
    *("before COPY", "after COPY"),  # the preview of the first rows
]
CHOSEN_CHANGES = [3, 6, 14]


@pytest.mark.parametrize("kind", ["postgres"])
def test_a_month_survives_a_kill_at_every_change_of_a_postgres_server(tester: KillTester, *, long: bool) -> None:
    tester.publish_other_version()
    assert tester.run(crash_points=STATEMENTS).crash_points == CHANGES
    for number in range(len(CHANGES)) if long else CHOSEN_CHANGES:
        tester.kill(at_crash_point(STATEMENTS, number))


# The crash points of a load into a DuckDB file whose trips are views.
LOAD_OF_A_VIEW = [
    "before loading",
    "before trips file",
    "after trips file",
    "after DELETE ledger",
    "after INSERT ledger",
    "before warehouse month",
    "after warehouse month",
    "after loading",
]
CHOSEN_CRASH_POINTS = [2, 5, 6]


@pytest.mark.parametrize("kind", ["duckdb_views"])
def test_a_month_survives_a_kill_at_every_write_of_a_view(tester: KillTester, *, long: bool) -> None:
    tester.publish_other_version()
    points = tester.run(crash_points=WRITES).crash_points
    first = points.index(LOAD_OF_A_VIEW[0])
    assert points[first:] == LOAD_OF_A_VIEW
    for number in range(len(LOAD_OF_A_VIEW)) if long else CHOSEN_CRASH_POINTS:
        tester.kill(at_crash_point(WRITES, first + number))


# The requests of a run that change something in Cloud Storage or BigQuery: method, path and number.
REQUESTS = {
    ("storage", "POST", "/rewriteTo/"): 1,  # the replaced raw file, to the folder of revisions
    ("storage", "POST", "/upload/"): 5,  # the new file's record there, raw, its record, quarantine, clean
    ("storage", "DELETE", "/raw/"): 4,  # the new file's copy, as it was published before; objects in other formats
    ("bigquery", "POST", "/jobs"): 5,  # invalidation of the ledger row, load, count, ledger row, count by the check
}
# The requests of the short form; the boolean says whether the request takes effect.
CHOSEN_REQUESTS = {
    ("/rewriteTo/", 0, True),
    ("/jobs", 0, True),
    ("/jobs", 1, True),
    ("/jobs", 3, False),
}


@pytest.mark.parametrize("kind", ["google"])
def test_a_month_survives_a_kill_at_every_request_to_google(tester: KillTester, *, long: bool) -> None:
    assert tester.observed.google is not None
    storage, warehouse = tester.observed.google
    known = len(storage.requests), len(warehouse.requests)
    tester.publish_other_version()
    tester.run()
    requests = {
        "storage": [(r.method, r.path) for r in storage.requests[known[0] :] if r.method != "GET"],
        "bigquery": [(r.method, r.path) for r in warehouse.requests[known[1] :] if r.method != "GET"],
    }
    for (service, method, path), times in REQUESTS.items():
        assert len([called for verb, called in requests[service] if verb == method and path in called]) == times
    assert sum(map(len, requests.values())) == sum(REQUESTS.values())
    for (service, method, path), times in REQUESTS.items():
        for number in range(times):
            for effect in (True, False):
                if long or (path, number, effect) in CHOSEN_REQUESTS:
                    tester.kill(at_request(service, path, number, method=method, effect=effect))


STEPS_OF_A_RUN = [
    f"{when} {step}"
    for step in (
        "raw__green_trips",
        "clean_green",
        "check_clean_green",
        "warehouse__green_trips",
        "warehouse__green_trips_matches_clean",
    )
    for when in ("before", "after")
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The short form leaves out what it tests on another kind of store or in `test_kill.py`."""
    long = metafunc.config.getoption("--long")
    if "kill_seed" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS if long else KINDS[1:])
    elif "crash_points" in metafunc.fixturenames:
        first_runs = [("postgres", STATEMENTS, 4), ("google", STEPS, 7)]
        metafunc.parametrize(("kind", "crash_points", "number"), first_runs if long else first_runs[:1])


def test_a_month_survives_kills_between_steps_and_at_random(
    tester: KillTester, kind: str, kill_seed: int, *, long: bool
) -> None:
    tester.publish_other_version()
    assert tester.run(crash_points=STEPS).crash_points == STEPS_OF_A_RUN
    for number in range(kill_seed, len(STEPS_OF_A_RUN), LONG_SEEDS) if long else (7,):
        tester.kill(at_crash_point(STEPS, number))
    chance = random.Random(f"{kill_seed} {kind}")  # noqa: S311  (not a secret)
    for _ in range(12 if long else 1):
        tester.kill(after_seconds(chance.uniform(0.05, tester.last_run_seconds)), may_finish=True)


def test_the_next_run_repairs_a_first_run_that_was_killed(
    kind: str,
    crash_points: str,
    number: int,
    tmp_path: Path,
    republished: Republished,
    request: pytest.FixtureRequest,
) -> None:
    """A first run also creates schema, dataset and tables. For DuckDB, see `test_kill.py`."""
    with observed_deployment(kind, tmp_path / "clean", republished, request) as observed:
        observed.publish(republished.newer_file)
        complete = observed.start(crash_points=crash_points).wait()
        expected, inventory = observed.read_layers(), observed.inventory()
    with observed_deployment(kind, tmp_path / "killed", republished, request) as observed:
        observed.publish(republished.newer_file)
        assert at_crash_point(crash_points, range(len(complete.crash_points))[number])(observed, SERVICE, MONTH).killed
        found = observed.read_layers()
        assert found.warehouse in ((), expected.warehouse)
        assert found.clean in (None, expected.clean)
        observed.run()
        found = observed.read_layers()
        assert found.is_consistent
        assert replace(found, record=expected.record) == expected  # the record has the folder of the source
        assert observed.inventory() == inventory
