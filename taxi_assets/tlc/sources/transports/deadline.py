"""A deadline for all that is said over HTTP in one errand.

A timeout of a socket starts anew with each byte that comes, so a publisher that sends one every few seconds keeps a
client for as long as it likes. Here the connections are cut when the time is up. Does not belong here: what is said.
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

_RETRY_INTERVAL_SECONDS = 0.05
"""Seconds: one that was being opened, or a redirect has led to, is cut as well."""


class DeadlinePassedError(Exception):
    """The time is up."""


@contextmanager
def session_until(deadline: Callable[[], float]) -> Iterator[requests.Session]:
    """A session whose connections are cut at a point in time, by `time.monotonic`; raises `DeadlinePassedError`.

    It may be put off while there is time.
    """
    cutter = _ConnectionCloser(deadline)
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, _DeadlineAdapter(cutter))
        cutter.start()
        try:
            yield session
        except (requests.RequestException, OSError):
            if cutter.has_cut:
                raise DeadlinePassedError from None
            raise
        finally:
            cutter.stop()
    if cutter.has_cut:  # to http.client, headers that were cut off are headers that have ended
        raise DeadlinePassedError


class _ConnectionCloser(threading.Thread):
    """Waits for the deadline in the background, and cuts what is open then."""

    def __init__(self, deadline: Callable[[], float]) -> None:
        super().__init__(daemon=True, name="deadline")
        self.connections: list[HTTPConnection] = []
        self.sockets: list[Any] = []
        """Those of connections that are open: one lets go of its socket where the server says that it will close it."""
        self.has_cut = False
        self._deadline = deadline
        self._over = threading.Event()

    def run(self) -> None:
        wait = self._deadline() - time.monotonic()
        while not self._over.wait(wait):
            wait = self._deadline() - time.monotonic()
            if wait > 0:
                continue
            self.has_cut = True
            for open_ in [*(connection.sock for connection in self.connections), *self.sockets]:
                with suppress(OSError, AttributeError):  # it is closed already, or not open yet
                    open_.shutdown(socket.SHUT_RDWR)
            wait = _RETRY_INTERVAL_SECONDS

    def stop(self) -> None:
        self._over.set()
        self.join()


class _DeadlineAdapter(HTTPAdapter):
    """Tells of each connection that is made, and reads no body of a redirect."""

    def __init__(self, cutter: _ConnectionCloser) -> None:
        super().__init__()
        self._cutter = cutter

    def send(self, *args: Any, **options: Any) -> requests.Response:
        response = super().send(*args, **options)
        if response.is_redirect:
            # Before it follows, requests reads the body into memory, expanded, however long; of a closed one nothing.
            response.close()
        return response

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        connection_class = pool.ConnectionCls

        def connect(*args: Any, **options: Any) -> Any:
            connection = connection_class(*args, **options)
            open_ = connection.connect

            def open_and_tell() -> None:
                open_()
                self._cutter.sockets.append(connection.sock)

            connection.connect = open_and_tell
            self._cutter.connections.append(connection)
            return connection

        pool.ConnectionCls = connect
        return pool
