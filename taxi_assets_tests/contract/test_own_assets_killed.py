"""Processes that are killed with SIGKILL while they replace the rows of an own asset, on every lake and warehouse.

Readers see the old rows or the new ones, and the next run stores exactly its own. The short form tries some of the
kills.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.contract.own_asset_runs import Outcome, OwnStore, Run, run_in_child
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.contract.stores.bigquery import DATASET
from taxi_assets_tests.contract.stores.postgres import run as run_sql
from taxi_assets_tests.faults.crash_points import STATEMENTS, WRITES
from taxi_assets_tests.google import bigquery as bigquery_double
from taxi_assets_tests.google import cloud_storage as storage_double

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taxi_assets_tests.contract.stores import ChildProcess, LakeBackend, WarehouseBackend
    from taxi_assets_tests.google.bigquery import BigQuery
    from taxi_assets_tests.google.cloud_storage import CloudStorage

pytestmark = pytest.mark.timeout(1800)

KINDS = ["local", "gcs", "duckdb", "postgres", "bigquery"]
MONTH, OTHER_MONTH = "2020-10", "2020-11"
_STAGING_TABLE = re.compile("(?<=_staging_own)_[0-9a-f]+")

_LOAD = ["POST jobs", "PUT jobs"]
_OWNERS = ["POST jobs"]
_DUCKDB_LEDGER = ["after DELETE ledger", "after INSERT ledger", "before warehouse month", "after warehouse month"]
_POSTGRES_COPY = ["before COPY", "after COPY"]
_POSTGRES_LEDGER = ["after INSERT", "before COMMIT", "after COMMIT"]
PARTITION_POINTS = {
    "local": ["publishing mine", "before mine", "after mine"],
    "gcs": ["POST o"],
    "duckdb": ["after DELETE trips", "after INSERT trips", *_DUCKDB_LEDGER],
    "postgres": ["after ALTER", "before COMMIT", "after COMMIT", "after DELETE", *_POSTGRES_COPY, *_POSTGRES_LEDGER],
    "bigquery": [
        *(*_OWNERS, "POST tables", *_LOAD),
        *("PATCH own", "POST jobs", "DELETE _staging_own", "POST jobs"),
    ],
}
"""Every point at which a run is killed that adds a column and replaces a partition, by store."""
TABLE_POINTS = {
    "local": ["publishing lake", "before lake", "after lake"],
    "gcs": ["POST o"],
    "duckdb": ["after INSERT trips", "after DELETE ledger", *_DUCKDB_LEDGER],
    "postgres": ["after DROP", "after CREATE", *_POSTGRES_COPY, "after DELETE", *_POSTGRES_LEDGER],
    "bigquery": [*_OWNERS, *_LOAD, "POST jobs"],
}
"""The same for a run that replaces a table without partitions by one with other columns."""


@dataclass(frozen=True)
class Kill:
    """When a process is killed."""

    number: int
    """The number of the crash point, or of the request to a test double of Google, from 0."""
    method: str = ""
    """The HTTP method of the requests that are counted."""
    takes_effect: bool = False
    """Whether the request takes effect."""


@dataclass
class OwnAssetKiller:
    """Kills runs of own assets on a store."""

    store: OwnStore
    double: BigQuery | CloudStorage | None
    kills: int = 0
    points: list[str] = field(default_factory=list)

    def find_kills(self, run: Run) -> list[Kill]:
        """Run to the end, and return all points at which the run could be killed."""
        known = 0 if self.double is None else len(self.double.requests)
        with child_process(run_in_child, run) as child:
            outcome: Outcome = child.receive()
        assert outcome.failures == []
        if self.double is None:
            self.points = outcome.crash_points
            return [Kill(number) for number in range(len(outcome.crash_points))]
        requests = [request for request in self.double.requests[known:] if request.method != "GET"]
        self.points = [
            f"{request.method} {_STAGING_TABLE.sub('', request.path.split('/')[-1])}" for request in requests
        ]
        return [
            Kill(number, method, takes_effect)
            for method in sorted({request.method for request in requests})
            for number in range(sum(request.method == method for request in requests))
            for takes_effect in (False, True)
        ]

    def kill(self, run: Run, kill: Kill) -> None:
        """Start a run, and kill it."""
        running: list[ChildProcess] = []

        def kill_child() -> None:
            running[0].process.kill()

        if self.double is None:
            run = replace(run, dies_at=kill.number)
        else:
            double = storage_double if self.store.kind == "gcs" else bigquery_double
            fault = double.Fault(before=kill_child, reset=not kill.takes_effect)
            self.double.script(*[double.Fault()] * kill.number, fault, method=kill.method)
        with child_process(run_in_child, run) as child:
            running.append(child)
            assert child.wait_for_exit() == -signal.SIGKILL, kill
        if self.store.kind == "bigquery":
            self.double.settle()  # type: ignore[union-attr]  # a job goes on without its client
        self.kills += 1

    def clear(self) -> None:
        """Delete everything in the store."""
        match self.store.kind:
            case "duckdb":
                (self.store.home / "warehouse.duckdb").unlink(missing_ok=True)
            case "postgres":
                run_sql(self.store.open_warehouse().url, "DROP SCHEMA IF EXISTS taxi CASCADE")  # type: ignore[attr-defined]
            case "bigquery":
                with self.store.open_warehouse().client("") as client:  # type: ignore[attr-defined]
                    client.delete_dataset(DATASET, delete_contents=True, not_found_ok=True)
            case _:
                lake = self.store.open_lake()
                for key in ("mine/own.parquet", f"mine/own/{MONTH}.parquet"):
                    lake.delete(key)

    def leftovers(self) -> list[str]:
        """Return what runs have left behind for good: files, and tables without an expiration."""
        known = {self.store.home / "warehouse.duckdb", self.store.home / "tmp"}
        files = [
            path
            for path in self.store.home.rglob("*")
            if path not in known and not path.is_dir() and path.suffix != ".parquet"
        ]
        tables = [name for name in self._tables() if "stag" in name]
        return [*map(str, files), *tables]

    def _tables(self) -> Sequence[str]:
        if self.store.kind == "bigquery":
            query = f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{DATASET}'"
            names = [name for (name,) in self.double.sql(query)]  # type: ignore[union-attr]
            return [name for name in names if "expirationTime" not in self.double.table(DATASET, name)]  # type: ignore[union-attr]
        if self.store.kind == "postgres":
            url = self.store.open_warehouse().url  # type: ignore[attr-defined]
            return [name for (name,) in run_sql(url, "SELECT relname FROM pg_class WHERE relkind ~ 'r|p'")]
        return []


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def own_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> OwnStore:
    if kind in {"local", "gcs"}:
        lake: LakeBackend = request.getfixturevalue(f"{kind}_lake")
        warehouse: WarehouseBackend = request.getfixturevalue("duckdb_warehouse")
        return OwnStore("lake_parquet", kind, lake.open, warehouse.open, tmp_path, WRITES if kind == "local" else None)
    warehouse = request.getfixturevalue(f"{kind}_warehouse")
    crash_points = {"duckdb": WRITES, "postgres": STATEMENTS}.get(kind)
    return OwnStore("warehouse_table", kind, warehouse.open_lake, warehouse.open, tmp_path, crash_points)


@pytest.fixture
def killer(kind: str, own_store: OwnStore, request: pytest.FixtureRequest) -> OwnAssetKiller:
    doubles = {"gcs": "cloud_storage", "bigquery": "bigquery"}
    return OwnAssetKiller(own_store, request.getfixturevalue(doubles[kind]) if kind in doubles else None)


def chosen(kills: list[Kill], *, long: bool) -> list[Kill]:
    return kills if long else kills[1::4]


@pytest.mark.parametrize("month", [MONTH, None], ids=["a partition", "a table"])
def test_a_kill_while_rows_are_replaced_leaves_the_old_rows_or_the_new_ones(
    killer: OwnAssetKiller, month: str | None, *, long: bool
) -> None:
    store = killer.store
    others = [("other", OTHER_MONTH)] if month is None else [("own", OTHER_MONTH), ("other", MONTH)]
    for name, other_month in others:
        store.store(name, 1000, other_month)
    store.store("own", 1, month)
    kills = killer.find_kills(Run(store, "own", 2, month))
    # Fails if a durable write is added.
    assert killer.points == (TABLE_POINTS if month is None else PARTITION_POINTS)[store.kind]
    assert store.find_version("own", month) == 2
    for version, kill in enumerate(chosen(kills, long=long), start=3):
        killer.kill(Run(store, "own", version, month), kill)
        assert store.find_version("own", month) in {version - 1, version}, kill
        assert all(store.find_version(name, other_month) == 1000 for name, other_month in others), kill
        with child_process(run_in_child, Run(store, "own", version, month)) as child:
            assert child.receive().failures == [], kill
        assert store.find_version("own", month) == version, kill
        assert killer.leftovers() == [], kill


@pytest.mark.parametrize("month", [MONTH, None], ids=["a partition", "a table"])
def test_a_first_run_that_is_killed_leaves_all_rows_or_none(
    killer: OwnAssetKiller, month: str | None, *, long: bool
) -> None:
    store = killer.store
    for kill in chosen(killer.find_kills(Run(store, "own", 1, month)), long=long):
        killer.clear()
        killer.kill(Run(store, "own", 1, month), kill)
        assert store.find_version("own", month) in {None, 1}, kill
        with child_process(run_in_child, Run(store, "own", 2, month)) as child:
            assert child.receive().failures == [], kill
        assert store.find_version("own", month) == 2, kill
        assert killer.leftovers() == [], kill
