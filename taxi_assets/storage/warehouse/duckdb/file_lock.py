"""The advisory lock that processes of this package take before they open a DuckDB file.

DuckDB's own lock cannot be waited for: a process that finds the file locked has to try again. This one is an exclusive
`flock` on a hidden file next to the database. The kernel wakes a waiting process as soon as the lock is released, and
releases the lock of a process that was killed. DuckDB's own lock still protects the data: a file system without `flock`
costs speed, not safety.
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

# Most waits are shorter, and each line of a run's log is a transaction in Dagster's event log.
LOG_AFTER_SECONDS = 1.0


class LockTimeoutError(Exception):
    """The lock was not released in time.

    Args:
        holder: The process that holds the database, as far as it is known.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class HeldLock:
    """The lock of a database file, held by this process.

    The file descriptor is None where the file system has no such locks.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor

    def set_holder(self, holder: str) -> None:
        """Store the name of the process that holds the database, for the messages of waiting processes."""
        if self._descriptor is not None:
            with suppress(OSError):  # such as a full disk
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, holder.encode(), 0)

    def release(self) -> None:
        """Remove the lock file, then wake the waiting processes."""
        if self._descriptor is None:
            return
        with suppress(OSError):
            self._path.unlink()
        _close(self._descriptor)
        self._descriptor = None


@contextmanager
def hold(database: str, wait_seconds: float, on_wait: Callable[[str], None]) -> Iterator[HeldLock]:
    """Hold the lock of a database file.

    Args:
        database: The database file. Its folder has to exist.
        wait_seconds: How long to wait for another process.
        on_wait: Called once with the name of the holder if the wait takes more than `LOG_AFTER_SECONDS`.

    Raises:
        LockTimeoutError: Another process held the lock for `wait_seconds`.
    """
    path = lock_path(database)
    lock = HeldLock(path, _acquire(path, wait_seconds, on_wait))
    try:
        lock.set_holder(f"{sys.executable} (PID {os.getpid()})")
        yield lock
    finally:
        lock.release()


def lock_path(database: str) -> Path:
    """Return the path of the lock file: hidden, next to the database file itself, not next to a link to it."""
    file = Path(os.path.realpath(database))
    return file.with_name(f".{file.name}.lock")


def _acquire(path: Path, wait_seconds: float, on_wait: Callable[[str], None]) -> int | None:
    if sys.platform == "win32":
        return None
    started = time.monotonic()
    try:
        descriptor = _lock(path, blocking=False)
    except OSError:  # the file system has no such locks, or the folder is read-only
        return None
    if descriptor is not None:
        return descriptor
    waiting = _Waiting(path)
    try:
        if not waiting.ended.wait(min(LOG_AFTER_SECONDS, wait_seconds)):
            on_wait(_holder(path))
            waiting.ended.wait(max(0.0, started + wait_seconds - time.monotonic()))
    except BaseException:  # a signal
        HeldLock(path, waiting.take()).release()
        raise
    descriptor = waiting.take()
    if descriptor is None and not waiting.failed:
        raise LockTimeoutError(_holder(path))
    return descriptor


class _Waiting:
    """A thread that waits for the lock: a call of `flock` takes no timeout."""

    def __init__(self, path: Path) -> None:
        self.ended = threading.Event()
        self.failed = False
        self._path = path
        self._mutex = threading.Lock()
        self._wanted = True
        self._descriptor: int | None = None
        threading.Thread(target=self._run, name=f"waiting for {path}", daemon=True).start()

    def take(self) -> int | None:
        """Return the lock's descriptor if the lock has been acquired. Otherwise the thread releases it later."""
        with self._mutex:
            self._wanted = False
            return self._descriptor

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the main thread handles them
        try:
            descriptor = _lock(self._path, blocking=True, is_wanted=lambda: self._wanted)
        except OSError:
            descriptor, self.failed = None, True
        with self._mutex:
            if self._wanted:
                self._descriptor = descriptor
            else:
                HeldLock(self._path, descriptor).release()
        self.ended.set()


def _lock(path: Path, *, blocking: bool, is_wanted: Callable[[], bool] = lambda: True) -> int | None:
    """Return the descriptor of the locked file; None if it is locked and the call does not block."""
    while is_wanted():
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # the file system has no such locks
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        except BaseException:
            os.close(descriptor)
            raise
        _close(descriptor)  # the last holder has removed this file: the next lock is a new file
    return None


def _close(descriptor: int) -> None:
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child process may have inherited the descriptor
    os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        return path.read_text() or UNKNOWN_HOLDER
    except (OSError, UnicodeDecodeError):
        return UNKNOWN_HOLDER
