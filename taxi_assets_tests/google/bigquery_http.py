"""The HTTP side of the BigQuery double: requests in, answers out, uploads, and broken connections.

Belongs here: HTTP. Does not belong here: what a request means (`bigquery`).
"""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from taxi_assets_tests.google.bigquery_values import GoogleError, Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from email.message import Message


@dataclass(frozen=True)
class Request:
    """A request as it came in."""

    method: str
    path: str
    """Without the query, percent signs decoded: `/bigquery/v2/projects/p/jobs`."""
    query: dict[str, str]
    headers: Message
    body: Any
    """The JSON of the body, or of the metadata part of an upload; None if there is none."""
    body_bytes: bytes
    """The body as sent."""


@dataclass(frozen=True)
class Answer:
    """An answer: JSON or nothing."""

    status: int = 200
    body: Resource | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reset: bool = False
    """Close by TCP reset instead."""


class HttpServer:
    """Serves `answer` on a free port of 127.0.0.1; `stop` leaves no thread and no socket behind."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.answer = answer
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and hang up on whoever is still connected."""
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128
    answer: Callable[[Request], Answer]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients hang up in the middle: that is what many tests are about.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Wake the threads that wait for a next request on connections kept alive."""
        with self._open_lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RD)
                except OSError:
                    continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (as the base class names it)
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_PATCH(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        target = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        if len(content) < length:
            # The client died while it was sending: half a request has no effect.
            self.close_connection = True
            return
        query = dict(parse_qsl(target.query, keep_blank_values=True))
        try:
            body = _json_of(content, self.headers.get("Content-Type", ""))
            answer = self.server.answer(Request(self.command, unquote(target.path), query, self.headers, body, content))
        except GoogleError as error:
            answer = Answer(error.status, error.body)
        if answer.reset:
            self._reset()
        else:
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        content = b"" if answer.body is None else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.body is not None:
            self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def _json_of(content: bytes, content_type: str) -> Any:
    if content_type.startswith("multipart/related"):
        content = multipart(content, content_type)[0]
    elif not content_type.startswith("application/json"):
        return None
    try:
        return json.loads(content) if content else None
    except ValueError as error:
        raise GoogleError("parseError", f"Invalid JSON payload received. {error}") from error


def multipart(content: bytes, content_type: str) -> tuple[bytes, bytes]:
    """The metadata and the media of a multipart upload."""
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if boundary is None:
        raise GoogleError("badRequest", "Missing boundary in multipart body.")
    parts = content.split(b"--" + boundary[1].encode())
    metadata = parts[1].split(b"\r\n\r\n", 1)[1].strip()
    # The media may itself contain anything, so only its own line ends are taken away.
    media = (b"--" + boundary[1].encode()).join(parts[2:-1]).split(b"\r\n\r\n", 1)[1]
    return metadata, media.removesuffix(b"\r\n")


@dataclass
class Upload:
    """A resumable upload under way."""

    metadata: Resource
    content: bytearray = field(default_factory=bytearray)

    @classmethod
    def begin(cls, request: Request) -> Self:
        """Of the request that starts it."""
        return cls(request.body or {})

    def add(self, request: Request) -> bool:
        """Take a chunk; True when it was the last one."""
        span = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", request.headers.get("Content-Range", ""))
        if span is None:
            raise GoogleError("badRequest", "Invalid Content-Range header.")
        if span[1] is not None:
            if int(span[1]) > len(self.content):
                raise GoogleError("badRequest", "Chunk doesn't follow the bytes received.")
            self.content[int(span[1]) :] = request.body_bytes
        return span[3] != "*" and len(self.content) == int(span[3])

    @property
    def incomplete(self) -> Answer:
        """Says how much has arrived."""
        headers = {"Range": f"bytes=0-{len(self.content) - 1}"} if self.content else {}
        return Answer(308, None, headers)
