"""The advisory locks that processes of this package acquire before they open a DuckDB file.

A process cannot wait for DuckDB's own lock: if the file is locked, it has to try again. These locks are `flock`s on two
hidden files next to the database:

- The lock of the database is exclusive. A writer holds it while it has the database open, a reader only until it has
  joined the other readers. The kernel wakes a waiting process as soon as the lock is released.
- The readers' lock is shared by all processes that have the database open for reading. A writer first acquires the lock
  of the database, so that no more readers join, and then waits for those that read. Readers that come and go cannot
  keep it waiting.

The kernel releases the locks of a killed process. DuckDB's own lock still protects the data: on a file system without
`flock`, processes wait longer, but no data is lost.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNKNOWN_HOLDER = "another process"

LOG_AFTER_SECONDS = 5.0
"""Shorter waits are not logged: each line of a run's log is a transaction in Dagster's event log."""

_POLL_SECONDS = 0.005
"""Pause between two attempts of a writer to exclude the readers. Only one process at a time does this."""


class LockTimeoutError(Exception):
    """The lock was not released in time.

    Args:
        holder: The process that has the database open, or `UNKNOWN_HOLDER`.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class HeldLock:
    """A lock that this process holds, alone or with other processes.

    Args:
        path: The lock file.
        descriptor: The descriptor of the locked file; None on a file system without such locks.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor

    def set_holder(self, holder: str) -> None:
        """Write the holder's description to the lock file, for the messages of waiting processes."""
        if self._descriptor is not None:
            line = f"{holder}\n".encode()
            with suppress(OSError):  # such as a full disk
                if os.pread(self._descriptor, len(line), 0) != line:  # a process may be reading it
                    os.pwrite(self._descriptor, line, 0)

    def release(self) -> None:
        """Release the lock, which wakes the next waiting process. The last holder first deletes the lock file."""
        if self._descriptor is None:
            return
        with suppress(OSError):  # another process shares the lock
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._descriptor).st_nlink:  # otherwise the path leads to another process's file
                self._path.unlink()
        _close(self._descriptor)
        self._descriptor = None


@contextmanager
def hold_lock(
    database: str, wait_seconds: float, on_wait: Callable[[str], None], *, shared: bool = False
) -> Iterator[None]:
    """Acquire the lock of a database file.

    Args:
        database: The database file. Its folder has to exist.
        wait_seconds: How long to wait for other processes.
        on_wait: Called once, with the process that holds the lock, if the wait takes longer than `LOG_AFTER_SECONDS`.
        shared: Whether other processes may have a shared lock at the same time.

    Raises:
        LockTimeoutError: Another process held the lock for `wait_seconds`.
    """
    started, path = time.monotonic(), lock_path(database)
    lock, this_process = HeldLock(path, _acquire(path, wait_seconds, on_wait)), f"{sys.executable} (PID {os.getpid()})"
    try:
        lock.set_holder(this_process)
        if not shared:
            _wait_for_readers(readers_path(database), lock, started, wait_seconds, on_wait)
            lock.set_holder(this_process)
            yield
            return
        readers_lock = _join_readers(readers_path(database))
    finally:
        lock.release()
    try:
        readers_lock.set_holder(this_process)
        yield
    finally:
        readers_lock.release()


def readers_path(database: str) -> Path:
    """Return the path of the hidden file that all readers of the database lock."""
    return lock_path(database).with_suffix(".readers")


def lock_path(database: str) -> Path:
    """Return the path of the hidden lock file, in the database's folder after resolving symbolic links."""
    file = Path(os.path.realpath(database))
    return file.with_name(f".{file.name}.lock")


def read_holder(path: Path) -> str:
    """Return the process that a lock file names, or `UNKNOWN_HOLDER`."""
    try:
        return path.read_text().partition("\n")[0] or UNKNOWN_HOLDER
    except (OSError, UnicodeDecodeError):
        return UNKNOWN_HOLDER


def _join_readers(path: Path) -> HeldLock:
    if sys.platform == "win32":
        return HeldLock(path, None)
    try:
        return HeldLock(path, _lock(path, fcntl.LOCK_SH))
    except OSError:  # no locks on this file system, or a read-only folder
        return HeldLock(path, None)


def _wait_for_readers(
    path: Path, lock: HeldLock, started: float, wait_seconds: float, on_wait: Callable[[str], None]
) -> None:
    """Wait until no other process reads the database. None begins to, because this process holds `lock`.

    `flock` could wait, but a process that gave up would then still block new readers.
    """
    if sys.platform == "win32":
        return
    logged = False
    while True:
        try:
            descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        if descriptor is not None:
            HeldLock(path, descriptor).release()
            return
        holder, waited = read_holder(path), time.monotonic() - started
        lock.set_holder(holder)
        if waited >= wait_seconds:
            raise LockTimeoutError(holder)
        if waited >= LOG_AFTER_SECONDS and not logged:
            on_wait(holder)
            logged = True
        time.sleep(min(_POLL_SECONDS, wait_seconds - waited))


def _acquire(path: Path, wait_seconds: float, on_wait: Callable[[str], None]) -> int | None:
    if sys.platform == "win32":
        return None
    started = time.monotonic()
    try:
        descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # no locks on this file system, or a read-only folder
        return None
    if descriptor is not None:
        return descriptor
    wait = _BackgroundWait(path)
    try:
        if not wait.ended.wait(min(LOG_AFTER_SECONDS, wait_seconds)):
            on_wait(read_holder(path))
            wait.ended.wait(max(0.0, started + wait_seconds - time.monotonic()))
    except BaseException:  # such as KeyboardInterrupt, raised by a signal handler
        HeldLock(path, wait.claim_or_abandon()).release()
        raise
    descriptor = wait.claim_or_abandon()
    if descriptor is None and not wait.failed:
        raise LockTimeoutError(read_holder(path))
    return descriptor


class _BackgroundWait:
    """A thread that waits for the lock, because `flock` has no timeout."""

    def __init__(self, path: Path) -> None:
        self.ended = threading.Event()
        self.failed = False
        self._path = path
        self._mutex = threading.Lock()
        self._wanted = True
        self._descriptor: int | None = None
        threading.Thread(target=self._run, name=f"waiting for {path}", daemon=True).start()

    def claim_or_abandon(self) -> int | None:
        """Return the acquired lock's descriptor.

        If there is none yet, return None and make the thread discard it later.
        """
        with self._mutex:
            self._wanted = False
            return self._descriptor

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the main thread handles signals
        try:
            descriptor = _lock(self._path, fcntl.LOCK_EX, is_wanted=lambda: self._wanted)
        except OSError:
            descriptor, self.failed = None, True
        with self._mutex:
            if self._wanted:
                self._descriptor = descriptor
            else:
                HeldLock(self._path, descriptor).release()
        self.ended.set()


def _lock(path: Path, operation: int, *, is_wanted: Callable[[], bool] = lambda: True) -> int | None:
    """Return the descriptor of the locked file; None if `operation` does not wait and another process has the lock."""
    while is_wanted():
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, operation)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # no locks on this file system
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        except BaseException:
            os.close(descriptor)
            raise
        _close(descriptor)  # the last holder has deleted this file, so the lock is on a new file
    return None


def _close(descriptor: int) -> None:
    with suppress(OSError):
        fcntl.flock(
            descriptor, fcntl.LOCK_UN
        )  # closing is not enough: a child process may have inherited the descriptor
    os.close(descriptor)
