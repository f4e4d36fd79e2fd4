"""The lake in a folder of the local file system."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar

import tenacity
from pydantic import Field

from taxi_assets.errors import LakeBusyError, LakeConfigurationError
from taxi_assets.storage.lake.base_lake import Lake, conflict_error, missing_error, validate_key
from taxi_assets.storage.lake.staging import private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

# A full disk, or a quota, or a limit of the process, stops whatever writes; the others matter where the lake is meant.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GONE = errno.ENOENT
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


class LocalLake(Lake):
    """A lake in a folder of the local file system."""

    is_remote: ClassVar[bool] = False
    verifies_checksums: ClassVar[bool] = False

    folder: str = Field(description="The folder that holds the shelves raw, clean, quarantine and reference.")
    wait_seconds: float = Field(default=300, description="How long to wait while another process publishes.")

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder within the lake, so that publishing is a rename; what dead processes left is swept first."""
        with _writing(self.folder), self._private_folder() as folder:
            yield folder

    def publish(self, file: Path, key: str, *, replaces: str | None, run_id: str) -> None:  # noqa: ARG002  (files keep no note of the run)
        """One rename, after the bytes are on the disk."""
        target = self._path(key)
        with _writing(self.folder), _locked(target.parent, self.wait_seconds) as folder:
            if self.version(key) != replaces:
                if not self.has_digest(key, sha256=_sha256(file)):
                    raise conflict_error(self.uri(key))
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
            raise missing_error(self.uri(key)) from None
        if version not in {None, _version(os.fstat(file.fileno()))}:
            file.close()
            raise conflict_error(self.uri(key))
        return file

    @contextmanager
    def as_local_file(self, key: str, version: str | None = None) -> Iterator[Path]:
        """The file under a name of its own, so that it stays what it is while the object is replaced."""
        with ExitStack() as stack:
            with _writing(self.folder):  # not what is done with the file, which may write elsewhere
                name = stack.enter_context(self._private_folder()) / key.rpartition("/")[2]
                try:
                    os.link(self._path(key), name)
                except FileNotFoundError:
                    raise missing_error(self.uri(key)) from None
            if version not in {None, _version(name.stat())}:
                raise conflict_error(self.uri(key))
            yield name

    def size(self, key: str) -> int | None:
        """From the file system."""
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            return None

    def has_digest(self, key: str, *, sha256: str) -> bool:
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
        return Path(self.folder, validate_key(key))

    def _private_folder(self) -> AbstractContextManager[Path]:
        return private_folder(_staging(self.folder))


def _staging(folder: str) -> Path:
    return Path(folder, ".staging")


@contextmanager
def _writing(folder: str) -> Iterator[None]:
    """Say in our words that the folder cannot be written to."""
    try:
        yield
    except OSError as error:
        name = str(error.filename or "")
        meant = name.startswith(folder)
        private = Path(name).parent  # where it is there, a file that is not was never made: a defect, no loss
        if error.errno == _GONE and private.is_relative_to(_staging(folder)) and not private.exists():
            raise LakeConfigurationError(
                f"{private} is gone, which this run was working in.",
                remedy=f"Leave {_staging(folder)} alone while runs are at work, then run the month again.",
            ) from error
        if error.errno not in _FULL and not (meant and error.errno in _FORBIDDEN):
            raise
        raise LakeConfigurationError(
            f"{folder} cannot be written to ({os.strerror(error.errno)}).",
            remedy="Make room, then run the month again."
            if error.errno in _FULL
            else "Let this account write to it, or name another folder in TAXI_LAKE.",
        ) from error


def _version(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(folder: Path, wait_seconds: float) -> Iterator[int]:
    """Nobody else publishes into the folder meanwhile; its lock leaves no file behind, and dies with its process.

    Raises `LakeBusyError` after so many seconds: a process that is paused within would stop all others for ever.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)

    def give_up(_state: tenacity.RetryCallState) -> None:
        raise LakeBusyError(
            f"{folder} was held by {_holder(descriptor)}, which publishes there, for {wait_seconds:g} seconds.",
            remedy="Let it go on, or end it, and run the month again.",
        )

    waiting = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(BlockingIOError),
        wait=tenacity.wait_random(0.01, 0.1),
        stop=tenacity.stop_after_delay(wait_seconds),
        retry_error_callback=give_up,
    )
    try:
        waiting(fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Who has locked a folder, as Linux knows it."""
    found = os.fstat(descriptor)
    where = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == where:
                return f"the process {fields[4]}"
    return "another process"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
