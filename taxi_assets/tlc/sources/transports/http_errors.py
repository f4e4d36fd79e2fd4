"""Errors of requests and urllib3, translated into errors of this package.

Their messages are never quoted: these contain the whole URL, with its secrets.
"""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

import requests
import urllib3.exceptions

from taxi_assets.tlc.sources.transports.base_transport import request_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.tlc.sources.transports.base_transport import FileRequest

MAX_REDIRECTS = 10

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
