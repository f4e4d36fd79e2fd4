"""Read `file://` URLs: files in a folder of this machine, or of a mounted drive."""

from __future__ import annotations

import hashlib
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from taxi_assets.errors import PublisherUnreachableError
from taxi_assets.tlc.sources.source_record import FileVersion
from taxi_assets.tlc.sources.transports.base_transport import (
    CHUNK_BYTES,
    RETRY_LATER,
    DownloadResult,
    MissingFileError,
    NotModified,
    request_error,
    version_check_error,
)
from taxi_assets.tlc.sources.validate_file import too_large_error

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from taxi_assets.tlc.sources.transports.base_transport import DownloadRequest, FileRequest, VersionRequest


class FolderTransport:
    """Copies files. Modification time and size identify a version."""

    def download(self, request: DownloadRequest) -> DownloadResult | NotModified:
        """Copy the file; see `Transport.download`."""
        return copy_file(request, _file_path(request))

    def check_version(self, request: VersionRequest) -> FileVersion | None:
        """Return the file's version; see `Transport.check_version`."""
        try:
            with _translate_errors(request):
                status = _regular_file_status(request, _file_path(request))
        except MissingFileError:
            return None
        except OSError as error:  # such as a network drive that is unreachable
            raise version_check_error(request, (error.strerror or "the file system failed").lower()) from None
        return FileVersion(request.url, request.source.publisher, _etag(status), None, status.st_size)


def copy_file(request: DownloadRequest, source: Path) -> DownloadResult | NotModified:
    """Copy a file of this machine to `request.path`; see `Transport.download`."""
    with _translate_errors(request):
        status = _regular_file_status(request, source)
        if request.known_at_url is not None and request.known_at_url.etag == _etag(status):
            return NotModified(request.known_at_url)
        if status.st_size > request.limits.max_bytes:
            raise too_large_error(request.label, request.url, request.limits)
        published = source.open("rb")
    # Errors of writing are errors of the lake: they are not translated.
    with published, request.path.open("wb") as copy:
        digest = _copy_and_digest(published, copy)
    with _translate_errors(request):
        changed = _etag(source.stat()) != _etag(status)
    if changed:
        raise PublisherUnreachableError(
            f"{request.label} changed while it was read from {request.url}.", remedy=RETRY_LATER
        )
    return DownloadResult(status.st_size, digest, _etag(status))


def _file_path(request: FileRequest) -> Path:
    return Path(url2pathname(urlsplit(request.source.url).path))


def _regular_file_status(request: FileRequest, path: Path) -> os.stat_result:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise request_error(request, "it is not a regular file")
    return status


@contextmanager
def _translate_errors(request: FileRequest) -> Iterator[None]:
    """Raise the transports' errors where the published file is missing or must not be read."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError("no such file") from None
    except PermissionError:
        raise request_error(request, "its permissions do not allow reading it") from None


def _etag(status: os.stat_result) -> str:
    return f'"{status.st_mtime_ns}-{status.st_size}"'


def _copy_and_digest(source: IO[bytes], copy: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        copy.write(chunk)
    return digest.hexdigest()
