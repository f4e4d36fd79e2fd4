"""The lake: named objects that appear whole. `LocalLake` keeps them in a folder.

Belongs here: how an object is stored, found and replaced. What the objects mean is `shelves.py`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import dagster as dg
from filelock import FileLock, Timeout
from pydantic import Field

from taxi_assets.errors import LakeObjectMissingError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Lake(dg.ConfigurableResource, ABC):  # type: ignore[type-arg]  # Dagster's own pattern
    """A place for objects, each under a key such as `clean/green_trips/2020-10.parquet`.

    An object is replaced whole: a reader, or a crash, sees the old one or the new one.
    """

    @abstractmethod
    def staging(self) -> AbstractContextManager[Path]:
        """A private local folder for files that are not finished; gone afterwards, also after a crash."""

    @abstractmethod
    def publish(self, file: Path, key: str) -> None:
        """Make a finished file from `staging` the object of this key. The file is used up."""

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """The object, readable and seekable; raises `LakeObjectMissingError`."""

    @abstractmethod
    def local(self, key: str) -> AbstractContextManager[Path]:
        """The object as a local file, for as long as the context lasts; raises `LakeObjectMissingError`."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Length in bytes; None where there is no such object."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""

    @abstractmethod
    def uri(self, key: str) -> str:
        """The object's address, for people and for metadata."""


class LocalLake(Lake):
    """A lake in a folder of the local file system."""

    folder: str = Field(description="The folder that holds the shelves raw, clean, quarantine and reference.")

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder within the lake, so that publishing is a rename; what dead processes left is swept first."""
        home = Path(self.folder) / ".staging"
        home.mkdir(parents=True, exist_ok=True)
        _sweep(home)
        folder, lock = _claim(home)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)

    def publish(self, file: Path, key: str) -> None:
        """One rename, after the bytes are on the disk."""
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        _sync(file)
        file.replace(target)
        _sync(target.parent)

    def open(self, key: str) -> BinaryIO:
        """The file, opened."""
        try:
            return self._path(key).open("rb")
        except FileNotFoundError:
            raise _missing(self.uri(key)) from None

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        """The file itself."""
        path = self._path(key)
        if not path.is_file():
            raise _missing(self.uri(key))
        yield path

    def size(self, key: str) -> int | None:
        """From the file system."""
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        """Unlink it."""
        self._path(key).unlink(missing_ok=True)

    def uri(self, key: str) -> str:
        """Its path."""
        return str(self._path(key))

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(part in {"", ".", ".."} for part in parts):
            raise ValueError(f"No object of a lake has the key {key!r}.")
        return Path(self.folder, *parts)


def _missing(uri: str) -> LakeObjectMissingError:
    return LakeObjectMissingError(f"There is no {uri}.", remedy="Materialize the asset upstream for this month first.")


def _claim(home: Path) -> tuple[Path, FileLock]:
    # The lock stands beside the folder and dies with its process: whoever can take it knows that the owner is gone.
    while True:
        folder = Path(tempfile.mkdtemp(dir=home))
        lock = FileLock(folder.with_suffix(".lock"))
        lock.acquire()
        if folder.is_dir():
            return folder, lock
        lock.release()  # swept away between its making and its locking


def _sweep(home: Path) -> None:
    for folder in {path.with_suffix("") for path in home.iterdir()}:
        lock = FileLock(folder.with_suffix(".lock"))
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)
        except (Timeout, OSError):
            continue  # somebody is at work there, or it is not ours to sweep


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
