"""The stores that the contract batteries run against, a module each, and what a battery must know of them all.

Belongs here: what a battery needs besides the contract, such as how to break a store. Does not belong here: promises;
they stand in `test_any_lake.py` and `test_any_warehouse.py`, the same for all.
"""

from __future__ import annotations

import multiprocessing
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taxi_assets.errors import LakeConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    import pytest

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse


@dataclass(frozen=True)
class LakeBackend:
    """`open` makes a client of one and the same lake, and can be sent to other processes."""

    open: Callable[[], Lake]
    faults: Mapping[str, Callable[[pytest.MonkeyPatch], None]]
    """What can break in the middle of a publish."""
    publish_error: type[Exception] = LakeConfigurationError
    """What a publish raises then."""


@dataclass(frozen=True)
class WarehouseBackend:
    """`open` makes a client of one and the same warehouse, and can be sent to other processes; so can `open_lake`."""

    open: Callable[[], Warehouse]
    open_lake: Callable[[], Lake]
    """A lake that it loads from."""
    columns: Callable[[str], Mapping[str, str | None]]
    """The comments on a table's columns, by name, as the engine itself has them."""
    break_commit: Callable[[pytest.MonkeyPatch], None]
    """From now on, nothing that was written becomes visible."""
    break_mart: Callable[[pytest.MonkeyPatch], None]
    """The same, of what marts write."""
    types: tuple[str, str]
    """What the engine calls an integer and a text."""
    load_error: type[Exception] = OSError
    """What a load raises that cannot become visible."""


@dataclass(frozen=True)
class ChildProcess:
    """Another process, which runs a function of the tests, and a line to it."""

    process: BaseProcess
    pipe: Connection

    def receive(self) -> Any:
        """What it says next; an error when it says nothing for a minute, or is gone."""
        if not self.pipe.poll(60):
            raise TimeoutError("the other process says nothing")
        return self.pipe.recv()

    def send(self, label: object = "go on") -> None:
        self.pipe.send(label)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(60)

    def wait_for_exit(self) -> int | None:
        """Its exit code."""
        self.process.join(60)
        return self.process.exitcode


@contextmanager
def child_process(function: Callable[..., None], *args: object) -> Iterator[ChildProcess]:
    """Run `function(*args, line)` in another process; it does not outlive the context."""
    # Forked from a server that has loaded the package once: 0.02 s a process instead of several seconds.
    context = multiprocessing.get_context("forkserver")
    engines = [f"taxi_assets.storage.warehouse.{name}" for name in ("bigquery", "duckdb", "postgres")]
    context.set_forkserver_preload([*engines, "taxi_assets.marts.sql_rendering", "taxi_assets_tests.trips"])
    ours, theirs = context.Pipe()
    process = context.Process(target=function, args=(*args, theirs))
    process.start()
    theirs.close()
    try:
        yield ChildProcess(process, ours)
    finally:
        process.kill()
        process.join(60)
        process.close()
        ours.close()
