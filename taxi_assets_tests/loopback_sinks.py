"""Receivers of notifications on loopback: a real HTTP server and a real SMTP server that keep all messages.

    with HttpSink() as web, MailSink() as mail:
        ...notify f"{web.address},{mail.address}"...
        assert web.messages[0]["title"] == mail.messages[0]["Subject"]

Their addresses are values for `TAXI_NOTIFY_URLS`, and contain `SECRET`, which must not appear anywhere else.
"""

from __future__ import annotations

import json
import socketserver
import threading
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from email.message import EmailMessage

SECRET = "hunter2hunter2"  # noqa: S105  (a fake password)


class HttpSink:
    """Receives JSON over HTTP. Answers with `status`, but not before `answers` is set."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.messages: list[dict[str, Any]] = []
        self.answers = threading.Event()
        self.answers.set()
        self._server = _HttpServer(("127.0.0.1", 0), _HttpHandler)
        self._server.sink = self
        self.address = f"json://user:{SECRET}@127.0.0.1:{self._server.server_port}/{SECRET}?rto=60"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()


class _HttpServer(ThreadingHTTPServer):
    sink: HttpSink

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client whose timeout has passed has closed the connection


class _HttpHandler(BaseHTTPRequestHandler):
    server: _HttpServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (as the base class names it)
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.sink.answers.wait(60)
        if self.server.sink.status == 200:
            self.server.sink.messages.append(json.loads(body))
        self.send_response(self.server.sink.status)
        self.send_header("Content-Length", "0")
        self.end_headers()


class MailSink:
    """Receives mail over SMTP, from any user with any password."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self._server = _MailServer(("127.0.0.1", 0), _MailHandler)
        self._server.sink = self
        port = self._server.server_address[1]
        recipients = "from=taxi@example.com&to=one@example.com&cc=two@example.com,three@example.com"
        self.address = f"mailto://user:{SECRET}@127.0.0.1:{port}?{recipients}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _MailServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    sink: MailSink


class _MailHandler(socketserver.StreamRequestHandler):
    server: _MailServer

    def handle(self) -> None:
        self._send("220 sink")
        for line in self.rfile:
            command = line[:4].upper()
            if command == b"EHLO":
                self._send("250-sink", "250 AUTH PLAIN")
            elif command == b"AUTH":
                self._send("235 welcome")
            elif command == b"DATA":
                self._send("354 go on")
                self._receive_message()
            elif command == b"QUIT":
                self._send("221 bye")
                return
            else:
                self._send("250 fine")

    def _receive_message(self) -> None:
        lines = iter(self.rfile.readline, b".\r\n")
        content = b"".join(line.removeprefix(b".") for line in lines)
        self.server.sink.messages.append(message_from_bytes(content, policy=policy.default))
        self._send("250 taken")

    def _send(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())
