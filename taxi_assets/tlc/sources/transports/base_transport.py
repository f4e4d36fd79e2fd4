"""What every way of fetching a file, and of asking for it, has in common: the errand, and how it can end.

Belongs here: the terms shared by `download.py`, `version_check.py` and the transports they choose from. Does not belong here: any
transport.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taxi_assets.errors import PublisherRequestError
from taxi_assets.tlc.sources.publishers import public_url

if TYPE_CHECKING:
    import logging
    from pathlib import Path

    from taxi_assets.tlc.sources.source_record import FileVersion, SourceRecord, SourceUrl
    from taxi_assets.tlc.sources.validate_file import FileLimits

CHUNK_BYTES = 1 << 20
"""The most that is read at once."""

RETRY_LATER = "Try again later, or choose another publisher (TAXI_SOURCE)."


@dataclass(frozen=True)
class RetrySettings:
    """How patient a download is; times in seconds."""

    attempts: int = 6
    """In a row that bring less than `least_bytes` together, before giving up."""
    first_wait_seconds: float = 1.0
    """Doubled after each of these attempts, plus up to as much by chance."""
    max_wait_seconds: float = 30.0
    max_retry_after_seconds: float = 120.0
    """The most that a publisher's Retry-After can make us wait."""
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    minimum_progress_bytes: int = 64 << 10
    """That must come within each `read_timeout`, where there are as many; slower than that is as good as nothing."""
    progress_interval_seconds: float = 10.0
    """Between lines in the log."""


DEFAULT_RETRY = RetrySettings()


@dataclass(frozen=True, kw_only=True)
class FileRequest:
    """One address, on which a file is to be had."""

    label: str
    """Names the file in errors, such as "yellow 2021-01"."""
    source: SourceUrl
    retry: RetrySettings
    google_key: str | None = field(default=None, repr=False)
    """For addresses in Cloud Storage: a service account's key file, or its content in base64."""

    @property
    def url(self) -> str:
        """The address without its secrets: the one to be shown and recorded."""
        return public_url(self.source.url)


@dataclass(frozen=True, kw_only=True)
class DownloadRequest(FileRequest):
    """A file to be fetched, to `path`."""

    stored: SourceRecord | None
    path: Path
    limits: FileLimits
    log: logging.Logger
    started: float = field(default_factory=time.monotonic)

    @property
    def known(self) -> SourceRecord | None:
        """The record of what we hold, if it came from this very address."""
        return self.stored if self.stored is not None and self.stored.url == self.url else None


@dataclass(frozen=True, kw_only=True)
class VersionRequest(FileRequest):
    """A file to be asked about."""

    stored: FileVersion | None
    deadline: float = math.inf
    """By when the answer must be there, by `time.monotonic`."""

    @property
    def known(self) -> FileVersion | None:
        """The version of the one we hold, if it came from this very address."""
        return self.stored if self.stored is not None and self.stored.url == self.url else None


@dataclass(frozen=True)
class DownloadResult:
    """What a transport brought to the job's path."""

    bytes: int
    sha256: str
    etag: str | None
    last_modified: str | None = None
    generated: bool = False


class MissingFileError(Exception):
    """The address has no such file; its text is the answer that said so."""


def request_error(request: FileRequest, answer: str) -> PublisherRequestError:
    """The error for an answer that does not pass by itself."""
    return PublisherRequestError(
        f"{request.label} could not be fetched from {request.url}: the answer was {answer}.",
        remedy="Check the address, or choose another publisher (TAXI_SOURCE).",
    )


def format_megabytes(count: int) -> str:
    """A number of bytes, for people."""
    return f"{count / 1e6:,.1f} MB"
