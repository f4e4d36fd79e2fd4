"""Fetching a published file, verified: from the first of its addresses that has it to a temporary folder.

Belongs here: the order of things, and the transports that need no network, one function per kind of address
(`_TRANSPORTS`). Does not belong here: which addresses there are (`publishers.py`), how HTTP is spoken (`http_transport.py`),
what a good file is (`validate_file.py`), and where it is kept.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import stat
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from taxi_assets.errors import NotPublishedError, PublisherUnreachableError
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.sources.publishers import SAMPLE_ZONES_URL
from taxi_assets.tlc.sources.source_record import SourceRecord
from taxi_assets.tlc.sources.transports.base_transport import (
    CHUNK_BYTES,
    DEFAULT_RETRY,
    RETRY_LATER,
    DownloadRequest,
    DownloadResult,
    FileRequest,
    MissingFileError,
    RetrySettings,
    format_megabytes,
    request_error,
)
from taxi_assets.tlc.sources.validate_file import DEFAULT_LIMITS, FileLimits, too_large_error, validate_file

if TYPE_CHECKING:
    import logging
    import os
    from collections.abc import Callable, Iterator, Sequence

    from taxi_assets.tlc.sources.source_record import SourceUrl

__all__ = ["DownloadedFile", "RetrySettings", "UnchangedFile", "download"]


@dataclass(frozen=True)
class DownloadedFile:
    """A new file, verified, at `path`."""

    path: Path
    record: SourceRecord


@dataclass(frozen=True)
class UnchangedFile:
    """The publisher still has what we hold; `record` is the known one, found current just now."""

    record: SourceRecord


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
    """Fetch the first candidate that is published, into the existing private folder `into`, and verify it.

    `what` (such as "yellow 2021-01") names the file in logs and errors; `known` is the record of the one we hold.
    `google_key` opens addresses in Cloud Storage; see `FileRequest`.
    After an error nothing is left in `into`.

    Raises `NotPublishedError` when no candidate is published. Every other error of a candidate ends the fetch, so that
    a failing publisher is never silently replaced by the next: `PublisherUnreachableError`, `PublisherRequestError`,
    `InvalidFileError`.
    """
    missed = []
    for candidate in sources:
        job = DownloadRequest(
            label=label, source=candidate, stored=known, path=output_dir / f"download.{candidate.format}",
            limits=limits, log=log, retry=retry, google_key=google_key,
        )  # fmt: skip
        try:
            return _download_one(job)
        except BaseException as error:
            job.path.unlink(missing_ok=True)
            if not isinstance(error, MissingFileError):
                raise
            missed.append(f"{job.url} ({error})")
    where = f"at {', nor at '.join(missed)}" if missed else "anywhere: its publisher has no address for it"
    raise NotPublishedError(
        f"{label} is not published {where}.",
        remedy="Choose a month that is published, or another publisher (TAXI_SOURCE).",
    )


def _download_one(request: DownloadRequest) -> DownloadedFile | UnchangedFile:
    arrived = _TRANSPORTS[urlsplit(request.source.url).scheme](request)
    now = dt.datetime.now(dt.UTC)
    if isinstance(arrived, SourceRecord):
        request.log.info("%s: unchanged at %s", request.label, request.url)
        return UnchangedFile(arrived.model_copy(update={"fetched_at": now}))
    rows = validate_file(
        request.path, request.source.format, label=request.label, url=request.url, limits=request.limits
    )
    size, seconds = format_megabytes(arrived.bytes), time.monotonic() - request.started
    request.log.info("%s: %s, %s rows, from %s in %.1f s", request.label, size, f"{rows:,}", request.url, seconds)
    record = SourceRecord(
        url=request.url,
        publisher=request.source.publisher,
        format=request.source.format,
        bytes=arrived.bytes,
        sha256=arrived.sha256,
        rows=rows,
        etag=arrived.etag,
        last_modified=arrived.last_modified,
        fetched_at=now,
        generated=arrived.generated,
    )
    return DownloadedFile(request.path, record)


def _download_from_folder(request: DownloadRequest) -> DownloadResult | SourceRecord:
    return _copy(request, path_of(request))


def path_of(request: FileRequest) -> Path:
    """The path that a `file:` address stands for."""
    return Path(url2pathname(urlsplit(request.source.url).path))


def _copy(request: DownloadRequest, source: Path) -> DownloadResult | SourceRecord:
    with _named_errors(request):
        found = source.stat()
        if not stat.S_ISREG(found.st_mode):
            raise request_error(request, "that it is no file")
        if request.known is not None and request.known.etag == etag_of(found):
            return request.known
        if found.st_size > request.limits.max_bytes:
            raise too_large_error(request.label, request.url, request.limits)
        published = source.open("rb")
    with published, request.path.open("wb") as copy:  # an error of the copy is the lake's, not the publisher's
        digest = _digest(published, copy)
    with _named_errors(request):
        changed = etag_of(source.stat()) != etag_of(found)
    if changed:
        raise PublisherUnreachableError(
            f"{request.label} changed while it was read from {request.url}.", remedy=RETRY_LATER
        )
    return DownloadResult(found.st_size, digest, etag_of(found))


@contextmanager
def _named_errors(request: DownloadRequest) -> Iterator[None]:
    """What is said of the publisher's own file."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError("no such file") from None
    except PermissionError:
        raise request_error(request, "that its permissions forbid reading it") from None


def etag_of(found: os.stat_result) -> str:
    """What tells a version of a file on disk from another."""
    return f'"{found.st_mtime_ns}-{found.st_size}"'


def _digest(source: IO[bytes], copy: IO[bytes] | None = None) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        if copy is not None:
            copy.write(chunk)
    return digest.hexdigest()


def _generate(request: DownloadRequest) -> DownloadResult | SourceRecord:
    from taxi_assets.tlc import synthetic  # noqa: PLC0415  (the generator is loaded only where it is asked for)

    if request.source.url == SAMPLE_ZONES_URL:
        return _copy(request, synthetic.zones_path())
    etag = synthetic.etag()
    if request.known is not None and request.known.etag == etag:
        return request.known
    service, month = request.source.url.removeprefix("sample:").split("/")
    synthetic.write_month(service, Month.parse(month), request.path)
    with request.path.open("rb") as file:
        digest = _digest(file)
    return DownloadResult(request.path.stat().st_size, digest, etag, generated=True)


def _download_from_server(request: DownloadRequest) -> DownloadResult | SourceRecord:
    from taxi_assets.tlc.sources.transports.http_transport import download_http  # noqa: PLC0415  (requests takes a tenth of a second to load)

    return download_http(request)


def _download_from_bucket(request: DownloadRequest) -> DownloadResult | SourceRecord:
    from taxi_assets.tlc.sources.transports.gcs_transport import download_gcs  # noqa: PLC0415  (Google's clients take a while to load)

    return download_gcs(request)


_TRANSPORTS: dict[str, Callable[[DownloadRequest], DownloadResult | SourceRecord]] = {
    "http": _download_from_server,
    "https": _download_from_server,
    "file": _download_from_folder,
    "gs": _download_from_bucket,
    "sample": _generate,
}
