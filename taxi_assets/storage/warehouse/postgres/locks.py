"""Locks on a Postgres server: which session may change a table now, and which session holds it.

Loads of the same month take turns with advisory locks. Readers hold table locks: a load tries for those in short
attempts, because new readers queue behind a waiting writer. No attempt blocks a reader for longer than its lock
timeout.
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
"""Errors of a statement that did not get its locks, and may get them in another attempt."""

_HOLDERS = """
    SELECT coalesce('pid ' || lock.pid, 'a prepared transaction'), coalesce(nullif(application_name, ''), 'unnamed'),
        usename, coalesce(state, 'state not shown'), round(extract(epoch FROM clock_timestamp() - xact_start))
    FROM pg_locks AS lock LEFT JOIN pg_stat_activity AS session ON session.pid = lock.pid
    WHERE lock.granted AND lock.pid IS DISTINCT FROM pg_backend_pid()
        AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_ADVISORY_HOLDERS = f"{_HOLDERS} AND locktype = 'advisory' AND ((classid::bigint << 32) | objid::bigint) = %s"
_TABLE_HOLDERS = f"{_HOLDERS} AND locktype = 'relation' AND relation = ANY(%s::oid[]) ORDER BY xact_start, lock.pid"


@dataclass(frozen=True)
class LockTimeouts:
    """How long a change of a table waits for its locks."""

    lock_timeout: float
    """Seconds that one attempt waits for a lock. Other sessions queue behind it meanwhile."""
    wait_seconds: float
    """Seconds after which no further attempt is made."""


def advisory_lock_key(*names: str) -> int:
    """Return the key of an advisory lock, derived from names such as schema, table and month.

    The key is a 64-bit hash, so other programs that use advisory locks in the same database do not collide with it.
    """
    digest = hashlib.sha256("\0".join(("taxi_assets", *names)).encode())
    return int.from_bytes(digest.digest()[:8], "big", signed=True)


@contextmanager
def advisory_lock(connection: Any, label: str, key: int) -> Iterator[None]:
    """Acquire a session-level advisory lock. Waiting sessions get it in the order in which they asked.

    The server releases the lock when the session ends, so a killed process leaves none behind.

    Args:
        connection: An open connection in autocommit mode.
        label: Names the locked thing in log lines and errors.
        key: See `advisory_lock_key`.

    Raises:
        WarehouseBusyError: Another session held the lock for longer than the `lock_timeout` of this session.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [key])
        if not cursor.fetchone()[0]:
            holders = _find_holders(cursor, _ADVISORY_HOLDERS, key)
            dg.get_dagster_logger().info("waiting for %s, which is locked by %s", label, holders)
            try:
                cursor.execute("SELECT pg_advisory_lock(%s)", [key])
            except LOCK_ERRORS as error:
                raise _busy_error(label, _find_holders(cursor, _ADVISORY_HOLDERS, key)) from error
        try:
            yield
        finally:
            if not connection.closed:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [key])


def set_lock_timeout(cursor: Any, timeouts: LockTimeouts) -> None:
    """Limit the wait for each lock to `timeouts.lock_timeout`, until the end of the current transaction."""
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{timeouts.lock_timeout * 1000:.0f}ms"])


def run_with_lock_retry(
    connection: Any,
    label: str,
    tables: Sequence[int],
    action: Callable[[Any], None],
    timeouts: LockTimeouts,
) -> None:
    """Run an action in one transaction; repeat the transaction until the action gets all its locks in time.

    Args:
        connection: An open connection in autocommit mode.
        label: Names the table in log lines and errors.
        tables: The oids of the tables that the action locks. Used to name the sessions that hold them.
        action: Takes a cursor. Called once per attempt, each time in a new transaction.
        timeouts: The limits of one attempt and of all attempts.

    Raises:
        WarehouseBusyError: No attempt got its locks within `timeouts.wait_seconds`. The error names the sessions that
            held them.
    """
    holders = ""

    def attempt() -> None:
        with connection, connection.cursor() as cursor:
            set_lock_timeout(cursor, timeouts)
            action(cursor)

    def note_holders(state: tenacity.RetryCallState) -> None:
        nonlocal holders
        with connection.cursor() as cursor:
            holders = _find_holders(cursor, _TABLE_HOLDERS, [*tables]) or holders
        if state.attempt_number == 1:
            dg.get_dagster_logger().info("waiting for %s, which is locked by %s", label, holders)

    def give_up(_state: tenacity.RetryCallState) -> Any:
        raise _busy_error(label, holders)

    tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(LOCK_ERRORS),
        wait=tenacity.wait_random(0.05, 0.5),
        stop=tenacity.stop_after_delay(timeouts.wait_seconds),
        after=note_holders,
        retry_error_callback=give_up,
    )(attempt)


def _find_holders(cursor: Any, query: str, key: object) -> str:
    cursor.execute(query, [key])
    return ", ".join(
        f"{pid} ({application} of {role}, {state}" + (")" if seconds is None else f", for {seconds} s)")
        for pid, application, role, state, seconds in dict.fromkeys(cursor.fetchall())
    )


def _busy_error(label: str, holders: str) -> WarehouseBusyError:
    return WarehouseBusyError(
        f"{label} is locked by {holders or 'another session'}, which did not release the lock in time.",
        remedy="End that session (SELECT pg_terminate_backend(pid)), or let it finish, and run the month again.",
    )
