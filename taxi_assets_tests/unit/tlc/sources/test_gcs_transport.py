"""Files in a bucket: downloaded completely and only once, and errors that name what is missing."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import google_crc32c
import pytest

from taxi_assets.errors import (
    InvalidFileError,
    NotPublishedError,
    PublisherRequestError,
    PublisherUnreachableError,
    TaxiAssetsError,
)
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.sources.content_limits import DEFAULT_LIMITS, FileLimits
from taxi_assets.tlc.sources.download import DownloadedFile, UnchangedFile, download
from taxi_assets.tlc.sources.publishers import resolve_publisher
from taxi_assets_tests.google.cloud_storage import CloudStorage, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.tlc.sources.source_record import SourceRecord

KEY = "published/green_tripdata_2020-10.csv"
CONTENT = b"a,b\n" + b"".join(b"%d,%d\n" % (row, row * 7919) for row in range(50_000))


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudStorage]:
    with CloudStorage() as storage:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        storage.put(KEY, CONTENT)
        yield storage


def download_object(
    storage: CloudStorage, output_dir: Path, known: SourceRecord | None = None, bucket: str = ""
) -> DownloadedFile | UnchangedFile:
    publisher = resolve_publisher(f"gs://{bucket or storage.bucket}/published/")
    sources = publisher.source_urls(GREEN, Month(2020, 10))
    return download(
        "green 2020-10", sources, known=known, output_dir=output_dir, log=logging.getLogger("test_gcs_transport")
    )


def download_error(storage: CloudStorage, output_dir: Path, kind: type[TaxiAssetsError], bucket: str = "") -> str:
    with pytest.raises(kind) as error:
        download_object(storage, output_dir, bucket=bucket)
    assert "\n" not in str(error.value)
    assert list(output_dir.iterdir()) == []
    return str(error.value)


def test_an_object_is_downloaded_with_a_complete_record(storage: CloudStorage, tmp_path: Path) -> None:
    found = download_object(storage, tmp_path)
    assert isinstance(found, DownloadedFile)
    assert found.path.read_bytes() == CONTENT
    assert (found.record.url, found.record.rows) == (f"gs://{storage.bucket}/{KEY}", 50_000)
    assert found.record.etag == f'"{storage.objects()[KEY]}"'


def test_an_unchanged_object_is_not_downloaded_again_but_a_replaced_one_is(
    storage: CloudStorage, tmp_path: Path
) -> None:
    known = download_object(storage, tmp_path).record
    storage.requests.clear()
    assert isinstance(download_object(storage, tmp_path, known), UnchangedFile)
    assert all(request.query.get("alt") != "media" for request in storage.requests)
    storage.put(KEY, CONTENT)
    assert isinstance(download_object(storage, tmp_path, known), DownloadedFile)


def test_an_interrupted_download_is_resumed(storage: CloudStorage, tmp_path: Path) -> None:
    storage.script(Fault(status=503), Fault(), Fault(cut_after=50_000), method="GET")
    found = download_object(storage, tmp_path)
    assert isinstance(found, DownloadedFile)
    assert found.path.read_bytes() == CONTENT


def test_an_object_replaced_during_the_download_is_never_a_mixture(storage: CloudStorage, tmp_path: Path) -> None:
    storage.script(Fault(before=lambda: storage.put(KEY, b"a,b\n")), method="GET", path="/download/")
    assert "was replaced or damaged" in download_error(storage, tmp_path, PublisherUnreachableError)


def test_bytes_damaged_during_the_download_are_rejected(storage: CloudStorage, tmp_path: Path) -> None:
    storage.script(Fault(corrupt=True), method="GET", path="/download/")
    assert "was replaced or damaged" in download_error(storage, tmp_path, PublisherUnreachableError)


def test_a_missing_object_or_bucket_is_named(storage: CloudStorage, tmp_path: Path) -> None:
    storage.delete(KEY)
    message = download_error(storage, tmp_path, NotPublishedError)
    assert f"gs://{storage.bucket}/published/green_tripdata_2020-10.parquet (no such object)" in message
    message = download_error(storage, tmp_path, PublisherRequestError, bucket="another-bucket")
    assert "gs://another-bucket/" in message
    assert "no such bucket" in message


def test_a_missing_permission_is_named_with_the_role_that_grants_it(storage: CloudStorage, tmp_path: Path) -> None:
    storage.forbid("storage.objects.get")
    message = download_error(storage, tmp_path, PublisherRequestError)
    assert "storage.objects.get" in message
    assert f"roles/storage.objectViewer) on the bucket {storage.bucket}" in message


# --- objects with Content-Encoding: gzip, which the emulator does not support -----------------------------------------


class _Compressing(BaseHTTPRequestHandler):
    """Serves one object under any name, stored with Content-Encoding: gzip."""

    content = gzip.compress(CONTENT)

    def do_GET(self) -> None:
        content = self.content
        crc32c = base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
        media = self.path.startswith("/download")
        link = f"http://127.0.0.1:{self.server.server_address[1]}/download/x"  # type: ignore[index]
        resource = {"generation": "1", "size": str(len(content)), "contentEncoding": "gzip", "crc32c": crc32c}
        body = content if media else json.dumps(resource | {"mediaLink": link}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/csv" if media else "application/json")
        if media:
            self.send_header("Content-Encoding", "gzip")
            self.send_header("X-Goog-Hash", f"crc32c={crc32c}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Cloud Storage service whose objects all have Content-Encoding: gzip."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Compressing)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def download_compressed(
    extension: str, output_dir: Path, limits: FileLimits = DEFAULT_LIMITS
) -> DownloadedFile | UnchangedFile:
    sources = resolve_publisher("gs://bucket").source_urls(GREEN, Month(2020, 10))
    (source,) = [source for source in sources if source.format == extension]
    return download(
        "green 2020-10", [source], known=None, output_dir=output_dir, log=logging.getLogger("test"), limits=limits
    )


@pytest.mark.usefixtures("compressed")
@pytest.mark.parametrize("extension", ["csv", "csv.gz"])
def test_an_object_compressed_for_storage_is_recorded_as_downloaded(tmp_path: Path, extension: str) -> None:
    found = download_compressed(extension, tmp_path)
    assert isinstance(found, DownloadedFile)
    content = found.path.read_bytes()
    assert (gzip.decompress(content) if extension == "csv.gz" else content) == CONTENT
    assert (found.record.bytes, found.record.rows) == (len(content), 50_000)


@pytest.mark.usefixtures("compressed")
@pytest.mark.parametrize(
    ("limits", "finding"),
    [
        (FileLimits(max_bytes=10_000_000, max_expansion_ratio=10_000), "it is larger than 10,000,000 bytes"),
        (FileLimits(max_expansion_ratio=200), "it expands to more than 200 times its size"),
    ],
)
def test_an_object_that_is_decompressed_is_not_written_beyond_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: FileLimits, finding: str
) -> None:
    content = gzip.compress(CONTENT + b"1,2\n" * 25_000_000, 9, mtime=0)
    monkeypatch.setattr(_Compressing, "content", content)
    written: list[int] = []
    unlink = Path.unlink

    def measure_and_unlink(path: Path, **options: bool) -> None:
        written.append(path.stat().st_size)
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", measure_and_unlink)
    with pytest.raises(InvalidFileError, match=f"^green 2020-10 from gs://bucket/.* was rejected: {finding}"):
        download_compressed("csv", tmp_path, limits)
    assert list(tmp_path.iterdir()) == []
    assert 0 < max(written) <= min(limits.max_bytes, limits.max_expansion_ratio * len(content))
