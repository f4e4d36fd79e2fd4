"""Read `file://` URLs: files in a folder of this machine, or of a mounted drive.

A URL that ends in a slash is that of a folder of parts, which is downloaded as an archive (`folder_parts.py`).
"""

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
    digest_file,
    request_error,
    version_check_error,
)
from taxi_assets.tlc.sources.transports.folder_parts import archive_parts, list_parts, parts_etag

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from taxi_assets.tlc.sources.transports.base_transport import DownloadRequest, FileRequest, VersionRequest


class FolderTransport:
    """Copies files, and archives folders of parts. Size, times and inode identify a version."""

    def download(self, request: DownloadRequest) -> DownloadResult | NotModified:
        """Copy the file, or write its parts to an archive; see `Transport.download`."""
        with _translate_errors(request):
            path = _find(request)
        return _archive_folder(request, path) if _names_folder(request) else copy_file(request, path)

    def check_version(self, request: VersionRequest) -> FileVersion:
        """Return the file's version; see `Transport.check_version`."""
        try:
            with _translate_errors(request):
                return _current_version(request, _find(request))
        except OSError as error:  # such as a network drive that is unreachable
            raise version_check_error(request, (error.strerror or "the file system failed").lower()) from None


def copy_file(request: DownloadRequest, source: Path) -> DownloadResult | NotModified:
    """Copy a file of this machine to `request.path`; see `Transport.download`."""
    with _translate_errors(request):
        status = _regular_file_status(request, source)
        if request.known_at_url is not None and request.known_at_url.etag == _etag(status):
            return NotModified(request.known_at_url)
        request.check_size(status.st_size)
        published = source.open("rb")
    # Errors of writing are errors of the lake: they are not translated.
    with published, request.path.open("wb") as copy:
        digest = _copy_and_digest(published, copy)
    with _translate_errors(request):
        changed = _etag(source.stat()) != _etag(status)
    if changed:
        raise _changed_error(request)
    return DownloadResult(status.st_size, digest, _etag(status))


def _archive_folder(request: DownloadRequest, folder: Path) -> DownloadResult | NotModified:
    with _translate_errors(request):
        parts = list_parts(request, folder)
    etag = parts_etag(parts)
    if request.known_at_url is not None and request.known_at_url.etag == etag:
        return NotModified(request.known_at_url)
    request.check_size(sum(part.size for part in parts))
    try:
        archive_parts(folder, parts, request.path)
    except FileNotFoundError:  # a part was deleted
        raise _changed_error(request) from None
    except PermissionError as error:
        raise request_error(request, f"its part {Path(error.filename).name} must not be read") from None
    with _translate_errors(request):
        changed = parts_etag(list_parts(request, folder)) != etag
    if changed:
        raise _changed_error(request)
    return DownloadResult(request.path.stat().st_size, digest_file(request.path), etag)


def _current_version(request: VersionRequest, path: Path) -> FileVersion:
    known = request.known_at_url
    if _names_folder(request):
        etag = parts_etag(list_parts(request, path))
        return FileVersion(request.url, request.source.publisher, etag, None, None)
    status = _regular_file_status(request, path)
    if known is not None and known.etag == _etag_of_earlier_versions(status):
        return known
    return FileVersion(request.url, request.source.publisher, _etag(status), None, status.st_size)


def _names_folder(request: FileRequest) -> bool:
    """Return whether the URL is that of a folder of parts."""
    return request.source.url.endswith("/")


def _find(request: FileRequest) -> Path:
    """Return the path of the file or folder of the URL. Its extension may be in upper case.

    Raises:
        MissingFileError: There is a folder in place of the file, or a file in place of the folder.
        FileNotFoundError: There is neither.
    """
    path = Path(url2pathname(urlsplit(request.source.url).path))
    if not path.exists():
        path = _find_extension_in_any_case(request, path)
    is_folder = stat.S_ISDIR(path.stat().st_mode)
    if is_folder is not _names_folder(request):
        raise MissingFileError("a folder, not a file" if is_folder else "a file, not a folder")
    return path


def _find_extension_in_any_case(request: FileRequest, path: Path) -> Path:
    stem, extension = path.name.split(".", 1) if "." in path.name else (path.name, "")
    matches = [
        name
        for name in sorted(entry.name for entry in path.parent.iterdir())
        if name.startswith(f"{stem}.") and name[len(stem) + 1 :].lower() == extension.lower()
    ]
    if len(matches) > 1:
        raise request_error(request, f"more than one file could be meant: {', '.join(matches)}")
    return path.with_name(matches[0]) if matches else path


def _regular_file_status(request: FileRequest, path: Path) -> os.stat_result:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise request_error(request, "it is not a regular file")
    return status


def _changed_error(request: FileRequest) -> PublisherUnreachableError:
    return PublisherUnreachableError(
        f"{request.label} changed while it was read from {request.url}.", remedy=RETRY_LATER
    )


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
    """Return an ETag that changes when a file is written or replaced, even if its size and modification time stay."""
    return f'"{status.st_mtime_ns}-{status.st_size}-{status.st_ctime_ns}-{status.st_ino}"'


def _etag_of_earlier_versions(status: os.stat_result) -> str:
    """Return the ETag that earlier versions of this package recorded. A month that has it is not loaded again."""
    return f'"{status.st_mtime_ns}-{status.st_size}"'


def _copy_and_digest(source: IO[bytes], copy: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        copy.write(chunk)
    return digest.hexdigest()
