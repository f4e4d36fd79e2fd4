"""Fetching over HTTP: conditional, resumable, patient with what may pass.

Belongs here: the `http` and `https` transport of `download.py` and `version_check.py`. Does not belong here: whether what arrived
is any good.

Errors never quote the messages of requests and urllib3: these hold the whole URL, with its secrets.
"""

from __future__ import annotations

import email.utils
import hashlib
import logging
import math
import re
import ssl
import time
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import requests
import tenacity
import urllib3.exceptions

from taxi_assets.errors import PublisherRequestError, PublisherServerError, PublisherUnreachableError
from taxi_assets.tlc.sources.source_record import FileVersion
from taxi_assets.tlc.sources.transports.base_transport import (
    CHUNK_BYTES,
    RETRY_LATER,
    DownloadResult,
    MissingFileError,
    format_megabytes,
    request_error,
)
from taxi_assets.tlc.sources.transports.deadline import DeadlinePassedError, session_until
from taxi_assets.tlc.sources.validate_file import too_large_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.tlc.sources.source_record import SourceRecord
    from taxi_assets.tlc.sources.transports.base_transport import DownloadRequest, FileRequest, VersionRequest

_REDIRECTS = 10
_NOT_PUBLISHED = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
_TRANSIENT_STATUSES = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_HEAD_UNSUPPORTED = {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
_CONDITIONS = {"If-None-Match", "If-Modified-Since"}
_NOT_CONNECTED = (
    urllib3.exceptions.NewConnectionError,  # refused, or no such host
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.ProxyError,
    urllib3.exceptions.SSLError,
)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class _QueryFilter(logging.Filter):
    """Takes the query, which may hold a signature, off the URLs that urllib3 logs for debugging."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
        return True


_QUERY_FILTER = _QueryFilter()


def download_http(request: DownloadRequest) -> DownloadResult | SourceRecord:
    """Bring the file to the job's path; or the known record, when the publisher says that it has not changed."""
    logging.getLogger("urllib3.connectionpool").addFilter(_QUERY_FILTER)
    return _HttpDownload(request).run()


def check_http_version(request: VersionRequest) -> FileVersion:
    """The version that is published now, by a conditional HEAD; asked once, without patience."""
    logging.getLogger("urllib3.connectionpool").addFilter(_QUERY_FILTER)
    try:
        with _named_errors(request), session_until(lambda: request.deadline) as session:
            session.max_redirects = _REDIRECTS
            return _send_version_request(request, session)
    except DeadlinePassedError:
        raise PublisherServerError(
            _unreachable_error(request, "the answer did not end in time"), remedy=RETRY_LATER
        ) from None
    except _TransferInterruptedError as error:
        kind = PublisherServerError if error.was_connected else PublisherUnreachableError
        raise kind(_unreachable_error(request, str(error)), remedy=RETRY_LATER) from None


def _unreachable_error(request: VersionRequest, reason: str) -> str:
    return f"{request.label} could not be asked for at {request.url}: {reason}."


def _send_version_request(request: VersionRequest, session: requests.Session) -> FileVersion:
    answer = _fetch_headers(request, session, "HEAD")
    if answer.status_code in _HEAD_UNSUPPORTED:  # of a GET nothing but the head is read
        answer = _fetch_headers(request, session, "GET")
    if answer.status_code == HTTPStatus.NOT_MODIFIED and request.known is not None:
        return request.known
    if answer.status_code in _NOT_PUBLISHED:
        raise MissingFileError(f"HTTP {answer.status_code}")
    if answer.status_code in _TRANSIENT_STATUSES:
        raise PublisherServerError(_unreachable_error(request, f"HTTP {answer.status_code}"), remedy=RETRY_LATER)
    if answer.status_code != HTTPStatus.OK:
        raise request_error(request, f"HTTP {answer.status_code}")
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise MissingFileError("a web page, no file")
    length = answer.headers.get("Content-Length", "")
    return FileVersion(
        request.url,
        request.source.publisher,
        answer.headers.get("ETag"),
        answer.headers.get("Last-Modified"),
        int(length) if length.isdecimal() else None,
    )


def _fetch_headers(request: VersionRequest, session: requests.Session, method: str) -> requests.Response:
    headers = {"Accept-Encoding": "identity", **_conditions(request.known)}
    timeouts = (request.retry.connect_timeout, request.retry.read_timeout)
    url = request.source.url
    with session.request(method, url, headers=headers, timeout=timeouts, stream=True, allow_redirects=True) as answer:
        return answer


def _conditions(known: SourceRecord | FileVersion | None) -> dict[str, str]:
    """Headers that ask for the file only if it is not the one we know."""
    asked = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified} if known is not None else {}
    return {name: value for name, value in asked.items() if value}


