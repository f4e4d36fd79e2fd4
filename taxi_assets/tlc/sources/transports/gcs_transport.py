"""Read `gs://` URLs: objects in Cloud Storage, through Google's client.

The client resumes and retries downloads, and verifies the crc32c checksum.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from google.api_core import exceptions as api_errors
from google.cloud.storage.exceptions import DataCorruption

from taxi_assets.errors import PublisherRequestError, PublisherUnreachableError
from taxi_assets.google_auth import (
    READ_OBJECTS,
    is_missing_bucket,
    storage_client,
    storage_remedy,
    translate_google_errors,
)
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.sources.source_record import FileVersion
from taxi_assets.tlc.sources.transports.base_transport import (
    RETRY_LATER,
    DownloadResult,
    MissingFileError,
    NotModified,
    digest_file,
    request_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer
    from google.cloud import storage

    from taxi_assets.tlc.sources.transports.base_transport import DownloadRequest, FileRequest, VersionRequest


class GcsTransport:
    """Downloads objects. The generation identifies a version."""

    def download(self, request: DownloadRequest) -> DownloadResult | NotModified:
        """Download the object; see `Transport.download`."""
        with _published_object(request) as blob:
            etag = _etag(blob)
            if request.known_at_url is not None and request.known_at_url.etag == etag:
                return NotModified(request.known_at_url)
            request.check_size(blob.size)
            try:
                # Objects stored with Content-Encoding: gzip are decompressed, unless gzip is the format to download.
                as_stored = request.source.format is FileFormat.CSV_GZ
                with _BoundedFile(request, blob.size) as file:
                    blob.download_to_file(file, checksum="crc32c", raw_download=as_stored)
            except (DataCorruption, api_errors.NotFound):  # NotFound: this generation was replaced or deleted
                changed = f"{request.label} was replaced or damaged while it was downloaded from {request.url}."
                raise PublisherUnreachableError(changed, remedy=RETRY_LATER) from None
        return DownloadResult(request.path.stat().st_size, digest_file(request.path), etag)

    def check_version(self, request: VersionRequest) -> FileVersion:
        """Return the object's version; see `Transport.check_version`."""
        timeouts = (request.retry.connect_timeout, request.retry.read_timeout)
        with _published_object(request, retry=None, timeout=timeouts) as blob:
            return FileVersion(request.url, request.source.publisher, _etag(blob), None, int(blob.size))


class _BoundedFile(io.FileIO):
    """The file at `request.path`, which raises `InvalidFileError` when a write would exceed the limits.

    The client decompresses some objects while it downloads them, so the size of the object does not bound the file.
    Each write asks for the current position, because the client starts from the beginning after some failures.
    """

    def __init__(self, request: DownloadRequest, stored_bytes: int) -> None:
        super().__init__(request.path, "wb")
        self._request, self._stored_bytes = request, stored_bytes

    def write(self, chunk: ReadableBuffer) -> int:
        self._request.check_size(self.tell() + memoryview(chunk).nbytes, stored=self._stored_bytes)
        return super().write(chunk)


@contextmanager
def _published_object(request: FileRequest, **reload_options: Any) -> Iterator[storage.Blob]:
    """Yield the object with its current metadata. Raises `MissingFileError` if it does not exist."""
    address = urlsplit(request.source.url)
    with (
        translate_google_errors(
            f"{request.label} cannot be fetched from {request.url}",
            permanent=PublisherRequestError,
            transient=PublisherUnreachableError,
            remedy=lambda message: storage_remedy(message, address.netloc, objects_role=READ_OBJECTS),
        ),
        storage_client(request.google_key) as client,
    ):
        blob = client.bucket(address.netloc).blob(address.path.removeprefix("/"))
        try:
            blob.reload(**reload_options)
        except api_errors.NotFound as error:
            if is_missing_bucket(error):
                raise request_error(request, "there is no such bucket") from None
            raise MissingFileError("no such object") from None
        yield blob


def _etag(blob: storage.Blob) -> str:
    return f'"{blob.generation}"'
