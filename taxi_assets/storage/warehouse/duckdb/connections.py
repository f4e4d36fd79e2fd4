"""Short connections to a DuckDB file: of one writer, or of several readers in different processes.

Belongs here: waiting for the file, and creating it. Does not belong here: its tables.

Creating a DuckDB instance takes 40 ms, opening a file in it 4 ms. Therefore a process keeps one instance without a
file, and attaches the file to it for each connection. Between two connections the file is closed and unlocked.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
import duckdb
import tenacity

from taxi_assets.errors import WarehouseBusyError, WarehouseConfigurationError, WarehouseTableMissingError
from taxi_assets.storage.duckdb_config import NO_EXTENSIONS
from taxi_assets.storage.lake.staging import private_folder
from taxi_assets.storage.warehouse.duckdb.file_lock import UNKNOWN_HOLDER, LockTimeoutError, hold_lock
from taxi_assets.storage.warehouse.duckdb.tables import literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

# All three settings are needed to keep memory independent of the month's size: 1.4 million rows peak at 290 MB, 23
# million at 316 MB.
_CONFIG: dict[str, Any] = {
    "memory_limit": "96MB", "threads": "2", "preserve_insertion_order": "false", **NO_EXTENSIONS,
}  # fmt: skip

_DATABASE = quote("warehouse")
"""The name of the attached file, whatever its path: DuckDB reserves names such as `memory` and `temp`."""

_RESERVED_NAMES = {"main", "system", "temp"}
"""DuckDB appends `_db` to the name of a file that is called like this."""

_SQLITE_MAGIC = b"SQLite format 3\0"
_LOCKED_MESSAGE = "Could not set lock on file"
_WRITE_FAILED_PATTERN = re.compile(r'Could not write file ".*?": (?P<reason>.*)')
_TRIPS_FILE_PATTERN = re.compile(r"\.trips/[^/]+/\d{4}-\d\d-[0-9a-f]{16}\.parquet")
_HOLDER_PATTERN = re.compile(r"lock is held in (?P<holder>.*?PID \d+\)?)")

# Admits one thread of this process at a time. `file_lock` and DuckDB's own lock admit one writer, or several readers.
_THREAD_LOCK = threading.RLock()


class _Open(NamedTuple):
    """A connection to a file."""

    connection: duckdb.DuckDBPyConnection
    read_only: bool


_open_connections: dict[str, _Open] = {}
"""Connections of the thread that holds `_THREAD_LOCK`, by path, for nested calls of `connect`."""

_MAX_KEEP_SECONDS = 0.5
"""An instance that was used for longer is closed, which frees up to 50 MB."""


class _Idle(NamedTuple):
    """A DuckDB instance without a file, kept for the next connection to `path`."""

    path: str
    pid: int
    instance: duckdb.DuckDBPyConnection
    temporary_folder: Path


_idle: list[_Idle] = []
"""Contains at most one instance."""
_inherited: list[_Idle] = []
"""Instances of a parent process. After a fork their threads are missing, so they can neither be used nor closed."""


@contextmanager
def connect(path: str, wait_seconds: float, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection to a database file.

    A nested call for the same file shares the connection, at no cost.

    Args:
        path: The database file. It is created if it is missing, except with `read_only`.
        wait_seconds: How long to wait for other processes.
        read_only: Whether other processes may read the file at the same time. The connection cannot write.

    Raises:
        WarehouseBusyError: Another process, or another thread of this process, had the file open for `wait_seconds`.
        WarehouseConfigurationError: The file is not a DuckDB database, or its disk is full. Or the call is within a
            read-only connection to the file, and is not read-only.
        WarehouseTableMissingError: A file of a view of trips is missing or damaged.
    """
    with _hold_thread_lock(path, wait_seconds):
        if path in _open_connections:
            opened = _open_connections[path]
            if opened.read_only and not read_only:
                raise WarehouseConfigurationError(
                    f"{path} cannot be written to: this process has opened it for reading.",
                    remedy="Open the session with warehouse.session(writes=True).",
                )
            with opened.connection.cursor() as cursor, _translate_file_errors(path):
                cursor.execute(f"USE {_DATABASE}")
                yield cursor
            return
        file = Path(path)
        staging_folder = file.with_name(f".{file.name}.new")
        # A killed process has left the folder: clean it up.
        if not read_only and (not file.exists() or staging_folder.exists()):
            _create_database(file, staging_folder)
        with _attached_instance(path, wait_seconds, read_only=read_only) as connection:
            _open_connections[path] = _Open(connection, read_only)
            try:
                with _translate_file_errors(path):
                    yield connection
            finally:
                del _open_connections[path]


