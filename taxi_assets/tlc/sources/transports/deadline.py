"""A deadline for all HTTP connections of one request.

A socket's timeout starts again with each byte that arrives, so a publisher that sends one byte every few seconds can
hold a client indefinitely. This module closes the connections at the deadline.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from urllib3.connection import HTTPConnection

_REPEAT_SECONDS = 0.05
"""The closer repeats at this interval, to catch connections opened after the deadline."""


class DeadlinePassedError(Exception):
    """The deadline passed before the request was complete."""


@contextmanager
def session_until(deadline: Callable[[], float]) -> Iterator[requests.Session]:
    """Yield a session whose connections are closed at a deadline.

    Args:
        deadline: Returns the deadline on the clock of `time.monotonic`. It may be extended until it passes.

    Raises:
        DeadlinePassedError: The connections were closed.
    """
    closer = _ConnectionCloser(deadline)
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, _DeadlineAdapter(closer))
        closer.start()
        try:
            yield session
        except (requests.RequestException, OSError):
            if closer.has_closed:
                raise DeadlinePassedError from None
            raise
        finally:
            closer.stop()
    if closer.has_closed:  # http.client mistakes truncated headers for complete ones
        raise DeadlinePassedError


class _ConnectionCloser(threading.Thread):
    """A thread that waits for the deadline, then closes all open connections."""

    def __init__(self, deadline: Callable[[], float]) -> None:
        super().__init__(daemon=True, name="deadline")
        self.connections: list[HTTPConnection] = []
        self.sockets: list[Any] = []
        """Sockets of open connections.

    They are kept here because a connection drops its socket when the server announces the end of the connection.
    """
        self.has_closed = False
        self._deadline = deadline
        self._finished = threading.Event()

    def run(self) -> None:
        wait = self._deadline() - time.monotonic()
        while not self._finished.wait(wait):
            wait = self._deadline() - time.monotonic()
            if wait > 0:
                continue
            self.has_closed = True
            for open_socket in [*(connection.sock for connection in self.connections), *self.sockets]:
                with suppress(OSError, AttributeError):  # already closed, or not open yet
                    open_socket.shutdown(socket.SHUT_RDWR)
            wait = _REPEAT_SECONDS

    def stop(self) -> None:
        self._finished.set()
        self.join()


class _DeadlineAdapter(HTTPAdapter):
    """Registers each new connection with the closer, and closes redirects without reading their body."""

    def __init__(self, closer: _ConnectionCloser) -> None:
        super().__init__()
        self._closer = closer

    def send(self, *args: Any, **options: Any) -> requests.Response:
        response = super().send(*args, **options)
        if response.is_redirect:
            # requests reads and decompresses the whole body of a redirect into memory, unless the response is closed.
            response.close()
        return response

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        connection_class = pool.ConnectionCls

        # urllib3 has no hook for new connections, so the pool gets a factory in place of its connection class.
        def create_connection(*args: Any, **options: Any) -> Any:
            connection = connection_class(*args, **options)
            open_connection = connection.connect

            def open_and_register() -> None:
                open_connection()
                self._closer.sockets.append(connection.sock)

            connection.connect = open_and_register
            self._closer.connections.append(connection)
            return connection

        pool.ConnectionCls = create_connection
        return pool
