"""A lake in a folder of the local file system: an object is a file, and is replaced by a rename."""

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
from taxi_assets.storage.lake import snapshots
from taxi_assets.storage.lake.base_lake import Lake, conflict_error, missing_error, validate_key
from taxi_assets.storage.lake.staging import flush_to_disk, private_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NO_SPACE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ACCESS_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


class LocalLake(Lake):
    """A lake in a folder of the local file system."""

    is_remote: ClassVar[bool] = False
    verifies_checksums: ClassVar[bool] = False

    folder: str = Field(
        description="The folder of the lake, with a subfolder for each layer: raw, clean, quarantine, reference."
    )
    wait_seconds: float = Field(
        default=300, description="How long to wait for another process that writes to the same folder, in seconds."
    )

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Create a private folder within the lake: on the same file system, so that `publish` can rename files."""
        with _translate_write_errors(self.folder), self._private_folder() as folder:
            yield folder

    def publish(self, file: Path, key: str, *, replaces: str | None, run_id: str) -> None:  # noqa: ARG002  (a file has no metadata for the run)
        """Flush the file to disk, rename it to the object, and flush the folder."""
        target = self._path(key)
        with _translate_write_errors(self.folder), _publish_lock(target.parent, self.wait_seconds) as folder:
            if self.version(key) != replaces:
                if not self.has_digest(key, sha256=_sha256(file)):
                    raise conflict_error(self.uri(key))
                file.unlink()
                return
            flush_to_disk(file)
            file.replace(target)
            os.fsync(folder)

    def copy_object(self, key: str, target: str, *, version: str, run_id: str) -> None:  # noqa: ARG002  (as for publish)
        """Create a hard link to the file in a private folder, and rename it to the target."""
        copied = self._path(target)
        with (
            _translate_write_errors(self.folder),
            self._private_folder() as folder,
            _publish_lock(copied.parent, self.wait_seconds) as target_folder,
        ):
            link = folder / copied.name
            try:
                os.link(self._path(key), link)
            except FileNotFoundError:
                raise missing_error(self.uri(key)) from None
            if _version(link.stat()) != version:
                raise conflict_error(self.uri(key))
            link.replace(copied)
            os.fsync(target_folder)

    def version(self, key: str) -> str | None:
        """Return inode, modification time and size: each replacement creates a new inode. None if there is no file."""
        try:
            return _version(self._path(key).stat())
        except FileNotFoundError:
            return None

    def sizes_in(self, folder: str) -> dict[str, int]:
        """List the files in the subfolder."""
        path = self._path(folder)
        # A large folder is not listed in one step: a file that is replaced meanwhile may be left out.
        names, found = None, _file_names(path)
        while found != names:
            names, found = found, _file_names(path)
        sizes = {f"{folder}/{name}": self.size(f"{folder}/{name}") for name in found}
        return {key: size for key, size in sizes.items() if size is not None}  # a file may be deleted meanwhile

    def snapshot(self, keys: Iterable[str]) -> str:
        """Create a folder of hard links, `snapshots/<time>`; delete snapshots that were replaced a day ago."""
        with self.staging() as staging, _publish_lock(Path(self.folder, snapshots.FOLDER), self.wait_seconds):
            return str(snapshots.create_snapshot(Path(self.folder), map(validate_key, keys), staging))

    def open(self, key: str, version: str | None = None) -> BinaryIO:
        """Open the file. An open file keeps its bytes even if the object is replaced meanwhile."""
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
        """Create a hard link to the file, which keeps its bytes even if the object is replaced."""
        with ExitStack() as stack:
            with _translate_write_errors(self.folder):  # excludes the caller's block, which may write elsewhere
                link = stack.enter_context(self._private_folder()) / key.rpartition("/")[2]
                try:
                    os.link(self._path(key), link)
                except FileNotFoundError:
                    raise missing_error(self.uri(key)) from None
            if version not in {None, _version(link.stat())}:
                raise conflict_error(self.uri(key))
            yield link

    def size(self, key: str) -> int | None:
        """Return the size of the file in bytes; None if there is no file."""
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            return None

    def has_digest(self, key: str, *, sha256: str) -> bool:
        """Read the file and compare its digest, because the bytes may have changed on disk."""
        path = self._path(key)
        return path.is_file() and _sha256(path) == sha256

    def digest(self, key: str, version: str) -> str:
        """Read the file, because the bytes may have changed on disk."""
        with self.as_local_file(key, version) as path:
            return _sha256(path)

    def delete(self, key: str) -> None:
        """Unlink the file, if there is one."""
        self._path(key).unlink(missing_ok=True)

    def uri(self, key: str) -> str:
        """Return the path of the file."""
        return str(self._path(key))

    def _path(self, key: str) -> Path:
        return Path(self.folder, validate_key(key))

    def _private_folder(self) -> AbstractContextManager[Path]:
        return private_folder(_staging(self.folder))


def _staging(folder: str) -> Path:
    return Path(folder, ".staging")


@contextmanager
def _translate_write_errors(folder: str) -> Iterator[None]:
    """Translate errors when writing to the lake's folder into `LakeConfigurationError`."""
    try:
        yield
    except OSError as error:
        path = str(error.filename or "")
        # If the staging folder still exists, a missing file in it was never created: that is a bug, not a deletion.
        private = Path(path).parent
        if error.errno == errno.ENOENT and private.is_relative_to(_staging(folder)) and not private.exists():
            raise LakeConfigurationError(
                f"{private}, the staging folder of this run, was deleted while the run used it.",
                remedy=f"Run the month again, and do not modify {_staging(folder)} while runs are in progress.",
            ) from error
        # Disk space, quotas and process limits affect every file. Permissions matter only for files in the lake.
        is_forbidden = path.startswith(folder) and error.errno in _ACCESS_ERRNOS
        if error.errno is None or (error.errno not in _NO_SPACE_ERRNOS and not is_forbidden):
            raise
        raise LakeConfigurationError(
            f"{folder} cannot be written to ({os.strerror(error.errno)}).",
            remedy="Free disk space or raise the quota, then run the month again."
            if error.errno in _NO_SPACE_ERRNOS
            else "Grant this account write permission, or set TAXI_LAKE to another folder.",
        ) from error


def _file_names(folder: Path) -> list[str]:
    """Return the names of the files in a folder that are not hidden, sorted."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _version(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _publish_lock(folder: Path, wait_seconds: float) -> Iterator[int]:
    """Acquire the exclusive right to write to a folder; yield the folder's descriptor.

    The lock is on the folder itself, so it needs no file. The kernel releases it when the process ends. The timeout
    prevents a paused process from blocking all others forever.

    Raises:
        LakeBusyError: Another process held the lock for `wait_seconds`.
    """
    _create_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY)

    def give_up(_state: tenacity.RetryCallState) -> None:
        raise LakeBusyError(
            f"{folder} is still locked after {wait_seconds:g} seconds by {_describe_lock_holder(descriptor)}, which is "
            "writing to it.",
            remedy="Wait for that process to finish, or stop it, then run the month again.",
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


def _create_folder(folder: Path) -> None:
    """Create a folder and those that contain it, durably, unless they exist."""
    if folder.is_dir():
        return
    _create_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    flush_to_disk(folder.parent)


def _describe_lock_holder(descriptor: int) -> str:
    """Describe the process that holds the folder's lock; "another process" if it is unknown."""
    status = os.fstat(descriptor)
    locked_file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == locked_file:
                return f"PID {fields[4]}"
    return "another process"
