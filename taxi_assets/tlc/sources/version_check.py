"""Asking a publisher whether a file is there, and in which version, without fetching it.

Belongs here: the order of things, and how files on disk and generated ones are asked for. Does not belong here: how
HTTP and Cloud Storage are spoken (`over_http.py`, `over_gcs.py`), and what is made of the answer.
"""

from __future__ import annotations

import stat
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from taxi_assets.errors import PublisherFailedError
from taxi_assets.tlc.sources.download import etag_of, path_of
from taxi_assets.tlc.sources.source_record import FileVersion
from taxi_assets.tlc.sources.transports.base_transport import (
    TRY_LATER,
    MissingError,
    Question,
    RetrySettings,
    refused_by_publisher,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taxi_assets.tlc.sources.source_record import Candidate

HASTY = RetrySettings(attempts=1, connect_timeout=3, read_timeout=5)
"""Whoever asks comes again soon: no patience."""
QUESTION_SECONDS = 15.0
"""For all candidates together, however slowly an answer comes in."""


def ask(
    what: str,
    candidates: Sequence[Candidate],
    *,
    known: FileVersion | None = None,
    patience: RetrySettings = HASTY,
    seconds: float = QUESTION_SECONDS,
    google_key: str | None = None,
) -> FileVersion | None:
    """The version of a file that is published now, of the first candidate that is; None when none is published.

    `known` is the version of the file that we hold; it is the answer when the publisher says that it is still current.
    As in `fetch`, a candidate that fails is never silently replaced by the next: raises `PublisherRefusedError`, and
    `PublisherFailedError` where no good answer came in time; `PublisherUnreachableError` means that nobody is there.
    """
    deadline = time.monotonic() + seconds
    for candidate in candidates:
        question = Question(
            what=what, candidate=candidate, held=known, retry=patience, google_key=google_key, deadline=deadline
        )
        try:
            return _ASKERS[urlsplit(candidate.url).scheme](question)
        except MissingError:
            continue
    return None


def _in_folder(question: Question) -> FileVersion:
    try:
        found = path_of(question).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError("no such file") from None
    except PermissionError:
        raise refused_by_publisher(question, "that its permissions forbid reading it") from None
    except OSError as error:  # such as a network drive that has gone away
        what = f"{question.what} could not be asked for at {question.url}: {(error.strerror or 'it broke').lower()}."
        raise PublisherFailedError(what, remedy=TRY_LATER) from None
    if not stat.S_ISREG(found.st_mode):
        raise refused_by_publisher(question, "that it is no file")
    return FileVersion(question.url, question.candidate.publisher, etag_of(found), None, found.st_size)


def _in_sample(question: Question) -> FileVersion:
    from taxi_assets.tlc import synthetic  # noqa: PLC0415  (the generator is loaded only where it is asked for)

    return FileVersion(question.url, question.candidate.publisher, synthetic.etag(), None, None)


def _on_server(question: Question) -> FileVersion:
    from taxi_assets.tlc.sources.transports.http_transport import version_over_http  # noqa: PLC0415  (see `download.py`)

    return version_over_http(question)


def _in_bucket(question: Question) -> FileVersion:
    from taxi_assets.tlc.sources.transports.gcs_transport import version_over_gcs  # noqa: PLC0415  (Google's clients take a while to load)

    return version_over_gcs(question)


_ASKERS: dict[str, Callable[[Question], FileVersion]] = {
    "http": _on_server,
    "https": _on_server,
    "file": _in_folder,
    "gs": _in_bucket,
    "sample": _in_sample,
}
