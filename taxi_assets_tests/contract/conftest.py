"""The stores that the contract batteries run against: a new one is one more entry in `LAKES` or `WAREHOUSES`.

Belongs here: what a battery must know of a store besides the contract, such as how to break it. Does not belong here:
promises; they stand in `test_lake.py` and `test_warehouse.py`, the same for all.
"""

from __future__ import annotations

import multiprocessing
import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from taxi_assets.storage.duckdb import DuckDBWarehouse
from taxi_assets.storage.lake import LocalLake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from taxi_assets.storage.lake import Lake
    from taxi_assets.storage.warehouse import Warehouse


@dataclass(frozen=True)
class LakeBackend:
    """`open` makes a client of one and the same lake, and can be sent to other processes."""

    open: Callable[[], Lake]
    faults: Mapping[str, Callable[[pytest.MonkeyPatch], None]]
    """What can break in the middle of a publish."""


@dataclass(frozen=True)
class WarehouseBackend:
    """`open` makes a client of one and the same warehouse, and can be sent to other processes."""

    open: Callable[[], Warehouse]
    columns: Callable[[str], Mapping[str, str]]
    """The comments on a table's columns, by name, as the engine itself has them."""
    break_commit: Callable[[pytest.MonkeyPatch], None]


# --- the lake in a folder ---------------------------------------------------------------------------------------------


def fail(*_args: object, **_named: object) -> None:
    raise OSError(28, "No space left on device")


def local_lake(folder: Path) -> LakeBackend:
    return LakeBackend(
        open=partial(LocalLake, folder=str(folder / "lake")),
        faults={
            "flushing the file": lambda monkeypatch: monkeypatch.setattr(os, "fsync", fail),
            "the rename": lambda monkeypatch: monkeypatch.setattr(Path, "replace", fail),
        },
    )


# --- the warehouse in a DuckDB file -----------------------------------------------------------------------------------


class _BreaksAtCommit:
    """A DuckDB connection that loses its disk when it commits what was written to `loaded_months`, or to a frame."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._at_the_end = False

    def execute(self, query: str, *args: Any) -> Any:
        self._at_the_end |= query.startswith("INSERT") and "loaded_months" in query
        self._at_the_end |= query.startswith("CREATE OR REPLACE")
        return self._connection.execute(query, *args)

    def commit(self) -> None:
        if self._at_the_end:
            raise OSError(28, "No space left on device")
        self._connection.commit()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def duckdb_warehouse(folder: Path) -> WarehouseBackend:
    file = folder / "warehouse.duckdb"

    def columns(table: str) -> dict[str, str]:
        with duckdb.connect(file) as connection:
            query = "SELECT column_name, comment FROM duckdb_columns() WHERE schema_name = 'taxi' AND table_name = ?"
            return dict(connection.execute(query, [table]).fetchall())

    def break_commit(monkeypatch: pytest.MonkeyPatch) -> None:
        connect = duckdb.connect
        monkeypatch.setattr(duckdb, "connect", lambda *args, **named: _BreaksAtCommit(connect(*args, **named)))

    return WarehouseBackend(partial(DuckDBWarehouse, file=str(file), wait_seconds=60), columns, break_commit)


LAKES = {"local": local_lake}
WAREHOUSES = {"duckdb": duckdb_warehouse}


@pytest.fixture(params=LAKES)
def lake_backend(request: pytest.FixtureRequest, tmp_path: Path) -> LakeBackend:
    return LAKES[request.param](tmp_path)


@pytest.fixture(params=WAREHOUSES)
def warehouse_backend(request: pytest.FixtureRequest, tmp_path: Path) -> WarehouseBackend:
    return WAREHOUSES[request.param](tmp_path)


# --- other processes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Child:
    """Another process, which runs a function of the tests, and a line to it."""

    process: BaseProcess
    line: Connection

    def hear(self) -> Any:
        """What it says next; an error when it says nothing for a minute, or is gone."""
        if not self.line.poll(60):
            raise TimeoutError("the other process says nothing")
        return self.line.recv()

    def tell(self, what: object = "go on") -> None:
        self.line.send(what)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(60)

    def ends(self) -> int | None:
        """Its exit code."""
        self.process.join(60)
        return self.process.exitcode


@contextmanager
def child(function: Callable[..., None], *args: object) -> Iterator[Child]:
    """Run `function(*args, line)` in another process; it does not outlive the context."""
    # Forked from a server that has loaded the package once: 0.02 s a process instead of 2 s.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["taxi_assets.storage.duckdb", "taxi_assets_tests.trips"])
    ours, theirs = context.Pipe()
    process = context.Process(target=function, args=(*args, theirs))
    process.start()
    theirs.close()
    try:
        yield Child(process, ours)
    finally:
        process.kill()
        process.join(60)
        process.close()
        ours.close()
