"""Publishers that send an answer one byte at a time: every request ends in a named error, and closes its connection."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import pytest

from taxi_assets.errors import PublisherServerError, PublisherUnreachableError
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.sources.source_record import SourceUrl
from taxi_assets.tlc.sources.version_check import check_version
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher
from taxi_assets_tests.tls_certificate import write_certificate
from taxi_assets_tests.unit.tlc.sources.downloads import (
    CSV_FILE,
    NAME,
    NO_WAIT,
    download_csv,
    download_error,
    downloaded_record,
    output_dir,
    publisher,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["output_dir", "publisher"]

pytestmark = pytest.mark.timeout(60)

ONE_ATTEMPT = replace(NO_WAIT, attempts=1, connect_timeout=0.3, read_timeout=0.3)
MAX_BYTES = 200

HEADERS = {
    "nothing": b"",
    "status line": b"HTTP/1.1 ",
    "header": b"HTTP/1.1 200 OK\r\nETag: ",
    "header of a redirect": b"HTTP/1.1 302 Found\r\nLocation: /again\r\nX: ",
}
BODIES = {
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
    "body without a length": b"HTTP/1.1 200 OK\r\n\r\n",
    "length of a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    "trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: ",
    "body of a refusal": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\n",
}


class DrippingServer:
    """Accepts one connection, sends `beginning`, then a byte every 50 milliseconds, so that no read times out."""

    def __init__(self, beginning: bytes) -> None:
        self._beginning = beginning

    def __enter__(self) -> Self:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._pool = ThreadPoolExecutor()
        self._sent = self._pool.submit(self._drip)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._server.close()

    def was_left(self) -> bool:
        """Return whether the client closed the connection before the server had sent `MAX_BYTES`."""
        return self._sent.result() < MAX_BYTES

    def _drip(self) -> int:
        client, _ = self._server.accept()
        with client:
            client.recv(4096)
            client.sendall(self._beginning)
            client.settimeout(0.05)
            for sent in range(MAX_BYTES):
                try:
                    client.sendall(b"a")
                    if not client.recv(1):
                        return sent
                except TimeoutError:
                    continue
                except OSError:
                    return sent
        return MAX_BYTES


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[DrippingServer]:
    with DrippingServer(request.param) as server:
        yield server


@pytest.mark.parametrize("server", HEADERS.values(), ids=HEADERS, indirect=True)
def test_a_version_check_ends_at_its_time_limit(server: DrippingServer) -> None:
    source = SourceUrl(f"http://{server.address}/{NAME}", "a publisher", FileFormat.CSV)
    with pytest.raises(PublisherServerError, match="was not complete in time"):
        check_version("green 2020-10", [source], seconds=0.5)
    assert server.was_left()


def test_a_version_check_ends_at_its_time_limit_while_the_first_bytes_arrive(publisher: LoopbackPublisher) -> None:
    publisher.script(NAME, Answer(headers={"ETag": None}), then=Answer(drip=0.2))
    source = SourceUrl(publisher.url(NAME), "a publisher", FileFormat.CSV)
    with pytest.raises(PublisherServerError, match="was not complete in time"):
        check_version("green 2020-10", [source], seconds=4)
    assert [request.method for request in publisher.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize("server", (HEADERS | BODIES).values(), ids=HEADERS | BODIES, indirect=True)
def test_an_attempt_to_download_ends_at_its_time_limit(server: DrippingServer, output_dir: Path) -> None:
    url = f"http://{server.address}/{NAME}"
    text = download_error(PublisherUnreachableError, url, output_dir, retry=ONE_ATTEMPT)
    assert "in time (tried 1 times" in text
    assert server.was_left()


TLS_RECORD = b"\x16\x03\x03\x40\x00"
"""The beginning of a server's handshake message of 16 KiB."""


@pytest.mark.parametrize("server", [TLS_RECORD], ids=["handshake"], indirect=True)
def test_a_slow_tls_handshake_ends_at_the_connect_timeout(server: DrippingServer, output_dir: Path) -> None:
    url = f"https://{server.address}/{NAME}"
    text = download_error(PublisherUnreachableError, url, output_dir, retry=ONE_ATTEMPT)
    assert "in time (tried 1 times" in text
    assert server.was_left()


@pytest.mark.parametrize("server", [b"", b"HTTP/1.1 200 OK\r\nX: "], ids=["status line", "header"], indirect=True)
def test_a_slow_proxy_ends_at_the_time_limit(
    server: DrippingServer, output_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{server.address}")
    url = f"https://publisher.example/{NAME}"
    text = download_error(PublisherUnreachableError, url, output_dir, retry=ONE_ATTEMPT)
    assert "in time (tried 1 times" in text
    assert server.was_left()


def test_an_encrypted_answer_is_received_until_the_time_limit(
    tmp_path: Path, output_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path / "certificate.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with LoopbackPublisher({NAME: CSV_FILE}, certificate=certificate) as publisher:
        downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
        (output_dir / "download.csv").unlink()
        publisher.script(NAME, Answer(drip=0.2))
        retry = replace(ONE_ATTEMPT, connect_timeout=3)
        text = download_error(PublisherUnreachableError, publisher.url(NAME), output_dir, retry=retry)
        assert "too little data arrived in time" in text
