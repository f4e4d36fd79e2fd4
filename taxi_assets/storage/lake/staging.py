"""Folders for files that are not finished: private, gone afterwards, and swept when their process has died."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIES = 100


@contextmanager
def private_folder(home: Path) -> Iterator[Path]:
    """A new folder in `home`, on the same file system as what it is for; what dead processes left is swept first."""
    with suppress(FileNotFoundError):
        _sweep(home)
    folder, lock = _claim(home)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _claim(home: Path) -> tuple[Path, FileLock]:
    # The lock stands beside the folder and dies with its process: whoever can take it knows that the owner is gone.
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):  # somebody has just tidied an empty home away
            home.mkdir(parents=True, exist_ok=True)
            folder = home / uuid.uuid4().hex
            lock = FileLock(folder.with_suffix(".lock"))
            lock.acquire()
            folder.mkdir()  # the lock first: a folder without one would be swept
            return folder, lock
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(home))  # it cannot be made, either


def _sweep(home: Path) -> None:
    for folder in {path.with_suffix("") for path in home.iterdir()}:
        lock = FileLock(folder.with_suffix(".lock"))
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)
        except (Timeout, OSError):
            continue  # somebody is at work there, or it is not ours to sweep