@contextmanager
def connect_without_file(path: str, wait_seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """Use the instance of the next connection to a database file, without opening the file.

    Args:
        path: The database file.
        wait_seconds: How long to wait for other threads of this process.
    """
    with _hold_thread_lock(path, wait_seconds):
        idle = _reuse_or_create_instance(path)
        try:
            yield idle.instance
        except BaseException:
            idle.instance.close()
            raise
        _keep(idle)


@contextmanager
def _translate_file_errors(path: str) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        message = str(error).partition("\n")[0]
        if failed := _WRITE_FAILED_PATTERN.search(message):
            raise WarehouseConfigurationError(
                f"{path} cannot be written to ({failed['reason']}). Its contents are unchanged.",
                remedy="Free disk space or raise the quota, then run the month again.",
            ) from error
        if _TRIPS_FILE_PATTERN.search(message):
            raise WarehouseTableMissingError(
                f"A file of trips in {path} cannot be read: {message.rstrip('.')}.",
                remedy="Materialize the warehouse asset of the file's month again. If you have moved the database, "
                "move the folder of its files to the same place first.",
            ) from error
        raise


def database_name(path: str) -> str:
    """Return the name that DuckDB gives to the database of a file that a client opens or attaches without a name."""
    name = next((part for part in Path(path).name.split(".") if part), "")
    return f"{name}_db" if name.lower() in _RESERVED_NAMES else name


def _keep(idle: _Idle) -> None:
    close_idle()
    _idle.append(idle)


def close_idle() -> None:
    """Close the instance that this process keeps for the next connection."""
    with _THREAD_LOCK:
        while _idle:
            kept = _idle.pop()
            if kept.pid == os.getpid():
                kept.instance.close()
            else:
                _inherited.append(kept)


@contextmanager
def _hold_thread_lock(path: str, wait_seconds: float) -> Iterator[None]:
    # With a timeout, because the thread that holds the lock may wait for this one: pyarrow, polars and DuckDB read rows
    # in their own threads.
    if not _THREAD_LOCK.acquire(timeout=max(0.0, wait_seconds)):
        raise WarehouseBusyError(
            f"{path} was in use by another thread of this process for {wait_seconds:g} seconds.",
            remedy="Read the rows of lazy inputs before you open a session of the warehouse, or after you close it.",
        )
    try:
        yield
    finally:
        _THREAD_LOCK.release()


@contextmanager
def _attached_instance(path: str, wait_seconds: float, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """Acquire the file's lock and attach the file to an instance.

    The instance is kept for the next connection, unless an error occurred or `_is_worth_keeping` returns false.
    """
    with ExitStack() as lock:
        idle, keep = _reuse_or_create_instance(path), False
        try:
            if read_only:
                _recover(idle.instance, path)
            _attach(idle.instance, path, lock, wait_seconds, read_only=read_only)
            attached = time.monotonic()
            yield idle.instance
            keep = _detach(idle.instance) and _is_worth_keeping(idle, time.monotonic() - attached)
        finally:
            if keep:
                _keep(idle)
            else:
                idle.instance.close()


def _reuse_or_create_instance(path: str) -> _Idle:
    if _idle and (_idle[0].path, _idle[0].pid) == (path, os.getpid()):
        return _idle.pop()
    close_idle()
    # Instances of different processes would overwrite each other's temporary files.
    folder = _temporary_folder(path, uuid.uuid4().hex)
    return _Idle(path, os.getpid(), duckdb.connect(config=_CONFIG | {"temp_directory": str(folder)}), folder)


def _attach(
    instance: duckdb.DuckDBPyConnection, path: str, lock: ExitStack, wait_seconds: float, *, read_only: bool
) -> None:
    """Acquire the lock and open the file. Retry while a process without the lock, such as a notebook, has it open.

    Between two attempts, the lock is released: a reader need not wait for a writer that waits for another reader.
    """
    deadline, has_logged, other_program = time.monotonic() + wait_seconds, False, ""

    def log_wait(holder: str) -> None:
        nonlocal has_logged
        if not has_logged:
            dg.get_dagster_logger().info("waiting for %s, which %s has open", path, holder)
        has_logged = True

    def note_other_program(state: tenacity.RetryCallState) -> None:
        nonlocal other_program
        other_program = _holder_from_error(state)
        log_wait(other_program)

    def attempt() -> None:
        try:
            lock.enter_context(hold_lock(path, max(0.0, deadline - time.monotonic()), log_wait, shared=read_only))
        except LockTimeoutError as error:  # perhaps by a process that has just tried the same
            raise _busy_error(path, other_program or error.holder, wait_seconds) from None
        try:
            instance.execute(_attach_statement(path, read_only=read_only))
        except duckdb.Error:
            lock.close()
            raise

    def give_up(state: tenacity.RetryCallState) -> Any:
        raise _busy_error(path, _holder_from_error(state), wait_seconds)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: _LOCKED_MESSAGE in str(error)),
        wait=tenacity.wait_chain(*[tenacity.wait_random(0.01, 0.03)] * 30, tenacity.wait_random(0.05, 0.1)),
        stop=tenacity.stop_after_delay(wait_seconds),
        before_sleep=note_other_program,
        retry_error_callback=give_up,
    )
    try:
        retrying(attempt)
        instance.execute(f"USE {_DATABASE}")
        if not read_only:
            _delete_abandoned_folders(path)
    except duckdb.Error as error:
        raise _not_opened_error(path, error) from error


