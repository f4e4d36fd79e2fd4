"""Connections to a DuckDB file: one at a time, each in its turn, short.

Belongs here: waiting for the file, and making one that is whole from the start. Does not belong here: what is in it.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import tenacity

from taxi_assets.errors import WarehouseBusyError, WarehouseUnusableError
from taxi_assets.storage.staging import private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

# Memory stays flat only with all three: loading 1.4 and 23 million rows then peaks at 290 and 316 MB.
_CONFIG = {"memory_limit": "96MB", "threads": "2", "preserve_insertion_order": "false"}

_LOCKED = "Could not set lock on file"
_UNWRITTEN = re.compile(r'Could not write file ".*?": (?P<why>.*)')
_HOLDER = re.compile(r"lock is held in (?P<holder>.*?PID \d+\)?)")

# One thread at a time within this process; between processes the file's own lock decides.
_TURN = threading.RLock()
_OPEN: dict[str, duckdb.DuckDBPyConnection] = {}
"""What the thread whose turn it is has open: opening a file again takes a twentieth of a second."""


@contextmanager
def connect(path: str, wait_seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the file, made where it is missing.

    Within another one to the same file it costs nothing. Raises `WarehouseBusyError` when it waited too long,
    `WarehouseUnusableError` where the file is no database, or its disk is full.
    """
    with _TURN:
        if path in _OPEN:
            with _OPEN[path].cursor() as cursor:
                yield cursor
            return
        file = Path(path)
        home = file.with_name(f".{file.name}.new")
        if not file.exists() or home.exists():  # the latter was left by a process that was killed
            _make(file, home)
        _OPEN[path] = _wait_for_turn(path, wait_seconds)
        try:
            yield _OPEN[path]
        except duckdb.Error as error:
            if not (unwritten := _UNWRITTEN.search(str(error))):
                raise
            raise WarehouseUnusableError(
                f"{path} cannot be written to ({unwritten['why']}). It is as it was.",
                remedy="Make room, then run the month again.",
            ) from error
        finally:
            _OPEN.pop(path).close()


def _wait_for_turn(path: str, wait_seconds: float) -> duckdb.DuckDBPyConnection:
    log = dg.get_dagster_logger()

    def tell(state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1:
            log.info("waiting for %s, which is held by %s", path, _holder(state))

    def give_up(state: tenacity.RetryCallState) -> Any:
        raise WarehouseBusyError(
            f"{path} was held by {_holder(state)} for {wait_seconds:g} seconds.",
            remedy="Close the session that has it open, or end that process, and run the month again.",
        )

    waiting = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: _LOCKED in str(error)),
        # A try costs as much as the shortest wait: those who hold it long are asked less often.
        wait=tenacity.wait_chain(*[tenacity.wait_random(0.01, 0.03)] * 30, tenacity.wait_random(0.05, 0.1)),
        stop=tenacity.stop_after_delay(wait_seconds),
        before_sleep=tell,
        retry_error_callback=give_up,
    )
    try:
        return waiting(duckdb.connect, path, config=dict(_CONFIG))
    except duckdb.Error as error:
        raise WarehouseUnusableError(
            f"{path} cannot be opened as a DuckDB database: {str(error).splitlines()[0]}",
            remedy="Move it away, or close what this process has open of it.",
        ) from error


def _make(file: Path, home: Path) -> None:
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


def _holder(state: tenacity.RetryCallState) -> str:
    match = _HOLDER.search(str(state.outcome.exception())) if state.outcome else None
    return match["holder"] if match else "another process"
