"""Fetching from a bucket of Cloud Storage: an object's generation tells whether it has changed.

Belongs here: the `gs` transport of `download.py`. The official client resumes, retries and checks the crc32c.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from google.api_core import exceptions as api_errors
from google.cloud.storage.exceptions import DataCorruption

from taxi_assets.errors import PublisherRefusedError, PublisherUnreachableError
from taxi_assets.google_cloud import is_missing_bucket, named_errors, storage_client
from taxi_assets.tlc.transfer import TRY_LATER, Arrived, Job, MissingError, refused_by_publisher
from taxi_assets.tlc.verify import too_large

if TYPE_CHECKING:
    from taxi_assets.tlc.source import SourceRecord


def over_gcs(job: Job) -> Arrived | SourceRecord:
    """Bring the object to the job's path; or the known record, when its generation is the known one."""
    address = urlsplit(job.candidate.url)
    with (
        named_errors(
            f"{job.what} cannot be fetched from {job.url}",
            unusable=PublisherRefusedError,
            unreachable=PublisherUnreachableError,
            remedy=lambda _: (
                f"Grant it Storage Object Viewer (roles/storage.objectViewer) on the bucket {address.netloc}."
            ),
        ),
        storage_client(job.google_key) as client,
    ):
        blob = client.bucket(address.netloc).blob(address.path.removeprefix("/"))
        try:
            blob.reload()
        except api_errors.NotFound as error:
            if is_missing_bucket(error):
                raise refused_by_publisher(job, "that there is no such bucket") from None
            raise MissingError("no such object") from None
        etag = f'"{blob.generation}"'
        if job.known is not None and job.known.etag == etag:
            return job.known
        if blob.size > job.limits.max_bytes:
            raise too_large(job.what, job.url, job.limits)
        try:
            blob.download_to_filename(str(job.path), checksum="crc32c")
        except (DataCorruption, api_errors.NotFound):  # this generation has gone meanwhile
            changed = f"{job.what} changed on its way from {job.url}."
            raise PublisherUnreachableError(changed, remedy=TRY_LATER) from None
    with job.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Arrived(int(blob.size), digest, etag)
