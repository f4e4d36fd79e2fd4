"""Who may change a table now, and whom to name when it is somebody else.

Belongs here: advisory locks, by which our own loads take turns; and short tries for the locks that readers hold.
A reader is never held up for longer than one try: a waiting writer has all new readers queue behind it.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
import tenacity
from psycopg2 import errors

from taxi_assets.errors import WarehouseBusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LOCK_ERRORS = (errors.LockNotAvailable, errors.DeadlockDetected)

_SESSION = """
    SELECT coalesce('pid ' || lock.pid, 'a prepared transaction'), coalesce(nullif(application_name, ''), 'unnamed'),
        usename, coalesce(state, 'state not shown'), round(extract(epoch FROM clock_timestamp() - xact_start))
    FROM pg_locks AS lock LEFT JOIN pg_stat_activity AS session ON session.pid = lock.pid
    WHERE lock.granted AND lock.pid IS DISTINCT FROM pg_backend_pid()
        AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_ADVISORY = f"{_SESSION} AND locktype = 'advisory' AND ((classid::bigint << 32) | objid::bigint) = %s"
_RELATIONS = f"{_SESSION} AND locktype = 'relation' AND relation = ANY(%s::oid[]) ORDER BY xact_start, lock.pid"


@dataclass(frozen=True)
class LockTimeouts:
    """Seconds that one try may hold up readers, and seconds to go on trying."""

    lock_timeout: float
    wait_seconds: float


def key_of(*names: str) -> int:
    """The number of an advisory lock; other programs that use such locks in this database will not hit on it."""
    digest = hashlib.sha256("\0".join(("taxi_assets", *names)).encode())
    return int.from_bytes(digest.digest()[:8], "big", signed=True)


@contextmanager
def advisory_lock(connection: Any, label: str, key: int) -> Iterator[None]:
    """Hold an advisory lock, in the order of asking; one that a process held that was killed is free.

    Raises `WarehouseBusyError` when it took longer than the session's lock timeout.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [key])
        if not cursor.fetchone()[0]:
            dg.get_dagster_logger().info("waiting for %s, which is held by %s", label, _holders(cursor, _ADVISORY, key))
            try:
                cursor.execute("SELECT pg_advisory_lock(%s)", [key])
            except LOCK_ERRORS as error:
                raise _busy_error(label, _holders(cursor, _ADVISORY, key)) from error
        try:
            yield
        finally:
            if not connection.closed:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [key])


def set_lock_timeout(cursor: Any, timeouts: LockTimeouts) -> None:
    """Until its end, this transaction waits for no lock longer than one try."""
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{timeouts.lock_timeout * 1000:.0f}ms"])


def run_with_lock_retry(
    connection: Any,
    label: str,
    tables: Sequence[int],
    action: Callable[[Any], None],
    timeouts: LockTimeouts,
) -> None:
    """Run an action on a cursor in one transaction, over and over until it gets its locks at once.

    `tables` are those whose locks it needs. Raises `WarehouseBusyError`, with the name of who held them.
    """
    holders = ""

    def attempt() -> None:
        with connection, connection.cursor() as cursor:
            set_lock_timeout(cursor, timeouts)
            action(cursor)

    def look(state: tenacity.RetryCallState) -> None:
        nonlocal holders
        with connection.cursor() as cursor:
            holders = _holders(cursor, _RELATIONS, [*tables]) or holders
        if state.attempt_number == 1:
            dg.get_dagster_logger().info("waiting for %s, which is held by %s", label, holders)

    def give_up(_state: tenacity.RetryCallState) -> Any:
        raise _busy_error(label, holders)

    tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(LOCK_ERRORS),
        wait=tenacity.wait_random(0.05, 0.5),
        stop=tenacity.stop_after_delay(timeouts.wait_seconds),
        after=look,
        retry_error_callback=give_up,
    )(attempt)


def _holders(cursor: Any, query: str, key: object) -> str:
    cursor.execute(query, [key])
    return ", ".join(
        f"{pid} ({application} of {role}, {state}" + (")" if seconds is None else f", for {seconds} s)")
        for pid, application, role, state, seconds in dict.fromkeys(cursor.fetchall())
    )


def _busy_error(label: str, holder: str) -> WarehouseBusyError:
    return WarehouseBusyError(
        f"{label} is held by {holder or 'another session'}, for longer than we wait.",
        remedy="End that session (SELECT pg_terminate_backend(pid)), or let it finish, and run the month again.",
    )
