"""Runs of the chain in processes of their own, and how to kill them at a chosen moment.

A run has moments: the points before and after something durable happens (an object is renamed into place or removed, a
transaction is committed). At one of them a child can kill itself, as by `kill -9`, or wait for other children. They are
told from around the calls that do it; what is called is the real thing.

    Child(deployment, "green", "2013-08", Plan(dies="after quarantine")).end()
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

import dagster as dg
import duckdb

from taxi_assets.storage.duckdb import DuckDBWarehouse
from taxi_assets.storage.local_lake import LocalLake
from taxi_assets_tests.chain import Deployment, checks, failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["taxi_assets_tests.faults.preload"])

_TIMEOUT = 100.0


@dataclass(frozen=True)
class Plan:
    """What is to happen to a run."""

    dies: str | None = None
    """The moment at which it kills itself."""
    dies_writing: int | None = None
    """It is killed when it writes beyond so many bytes of any file, with exactly these written."""
    meets: str | None = None
    """The moment at which it waits for the others at the `gate`, the first time that it comes there."""
    gate: Barrier | None = None
    stays: bool = False
    """It waits there a second time: to be overtaken."""
    instance: Path | None = None
    """An existing folder for Dagster's history; None: an instance of its own, in memory."""


@dataclass(frozen=True)
class Outcome:
    """How a child ended; all but its exit code only where it lived to tell."""

    exit_code: int
    succeeded: bool = False
    failures: list[str] = field(default_factory=list)
    checks: dict[str, bool] = field(default_factory=dict)
    moments: list[str] = field(default_factory=list)


def meeting(children: int) -> Barrier:
    """A gate that opens when so many children wait at it."""
    return _PROCESSES.Barrier(children, timeout=_TIMEOUT)


class Child:
    """A run that has been started."""

    def __init__(self, deployment: Deployment, service: str, month: str, plan: Plan = Plan()) -> None:
        self._hears, tells = _PROCESSES.Pipe(duplex=False)
        self._process = _PROCESSES.Process(target=_live, args=(deployment, service, month, plan, tells))
        self._process.start()
        tells.close()

    def end(self, *, kill_after: float | None = None) -> Outcome:
        """Wait until it ends; or kill it after so many seconds."""
        self._process.join(_TIMEOUT if kill_after is None else kill_after)
        self._process.kill()
        self._process.join()
        exit_code = self._process.exitcode
        self._process.close()
        with self._hears:
            try:
                outcome: Outcome = self._hears.recv()
            except EOFError:
                outcome = Outcome(-1 if exit_code is None else exit_code)
        return outcome


# --- in the child -----------------------------------------------------------------------------------------------------


def _live(deployment: Deployment, service: str, month: str, plan: Plan, tells: Connection) -> None:
    moments: list[str] = []

    def reached(moment: str) -> None:
        first = moment not in moments
        moments.append(moment)
        if moment == plan.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == plan.meets and first and plan.gate is not None:
            for _ in range(2 if plan.stays else 1):
                plan.gate.wait()

    if plan.dies_writing is not None:
        _die_writing(plan.dies_writing)
    instance = dg.DagsterInstance.local_temp(str(plan.instance)) if plan.instance else None
    try:
        with _telling(deployment.home, reached):
            result = deployment.run(service, month, instance=instance)
    finally:
        if plan.gate is not None and plan.meets not in moments:
            plan.gate.abort()  # the others would wait in vain
    tells.send(Outcome(0, result.success, failures(result), checks(result), moments))


def _die_writing(size: int) -> None:
    # The kernel writes up to the limit, then ends the process. Python ignores the signal unless told otherwise.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@contextmanager
def _telling(home: Path, reached: Callable[[str], None]) -> Iterator[None]:
    """Tell each moment, by name."""
    replace, link, unlink, connect = Path.replace, Path.hardlink_to, Path.unlink, duckdb.connect
    publish, load = LocalLake.publish, DuckDBWarehouse.replace_month

    @contextmanager
    def told(name: str | None) -> Iterator[None]:
        if name is not None:
            reached(f"before {name}")
        yield
        if name is not None:
            reached(f"after {name}")

    def told_replace(path: Path, target: Path) -> Path:
        with told(_name(Path(target), home)):
            return replace(path, target)

    def told_publish(lake: LocalLake, file: Path, key: str, **options: Any) -> None:
        reached(f"publishing {_name(Path(lake.folder, key), home)}")  # before anything is locked
        publish(lake, file, key, **options)

    def told_link(path: Path, target: Path) -> None:
        with told(_name(path, home)):
            link(path, target)

    def told_unlink(path: Path, missing_ok: bool = False) -> None:
        held = path.is_relative_to(home / "lake" / "raw") and path.exists()
        with told(f"removing {path.name.partition('.')[2]}" if held else None):
            unlink(path, missing_ok=missing_ok)

    def told_load(*args: Any, **options: Any) -> None:
        with told("loading"):
            load(*args, **options)

    def told_connect(*args: Any, **options: Any) -> Any:
        return _ToldConnection(connect(*args, **options), reached)

    with (
        mock.patch.object(Path, "replace", told_replace),
        mock.patch.object(Path, "hardlink_to", told_link),
        mock.patch.object(Path, "unlink", told_unlink),
        mock.patch.object(LocalLake, "publish", told_publish),
        mock.patch.object(DuckDBWarehouse, "replace_month", told_load),
        mock.patch.object(duckdb, "connect", told_connect),
    ):
        yield


def _name(target: Path, home: Path) -> str | None:
    """What comes to be when a file gets this name; None for what is not yet where it will be looked for."""
    shelf = target.parent.parent.name if target.is_relative_to(home / "lake") else ""
    if shelf == "raw":
        return "raw record" if target.name.endswith(".source.json") else "raw object"
    if target.parent == home:
        return f"making {target.name}"
    return shelf or None


class _ToldConnection:
    """A DuckDB connection that tells of its transactions: those that only make tables, and those that replace rows."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, reached: Callable[[str], None]) -> None:
        self._connection = connection
        self._reached = reached
        self._wrote = False

    def begin(self) -> Self:
        self._wrote = False
        self._connection.begin()
        return self

    def execute(self, statement: str, *parameters: Any) -> Any:
        result = self._connection.execute(statement, *parameters)
        verb, _, table = [*statement.split(), "", "", ""][:3]
        if verb in {"DELETE", "INSERT"}:
            self._wrote = True
            self._reached(f"after {verb} {'note' if 'loaded_months' in table else 'trips'}")
        return result

    def commit(self) -> Self:
        name = "warehouse month" if self._wrote else "warehouse table"
        self._reached(f"before {name}")
        self._connection.commit()
        self._reached(f"after {name}")
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
