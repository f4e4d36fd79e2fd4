"""The session of all HTTP requests: it has a deadline, reads no bodies of redirects, and logs no secrets.

A socket's timeout starts again with each byte that arrives, so a publisher that sends one byte every few seconds can
hold a client indefinitely. Here, each read from the socket ends at the deadline.
"""

from __future__ import annotations

import http.client
import io
import logging
import time
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

MAX_REDIRECTS = 10


class _QueryFilter(logging.Filter):
    """Removes the query, which may contain a signature, from the URLs that urllib3 logs at debug level."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
        return True


_QUERY_FILTER = _QueryFilter()


def session_until(deadline: Callable[[], float]) -> requests.Session:
    """Return a session that reads answers until a deadline. After it, a read raises a timeout of requests or urllib3.

    Args:
        deadline: Returns the deadline on the clock of `time.monotonic`. It may be extended until it passes.
    """
    logging.getLogger("urllib3.connectionpool").addFilter(_QUERY_FILTER)
    session = requests.Session()
    session.max_redirects = MAX_REDIRECTS
    session.hooks["response"].append(_close_redirect)
    for scheme in ("http://", "https://"):
        session.mount(scheme, _DeadlineAdapter(deadline))
    return session


def _close_redirect(response: requests.Response, **_: Any) -> None:
    # requests reads and decompresses the whole body of a redirect into memory, unless the response is closed.
    if response.is_redirect:
        response.close()


class _DeadlineAdapter(HTTPAdapter):
    """Gives `http.client` a reader with a deadline for each answer, including that of a proxy."""

    def __init__(self, deadline: Callable[[], float]) -> None:
        super().__init__()
        self._deadline = deadline

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        deadline = self._deadline

        class Response(http.client.HTTPResponse):
            def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
                super().__init__(sock, *args, **options)
                self.fp = io.BufferedReader(_DeadlineReader(sock, self.fp.detach(), deadline))

        pool.ConnectionCls = type("Connection", (pool.ConnectionCls,), {"response_class": Response})
        return pool


class _DeadlineReader(io.RawIOBase):
    """The bytes that arrive at a socket. A read ends at the deadline, or earlier after the socket's own timeout."""

    def __init__(self, sock: socket.socket, arriving: io.RawIOBase, deadline: Callable[[], float]) -> None:
        self._socket, self._arriving, self._deadline = sock, arriving, deadline
        self._timeout = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        left = self._deadline() - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left if self._timeout is None else min(left, self._timeout))
        return self._arriving.readinto(buffer)

    def close(self) -> None:
        self._arriving.close()
        super().close()
