"""Connections to a DuckDB file: one at a time, each in its turn, short.

Belongs here: waiting for the file, and making one that is whole from the start. Does not belong here: what is in it.

Creating a DuckDB instance takes 40 ms, opening a file in it 4 ms. So a process keeps one instance without a file, and
attaches the file to it for each connection. Between two connections the file is closed and unlocked.
"""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
import duckdb
import tenacity

from taxi_assets.errors import WarehouseBusyError, WarehouseConfigurationError
from taxi_assets.storage.lake.staging import private_folder
from taxi_assets.storage.warehouse.duckdb.file_lock import UNKNOWN_HOLDER, LockTimeoutError, hold
from taxi_assets.storage.warehouse.duckdb.tables import literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.storage.warehouse.duckdb.file_lock import HeldLock

# Memory stays flat only with all three: loading 1.4 and 23 million rows then peaks at 290 and 316 MB.
_CONFIG: dict[str, Any] = {"memory_limit": "96MB", "threads": "2", "preserve_insertion_order": "false"}

_DATABASE = quote("warehouse")
"""What the file is called in a connection, whatever its own name: `memory` and `temp` are DuckDB's."""

_LOCKED = "Could not set lock on file"
_UNWRITTEN = re.compile(r'Could not write file ".*?": (?P<why>.*)')
_HOLDER = re.compile(r"lock is held in (?P<holder>.*?PID \d+\)?)")

# One thread at a time within this process; between processes `file_lock` and the file's own lock decide.
_TURN = threading.RLock()
_OPEN: dict[str, duckdb.DuckDBPyConnection] = {}
"""What the thread whose turn it is has open: opening a file again takes time."""

_KEEP_SECONDS = 0.5
"""An instance that has worked for longer is closed, which returns up to 50 MB to the system."""


class _Idle(NamedTuple):
    """A DuckDB instance without a file, kept for the next connection to `path`."""

    path: str
    process: int
    instance: duckdb.DuckDBPyConnection


_idle: list[_Idle] = []
"""One at most."""
_inherited: list[_Idle] = []
"""Instances of a parent process, whose threads this process does not have: they can neither be used nor closed."""


@contextmanager
def connect(path: str, wait_seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the file, made where it is missing.

    Within another one to the same file it costs nothing. Raises `WarehouseBusyError` when it waited too long,
    `WarehouseConfigurationError` where the file is no database, or its disk is full.
    """
    with _TURN:
        if path in _OPEN:
            with _OPEN[path].cursor() as cursor:
                cursor.execute(f"USE {_DATABASE}")
                yield cursor
            return
        file = Path(path)
        home = file.with_name(f".{file.name}.new")
        if not file.exists() or home.exists():  # the latter was left by a process that was killed
            _create_database(file, home)
        with _open(path, wait_seconds) as connection:
            _OPEN[path] = connection
            try:
                yield connection
            except duckdb.Error as error:
                if not (unwritten := _UNWRITTEN.search(str(error))):
                    raise
                raise WarehouseConfigurationError(
                    f"{path} cannot be written to ({unwritten['why']}). It is as it was.",
                    remedy="Make room, then run the month again.",
                ) from error
            finally:
                del _OPEN[path]


def close_idle() -> None:
    """Close the instance that is kept for the next connection."""
    with _TURN:
        while _idle:
            kept = _idle.pop()
            if kept.process == os.getpid():
                kept.instance.close()
            else:
                _inherited.append(kept)


@contextmanager
def _open(path: str, wait_seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """Attach the file to an instance, and detach it afterwards.

    The instance is kept for the next connection, unless something went wrong.
    """
    started = time.monotonic()
    try:
        with hold(path, wait_seconds, lambda holder: _log_wait(path, holder)) as lock:
            instance, keep = _instance(path), False
            try:
                _attach(instance, path, lock, wait_seconds=wait_seconds, started=started)
                attached = time.monotonic()
                yield instance
                keep = _detach(instance) and _is_small(path, time.monotonic() - attached)
            finally:
                if keep:
                    _idle.append(_Idle(path, os.getpid(), instance))
                else:
                    instance.close()
    except LockTimeoutError as error:
        raise _busy_error(path, error.holder, wait_seconds) from None


def _instance(path: str) -> duckdb.DuckDBPyConnection:
    if _idle and (_idle[0].path, _idle[0].process) == (path, os.getpid()):
        return _idle.pop().instance
    close_idle()
    return duckdb.connect(config=_CONFIG | {"temp_directory": _temporary_folder(path)})


def _attach(
    instance: duckdb.DuckDBPyConnection, path: str, lock: HeldLock, *, wait_seconds: float, started: float
) -> None:
    """Open the file; wait for a process that holds it without the lock, such as a notebook, by trying again."""

    def note_holder(state: tenacity.RetryCallState) -> None:
        holder = _holder(state)
        lock.set_holder(holder)
        if state.attempt_number == 1:
            _log_wait(path, holder)

    def give_up(state: tenacity.RetryCallState) -> Any:
        raise _busy_error(path, _holder(state), wait_seconds)

    waiting = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: _LOCKED in str(error)),
        wait=tenacity.wait_chain(*[tenacity.wait_random(0.01, 0.03)] * 30, tenacity.wait_random(0.05, 0.1)),
        stop=tenacity.stop_after_delay(started + wait_seconds - time.monotonic()),
        before_sleep=note_holder,
        retry_error_callback=give_up,
    )
    try:
        waiting(instance.execute, f"ATTACH {literal(path)} AS {_DATABASE} (TYPE duckdb)")
        instance.execute(f"USE {_DATABASE}")
    except duckdb.Error as error:
        raise WarehouseConfigurationError(
            f"{path} cannot be opened as a DuckDB database: {str(error).splitlines()[0]}",
            remedy="Move it away, or close what this process has open of it.",
        ) from error


def _detach(instance: duckdb.DuckDBPyConnection) -> bool:
    """Close the file; return whether the instance is as new."""
    with suppress(duckdb.TransactionException):  # there is no transaction, unless the caller left it open
        instance.rollback()
    with suppress(duckdb.Error):
        instance.execute("USE memory")
        instance.execute(f"DETACH {_DATABASE}")
        return True
    return False


def _is_small(path: str, seconds: float) -> bool:
    """Whether an instance that has worked so long holds little memory and no temporary files."""
    return seconds < _KEEP_SECONDS and not Path(_temporary_folder(path)).exists()


def _temporary_folder(path: str) -> str:
    return f"{path}.tmp"


def _create_database(file: Path, home: Path) -> None:
    """An empty database, whole from the start: one whose making was cut short would be refused ever after."""
    with private_folder(home) as folder:
        if not file.exists():
            new = folder / "new.duckdb"
            duckdb.connect(new).close()
            # Another process may have been faster; where there are no links, DuckDB makes the file in place.
            with suppress(OSError):
                file.hardlink_to(new)
    with suppress(OSError):  # another process is making one too
        home.rmdir()


def _log_wait(path: str, holder: str) -> None:
    dg.get_dagster_logger().info("waiting for %s, which is held by %s", path, holder)


def _busy_error(path: str, holder: str, wait_seconds: float) -> WarehouseBusyError:
    return WarehouseBusyError(
        f"{path} was held by {holder} for {wait_seconds:g} seconds.",
        remedy="Close the session that has it open, or end that process, and run the month again.",
    )


def _holder(state: tenacity.RetryCallState) -> str:
    match = _HOLDER.search(str(state.outcome.exception())) if state.outcome else None
    return match["holder"] if match else UNKNOWN_HOLDER
