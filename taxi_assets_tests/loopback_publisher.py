"""A publisher of files on loopback: a real HTTP server that can misbehave on request.

    with LoopbackPublisher({"green_tripdata_2020-10.csv": b"..."}) as publisher:
        publisher.script("green_tripdata_2020-10.csv", Answer(status=503), Answer(cut_after=1000))
        ...download publisher.url("green_tripdata_2020-10.csv")...
        assert publisher.requests[-1].headers["Range"] == "bytes=1000-"

Without a script it is a well-behaved server: ETag, Last-Modified, conditional requests, ranges with If-Range, HEAD.

Belongs here: the behavior of HTTP servers, good and bad. Does not belong here: anything about taxi trips.
"""

from __future__ import annotations

import email.utils
import hashlib
import io
import re
import socket
import ssl
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from email.message import Message

HTML_PAGE = b"<!DOCTYPE html>\n<html><head><title>Maintenance &amp; repair</title></head><body>Sorry.</body></html>\n"
FIRST_PUBLISHED = 1_600_000_000
"""Last-Modified of the first file given as bytes, in seconds since 1970. Each `publish` adds a second."""


@dataclass(frozen=True)
class Answer:
    """The answer to one request. The defaults are those of a well-behaved server."""

    status: int | None = None
    """Send this status instead of the file, with `body` or a short text."""
    body: bytes | None = None
    """Send these bytes instead of the file, such as `HTML_PAGE`, without ETag or Last-Modified."""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """Headers to add or replace. None removes a header."""
    redirect: str | None = None
    """Send status 302 with this Location, and `body`."""
    delay: float = 0.0
    """Seconds to wait before answering."""
    stall_after: int | None = None
    """Send only this many bytes of the body, and leave the connection open."""
    drip: float = 0.0
    """Send the headers and the body one byte at a time, with this many seconds in between."""
    cut_after: int | None = None
    """Send only this many bytes of the body, then close the connection cleanly."""
    reset: bool = False
    """Close the connection with a TCP reset, as after a crash of the server."""
    content_length: int | None = None
    """Send this Content-Length, whatever the length of the body."""
    chunked: bool = False
    """Send the body chunked, without a Content-Length."""
    endless: bool = False
    """Send zeros forever after the body, without a Content-Length."""
    ranges: bool = True
    """False: ignore Range, and always send the complete file."""
    honor_if_range: bool = True
    """False: send the range even if the file has changed, as some servers do."""
    before: Callable[[], None] | None = None
    """Called before answering, for example to publish another version."""


@dataclass(frozen=True)
class Request:
    """A received request: `path` without the leading slash and the query, `query` as sent."""

    method: str
    path: str
    query: str
    headers: Message


@dataclass(frozen=True)
class _File:
    content: bytes
    etag: str
    last_modified: str


