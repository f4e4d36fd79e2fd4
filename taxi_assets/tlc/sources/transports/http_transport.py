"""Read `http://` and `https://` URLs: conditional requests, resumed downloads, retries of transient failures.

Does not belong here: whether the content is valid (`validate_file.py`).

Errors never quote the messages of requests and urllib3: these contain the whole URL, with its secrets.
"""

from __future__ import annotations

import email.utils
import hashlib
import logging
import math
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import tenacity

from taxi_assets.errors import PublisherRequestError, PublisherServerError, PublisherUnreachableError
from taxi_assets.tlc.sources.source_record import FileVersion
from taxi_assets.tlc.sources.transports.base_transport import (
    CHUNK_BYTES,
    RETRY_LATER,
    DownloadResult,
    MissingFileError,
    NotModified,
    format_megabytes,
    request_error,
    version_check_error,
)
from taxi_assets.tlc.sources.transports.deadline import DeadlinePassedError, session_until
from taxi_assets.tlc.sources.transports.http_errors import (
    MAX_REDIRECTS,
    TransferInterruptedError,
    translate_http_errors,
)
from taxi_assets.tlc.sources.validate_file import too_large_error

if TYPE_CHECKING:
    import requests

    from taxi_assets.tlc.sources.source_record import SourceRecord
    from taxi_assets.tlc.sources.transports.base_transport import DownloadRequest, VersionRequest

