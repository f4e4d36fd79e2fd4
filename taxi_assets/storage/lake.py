"""The lake: named objects that appear whole. `LocalLake` keeps them in a folder.

Belongs here: how an object is stored, found and replaced. What the objects mean is `shelves.py`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import dagster as dg
from pydantic import Field

from taxi_assets.errors import LakeObjectMissingError
from taxi_assets.storage.staging import private_folder

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

    def staging(self) -> AbstractContextManager[Path]:
        """A folder within the lake, so that publishing is a rename; what dead processes left is swept first."""
        return private_folder(Path(self.folder) / ".staging")

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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