class LoopbackPublisher:
    """Serves files on 127.0.0.1 within its `with` block.

    Args:
        files: Contents by path (`"a/b.csv"`), or a folder, whose files are read at each request.
        certificate: A PEM file with a key and a certificate, to serve HTTPS.
    """

    def __init__(self, files: Mapping[str, bytes] | Path | None = None, *, certificate: Path | None = None) -> None:
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self._folder = files if isinstance(files, Path) else None
        self._certificate = certificate
        self._files: dict[str, _File] = {}
        self._scripts: dict[str, list[Answer]] = {}
        self._later_answers: dict[str, Answer] = {}
        self._lock = threading.Lock()
        self._versions = 0
        for path, content in ({} if files is None or isinstance(files, Path) else files).items():
            self.publish(path, content)

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.publisher = self
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def base(self) -> str:
        """The URL of the server, without a slash at the end."""
        return f"http{'s' if self._certificate else ''}://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """The port of the server."""
        return int(self._server.server_address[1])

    def url(self, path: str) -> str:
        """Return the URL of a file."""
        return f"{self.base}/{path}"

    def publish(self, path: str, content: bytes, *, etag: str | None = None) -> None:
        """Publish a file, or a new version of it. Without `etag`, the ETag is a digest of the content."""
        with self._lock:
            modified = email.utils.formatdate(FIRST_PUBLISHED + self._versions, usegmt=True)
            self._versions += 1
            self._files[path] = _File(content, etag or _etag_of(content), modified)

    def withdraw(self, path: str) -> None:
        """Remove a file: requests for it then return 404."""
        with self._lock:
            del self._files[path]

    def script(self, path: str, *answers: Answer, then: Answer | None = None) -> None:
        """Use these answers for the next requests for the path, in order, and `then` for all later ones."""
        with self._lock:
            self._scripts[path] = list(answers)
            self._later_answers[path] = then or Answer()

    def requests_for(self, path: str) -> list[Request]:
        """Return the requests for a path, in order."""
        return [request for request in self.requests if request.path == path]

    def record(self, request: Request) -> Answer:
        """Record a request, and return the answer to it. Used by the server."""
        with self._lock:
            self.requests.append(request)
            script = self._scripts.get(request.path)
            return script.pop(0) if script else self._later_answers.get(request.path, Answer())

    def find(self, path: str) -> _File | None:
        """Return the file at a path. Used by the server."""
        with self._lock:
            found = self._files.get(path)
        if found is not None or self._folder is None:
            return found
        on_disk = self._folder / path
        if ".." in path.split("/") or not on_disk.is_file():
            return None
        content = on_disk.read_bytes()
        modified = email.utils.formatdate(on_disk.stat().st_mtime, usegmt=True)
        return _File(content, _etag_of(content), modified)


def _etag_of(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    publisher: LoopbackPublisher

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Many tests are about clients that close the connection early.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Dripping(io.BufferedIOBase):
    """A file that writes one byte at a time, with pauses."""

    def __init__(self, file: Any, pause: float, stopping: threading.Event) -> None:
        self._file = file
        self._pause = pause
        self._stopping = stopping

    def write(self, content: Any) -> int:
        for byte in bytes(content):
            if not self._stopping.wait(self._pause):
                self._file.write(bytes([byte]))
        return len(content)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (as the base class names it)
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        publisher = self.server.publisher
        target = urlsplit(self.path)
        request = Request(self.command, unquote(target.path).lstrip("/"), target.query, self.headers)
        answer = publisher.record(request)
        if answer.before is not None:
            answer.before()
        publisher.stopping.wait(answer.delay)
        file = publisher.find(request.path)
        if answer.redirect is not None:
            self._send(HTTPStatus.FOUND, {"Location": answer.redirect}, answer.body or b"", answer)
        elif answer.status is not None:
            body = f"status {answer.status}\n".encode() if answer.body is None else answer.body
            self._send(answer.status, {"Content-Type": "text/plain"}, body, answer)
        elif answer.body is not None:
            self._send(HTTPStatus.OK, {}, answer.body, answer)
        elif file is None:
            self._send(HTTPStatus.NOT_FOUND, {"Content-Type": "text/html"}, b"<html>no such file</html>\n", answer)
        else:
            self._send_file(file, answer)

    def _send_file(self, file: _File, answer: Answer) -> None:
        validators = {"ETag": file.etag, "Last-Modified": file.last_modified, "Accept-Ranges": "bytes"}
        if self._is_current(file):
            self._send(HTTPStatus.NOT_MODIFIED, validators, b"", answer)
            return
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in {None, file.etag, file.last_modified}
        if span is None or not answer.ranges or (answer.honor_if_range and not same):
            self._send(HTTPStatus.OK, validators, file.content, answer)
            return
        size = len(file.content)
        start, end = int(span[1]), min(int(span[2] or size), size - 1)
        if start >= size:
            unsatisfiable = {"Content-Range": f"bytes */{size}"}
            self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, unsatisfiable, b"", answer)
            return
        partial = validators | {"Content-Range": f"bytes {start}-{end}/{size}"}
        self._send(HTTPStatus.PARTIAL_CONTENT, partial, file.content[start : end + 1], answer)

    def _is_current(self, file: _File) -> bool:
        etags = self.headers.get("If-None-Match")
        if etags is not None:
            return file.etag.removeprefix("W/") in [tag.strip().removeprefix("W/") for tag in etags.split(",")]
        return self.headers.get("If-Modified-Since") == file.last_modified

    def _send(self, status: int, headers: Mapping[str, str], body: bytes, answer: Answer) -> None:
        misbehaves = answer.endless or answer.reset or answer.drip or answer.content_length is not None
        if answer.drip:
            self.wfile = _Dripping(self.wfile, answer.drip, self.server.publisher.stopping)
        if misbehaves or answer.cut_after is not None or answer.stall_after is not None:
            self.close_connection = True
        length = len(body) if answer.content_length is None else answer.content_length
        framing = {} if answer.endless else {"Content-Length": str(length)}
        if answer.chunked:
            framing = {"Transfer-Encoding": "chunked"}
        self.send_response(status)
        for name, value in {**headers, **framing, **answer.headers}.items():
            if value is not None:
                self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD" and status != HTTPStatus.NOT_MODIFIED:
            self._send_body(body, answer)

    def _send_body(self, body: bytes, answer: Answer) -> None:
        stop = answer.cut_after if answer.cut_after is not None else answer.stall_after
        part = body[:stop]
        if answer.chunked and part:
            part = b"%x\r\n%b\r\n" % (len(part), part)
        self.wfile.write(part + (b"0\r\n\r\n" if answer.chunked and stop is None else b""))
        if answer.stall_after is not None:
            self.server.publisher.stopping.wait()
        while answer.endless and not self.server.publisher.stopping.is_set():
            self.wfile.write(bytes(64 << 10))
        if answer.reset:
            # Wait until the client has read the bytes: a reset discards unread ones.
            time.sleep(0.05)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
