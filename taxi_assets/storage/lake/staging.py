"""Private folders for unfinished files, deleted after use; those of dead processes are deleted by the next process."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from taxi_assets.errors import LakeConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

_ATTEMPTS = 100


def temporary_folder() -> AbstractContextManager[Path]:
    """Create a private folder in this machine's temporary folder; delete it when the context ends.

    Raises:
        LakeConfigurationError: Another account owns the place where the folders are created.
    """
    home = Path(tempfile.gettempdir(), f"taxi-assets-{os.getuid()}")
    home.mkdir(mode=0o700, exist_ok=True)
    # Another account could have created the folder, or a link, to read or replace unfinished files.
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise LakeConfigurationError(
            f"The staging folder {home} is not a folder owned by this account.",
            remedy="Remove it, or set TMPDIR to another folder.",
        )
    home.chmod(0o700)
    return private_folder(home)


@contextmanager
def private_folder(home: Path) -> Iterator[Path]:
    """Create an empty folder in `home`; first delete the folders that dead processes left there.

    Args:
        home: The parent folder, created if it is missing. Only this function may write to it.
    """
    with suppress(FileNotFoundError):
        _delete_abandoned_folders(home)
    folder, lock = _claim(home)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Flush a file or a folder to disk, so that it survives a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _claim(home: Path) -> tuple[Path, FileLock]:
    # The lock file is next to the folder. The kernel releases a lock when its process ends, so a process that gets the
    # lock knows that the owner is dead.
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):  # another process has just deleted the empty `home`
            home.mkdir(parents=True, exist_ok=True)
            folder = home / uuid.uuid4().hex
            lock = FileLock(folder.with_suffix(".lock"))
            lock.acquire()
            folder.mkdir()  # after the lock: another process would delete an unlocked folder
            return folder, lock
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(home))


def _delete_abandoned_folders(home: Path) -> None:
    for folder in {path.with_suffix("") for path in home.iterdir()}:
        lock = FileLock(folder.with_suffix(".lock"))
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)
        except (Timeout, OSError):
            continue  # its process is alive, or belongs to another account
