"""The interface of a lake: a store of objects, each replaced as a whole and never overwritten by mistake.

Elsewhere in this package, TLC is what publishes files. The method `publish` writes a finished file to the lake.

Belongs here: the contract of every lake, and the errors that all lakes raise.
Does not belong here: an implementation (`local_lake.py`, `gcs_lake.py`), and the meaning of the objects (`objects.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, BinaryIO, ClassVar

import dagster as dg
from pydantic import Field

from taxi_assets.errors import LakeConflictError, LakeObjectMissingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path


class Lake(dg.ConfigurableResource, ABC):  # type: ignore[type-arg]  # Dagster's own pattern
    """A store of objects, each under a key such as `clean/green_trips/2020-10.parquet`.

    To add a lake, implement this class in a new module, and run `taxi_assets_tests/contract/test_any_lake.py` on it.

    - **Atomic.** An object is replaced as a whole: readers see either the old or the new bytes, even after a crash.
    - **No lost updates.** `publish` takes the version it expects to replace and fails if the current one differs
      (compare-and-swap).
    - **Keys.** Their parts are separated by `/`. Every method raises `ValueError` for a key with an empty part, `.` or
      `..`, so that a key cannot escape the lake (path traversal) and is canonical.
    - **Concurrency.** Several threads and processes use the same lake at once.
    - **Errors.** A method raises `LakeConfigurationError` if the lake is missing, full or not accessible, and
      `LakeUnreachableError` if its service does not answer. Other errors of a local file system stay `OSError`s.
    """

    verifies_checksums: ClassVar[bool]
    """Whether the lake itself keeps checksums, so that stored bytes need not be verified again by reading them."""
    is_remote: ClassVar[bool]
    """Whether `as_local_file` downloads the object."""

    kinds: ClassVar[frozenset[str]] = frozenset()
    """Kinds that Dagster's UI shows for assets in this lake, such as "gcs"; none for local files."""

    keep_revisions: int | None = Field(
        default=None,
        ge=0,
        description="How many older revisions of a month's published file are kept; by default, all of them.",
    )

    @abstractmethod
    def staging(self) -> AbstractContextManager[Path]:
        """Create a private local folder for unfinished files.

        The folder is deleted when the context ends. If the process is killed, a later call of any process deletes it.
        Folders of running processes are never touched.
        """

    @abstractmethod
    def publish(self, file: Path, key: str, *, replaces: str | None, run_id: str) -> None:
        """Write a finished file to the lake as the object of a key, atomically and durably.

        If the object already has these bytes, the call succeeds, whatever the version. A repeated call is harmless.

        Args:
            file: A file in a folder from `staging`. It no longer exists after a successful call.
            key: The key of the object.
            replaces: The version of the object when the run began to prepare the file; None if there was no object.
            run_id: The Dagster run that writes the object. A lake with object metadata stores it there.

        Raises:
            LakeConflictError: The object differs from `replaces` in version, and from `file` in bytes. It is not
                changed.
            LakeBusyError: Another process kept writing to the lake for too long.
        """

    @abstractmethod
    def copy_object(self, key: str, target: str, *, version: str, run_id: str) -> None:
        """Copy a version of an object to another key, atomically and durably. No byte passes through this process.

        An object that has the other key is replaced.

        Args:
            key: The key of the object.
            target: The key of the copy.
            version: The version to copy.
            run_id: The Dagster run that writes the copy, as for `publish`.

        Raises:
            LakeObjectMissingError: There is no such object.
            LakeConflictError: The version is no longer available. Nothing is written.
        """

    @abstractmethod
    def version(self, key: str) -> str | None:
        """Return an opaque version of the object, which changes with every replacement; None if there is no object."""

    @abstractmethod
    def sizes_in(self, folder: str) -> Mapping[str, int]:
        """Return the length in bytes of each object directly in a folder, by key, sorted; none if there is no folder.

        Files that are not objects are left out: hidden ones, and those in `staging`.

        Args:
            folder: The part of the keys before the last slash, such as `clean/green_trips`.
        """

    @abstractmethod
    def snapshot(self, keys: Iterable[str]) -> str:
        """Keep the current versions of objects under names that other tools can read, and return their common URI.

        Each object has its key as path below the URI. Objects that do not exist are left out.

        Args:
            keys: The keys of the objects.

        Returns:
            The URI of a folder whose files are not replaced for at least a day, or the lake's own URI if its clients
            notice that an object is replaced while they read it.
        """

    @abstractmethod
    def open(self, key: str, version: str | None = None) -> BinaryIO:
        """Open the object for reading and seeking.

        The file keeps the bytes of the version that was opened, even if the object is replaced meanwhile.

        Args:
            key: The key of the object.
            version: The version to read; by default the current one.

        Raises:
            LakeObjectMissingError: There is no such object.
            LakeConflictError: The version is no longer available; a lake that stores no old versions may also raise it
                when the caller reads on in a large file after a replacement.
            LakeObjectDamagedError: The bytes do not match the lake's checksum.
        """

    @abstractmethod
    def as_local_file(self, key: str, version: str | None = None) -> AbstractContextManager[Path]:
        """Provide the object as a local file, which keeps its bytes even if the object is replaced meanwhile.

        The file must not be changed: it may share its bytes with the object. Its name is the last part of the key.

        Args:
            key: The key of the object.
            version: The version to read; by default the current one.

        Raises:
            LakeObjectMissingError: There is no such object.
            LakeConflictError: The version is no longer available.
            LakeObjectDamagedError: The bytes do not match the lake's checksum.
        """

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Return the length of the object in bytes; None if there is no object."""

    @abstractmethod
    def has_digest(self, key: str, *, sha256: str) -> bool:
        """Return whether the object exists and its bytes have this SHA-256 digest, given in hexadecimal."""

    @abstractmethod
    def digest(self, key: str, version: str) -> str:
        """Return the SHA-256 digest of a version of the object, in hexadecimal.

        Raises:
            LakeObjectMissingError: There is no such object.
            LakeConflictError: The version is no longer available.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete the object, whatever its version. Do nothing if there is no object."""

    @abstractmethod
    def uri(self, key: str) -> str:
        """Return the full URI or path of the object, for messages and metadata. The object need not exist."""


def validate_key(key: str) -> str:
    """Return the key if it is valid.

    Raises:
        ValueError: The key could escape the lake, or is not canonical.
    """
    if any(part in {"", ".", ".."} for part in key.split("/")):
        raise ValueError(f"{key!r} is not a valid key of a lake object: a part is empty, '.' or '..'.")
    return key


def missing_error(uri: str) -> LakeObjectMissingError:
    """Build the error for an object that does not exist."""
    return LakeObjectMissingError(
        f"{uri} does not exist.", remedy="Materialize the upstream asset for this month first."
    )


def conflict_error(uri: str) -> LakeConflictError:
    """Build the error for an object that another run has replaced."""
    return LakeConflictError(
        f"{uri} was replaced by another run after this run read its version. This run did not change it.",
        remedy="Materialize the month again, unless you want to keep the data of the other run.",
    )
