"""Fetching from a bucket of Cloud Storage: an object's generation tells whether it has changed.

Belongs here: the `gs` transport of `download.py` and `version_check.py`. The official client resumes, retries and checks the
crc32c.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from google.api_core import exceptions as api_errors
from google.cloud.storage.exceptions import DataCorruption

from taxi_assets.errors import PublisherRequestError, PublisherUnreachableError
from taxi_assets.google_auth import is_missing_bucket, storage_client, translate_google_errors
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.sources.source_record import FileVersion
from taxi_assets.tlc.sources.transports.base_transport import (
    RETRY_LATER,
    DownloadResult,
    MissingFileError,
    request_error,
)
from taxi_assets.tlc.sources.validate_file import expansion_ratio_error, too_large_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer
    from google.cloud import storage

    from taxi_assets.tlc.sources.source_record import SourceRecord
    from taxi_assets.tlc.sources.transports.base_transport import DownloadRequest, FileRequest, VersionRequest


def download_gcs(request: DownloadRequest) -> DownloadResult | SourceRecord:
    """Bring the object to the job's path; or the known record, when its generation is the known one."""
    with _object(request) as blob:
        etag = _etag(blob)
        if request.known is not None and request.known.etag == etag:
            return request.known
        if blob.size > request.limits.max_bytes:
            raise too_large_error(request.label, request.url, request.limits)
        try:
            # What was stored compressed once more (Content-Encoding) comes plain, unless compressed is what we want.
            as_stored = request.source.format is FileFormat.CSV_GZ
            with _BoundedFile(request, blob.size) as file:
                blob.download_to_file(file, checksum="crc32c", raw_download=as_stored)
        except (DataCorruption, api_errors.NotFound):  # this generation has gone meanwhile
            changed = f"{request.label} changed on its way from {request.url}."
            raise PublisherUnreachableError(changed, remedy=RETRY_LATER) from None
    with request.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return DownloadResult(request.path.stat().st_size, digest, etag)


class _BoundedFile(io.FileIO):
    """The job's file while it is written, never beyond the limits: what was stored compressed is expanded on its way.

    Where it stands is asked anew each time, because the client begins again from the start after some failures.
    """

    def __init__(self, request: DownloadRequest, stored_bytes: int) -> None:
        super().__init__(request.path, "wb")
        self._job = request
        self._ratio_at = request.limits.max_expansion_ratio * stored_bytes

    def write(self, chunk: ReadableBuffer) -> int:
        end = self.tell() + memoryview(chunk).nbytes
        if end > self._job.limits.max_bytes:
            raise too_large_error(self._job.label, self._job.url, self._job.limits)
        if end > self._ratio_at:
            raise expansion_ratio_error(self._job.label, self._job.url, self._job.limits)
        return super().write(chunk)


def check_gcs_version(request: VersionRequest) -> FileVersion:
    """The version that is published now; asked once, without patience."""
    timeouts = (request.retry.connect_timeout, request.retry.read_timeout)
    with _object(request, retry=None, timeout=timeouts) as blob:
        return FileVersion(request.url, request.source.publisher, _etag(blob), None, int(blob.size))


@contextmanager
def _object(request: FileRequest, **retry: Any) -> Iterator[storage.Blob]:
    """The published object as it is now; raises `MissingError`."""
    address = urlsplit(request.source.url)
    with (
        translate_google_errors(
            f"{request.label} cannot be fetched from {request.url}",
            permanent=PublisherRequestError,
            transient=PublisherUnreachableError,
            remedy=lambda _: (
                f"Grant it Storage Object Viewer (roles/storage.objectViewer) on the bucket {address.netloc}."
            ),
        ),
        storage_client(request.google_key) as client,
    ):
        blob = client.bucket(address.netloc).blob(address.path.removeprefix("/"))
        try:
            blob.reload(**retry)
        except api_errors.NotFound as error:
            if is_missing_bucket(error):
                raise request_error(request, "that there is no such bucket") from None
            raise MissingFileError("no such object") from None
        yield blob


def _etag(blob: storage.Blob) -> str:
    return f'"{blob.generation}"'
