"""Fetching a published file, verified: from the first of its addresses that has it to a temporary folder.

Belongs here: the order of things, and the transports that need no network, one function per kind of address
(`_TRANSPORTS`). Does not belong here: which addresses there are (`publishers.py`), how HTTP is spoken (`over_http.py`),
what a good file is (`verify.py`), and where it is kept.
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
    DEFAULT_RETRY,
    PIECE_BYTES,
    TRY_LATER,
    Arrived,
    Errand,
    Job,
    MissingError,
    RetrySettings,
    megabytes,
    refused_by_publisher,
)
from taxi_assets.tlc.sources.validate_file import DEFAULT_LIMITS, Limits, too_large, verify

if TYPE_CHECKING:
    import logging
    import os
    from collections.abc import Callable, Iterator, Sequence

    from taxi_assets.tlc.sources.source_record import Candidate

__all__ = ["Fetched", "RetrySettings", "Unchanged", "fetch"]


@dataclass(frozen=True)
class Fetched:
    """A new file, verified, at `path`."""

    path: Path
    record: SourceRecord


@dataclass(frozen=True)
class Unchanged:
    """The publisher still has what we hold; `record` is the known one, found current just now."""

    record: SourceRecord


def fetch(
    what: str,
    candidates: Sequence[Candidate],
    *,
    known: SourceRecord | None,
    into: Path,
    limits: Limits = DEFAULT_LIMITS,
    log: logging.Logger,
    retry: RetrySettings = DEFAULT_RETRY,
    google_key: str | None = None,
) -> Fetched | Unchanged:
    """Fetch the first candidate that is published, into the existing private folder `into`, and verify it.

    `what` (such as "yellow 2021-01") names the file in logs and errors; `known` is the record of the one we hold.
    `google_key` opens addresses in Cloud Storage; see `Errand`.
    After an error nothing is left in `into`.

    Raises `NotPublishedError` when no candidate is published. Every other error of a candidate ends the fetch, so that
    a failing publisher is never silently replaced by the next: `PublisherUnreachableError`, `PublisherRefusedError`,
    `ContentRefusedError`.
    """
    missed = []
    for candidate in candidates:
        job = Job(
            what=what, candidate=candidate, held=known, path=into / f"download.{candidate.format}",
            limits=limits, log=log, retry=retry, google_key=google_key,
        )  # fmt: skip
        try:
            return _fetch_one(job)
        except BaseException as error:
            job.path.unlink(missing_ok=True)
            if not isinstance(error, MissingError):
                raise
            missed.append(f"{job.url} ({error})")
    where = f"at {', nor at '.join(missed)}" if missed else "anywhere: its publisher has no address for it"
    raise NotPublishedError(
        f"{what} is not published {where}.",
        remedy="Choose a month that is published, or another publisher (TAXI_SOURCE).",
    )


def _fetch_one(job: Job) -> Fetched | Unchanged:
    arrived = _TRANSPORTS[urlsplit(job.candidate.url).scheme](job)
    now = dt.datetime.now(dt.UTC)
    if isinstance(arrived, SourceRecord):
        job.log.info("%s: unchanged at %s", job.what, job.url)
        return Unchanged(arrived.model_copy(update={"fetched_at": now}))
    rows = verify(job.path, job.candidate.format, what=job.what, url=job.url, limits=job.limits)
    size, seconds = megabytes(arrived.bytes), time.monotonic() - job.started
    job.log.info("%s: %s, %s rows, from %s in %.1f s", job.what, size, f"{rows:,}", job.url, seconds)
    record = SourceRecord(
        url=job.url,
        publisher=job.candidate.publisher,
        format=job.candidate.format,
        bytes=arrived.bytes,
        sha256=arrived.sha256,
        rows=rows,
        etag=arrived.etag,
        last_modified=arrived.last_modified,
        fetched_at=now,
        generated=arrived.generated,
    )
    return Fetched(job.path, record)


def _from_folder(job: Job) -> Arrived | SourceRecord:
    return _copy(job, path_of(job))


def path_of(errand: Errand) -> Path:
    """The path that a `file:` address stands for."""
    return Path(url2pathname(urlsplit(errand.candidate.url).path))


def _copy(job: Job, source: Path) -> Arrived | SourceRecord:
    with _named(job):
        found = source.stat()
        if not stat.S_ISREG(found.st_mode):
            raise refused_by_publisher(job, "that it is no file")
        if job.known is not None and job.known.etag == etag_of(found):
            return job.known
        if found.st_size > job.limits.max_bytes:
            raise too_large(job.what, job.url, job.limits)
        published = source.open("rb")
    with published, job.path.open("wb") as copy:  # an error of the copy is the lake's, not the publisher's
        digest = _digest(published, copy)
    with _named(job):
        changed = etag_of(source.stat()) != etag_of(found)
    if changed:
        raise PublisherUnreachableError(f"{job.what} changed while it was read from {job.url}.", remedy=TRY_LATER)
    return Arrived(found.st_size, digest, etag_of(found))


@contextmanager
def _named(job: Job) -> Iterator[None]:
    """What is said of the publisher's own file."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError("no such file") from None
    except PermissionError:
        raise refused_by_publisher(job, "that its permissions forbid reading it") from None


def etag_of(found: os.stat_result) -> str:
    """What tells a version of a file on disk from another."""
    return f'"{found.st_mtime_ns}-{found.st_size}"'


def _digest(source: IO[bytes], copy: IO[bytes] | None = None) -> str:
    digest = hashlib.sha256()
    while piece := source.read(PIECE_BYTES):
        digest.update(piece)
        if copy is not None:
            copy.write(piece)
    return digest.hexdigest()


def _generate(job: Job) -> Arrived | SourceRecord:
    from taxi_assets.tlc import synthetic  # noqa: PLC0415  (the generator is loaded only where it is asked for)

    if job.candidate.url == SAMPLE_ZONES_URL:
        return _copy(job, synthetic.zones_path())
    etag = synthetic.etag()
    if job.known is not None and job.known.etag == etag:
        return job.known
    service, month = job.candidate.url.removeprefix("sample:").split("/")
    synthetic.write_month(service, Month.parse(month), job.path)
    with job.path.open("rb") as file:
        digest = _digest(file)
    return Arrived(job.path.stat().st_size, digest, etag, generated=True)


def _from_server(job: Job) -> Arrived | SourceRecord:
    from taxi_assets.tlc.sources.transports.http_transport import over_http  # noqa: PLC0415  (requests takes a tenth of a second to load)

    return over_http(job)


def _from_bucket(job: Job) -> Arrived | SourceRecord:
    from taxi_assets.tlc.sources.transports.gcs_transport import over_gcs  # noqa: PLC0415  (Google's clients take a while to load)

    return over_gcs(job)


_TRANSPORTS: dict[str, Callable[[Job], Arrived | SourceRecord]] = {
    "http": _from_server,
    "https": _from_server,
    "file": _from_folder,
    "gs": _from_bucket,
    "sample": _generate,
}
