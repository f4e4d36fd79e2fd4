"""kill -9 on every kind of store: at changes of a Postgres server, at requests to Google, between steps, at random.

After each a reader sees old or new, the next run heals, and leaves nothing that a run which was never killed would not.
Versions alternate, so every kill is one while a month is replaced. The short form takes some of the moments.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from taxi_assets_tests.contract.stores.postgres import postgres_server
from taxi_assets_tests.faults.conftest import LONG_SEEDS, MONTH, SERVICE
from taxi_assets_tests.faults.crash_points import STATEMENTS, STEPS
from taxi_assets_tests.faults.stores import KINDS, place_of
from taxi_assets_tests.google import bigquery, cloud_storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taxi_assets_tests.faults.children import Child, Outcome
    from taxi_assets_tests.faults.conftest import Republished
    from taxi_assets_tests.faults.stores import Place
    from taxi_assets_tests.pipeline_harness import StoredMonth

__all__ = ["postgres_server"]

# Many kills in one test; each wait within has an end of its own.
pytestmark = pytest.mark.timeout(1800)

# How a run is killed: gives what became of it.
Kill = Callable[["Place", str, "str | None"], "Outcome"]


def at_moment(moments: str, number: int) -> Kill:
    """By itself, at the moment of this number."""

    def kill(place: Place, job: str, month: str | None) -> Outcome:
        return place.start(job, month, moments=moments, dies=number).end()

    return kill


def at_request(service: str, path: str, number: int, *, method: str = "POST", effect: bool) -> Kill:
    """By a double, at the request of this number: before it answers, with the request in effect or without."""

    def kill(place: Place, job: str, month: str | None) -> Outcome:
        assert place.google is not None
        running: list[Child] = []

        def end_it() -> None:
            running[0].kill()

        storage, warehouse = place.google
        if service == "storage":
            fault = cloud_storage.Fault(before=end_it, reset=not effect)
            storage.script(*[cloud_storage.Fault()] * number, fault, method=method, path=path)
        else:
            job_fault = bigquery.Fault(before=end_it, reset=not effect)
            warehouse.script(*[bigquery.Fault()] * number, job_fault, method=method, path=path)
        running.append(place.start(job, month))
        return running[0].end()

    return kill


def after(seconds: float) -> Kill:
    """From outside, after so many seconds."""

    def kill(place: Place, job: str, month: str | None) -> Outcome:
        return place.start(job, month).end(kill_after=seconds)

    return kill


# --- a month of trips -------------------------------------------------------------------------------------------------


@dataclass
class Battery:
    """A place, which version it holds, and what good runs have made of each."""

    place: Place
    kills: int = 0
    tries: int = 0
    healed: int = 0
    takes: float = 0
    """How many seconds the last good run took."""
    _good: list[StoredMonth | None] = field(default_factory=lambda: [None, None])
    _names: set[str] = field(default_factory=set)
    _holds: int = 0

    def run(self, **plan: Any) -> Outcome:
        """Bring home what is offered."""
        outcome = self.place.run(**plan)
        self.takes = outcome.seconds
        found = self.place.look()
        assert found.agree
        if self._good[self._holds] is None:
            self._good[self._holds] = found
            self._names = self.place.names()
        assert found == self._good[self._holds]
        assert self.place.names() == self._names
        return outcome

    def offer_the_other(self) -> None:
        self._holds = 1 - self._holds
        versions = self.place.versions
        self.place.offer((versions.older_file, versions.newer_file)[self._holds])

    def kill(self, kill: Kill, *, surely: bool = True) -> None:
        """Kill a run that replaces the month, look, and let the next one heal."""
        self.tries += 1
        self.offer_the_other()
        outcome = kill(self.place, SERVICE, MONTH)
        assert outcome.killed or (outcome.succeeded and not surely), outcome
        self.kills += outcome.killed
        self._assert_old_or_new(self.place.look())
        if self.place.google is not None:
            self.place.google[1].settle()  # jobs end by themselves
            self._assert_old_or_new(self.place.look())
        self.run()
        self.healed += 1

    def _assert_old_or_new(self, found: StoredMonth) -> None:
        older, newer = self._good
        assert older is not None
        assert newer is not None
        assert found.raw in (older.raw, newer.raw)
        assert found.record is not None
        assert found.record["sha256"] in [digest for version in (older, newer) for digest in version.raw.values()]
        assert found.quarantine in (older.quarantine, newer.quarantine)
        assert found.clean in (older.clean, newer.clean)
        assert found.warehouse in (older.warehouse, newer.warehouse)
        if self.place.google is None:
            assert (found.warehouse, found.loaded) in [(one.warehouse, one.loaded) for one in (older, newer)]
        else:  # no transaction over both: what the note does not vouch for is loaded anew
            assert found.loaded in (older.loaded, newer.loaded, None)


@pytest.fixture
def battery(
    kind: str,
    tmp_path: Path,
    republished: Republished,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> Iterator[Battery]:
    """Holds the older version, and has held the newer one."""
    with place_of(kind, tmp_path, republished, request) as place:
        started = Battery(place)
        for _ in range(2):
            started.offer_the_other()
            started.run()
        yield started
        if started.tries == started.healed:
            record_property("rows lost", 0)
            record_property("rows doubled", 0)


# What a Postgres server is told to change, in this order, while a month is replaced.
CHANGES = [
    *(
        "after DROP",
        "after CREATE",
        "before COPY",
        "after COPY",
        "after ADD CONSTRAINT",
        "after CREATE",
        "after CREATE",
    ),
    *("before COMMIT", "after COMMIT", "after LOCK", "after LOCK", "after DETACH PARTITION", "after DROP"),
    *("after RENAME TO", "after ATTACH PARTITION", "after DELETE", "after INSERT", "before COMMIT", "after COMMIT"),
    "after DROP",
    *("before COPY", "after COPY"),  # a look at the first rows
]
CHOSEN_CHANGES = [3, 11]


@pytest.mark.parametrize("kind", ["postgres"])
def test_killed_at_every_change_of_a_postgres_server(battery: Battery, *, long: bool) -> None:
    battery.offer_the_other()
    assert battery.run(moments=STATEMENTS).moments == CHANGES
    for number in range(len(CHANGES)) if long else CHOSEN_CHANGES:
        battery.kill(at_moment(STATEMENTS, number))


# What changes something in Cloud Storage or BigQuery, by method and path, and how often a run asks for it.
REQUESTS = {
    ("storage", "POST", "/upload/"): 4,  # raw, its record, quarantine, clean
    ("storage", "DELETE", "/raw/"): 2,  # of other formats
    ("bigquery", "POST", "/tables"): 2,
    ("bigquery", "POST", "/jobs"): 5,  # count, invalidation of the ledger row, load, note, count
}
# In the short form these, with the request in effect or without.
CHOSEN_REQUESTS = {
    ("/jobs", 1, True),
    ("/jobs", 2, True),
    ("/jobs", 3, False),
}


@pytest.mark.parametrize("kind", ["google"])
def test_killed_at_every_request_to_google(battery: Battery, *, long: bool) -> None:
    assert battery.place.google is not None
    storage, warehouse = battery.place.google
    known = len(storage.requests), len(warehouse.requests)
    battery.offer_the_other()
    battery.run()
    asked = {
        "storage": [(r.method, r.path) for r in storage.requests[known[0] :] if r.method != "GET"],
        "bigquery": [(r.method, r.path) for r in warehouse.requests[known[1] :] if r.method != "GET"],
    }
    for (service, method, path), times in REQUESTS.items():
        assert len([where for by, where in asked[service] if by == method and path in where]) == times
    assert sum(map(len, asked.values())) == sum(REQUESTS.values())
    for (service, method, path), times in REQUESTS.items():
        for number in range(times):
            for effect in (True, False):
                if long or (path, number, effect) in CHOSEN_REQUESTS:
                    battery.kill(at_request(service, path, number, method=method, effect=effect))


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
    """In the short form without what it tries on another kind of store, or in `test_kill.py`."""
    long = metafunc.config.getoption("--long")
    if "kill_seed" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS if long else KINDS[1:])
    elif "moments" in metafunc.fixturenames:
        first_runs = [("postgres", STATEMENTS, 4), ("google", STEPS, 7)]
        metafunc.parametrize(("kind", "moments", "number"), first_runs if long else first_runs[:1])


def test_killed_between_two_steps_and_at_random(battery: Battery, kind: str, kill_seed: int, *, long: bool) -> None:
    battery.offer_the_other()
    assert battery.run(moments=STEPS).moments == STEPS_OF_A_RUN
    for number in range(kill_seed, len(STEPS_OF_A_RUN), LONG_SEEDS) if long else (7,):
        battery.kill(at_moment(STEPS, number))
    chance = random.Random(f"{kill_seed} {kind}")  # noqa: S311  (no secret)
    for _ in range(12 if long else 1):
        battery.kill(after(chance.uniform(0.05, battery.takes)), surely=False)


def test_killed_in_a_first_run(
    kind: str,
    moments: str,
    number: int,
    tmp_path: Path,
    republished: Republished,
    request: pytest.FixtureRequest,
) -> None:
    """Where schema, dataset and tables are made as well; of DuckDB: `test_kill.py`."""
    with place_of(kind, tmp_path / "clean", republished, request) as place:
        place.offer(republished.newer_file)
        whole = place.start(moments=moments).end()
        good, names = place.look(), place.names()
    with place_of(kind, tmp_path / "killed", republished, request) as place:
        place.offer(republished.newer_file)
        assert at_moment(moments, range(len(whole.moments))[number])(place, SERVICE, MONTH).killed
        found = place.look()
        assert found.warehouse in ((), good.warehouse)
        assert found.clean in (None, good.clean)
        place.run()
        found = place.look()
        assert found.agree
        assert replace(found, record=good.record) == good  # which names the folder that it came from
        assert place.names() == names
