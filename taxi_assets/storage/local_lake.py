"""The lake in a folder of the local file system."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from pydantic import Field

from taxi_assets.storage.lake import Lake, checked, missing, replaced
from taxi_assets.storage.staging import private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator


class LocalLake(Lake):
    """A lake in a folder of the local file system."""

    checks_bytes: ClassVar[bool] = False

    folder: str = Field(description="The folder that holds the shelves raw, clean, quarantine and reference.")

    def staging(self) -> AbstractContextManager[Path]:
        """A folder within the lake, so that publishing is a rename; what dead processes left is swept first."""
        return private_folder(Path(self.folder) / ".staging")

    def publish(self, file: Path, key: str, *, replaces: str | None, run_id: str) -> None:  # noqa: ARG002  (files keep no note of the run)
        """One rename, after the bytes are on the disk."""
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent) as folder:
            if self.version(key) != replaces:
                if not self.holds(key, sha256=_sha256(file)):
                    raise replaced(self.uri(key))
                file.unlink()
                return
            _sync(file)
            file.replace(target)
            os.fsync(folder)

    def version(self, key: str) -> str | None:
        """Inode, time and length: each publish makes a file of its own."""
        try:
            return _version(self._path(key).stat())
        except FileNotFoundError:
            return None

    def open(self, key: str, version: str | None = None) -> BinaryIO:
        """The file, opened: what it holds stays readable when the object is replaced."""
        try:
            file = self._path(key).open("rb")
        except FileNotFoundError:
            raise missing(self.uri(key)) from None
        if version not in {None, _version(os.fstat(file.fileno()))}:
            file.close()
            raise replaced(self.uri(key))
        return file

    @contextmanager
    def local(self, key: str, version: str | None = None) -> Iterator[Path]:
        """The file under a name of its own, so that it stays what it is while the object is replaced."""
        with self.staging() as folder:
            name = folder / key.rpartition("/")[2]
            try:
                os.link(self._path(key), name)
            except FileNotFoundError:
                raise missing(self.uri(key)) from None
            if version not in {None, _version(name.stat())}:
                raise replaced(self.uri(key))
            yield name

    def size(self, key: str) -> int | None:
        """From the file system."""
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            return None

    def holds(self, key: str, *, sha256: str) -> bool:
        """By reading it: disks forget."""
        path = self._path(key)
        return path.is_file() and _sha256(path) == sha256

    def delete(self, key: str) -> None:
        """Unlink it."""
        self._path(key).unlink(missing_ok=True)

    def uri(self, key: str) -> str:
        """Its path."""
        return str(self._path(key))

    def _path(self, key: str) -> Path:
        return Path(self.folder, checked(key))


def _version(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Nobody else publishes into the folder meanwhile; its lock leaves no file behind, and dies with its process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
