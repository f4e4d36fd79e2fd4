"""The lake: named objects that appear whole, and are not overwritten unseen.

Belongs here: what every lake must be able to do. Where the objects are is a file of its own, such as `local_lake.py`.
What they mean is `objects.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, BinaryIO, ClassVar

import dagster as dg

from taxi_assets.errors import LakeConflictError, LakeObjectMissingError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path


class Lake(dg.ConfigurableResource, ABC):  # type: ignore[type-arg]  # Dagster's own pattern
    """A place for objects, each under a key such as `clean/green_trips/2020-10.parquet`.

    An object is replaced whole: a reader, or a crash, sees the old one or the new one. Its version changes whenever
    it is replaced.
    """

    verifies_checksums: ClassVar[bool]
    """Whether the lake itself sees to it that the bytes read are those that were written."""
    is_remote: ClassVar[bool]
    """Whether `local` downloads the object."""

    @abstractmethod
    def staging(self) -> AbstractContextManager[Path]:
        """A private local folder for files that are not finished; gone afterwards, also after a crash."""

    @abstractmethod
    def publish(self, file: Path, key: str, *, replaces: str | None, run_id: str) -> None:
        """Make a finished file from `staging` the object of this key. The file is used up.

        `replaces` is the version that was there when the run began to make the file, None for no object. Where it is
        another one by now, a newer run was here: raises `LakeConflictError`, unless that has the same bytes.
        """

    @abstractmethod
    def version(self, key: str) -> str | None:
        """What tells this object from all that stood under its key before; None where there is none."""

    @abstractmethod
    def open(self, key: str, version: str | None = None) -> BinaryIO:
        """The object, readable and seekable; in this version, where one is given.

        Raises `LakeObjectMissingError`, and `LakeConflictError` where the version is not to be had any more.
        """

    @abstractmethod
    def as_local_file(self, key: str, version: str | None = None) -> AbstractContextManager[Path]:
        """The object as a local file, for as long as the context lasts; raises as `open` does."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Length in bytes; None where there is no such object."""

    @abstractmethod
    def has_digest(self, key: str, *, sha256: str) -> bool:
        """Whether the object is there, with bytes of this digest."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""

    @abstractmethod
    def uri(self, key: str) -> str:
        """The object's address, for people and for metadata."""


def validate_key(key: str) -> str:
    """The key, which must not lead out of a lake nor be a second spelling of another; raises `ValueError`."""
    if any(part in {"", ".", ".."} for part in key.split("/")):
        raise ValueError(f"No object of a lake has the key {key!r}.")
    return key


def missing_error(uri: str) -> LakeObjectMissingError:
    """There is no such object."""
    return LakeObjectMissingError(f"There is no {uri}.", remedy="Materialize the asset upstream for this month first.")


def conflict_error(uri: str) -> LakeConflictError:
    """It was there, but is another one by now."""
    return LakeConflictError(
        f"{uri} was replaced by another run since this one looked at it; it was left alone.",
        remedy="Materialize the month once more, unless the other run was the one that counts.",
    )
