"""Asking a publisher whether a file is there, and in which version, without fetching it.

Belongs here: the order of things, and how files on disk and generated ones are asked for. Does not belong here: how
HTTP and Cloud Storage are spoken (`http_transport.py`, `gcs_transport.py`), and what is made of the answer.
"""

from __future__ import annotations

import stat
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from taxi_assets.errors import PublisherServerError
from taxi_assets.tlc.sources.download import etag_of, path_of
from taxi_assets.tlc.sources.source_record import FileVersion
from taxi_assets.tlc.sources.transports.base_transport import (
    RETRY_LATER,
    MissingFileError,
    RetrySettings,
    VersionRequest,
    request_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taxi_assets.tlc.sources.source_record import SourceUrl

NO_RETRY = RetrySettings(attempts=1, connect_timeout=3, read_timeout=5)
"""Whoever asks comes again soon: no patience."""
VERSION_CHECK_SECONDS = 15.0
"""For all candidates together, however slowly an answer comes in."""


def check_version(
    label: str,
    sources: Sequence[SourceUrl],
    *,
    known: FileVersion | None = None,
    retry: RetrySettings = NO_RETRY,
    seconds: float = VERSION_CHECK_SECONDS,
    google_key: str | None = None,
) -> FileVersion | None:
    """The version of a file that is published now, of the first candidate that is; None when none is published.

    `known` is the version of the file that we hold; it is the answer when the publisher says that it is still current.
    As in `fetch`, a candidate that fails is never silently replaced by the next: raises `PublisherRequestError`, and
    `PublisherServerError` where no good answer came in time; `PublisherUnreachableError` means that nobody is there.
    """
    deadline = time.monotonic() + seconds
    for candidate in sources:
        question = VersionRequest(
            label=label, source=candidate, stored=known, retry=retry, google_key=google_key, deadline=deadline
        )
        try:
            return _VERSION_CHECKS[urlsplit(candidate.url).scheme](question)
        except MissingFileError:
            continue
    return None


def _check_folder(request: VersionRequest) -> FileVersion:
    try:
        found = path_of(request).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError("no such file") from None
    except PermissionError:
        raise request_error(request, "that its permissions forbid reading it") from None
    except OSError as error:  # such as a network drive that has gone away
        label = f"{request.label} could not be asked for at {request.url}: {(error.strerror or 'it broke').lower()}."
        raise PublisherServerError(label, remedy=RETRY_LATER) from None
    if not stat.S_ISREG(found.st_mode):
        raise request_error(request, "that it is no file")
    return FileVersion(request.url, request.source.publisher, etag_of(found), None, found.st_size)


def _check_synthetic(request: VersionRequest) -> FileVersion:
    from taxi_assets.tlc import synthetic  # noqa: PLC0415  (the generator is loaded only where it is asked for)

    return FileVersion(request.url, request.source.publisher, synthetic.etag(), None, None)


def _check_http(request: VersionRequest) -> FileVersion:
    from taxi_assets.tlc.sources.transports.http_transport import check_http_version  # noqa: PLC0415  (see `download.py`)

    return check_http_version(request)


def _check_gcs(request: VersionRequest) -> FileVersion:
    from taxi_assets.tlc.sources.transports.gcs_transport import check_gcs_version  # noqa: PLC0415  (Google's clients take a while to load)

    return check_gcs_version(request)


_VERSION_CHECKS: dict[str, Callable[[VersionRequest], FileVersion]] = {
    "http": _check_http,
    "https": _check_http,
    "file": _check_folder,
    "gs": _check_gcs,
    "sample": _check_synthetic,
}
