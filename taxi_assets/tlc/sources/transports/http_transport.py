"""Read `http://` and `https://` URLs: conditional requests, resumed downloads, retries of transient failures.

Does not belong here: whether the content is valid (`validate_file.py`).

Errors never quote the messages of requests and urllib3: these contain the whole URL, with its secrets.
"""

from __future__ import annotations

import hashlib
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
    NotModified,
    digest_file,
    format_megabytes,
    request_error,
    version_check_error,
)
from taxi_assets.tlc.sources.transports.content_encoding import content_codings, decode_body
from taxi_assets.tlc.sources.transports.http_errors import (
    TransferInterruptedError,
    read_head,
    require_file,
    require_no_web_page,
    translate_http_errors,
)
from taxi_assets.tlc.sources.transports.http_session import session_until
from taxi_assets.tlc.sources.wrong_formats import HEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

    from taxi_assets.tlc.sources.source_record import SourceRecord
    from taxi_assets.tlc.sources.transports.base_transport import DownloadRequest, VersionRequest

_HEAD_REFUSED_STATUSES = {HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
_FIRST_BYTE, _FIRST_BYTES = {"Range": "bytes=0-0"}, {"Range": f"bytes=0-{HEAD_BYTES - 1}"}
# Published bytes should arrive as they are, without compression for the transfer. Some servers compress them anyway.
_NO_ENCODING = {"Accept-Encoding": "identity"}
_CONDITIONAL_HEADERS = {"If-None-Match", "If-Modified-Since"}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class HttpTransport:
    """Downloads files from web servers. ETag or Last-Modified identifies a version."""

    def download(self, request: DownloadRequest) -> DownloadResult | NotModified:
        """Download the file, resuming interrupted attempts; see `Transport.download`."""
        return _HttpDownload(request).run()

    def check_version(self, request: VersionRequest) -> FileVersion:
        """Return the version from a conditional HEAD request; see `Transport.check_version`."""
        try:
            with translate_http_errors(request), session_until(lambda: request.deadline) as session:
                return _fetch_version(request, session)
        except TransferInterruptedError as error:
            if time.monotonic() >= request.deadline:
                raise version_check_error(request, "the answer was not complete in time") from None
            kind = PublisherServerError if error.was_connected else PublisherUnreachableError
            raise version_check_error(request, str(error), kind) from None


def _fetch_version(request: VersionRequest, session: requests.Session) -> FileVersion:
    response, version = _ask_for_version(request, session)
    if _may_be_a_web_page(response):
        with _answer(request, session, "GET", _FIRST_BYTES) as beginning:
            require_file(request, beginning)
            require_no_web_page(beginning, read_head(beginning))
    return version


def _ask_for_version(request: VersionRequest, session: requests.Session) -> tuple[requests.Response, FileVersion]:
    conditions = _conditional_headers(request.known_at_url)
    with _answer(request, session, "HEAD", conditions) as response:
        if response.status_code not in _HEAD_REFUSED_STATUSES:
            return response, _version_in(request, response)
    # Some servers and signatures allow GET only. The body says what a refusal means.
    with _answer(request, session, "GET", conditions | _FIRST_BYTE) as response:
        return response, _version_in(request, response)


def _answer(
    request: VersionRequest, session: requests.Session, method: str, headers: Mapping[str, str]
) -> requests.Response:
    """Return the response to a request, of which no more of the body is received than is read."""
    timeouts = (request.retry.connect_timeout, request.retry.read_timeout)
    return session.request(
        method, request.source.url, headers={**_NO_ENCODING, **headers},
        timeout=timeouts, stream=True, allow_redirects=True,
    )  # fmt: skip


def _version_in(request: VersionRequest, response: requests.Response) -> FileVersion:
    if response.status_code == HTTPStatus.NOT_MODIFIED and request.known_at_url is not None:
        return request.known_at_url
    require_file(request, response)
    # The length of an encoded body is not the length of the file.
    length = None if content_codings(response.headers.get("Content-Encoding")) else _file_length(response)
    return FileVersion(
        request.url,
        request.source.publisher,
        response.headers.get("ETag"),
        response.headers.get("Last-Modified"),
        length,
    )


def _may_be_a_web_page(response: requests.Response) -> bool:
    """Return whether the first bytes should be checked: the headers are not those of a stored file."""
    is_text = response.headers.get("Content-Type", "").lower().startswith(("text/", "application/xhtml"))
    return response.status_code != HTTPStatus.NOT_MODIFIED and (is_text or "ETag" not in response.headers)


def _file_length(response: requests.Response) -> int | None:
    span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if span is not None:
        return int(span[3]) if span[3].isdecimal() else None
    return _content_length(response)


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
        self._codings: list[str] = []

    def run(self) -> DownloadResult | NotModified:
        """Attempt the download until the file is complete, or the publisher confirms the known version."""
        request = self._request
        try:
            result: DownloadResult | NotModified = self._retry_policy()(self._attempt)
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
        return result

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

    def _attempt(self) -> DownloadResult | NotModified:
        """Send one request and receive the rest of the file.

        Returns:
            `NotModified` if the publisher confirms the known version; otherwise the complete file.
        """
        self._attempts += 1
        if self._validator is None:
            self._discard_partial_file()
        retry = self._request.retry
        self._deadline = time.monotonic() + retry.connect_timeout + retry.read_timeout
        self._was_slow = False
        try:
            with translate_http_errors(self._request), session_until(lambda: self._deadline) as session:
                return self._request_and_receive(session)
        except TransferInterruptedError:
            self._was_slow = time.monotonic() >= self._deadline
            if self._was_slow:
                raise TransferInterruptedError("too little data arrived in time") from None
            raise

    def _request_and_receive(self, session: requests.Session) -> DownloadResult | NotModified:
        headers, retry = self._headers(), self._request.retry
        timeouts = (retry.connect_timeout, retry.read_timeout)
        with session.get(self._request.source.url, headers=headers, timeout=timeouts, stream=True) as response:
            known = self._request.known_at_url
            if response.status_code == HTTPStatus.NOT_MODIFIED and headers.keys() & _CONDITIONAL_HEADERS and known:
                return NotModified(known)
            self._accept(response)
            self._receive(response)
        return self._complete_file(response)

    @property
    def _validator(self) -> str | None:
        """The header that identifies this version byte for byte. A weak ETag does not."""
        strong = self._etag is not None and not self._etag.startswith("W/")
        return self._etag if strong else self._last_modified

    def _headers(self) -> dict[str, str]:
        headers = {**_NO_ENCODING}
        if self._arrived and self._validator is not None:
            headers |= {"Range": f"bytes={self._arrived}-", "If-Range": self._validator}
        else:
            headers |= _conditional_headers(self._request.known_at_url)
        return headers

    def _accept(self, response: requests.Response) -> None:
        """Prepare to receive the body of a successful response. Raise the error that any other status means."""
        status = response.status_code
        if status != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not self._arrived:
            require_file(self._request, response)
        if status == HTTPStatus.OK:
            self._discard_partial_file()
            chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
            self._total = None if chunked else _content_length(response)
            self._etag = response.headers.get("ETag")
            self._last_modified = response.headers.get("Last-Modified")
            self._codings = content_codings(response.headers.get("Content-Encoding"))
        elif self._arrived and status in {HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}:
            if not self._resumes(response):
                self._discard_partial_file()
                raise TransferInterruptedError("the publisher did not resume it where it was interrupted")
        else:  # 206 without a request for a range
            raise request_error(self._request, f"the publisher answered HTTP {status}")
        self._request.check_size(self._total or 0)

    def _resumes(self, response: requests.Response) -> bool:
        """Return whether the response is the rest of the same version. Some servers ignore If-Range."""
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status_code != HTTPStatus.PARTIAL_CONTENT or span is None or int(span[1]) != self._arrived:
            return False
        if span[3] != "*" and self._total is not None and int(span[3]) != self._total:
            return False
        if content_codings(response.headers.get("Content-Encoding")) != self._codings:
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
                request.check_size(self._arrived)
                if self._arrived >= next_deadline_at:
                    next_deadline_at = self._arrived + request.retry.minimum_progress_bytes
                    self._deadline = time.monotonic() + request.retry.read_timeout
                self._log_progress()
        if self._total is not None and self._arrived != self._total:
            reason = f"{self._arrived:,} bytes arrived instead of {self._total:,}"
            if self._arrived > self._total:
                self._discard_partial_file()
            raise TransferInterruptedError(reason)

    def _complete_file(self, response: requests.Response) -> DownloadResult:
        """Decode the body, if it is encoded, and check that it is not a web page."""
        path, etag, last_modified = self._request.path, self._etag, self._last_modified
        digest, length = self._digest.hexdigest(), self._arrived
        if self._codings:
            decode_body(self._request, self._codings)
            digest, length = digest_file(path), path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        try:
            require_no_web_page(response, head)
        except TransferInterruptedError:
            self._discard_partial_file()
            raise
        return DownloadResult(length, digest, etag, last_modified)

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
