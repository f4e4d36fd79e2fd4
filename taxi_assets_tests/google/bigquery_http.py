"""The BigQuery double's HTTP server: requests, answers, uploads, and broken connections.

Uploads follow the page "Upload media" of the BigQuery documentation (multipart and resumable uploads).
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
    """A request as it was received."""

    method: str
    path: str
    """The path, without the query and percent-decoded: `/bigquery/v2/projects/p/jobs`."""
    query: dict[str, str]
    headers: Message
    body: Any
    """The JSON of the body, or of an upload's metadata part; None if there is none."""
    body_bytes: bytes
    """The body as it was sent."""


@dataclass(frozen=True)
class Answer:
    """An answer with a JSON body or none."""

    status: int = 200
    body: Resource | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reset: bool = False
    """Close the connection by TCP reset instead."""
    hang: bool = False
    """Keep the connection open and never answer."""


class HttpServer:
    """Serves the function `answer` on a free port of 127.0.0.1. `stop` leaves no thread and no socket behind."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.answer = answer
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, and close the connections that clients keep open."""
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
        # Many tests break connections on purpose.
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
        """Wake the threads that wait for the next request of a kept-alive connection."""
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
            # The client broke off while sending: an incomplete request has no effect.
            self.close_connection = True
            return
        query = dict(parse_qsl(target.query, keep_blank_values=True))
        try:
            body = _json_of(content, self.headers.get("Content-Type", ""))
            answer = self.server.answer(Request(self.command, unquote(target.path), query, self.headers, body, content))
        except GoogleError as error:
            answer = Answer(error.status, error.body)
        if answer.hang:
            self.close_connection = True
            self.rfile.read(1)  # until the client gives up, or the server stops
        elif answer.reset:
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
        content = split_multipart(content, content_type)[0]
    elif not content_type.startswith("application/json"):
        return None
    try:
        return json.loads(content) if content else None
    except ValueError as error:
        raise GoogleError("parseError", f"Invalid JSON payload received. {error}") from error


def split_multipart(content: bytes, content_type: str) -> tuple[bytes, bytes]:
    """Split a multipart upload into its metadata and its media."""
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if boundary is None:
        raise GoogleError("badRequest", "Missing boundary in multipart body.")
    parts = content.split(b"--" + boundary[1].encode())
    metadata = parts[1].split(b"\r\n\r\n", 1)[1].strip()
    # The media may contain any bytes, so only the line break that ends it is removed.
    media = (b"--" + boundary[1].encode()).join(parts[2:-1]).split(b"\r\n\r\n", 1)[1]
    return metadata, media.removesuffix(b"\r\n")


@dataclass
class Upload:
    """A resumable upload in progress."""

    metadata: Resource
    content: bytearray = field(default_factory=bytearray)

    @classmethod
    def begin(cls, request: Request) -> Self:
        """Start an upload from its first request."""
        return cls(request.body or {})

    def add(self, request: Request) -> bool:
        """Add a chunk; return whether it was the last one."""
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
        """The answer that says how many bytes have arrived."""
        headers = {"Range": f"bytes=0-{len(self.content) - 1}"} if self.content else {}
        return Answer(308, None, headers)
