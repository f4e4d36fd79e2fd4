"""The interface of all transports: requests, results and the errors that they share.

Does not belong here: anything that only one kind of URL needs.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from taxi_assets.errors import PublisherRequestError, PublisherServerError, PublisherUnreachableError
from taxi_assets.tlc.sources.content_limits import RAISE_MAX_BYTES, RAISE_MAX_RATIO, invalid_file_error
from taxi_assets.tlc.sources.publishers import public_url

if TYPE_CHECKING:
    import logging
    from pathlib import Path

    from taxi_assets.tlc.sources.content_limits import FileLimits
    from taxi_assets.tlc.sources.source_record import FileVersion, SourceRecord, SourceUrl

CHUNK_BYTES = 1 << 20
"""The most bytes that are read at once."""

RETRY_LATER = "Try again later, or choose another publisher (TAXI_SOURCE)."


@dataclass(frozen=True)
class RetrySettings:
    """The retry policy and the timeouts of a request. Times are in seconds."""

    attempts: int = 6
    """Attempts without progress before the download fails.

    The count starts again when `minimum_progress_bytes` new bytes have arrived, unless the attempt was too slow.
    """
    first_wait_seconds: float = 1.0
    """Wait after the first failed attempt. Doubles with each further one; a random share of it is added."""
    max_wait_seconds: float = 30.0
    max_retry_after_seconds: float = 120.0
    """The longest wait that a publisher can request with a Retry-After header."""
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    minimum_progress_bytes: int = 64 << 10
    """Bytes that must arrive within each `read_timeout`. A slower attempt counts as failed."""
    progress_interval_seconds: float = 10.0
    """Time between two progress lines in the log."""


DEFAULT_RETRY = RetrySettings()


@dataclass(frozen=True, kw_only=True)
class FileRequest:
    """A request for one file at one URL."""

    label: str
    """Names the file in errors, such as "yellow 2021-01"."""
    source: SourceUrl
    retry: RetrySettings
    google_key: str | None = field(default=None, repr=False)
    """For Cloud Storage: a service account's key file, or its content in base64. None: application default."""

    @property
    def url(self) -> str:
        """The URL without secrets, for records, logs and errors."""
        return public_url(self.source.url)


@dataclass(frozen=True, kw_only=True)
class DownloadRequest(FileRequest):
    """A request to download a file to `path`."""

    known: SourceRecord | None
    """The record of the file in the lake, which may come from another URL."""
    path: Path
    limits: FileLimits
    log: logging.Logger
    started: float = field(default_factory=time.monotonic)

    def check_size(self, count: int, *, stored: int | None = None) -> None:
        """Raise an error if the file is too large.

        Args:
            count: Bytes of the file.
            stored: Bytes of the compressed file, if `count` of its bytes have been decompressed.

        Raises:
            InvalidFileError: The file exceeds `limits`.
        """
        if count > self.limits.max_bytes:
            finding = f"it is larger than {self.limits.max_bytes:,} bytes"
            raise invalid_file_error(self.label, self.url, finding, remedy=RAISE_MAX_BYTES)
        if stored is not None and count > self.limits.max_expansion_ratio * stored:
            raise invalid_file_error(self.label, self.url, self.limits.expansion_finding, remedy=RAISE_MAX_RATIO)

    @property
    def known_at_url(self) -> SourceRecord | None:
        """The record of the file in the lake, if it came from this URL."""
        return self.known if self.known is not None and self.known.url == self.url else None


@dataclass(frozen=True, kw_only=True)
class VersionRequest(FileRequest):
    """A request for the version of a file, without its content."""

    known: FileVersion | None
    """The version of the file in the lake, which may come from another URL."""
    deadline: float
    """When the answer must be complete, on the clock of `time.monotonic`."""

    @property
    def known_at_url(self) -> FileVersion | None:
        """The version of the file in the lake, if it came from this URL."""
        return self.known if self.known is not None and self.known.url == self.url else None


@dataclass(frozen=True)
class DownloadResult:
    """A file that was written to the path of its request."""

    bytes: int
    sha256: str
    etag: str | None
    last_modified: str | None = None
    generated: bool = False
    """True for months of the synthetic sample."""


@dataclass(frozen=True)
class NotModified:
    """The publisher still offers the version that `DownloadRequest.known_at_url` describes; nothing was written."""

    record: SourceRecord
    """`DownloadRequest.known_at_url`."""


class Transport(Protocol):
    """Reads published files from one kind of URL."""

    def download(self, request: DownloadRequest) -> DownloadResult | NotModified:
        """Download the complete file to `request.path`, unless it is still the known version.

        Raises:
            MissingFileError: The URL has no such file.
            PublisherRequestError: The publisher refused the request.
            PublisherUnreachableError: The publisher could not be reached, or did not send the complete file.
            InvalidFileError: The file exceeds `request.limits`.
        """

    def check_version(self, request: VersionRequest) -> FileVersion:
        """Return the version that is published now.

        Does not retry. (HTTP: a GET follows if the server does not support HEAD.)

        Raises:
            MissingFileError: The URL has no such file.
            PublisherRequestError: The publisher refused the request.
            PublisherServerError: The publisher answered with a server error, or too slowly.
            PublisherUnreachableError: The publisher could not be reached.
        """


class MissingFileError(Exception):
    """The URL has no such file. The message is the publisher's answer, such as "HTTP 404"."""


def request_error(request: FileRequest, cause: str) -> PublisherRequestError:
    """Build the error for a request that fails permanently."""
    return PublisherRequestError(
        f"{request.label} could not be fetched from {request.url}: {cause}.",
        remedy="Check the URL, or choose another publisher (TAXI_SOURCE).",
    )


def version_check_error(
    request: VersionRequest, cause: str, error_class: type[PublisherUnreachableError] = PublisherServerError
) -> PublisherUnreachableError:
    """Build the error for a version check that fails for a transient reason."""
    return error_class(
        f"The version of {request.label} could not be checked at {request.url}: {cause}.", remedy=RETRY_LATER
    )


def digest_file(path: Path) -> str:
    """Return the SHA-256 digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def format_megabytes(count: int) -> str:
    """Return a number of bytes as text, in millions with one decimal."""
    return f"{count / 1e6:,.1f} MB"