def _not_opened_error(path: str, error: duckdb.Error) -> WarehouseConfigurationError:
    if _is_sqlite(path):
        return WarehouseConfigurationError(
            f"{path} is an SQLite database, not DuckDB.",
            remedy="Set TAXI_WAREHOUSE to a DuckDB file; a file that does not exist is created.",
        )
    return WarehouseConfigurationError(
        f"{path} cannot be opened as a DuckDB database: {str(error).splitlines()[0]}",
        remedy="Move the file elsewhere, or close this process's other connections to it.",
    )


def _is_sqlite(path: str) -> bool:
    with suppress(OSError), Path(path).open("rb") as file:
        return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    return False


def _attach_statement(path: str, *, read_only: bool) -> str:
    return f"ATTACH {literal(path)} AS {_DATABASE} (TYPE duckdb, {'READ_ONLY' if read_only else 'READ_WRITE'})"


def _recover(instance: duckdb.DuckDBPyConnection, path: str) -> None:
    """Move the commits of a killed process from its write-ahead log into the file, if no other process has it open.

    A reader sees them in any case. But a user who copies the file without its log would lose them.
    """
    if Path(f"{path}.wal").exists():
        with suppress(LockTimeoutError, duckdb.Error), hold_lock(path, 0, lambda _: None):
            instance.execute(_attach_statement(path, read_only=False))
            instance.execute(f"DETACH {_DATABASE}")


def _detach(instance: duckdb.DuckDBPyConnection) -> bool:
    """Close the file; return whether that succeeded, so that the instance can be used again."""
    with suppress(duckdb.TransactionException):  # raised unless the caller has left a transaction open
        instance.rollback()
    with suppress(duckdb.Error):
        instance.execute("USE memory")
        instance.execute(f"DETACH {_DATABASE}")
        return True
    return False


def _is_worth_keeping(idle: _Idle, seconds: float) -> bool:
    """Return whether an instance that was used for `seconds` uses little memory and has no temporary files."""
    return seconds < _MAX_KEEP_SECONDS and not idle.temporary_folder.exists()


def _temporary_folder(path: str, suffix: str) -> Path:
    return Path(path).with_name(f".{Path(path).name}.tmp-{suffix}")


def _delete_abandoned_folders(path: str) -> None:
    """Delete the temporary files of killed processes. Only a writer may: no other process has the file open."""
    for folder in Path(path).parent.glob(glob.escape(_temporary_folder(path, "").name) + "*"):
        shutil.rmtree(folder, ignore_errors=True)


def _create_database(file: Path, staging_folder: Path) -> None:
    """Create an empty database atomically: DuckDB rejects a file whose creation was interrupted."""
    with private_folder(staging_folder) as folder:
        if not file.exists():
            new = folder / "new.duckdb"
            duckdb.connect(new, config={**NO_EXTENSIONS}).close()
            # Fails if another process created the file first, or if the file system has no hard links. In the latter
            # case, DuckDB creates the file in place.
            with suppress(OSError):
                file.hardlink_to(new)
    with suppress(OSError):  # another process uses the folder
        staging_folder.rmdir()


def _busy_error(path: str, holder: str, wait_seconds: float) -> WarehouseBusyError:
    return WarehouseBusyError(
        f"{path} was locked by {holder} for {wait_seconds:g} seconds.",
        remedy="Close the session that has it open, or end that process, and run the month again.",
    )


def _holder_from_error(state: tenacity.RetryCallState) -> str:
    match = _HOLDER_PATTERN.search(str(state.outcome.exception())) if state.outcome else None
    return match["holder"] if match else UNKNOWN_HOLDER