_NOT_PUBLISHED_STATUSES = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
_TRANSIENT_STATUSES = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_HEAD_UNSUPPORTED_STATUSES = {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
_CONDITIONAL_HEADERS = {"If-None-Match", "If-Modified-Since"}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class _QueryFilter(logging.Filter):
    """Removes the query, which may contain a signature, from the URLs that urllib3 logs at debug level."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
        return True


_QUERY_FILTER = _QueryFilter()


class HttpTransport:
    """Downloads files from web servers. ETag or Last-Modified identifies a version."""

    def download(self, request: DownloadRequest) -> DownloadResult | NotModified:
        """Download the file, resuming interrupted attempts; see `Transport.download`."""
        logging.getLogger("urllib3.connectionpool").addFilter(_QUERY_FILTER)
        return _HttpDownload(request).run()

    def check_version(self, request: VersionRequest) -> FileVersion | None:
        """Return the version from one conditional HEAD request; see `Transport.check_version`."""
        logging.getLogger("urllib3.connectionpool").addFilter(_QUERY_FILTER)
        try:
            with translate_http_errors(request), session_until(lambda: request.deadline) as session:
                session.max_redirects = MAX_REDIRECTS
                return _fetch_version(request, session)
        except MissingFileError:
            return None
        except DeadlinePassedError:
            raise version_check_error(request, "the answer was not complete in time") from None
        except TransferInterruptedError as error:
            kind = PublisherServerError if error.was_connected else PublisherUnreachableError
            raise version_check_error(request, str(error), kind) from None


def _fetch_version(request: VersionRequest, session: requests.Session) -> FileVersion:
    response = _fetch_headers(request, session, "HEAD")
    if response.status_code in _HEAD_UNSUPPORTED_STATUSES:
        response = _fetch_headers(request, session, "GET")
    status = response.status_code
    if status == HTTPStatus.NOT_MODIFIED and request.known_at_url is not None:
        return request.known_at_url
    if status in _NOT_PUBLISHED_STATUSES:
        raise MissingFileError(f"HTTP {status}")
    if status in _TRANSIENT_STATUSES:
        raise version_check_error(request, f"HTTP {status}")
    if status != HTTPStatus.OK:
        raise request_error(request, f"the publisher answered HTTP {status}")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise MissingFileError("a web page")  # an error page, although the status is 200
    return FileVersion(
        request.url,
        request.source.publisher,
        response.headers.get("ETag"),
        response.headers.get("Last-Modified"),
        _content_length(response),
    )


def _fetch_headers(request: VersionRequest, session: requests.Session, method: str) -> requests.Response:
    headers = {"Accept-Encoding": "identity", **_conditional_headers(request.known_at_url)}
    timeouts = (request.retry.connect_timeout, request.retry.read_timeout)
    url = request.source.url
    # A streamed response that is closed unread: the body of a GET is not downloaded.
    with session.request(method, url, headers=headers, timeout=timeouts, stream=True, allow_redirects=True) as response:
        return response


def _content_length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _conditional_headers(known: SourceRecord | FileVersion | None) -> dict[str, str]:
    """Return headers that request the file only if it differs from the known version."""
    headers = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified} if known is not None else {}
    return {name: value for name, value in headers.items() if value}


class _HttpDownload:
    """A download over HTTP in progress: the bytes that have arrived, and the version they belong to."""

    def __init__(self, request: DownloadRequest) -> None:
        self._request = request
        self._attempts = 0
        self._furthest = 0
        """The most bytes that any attempt has reached."""
        self._counted_from = 0
        """The value of `_furthest` when the attempts were last counted from zero."""
        self._logged_at = request.started
        self._deadline = math.inf
        self._was_slow = False
        self._discard_partial_file()

    def _discard_partial_file(self) -> None:
        self._arrived = 0
        self._digest = hashlib.sha256()
        self._total: int | None = None
        self._etag: str | None = None
        self._last_modified: str | None = None

    def run(self) -> DownloadResult | NotModified:
        """Attempt the download until the file is complete, or the publisher confirms the known version."""
        request = self._request
        try:
            not_modified = self._retry_policy()(self._attempt)
        except TransferInterruptedError as last:
            if not last.is_trusted:
                raise PublisherRequestError(
                    f"{request.label} could not be fetched from {request.url}: {last}.",
                    remedy="Check the URL, and which certificates this machine trusts.",
                ) from None
            raise PublisherUnreachableError(
                f"{request.label} could not be fetched from {request.url}: {last}"
                f" (tried {self._attempts} times, {format_megabytes(self._furthest)} arrived).",
                remedy=RETRY_LATER,
            ) from None
        return not_modified or DownloadResult(self._arrived, self._digest.hexdigest(), self._etag, self._last_modified)

    def _retry_policy(self) -> tenacity.Retrying:
        retry = self._request.retry
        doubling = tenacity.wait_exponential(multiplier=retry.first_wait_seconds, max=retry.max_wait_seconds)
        backoff = doubling + tenacity.wait_random(0, retry.first_wait_seconds)
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, TransferInterruptedError) and error.is_trusted
            ),
            after=self._note_progress,
            wait=lambda state: max(backoff(state), self._retry_after_seconds(state)),
            stop=tenacity.stop_after_attempt(retry.attempts),
            before_sleep=self._log_retry,
            reraise=True,
        )

    def _note_progress(self, state: tenacity.RetryCallState) -> None:
        """Count the attempts from zero again after enough progress.

        A large file may be interrupted often, as long as each series of attempts makes progress.
        """
        self._furthest = max(self._furthest, self._arrived)
        if self._furthest >= self._counted_from + self._request.retry.minimum_progress_bytes:
            self._counted_from = self._furthest
            if not self._was_slow:
                state.attempt_number = 0

    def _attempt(self) -> NotModified | None:
        """Send one request and receive the rest of the file.

        Returns:
            `NotModified` if the publisher confirms the known version; None if the file is complete.
        """
        self._attempts += 1
        if self._validator is None:
            self._discard_partial_file()
        retry = self._request.retry
        self._deadline = time.monotonic() + retry.connect_timeout + retry.read_timeout
        self._was_slow = False
        try:
            with translate_http_errors(self._request), session_until(lambda: self._deadline) as session:
                session.max_redirects = MAX_REDIRECTS
                return self._request_and_receive(session)
        except (DeadlinePassedError, TransferInterruptedError):
            self._was_slow = time.monotonic() >= self._deadline
            if self._was_slow:
                raise TransferInterruptedError("too little data arrived in time") from None
            raise

    def _request_and_receive(self, session: requests.Session) -> NotModified | None:
        headers, retry = self._headers(), self._request.retry
        timeouts = (retry.connect_timeout, retry.read_timeout)
        with session.get(self._request.source.url, headers=headers, timeout=timeouts, stream=True) as response:
            known = self._request.known_at_url
            if response.status_code == HTTPStatus.NOT_MODIFIED and headers.keys() & _CONDITIONAL_HEADERS and known:
                return NotModified(known)
            self._accept(response)
            self._receive(response)
        return None

    @property
    def _validator(self) -> str | None:
        """The header that identifies this version byte for byte. A weak ETag does not."""
        strong = self._etag is not None and not self._etag.startswith("W/")
        return self._etag if strong else self._last_modified

    def _headers(self) -> dict[str, str]:
        # Identity: the bytes must arrive as published, without compression for the transfer.
        headers = {"Accept-Encoding": "identity"}
        if self._arrived and self._validator is not None:
            headers |= {"Range": f"bytes={self._arrived}-", "If-Range": self._validator}
        else:
            headers |= _conditional_headers(self._request.known_at_url)
        return headers

    def _accept(self, response: requests.Response) -> None:
        """Prepare to receive the body of a successful response. Raise the error that any other status means."""
        status = response.status_code
        if status in _NOT_PUBLISHED_STATUSES:
            raise MissingFileError(f"HTTP {status}")
        if status in _TRANSIENT_STATUSES:
            raise TransferInterruptedError(f"HTTP {status}", _parse_retry_after(response.headers.get("Retry-After")))
        if status == HTTPStatus.OK:
            self._discard_partial_file()
            chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
            self._total = None if chunked else _content_length(response)
            self._etag = response.headers.get("ETag")
            self._last_modified = response.headers.get("Last-Modified")
        elif self._arrived and status in {HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}:
            if not self._resumes(response):
                self._discard_partial_file()
                raise TransferInterruptedError("the publisher did not resume it where it was interrupted")
        else:
            raise request_error(self._request, f"the publisher answered HTTP {status}")
        if self._total is not None and self._total > self._request.limits.max_bytes:
            raise too_large_error(self._request.label, self._request.url, self._request.limits)

    def _resumes(self, response: requests.Response) -> bool:
        """Return whether the response is the rest of the same version. Some servers ignore If-Range."""
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status_code != HTTPStatus.PARTIAL_CONTENT or span is None or int(span[1]) != self._arrived:
            return False
        if span[3] != "*" and self._total is not None and int(span[3]) != self._total:
            return False
        same_etag = response.headers.get("ETag", self._etag) == self._etag
        return same_etag and response.headers.get("Last-Modified", self._last_modified) == self._last_modified

    def _receive(self, response: requests.Response) -> None:
        request = self._request
        next_deadline_at = self._arrived + request.retry.minimum_progress_bytes
        with request.path.open("ab" if self._arrived else "wb") as file:
            # read1 keeps the bytes that arrived before a connection was reset.
            while chunk := response.raw.read1(CHUNK_BYTES, decode_content=False):
                file.write(chunk)
                self._digest.update(chunk)
                self._arrived += len(chunk)
                if self._arrived > request.limits.max_bytes:
                    raise too_large_error(request.label, request.url, request.limits)
                if self._arrived >= next_deadline_at:
                    next_deadline_at = self._arrived + request.retry.minimum_progress_bytes
                    self._deadline = time.monotonic() + request.retry.read_timeout
                self._log_progress()
        if self._total is not None and self._arrived != self._total:
            reason = f"{self._arrived:,} bytes arrived instead of {self._total:,}"
            if self._arrived > self._total:
                self._discard_partial_file()
            raise TransferInterruptedError(reason)

    def _log_progress(self) -> None:
        now = time.monotonic()
        if now - self._logged_at >= self._request.retry.progress_interval_seconds:
            self._logged_at = now
            speed = self._arrived / 1e6 / max(now - self._request.started, 1e-9)
            total = f" of {format_megabytes(self._total)}" if self._total is not None else ""
            self._request.log.info(
                "%s: %s%s, %.1f MB/s", self._request.label, format_megabytes(self._arrived), total, speed
            )

    def _retry_after_seconds(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        requested = error.retry_after if isinstance(error, TransferInterruptedError) else 0.0
        return min(requested, self._request.retry.max_retry_after_seconds)

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        reason = state.outcome.exception() if state.outcome is not None else None
        wait_seconds = state.next_action.sleep if state.next_action is not None else 0.0
        arrived = format_megabytes(self._arrived)
        message = "%s from %s: %s, after %s; retrying in %.1f s"
        self._request.log.warning(message, self._request.label, self._request.url, reason, arrived, wait_seconds)


def _parse_retry_after(retry_after: str | None) -> float:
    """Return the seconds that a Retry-After header requests, as a number or a date. Zero if there is none."""
    if retry_after is None:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        date = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, date.timestamp() - time.time())