class _TransferInterruptedError(Exception):
    """An attempt ended before the file was whole, for a reason that may pass."""

    def __init__(
        self, reason: str, retry_after: float = 0.0, *, was_connected: bool = True, is_trusted: bool = True
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.was_connected = was_connected
        self.is_trusted = is_trusted


class _HttpDownload:
    """A file on its way over HTTP: what has arrived so far, and of which version of it."""

    def __init__(self, request: DownloadRequest) -> None:
        self._job = request
        self._requests = 0
        self._furthest = 0
        self._counted_from = 0
        self._told = request.started
        self._deadline = math.inf
        self._was_slow = False
        self._discard_partial_file()

    def _discard_partial_file(self) -> None:
        self._arrived = 0
        self._digest = hashlib.sha256()
        self._total: int | None = None
        self._etag: str | None = None
        self._last_modified: str | None = None

    def run(self) -> DownloadResult | SourceRecord:
        """Attempt until the file is whole, or known to be the one we hold."""
        job = self._job
        try:
            unchanged = self._retry_policy()(self._attempt)
        except _TransferInterruptedError as last:
            if not last.is_trusted:
                raise PublisherRequestError(
                    f"{job.label} could not be fetched from {job.url}: {last}.",
                    remedy="Check the address, and which certificates this machine trusts.",
                ) from None
            raise PublisherUnreachableError(
                f"{job.label} could not be fetched from {job.url}: {last}"
                f" (tried {self._requests} times, {format_megabytes(self._furthest)} arrived).",
                remedy=RETRY_LATER,
            ) from None
        return unchanged or DownloadResult(self._arrived, self._digest.hexdigest(), self._etag, self._last_modified)

    def _retry_policy(self) -> tenacity.Retrying:
        retry = self._job.retry
        doubling = tenacity.wait_exponential(multiplier=retry.first_wait_seconds, max=retry.max_wait_seconds)
        backoff = doubling + tenacity.wait_random(0, retry.first_wait_seconds)
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, _TransferInterruptedError) and error.is_trusted
            ),
            after=self._note_progress,
            wait=lambda state: max(backoff(state), self._retry_after_seconds(state)),
            stop=tenacity.stop_after_attempt(retry.attempts),
            before_sleep=self._log_retry,
            reraise=True,
        )

    def _note_progress(self, state: tenacity.RetryCallState) -> None:
        """Begin to count anew where enough has come: a long file may break off often, but not for ever."""
        self._furthest = max(self._furthest, self._arrived)
        if self._furthest >= self._counted_from + self._job.retry.minimum_progress_bytes:
            self._counted_from = self._furthest
            if not self._was_slow:
                state.attempt_number = 0

    def _attempt(self) -> SourceRecord | None:
        """Ask once and take what comes; the known record, when the answer is that it is current."""
        self._requests += 1
        if self._validator is None:
            self._discard_partial_file()
        retry = self._job.retry
        self._deadline = time.monotonic() + retry.connect_timeout + retry.read_timeout
        self._was_slow = False
        try:
            with _named_errors(self._job), session_until(lambda: self._deadline) as session:
                session.max_redirects = _REDIRECTS
                return self._request_and_receive(session)
        except (DeadlinePassedError, _TransferInterruptedError):
            self._was_slow = time.monotonic() >= self._deadline
            if self._was_slow:
                raise _TransferInterruptedError("too little came in time") from None
            raise

    def _request_and_receive(self, session: requests.Session) -> SourceRecord | None:
        headers, retry = self._headers(), self._job.retry
        timeouts = (retry.connect_timeout, retry.read_timeout)
        with session.get(self._job.source.url, headers=headers, timeout=timeouts, stream=True) as response:
            if response.status_code == HTTPStatus.NOT_MODIFIED and headers.keys() & _CONDITIONS:
                return self._job.known
            self._accept(response)
            self._receive(response)
        return None

    @property
    def _validator(self) -> str | None:
        """What tells this version from any other, byte for byte; a weak ETag does not."""
        strong = self._etag is not None and not self._etag.startswith("W/")
        return self._etag if strong else self._last_modified

    def _headers(self) -> dict[str, str]:
        # Identity: what is published compressed stays so, and nothing else is compressed on the way.
        headers = {"Accept-Encoding": "identity"}
        if self._arrived and self._validator is not None:
            headers |= {"Range": f"bytes={self._arrived}-", "If-Range": self._validator}
        else:
            headers |= _conditions(self._job.known)
        return headers

    def _accept(self, response: requests.Response) -> None:
        """Let the body of a good answer in; for any other, raise what it means."""
        status = response.status_code
        if status in _NOT_PUBLISHED:
            raise MissingFileError(f"HTTP {status}")
        if status in _TRANSIENT_STATUSES:
            raise _TransferInterruptedError(f"HTTP {status}", _seconds(response.headers.get("Retry-After")))
        if status == HTTPStatus.OK:
            self._discard_partial_file()
            length = response.headers.get("Content-Length", "")
            chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
            self._total = int(length) if length.isdecimal() and not chunked else None
            self._etag = response.headers.get("ETag")
            self._last_modified = response.headers.get("Last-Modified")
        elif self._arrived and status in {HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}:
            if not self._resumes(response):
                self._discard_partial_file()
                raise _TransferInterruptedError("it could not be resumed where it broke off")
        else:
            raise request_error(self._job, f"HTTP {status}")
        if self._total is not None and self._total > self._job.limits.max_bytes:
            raise too_large_error(self._job.label, self._job.url, self._job.limits)

    def _resumes(self, response: requests.Response) -> bool:
        """Whether this is the rest of the same version, from where we are; some servers do not heed If-Range."""
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status_code != HTTPStatus.PARTIAL_CONTENT or span is None or int(span[1]) != self._arrived:
            return False
        if span[3] != "*" and self._total is not None and int(span[3]) != self._total:
            return False
        same_etag = response.headers.get("ETag", self._etag) == self._etag
        return same_etag and response.headers.get("Last-Modified", self._last_modified) == self._last_modified

    def _receive(self, response: requests.Response) -> None:
        job = self._job
        enough = self._arrived + job.retry.minimum_progress_bytes
        with job.path.open("ab" if self._arrived else "wb") as file:
            # read1: what came before a connection was reset is kept, and nothing is decoded.
            while chunk := response.raw.read1(CHUNK_BYTES, decode_content=False):
                file.write(chunk)
                self._digest.update(chunk)
                self._arrived += len(chunk)
                if self._arrived > job.limits.max_bytes:
                    raise too_large_error(job.label, job.url, job.limits)
                if self._arrived >= enough:
                    enough = self._arrived + job.retry.minimum_progress_bytes
                    self._deadline = time.monotonic() + job.retry.read_timeout
                self._log_progress()
        if self._total is not None and self._arrived != self._total:
            reason = f"{self._arrived:,} bytes came instead of {self._total:,}"
            if self._arrived > self._total:
                self._discard_partial_file()
            raise _TransferInterruptedError(reason)

    def _log_progress(self) -> None:
        now = time.monotonic()
        if now - self._told >= self._job.retry.progress_interval_seconds:
            self._told = now
            speed = self._arrived / 1e6 / max(now - self._job.started, 1e-9)
            total = f" of {format_megabytes(self._total)}" if self._total is not None else ""
            self._job.log.info("%s: %s%s, %.1f MB/s", self._job.label, format_megabytes(self._arrived), total, speed)

    def _retry_after_seconds(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.retry_after if isinstance(error, _TransferInterruptedError) else 0.0
        return min(asked, self._job.retry.max_retry_after_seconds)

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        reason = state.outcome.exception() if state.outcome is not None else None
        pause = state.next_action.sleep if state.next_action is not None else 0.0
        arrived = format_megabytes(self._arrived)
        message = "%s from %s: %s, after %s; trying again in %.1f s"
        self._job.log.warning(message, self._job.label, self._job.url, reason, arrived, pause)


@contextmanager
def _named_errors(request: FileRequest) -> Iterator[None]:
    """Turn the errors of requests and urllib3 into ours, without their text: it quotes the URL, secrets and all."""
    try:
        yield
    except requests.TooManyRedirects:
        raise request_error(request, f"more than {_REDIRECTS} redirects") from None
    except (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
        urllib3.exceptions.HTTPError,
    ) as error:
        was_connected = not any(isinstance(cause, _NOT_CONNECTED) for cause in _causes(error))
        untrusted = any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))
        raise _TransferInterruptedError(_reason(error), was_connected=was_connected, is_trusted=not untrusted) from None
    except (requests.RequestException, ValueError) as error:  # of some redirects Python says that they are no URL
        raise request_error(request, f"an address that cannot be followed ({type(error).__name__})") from None


def _reason(error: BaseException) -> str:
    """What the operating system said, or that it took too long."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not to be trusted ({cause.verify_message.rstrip('.')})"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    timeouts = (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
    if any(isinstance(cause, timeouts) for cause in causes):
        return "nothing came in time"
    return "the connection broke off"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it; requests and urllib3 keep that in four different places."""
    yield error
    for inner in (error.__cause__, getattr(error, "reason", None), *error.args):
        if isinstance(inner, BaseException):
            yield from _causes(inner)


def _seconds(retry_after: str | None) -> float:
    """What a Retry-After header asks for, a number of seconds or a date; 0 for none."""
    if retry_after is None:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        date = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, date.timestamp() - time.time())
