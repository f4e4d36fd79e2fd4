"""The stores on which the contract tests run, one module each.

Belongs here: what the contract tests need in addition to a store's interface, such as how to make a write fail.
Does not belong here: the contract, which is the same for all stores (`test_any_lake.py`, `test_any_warehouse.py`).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taxi_assets.errors import LakeConfigurationError
from taxi_assets_tests.child_processes import PROCESSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    import pytest

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse


@dataclass(frozen=True)
class LakeBackend:
    """A lake to test."""

    open: Callable[[], Lake]
    """Returns a new client of the same lake. Can be pickled."""
    put: Callable[[str], object]
    """Stores an empty object under a key, as another tool would."""
    faults: Mapping[str, Callable[[pytest.MonkeyPatch], None]]
    """Functions that make the next publish fail, by description."""
    publish_error: type[Exception] = LakeConfigurationError
    """The error that such a publish raises."""


@dataclass(frozen=True)
class WarehouseBackend:
    """A warehouse to test."""

    open: Callable[[], Warehouse]
    """Returns a new client of the same warehouse. Can be pickled."""
    open_lake: Callable[[], Lake]
    """Returns a new client of the lake from which it loads. Can be pickled."""
    columns: Callable[[str], Mapping[str, str | None]]
    """Returns the comments on a table's columns, by column, read without this package."""
    break_commit: Callable[[pytest.MonkeyPatch], None]
    """Makes every later load of trips or of a frame fail when it commits."""
    break_mart: Callable[[pytest.MonkeyPatch], None]
    """Makes every later replacement of a mart fail when it commits."""
    types: tuple[str, str]
    """The database's names for the types of integers and of texts."""
    load_error: type[Exception] = OSError
    """The error that such a load raises."""


@dataclass(frozen=True)
class ChildProcess:
    """Another process that runs a function of the tests, and a pipe to it."""

    process: BaseProcess
    pipe: Connection

    def receive(self) -> Any:
        """Return the next message of the process; raise an error after a minute, or if the process has ended."""
        if not self.pipe.poll(60):
            raise TimeoutError("the other process has sent nothing for a minute")
        return self.pipe.recv()

    def send(self, message: object = "continue") -> None:
        self.pipe.send(message)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(600)

    def wait_for_exit(self) -> int | None:
        """Wait for the end of the process, and return its exit code."""
        self.process.join(600)
        return self.process.exitcode


@contextmanager
def child_process(function: Callable[..., None], *args: object) -> Iterator[ChildProcess]:
    """Run `function(*args, pipe)` in another process, which is killed at the end of the context."""
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=function, args=(*args, theirs))
    process.start()
    theirs.close()
    try:
        yield ChildProcess(process, ours)
    finally:
        process.kill()
        process.join(600)
        process.close()
        ours.close()
