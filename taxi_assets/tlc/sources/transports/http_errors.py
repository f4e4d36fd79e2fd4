"""Failed requests and refusing answers, translated into errors of this package.

The messages of requests and urllib3 are never quoted: these contain the whole URL, with its secrets.
"""

from __future__ import annotations

import email.utils
import re
import ssl
import time
import zlib
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import requests
import urllib3.exceptions

from taxi_assets.tlc.sources.transports.base_transport import MissingFileError, request_error
from taxi_assets.tlc.sources.transports.http_session import MAX_REDIRECTS
from taxi_assets.tlc.sources.wrong_formats import HEAD_BYTES, detect_web_page, page_title, xml_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.tlc.sources.transports.base_transport import FileRequest

_NOT_PUBLISHED_STATUSES = {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
_TRANSIENT_STATUSES = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_FIREWALL_HEADERS = ("cf-mitigated", "x-amzn-waf-action")
"""Headers with which Cloudflare and AWS WAF say that they send a puzzle for browsers instead of the file."""
_BLOCKED_TEXT = re.compile(
    rb"access denied|block(ed|ing)|captcha|challenge|rate.?limit|quota|throttl|too many|unusual traffic|abuse"
    rb"|try again",
    re.IGNORECASE,
)
_BLOCKED_TITLE = re.compile(
    r"access denied|attention required|just a moment|blocked|captcha|rate.?limit|too many requests|security check"
    r"|are you (a )?(human|robot)|unusual traffic|pardon our interruption",
    re.IGNORECASE,
)

_NOT_CONNECTED = (
    urllib3.exceptions.NewConnectionError,  # refused, or no such host
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.ProxyError,
    urllib3.exceptions.SSLError,
)


class TransferInterruptedError(Exception):
    """An attempt ended before the file was complete, for a transient reason."""

    def __init__(
        self, reason: str, retry_after: float = 0.0, *, was_connected: bool = True, is_trusted: bool = True
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.was_connected = was_connected
        self.is_trusted = is_trusted
        """False if the server's certificate is not trusted: the only interruption that is not retried."""


@contextmanager
def translate_http_errors(request: FileRequest) -> Iterator[None]:
    """Raise the transports' errors for those of requests and urllib3, whose messages contain the URL's secrets."""
    try:
        yield
    except requests.TooManyRedirects:
        raise request_error(request, f"the publisher answered with more than {MAX_REDIRECTS} redirects") from None
    except (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
        urllib3.exceptions.HTTPError,
    ) as error:
        was_connected = not any(isinstance(cause, _NOT_CONNECTED) for cause in _causes(error))
        untrusted = any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))
        raise TransferInterruptedError(
            _describe(error), was_connected=was_connected, is_trusted=not untrusted
        ) from None
    except (requests.RequestException, ValueError) as error:  # ValueError: some malformed redirects
        cause = f"it leads to a URL that cannot be followed ({type(error).__name__})"
        raise request_error(request, cause) from None


def require_file(request: FileRequest, response: requests.Response) -> None:
    """Raise the error that an answer means, unless its status is 200 (the file) or 206 (a part of it).

    Raises:
        MissingFileError: The server does not have the file.
        TransferInterruptedError: The reason is transient: the server is overloaded, or it blocks this client.
        PublisherRequestError: The server refuses the request.
    """
    status, firewall = response.status_code, [name for name in _FIREWALL_HEADERS if name in response.headers]
    if firewall:
        raise _blocked_error(response, f"the header {firewall[0]}")
    if status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        return
    if status in _NOT_PUBLISHED_STATUSES:
        raise MissingFileError(f"HTTP {status}")
    if status in _TRANSIENT_STATUSES:
        raise TransferInterruptedError(f"HTTP {status}", _retry_after_seconds(response))
    if status == HTTPStatus.FORBIDDEN:
        raise _forbidden_error(request, response)
    raise request_error(request, f"the publisher answered HTTP {status}")


def require_no_web_page(response: requests.Response, head: bytes) -> None:
    """Raise the error that an HTML page with a status of success means, if `head` is the beginning of one.

    Raises:
        MissingFileError: Many servers send such a page in place of a missing file.
        TransferInterruptedError: The page's title says that the server blocks this client.
    """
    page = detect_web_page(head)
    if page is None:
        return
    if _BLOCKED_TITLE.search(page_title(head)):
        raise _blocked_error(response, page)
    raise MissingFileError(page)


def read_head(response: requests.Response) -> bytes:
    """Return the first bytes of the body of a streamed response, decompressed; empty for a response to HEAD."""
    head: bytes = response.raw.read(HEAD_BYTES, decode_content=False)
    if head.startswith(b"\x1f\x8b"):
        with suppress(zlib.error):
            return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(head, HEAD_BYTES)
    return head


def _forbidden_error(request: FileRequest, response: requests.Response) -> Exception:
    """Return the error for HTTP 403, which means a missing file only if the body does not say otherwise.

    Object stores answer so for a missing key, if the client may not list the bucket. Firewalls and rate limits answer
    with a page or a text for people.
    """
    head = read_head(response)
    code, page = xml_code(head), detect_web_page(head)
    if page is not None:
        return _blocked_error(response, page)
    if code and code != "AccessDenied":  # a signature that has expired, for example
        return request_error(request, f"the publisher answered HTTP 403 ({code})")
    if "Retry-After" in response.headers or (not code and _BLOCKED_TEXT.search(head)):
        return _blocked_error(response, "a text that says so")
    return MissingFileError("HTTP 403")


def _blocked_error(response: requests.Response, evidence: str) -> TransferInterruptedError:
    reason = f"the publisher blocks requests from this machine for now (HTTP {response.status_code} with {evidence})"
    return TransferInterruptedError(reason, _retry_after_seconds(response))


def _retry_after_seconds(response: requests.Response) -> float:
    """Return the seconds that the Retry-After header requests, as a number or a date. Zero if there is none."""
    retry_after = response.headers.get("Retry-After", "")
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        date = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, date.timestamp() - time.time())


def _describe(error: BaseException) -> str:
    """Return the cause: the certificate, the operating system's message, or a timeout."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message.rstrip('.')})"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    timeouts = (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
    if any(isinstance(cause, timeouts) for cause in causes):
        return "no data arrived in time"
    return "the connection was interrupted"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, which requests and urllib3 keep in several places."""
    yield error
    for inner in (error.__cause__, getattr(error, "reason", None), *error.args):
        if isinstance(inner, BaseException):
            yield from _causes(inner)
