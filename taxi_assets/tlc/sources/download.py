"""Download a published file from the first source URL that has it, and validate it.

Does not belong here: which URLs a publisher has (`publishers.py`), how each kind of URL is read (`transports/`), what a
valid file is (`validate_file.py`), and where the file is stored (`storage/lake/`).
"""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taxi_assets.errors import NotPublishedError
from taxi_assets.tlc.sources.content_limits import DEFAULT_LIMITS, FileLimits
from taxi_assets.tlc.sources.source_record import SourceRecord
from taxi_assets.tlc.sources.transports.base_transport import (
    DEFAULT_RETRY,
    DownloadRequest,
    MissingFileError,
    NotModified,
    RetrySettings,
    format_megabytes,
)
from taxi_assets.tlc.sources.transports.schemes import transport_for
from taxi_assets.tlc.sources.validate_file import validate_file

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence
    from pathlib import Path

    from taxi_assets.tlc.sources.source_record import SourceUrl

__all__ = ["DownloadedFile", "RetrySettings", "UnchangedFile", "download"]


@dataclass(frozen=True)
class DownloadedFile:
    """A new, validated file at `path`."""

    path: Path
    record: SourceRecord


@dataclass(frozen=True)
class UnchangedFile:
    """The publisher still offers the version in the lake."""

    record: SourceRecord
    """The known record, with the time of this check in `fetched_at`."""


def download(
    label: str,
    sources: Sequence[SourceUrl],
    *,
    known: SourceRecord | None,
    output_dir: Path,
    limits: FileLimits = DEFAULT_LIMITS,
    log: logging.Logger,
    retry: RetrySettings = DEFAULT_RETRY,
    google_key: str | None = None,
) -> DownloadedFile | UnchangedFile:
    """Download and validate a file from the first source URL that has it.

    Only a missing file leads to the next URL; any other error is raised. After an error, no file is left in
    `output_dir`.

    Args:
        label: Names the file in logs and errors, such as "yellow 2021-01".
        sources: The URLs to try, in order of preference.
        known: The record of the file in the lake. An unchanged file is not downloaded again.
        output_dir: An existing folder that no other process writes to. The file is written to it.
        limits: The largest file that is accepted.
        log: Receives progress and the result.
        retry: Retry policy and timeouts.
        google_key: For Cloud Storage: a service account's key file, or its content in base64. By default, the
            application default credentials.

    Raises:
        NotPublishedError: None of the source URLs has the file.
        PublisherRequestError: A publisher refused the request.
        PublisherUnreachableError: A publisher could not be reached, or did not send the complete file.
        InvalidFileError: The file is not a complete trip file, or exceeds `limits`.
    """
    missing = []
    for source in sources:
        request = DownloadRequest(
            label=label, source=source, known=known, path=output_dir / f"download.{source.format}",
            limits=limits, log=log, retry=retry, google_key=google_key,
        )  # fmt: skip
        try:
            return _download_one(request)
        except BaseException as error:
            request.path.unlink(missing_ok=True)
            if not isinstance(error, MissingFileError):
                raise
            missing.append(f"{request.url} ({error})")
    where = f"at {', nor at '.join(missing)}" if missing else "anywhere: its publisher has no URL for it"
    raise NotPublishedError(
        f"{label} is not published {where}.",
        remedy="Choose a month that is published, or another publisher (TAXI_SOURCE).",
    )


def _download_one(request: DownloadRequest) -> DownloadedFile | UnchangedFile:
    result = transport_for(request.source.url).download(request)
    now = dt.datetime.now(dt.UTC)
    if isinstance(result, NotModified):
        request.log.info("%s: unchanged at %s", request.label, request.url)
        return UnchangedFile(result.record.model_copy(update={"fetched_at": now}))
    rows = validate_file(
        request.path,
        request.source.format,
        label=request.label,
        url=request.url,
        limits=request.limits,
        dialect=request.source.dialect,
    )
    size, seconds = format_megabytes(result.bytes), time.monotonic() - request.started
    request.log.info("%s: %s, %s rows, from %s in %.1f s", request.label, size, f"{rows:,}", request.url, seconds)
    record = SourceRecord(
        url=request.url,
        publisher=request.source.publisher,
        format=request.source.format,
        bytes=result.bytes,
        sha256=result.sha256,
        rows=rows,
        etag=result.etag,
        last_modified=result.last_modified,
        fetched_at=now,
        generated=result.generated,
    )
    return DownloadedFile(request.path, record)
