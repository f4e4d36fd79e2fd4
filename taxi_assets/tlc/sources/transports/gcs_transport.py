"""Fetching from a bucket of Cloud Storage: an object's generation tells whether it has changed.

Belongs here: the `gs` transport of `download.py` and `ask.py`. The official client resumes, retries and checks the
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

from taxi_assets.errors import PublisherRefusedError, PublisherUnreachableError
from taxi_assets.google_auth import is_missing_bucket, named_errors, storage_client
from taxi_assets.tlc.sources.source_record import FileFormat, FileVersion
from taxi_assets.tlc.sources.transports.base_transport import TRY_LATER, Arrived, MissingError, refused_by_publisher
from taxi_assets.tlc.sources.validate_file import too_dense, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer
    from google.cloud import storage

    from taxi_assets.tlc.sources.source_record import SourceRecord
    from taxi_assets.tlc.sources.transports.base_transport import Errand, Job, Question


def over_gcs(job: Job) -> Arrived | SourceRecord:
    """Bring the object to the job's path; or the known record, when its generation is the known one."""
    with _object(job) as blob:
        etag = _etag(blob)
        if job.known is not None and job.known.etag == etag:
            return job.known
        if blob.size > job.limits.max_bytes:
            raise too_large(job.what, job.url, job.limits)
        try:
            # What was stored compressed once more (Content-Encoding) comes plain, unless compressed is what we want.
            as_stored = job.candidate.format is FileFormat.CSV_GZ
            with _BoundedFile(job, blob.size) as file:
                blob.download_to_file(file, checksum="crc32c", raw_download=as_stored)
        except (DataCorruption, api_errors.NotFound):  # this generation has gone meanwhile
            changed = f"{job.what} changed on its way from {job.url}."
            raise PublisherUnreachableError(changed, remedy=TRY_LATER) from None
    with job.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Arrived(job.path.stat().st_size, digest, etag)


class _BoundedFile(io.FileIO):
    """The job's file while it is written, never beyond the limits: what was stored compressed is expanded on its way.

    Where it stands is asked anew each time, because the client begins again from the start after some failures.
    """

    def __init__(self, job: Job, stored_bytes: int) -> None:
        super().__init__(job.path, "wb")
        self._job = job
        self._ratio_at = job.limits.max_expansion_ratio * stored_bytes

    def write(self, piece: ReadableBuffer) -> int:
        end = self.tell() + memoryview(piece).nbytes
        if end > self._job.limits.max_bytes:
            raise too_large(self._job.what, self._job.url, self._job.limits)
        if end > self._ratio_at:
            raise too_dense(self._job.what, self._job.url, self._job.limits)
        return super().write(piece)


def version_over_gcs(question: Question) -> FileVersion:
    """The version that is published now; asked once, without patience."""
    timeouts = (question.retry.connect_timeout, question.retry.read_timeout)
    with _object(question, retry=None, timeout=timeouts) as blob:
        return FileVersion(question.url, question.candidate.publisher, _etag(blob), None, int(blob.size))


@contextmanager
def _object(errand: Errand, **patience: Any) -> Iterator[storage.Blob]:
    """The published object as it is now; raises `MissingError`."""
    address = urlsplit(errand.candidate.url)
    with (
        named_errors(
            f"{errand.what} cannot be fetched from {errand.url}",
            unusable=PublisherRefusedError,
            unreachable=PublisherUnreachableError,
            remedy=lambda _: (
                f"Grant it Storage Object Viewer (roles/storage.objectViewer) on the bucket {address.netloc}."
            ),
        ),
        storage_client(errand.google_key) as client,
    ):
        blob = client.bucket(address.netloc).blob(address.path.removeprefix("/"))
        try:
            blob.reload(**patience)
        except api_errors.NotFound as error:
            if is_missing_bucket(error):
                raise refused_by_publisher(errand, "that there is no such bucket") from None
            raise MissingError("no such object") from None
        yield blob


def _etag(blob: storage.Blob) -> str:
    return f'"{blob.generation}"'
