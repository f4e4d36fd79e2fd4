"""Files published in a bucket: fetched whole and once, and what is missing is named."""

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
from taxi_assets.tlc.sources.download import DownloadedFile, UnchangedFile, download
from taxi_assets.tlc.sources.publishers import resolve_publisher
from taxi_assets.tlc.sources.validate_file import DEFAULT_LIMITS, FileLimits
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


def get(
    storage: CloudStorage, output_dir: Path, known: SourceRecord | None = None, bucket: str = ""
) -> DownloadedFile | UnchangedFile:
    publisher = resolve_publisher(f"gs://{bucket or storage.bucket}/published/")
    candidates = publisher.source_urls(GREEN, Month(2020, 10))
    return download(
        "green 2020-10", candidates, known=known, output_dir=output_dir, log=logging.getLogger("test_over_gcs")
    )


def refusal(storage: CloudStorage, output_dir: Path, kind: type[TaxiAssetsError], bucket: str = "") -> str:
    with pytest.raises(kind) as error:
        get(storage, output_dir, bucket=bucket)
    assert "\n" not in str(error.value)
    assert list(output_dir.iterdir()) == []
    return str(error.value)


def test_a_file_arrives_with_what_is_known_of_it(storage: CloudStorage, tmp_path: Path) -> None:
    found = get(storage, tmp_path)
    assert isinstance(found, DownloadedFile)
    assert found.path.read_bytes() == CONTENT
    assert (found.record.url, found.record.rows) == (f"gs://{storage.bucket}/{KEY}", 50_000)
    assert found.record.etag == f'"{storage.objects()[KEY]}"'


def test_an_unchanged_file_is_not_fetched_again_and_a_replaced_one_is(storage: CloudStorage, tmp_path: Path) -> None:
    known = get(storage, tmp_path).record
    storage.requests.clear()
    assert isinstance(get(storage, tmp_path, known), UnchangedFile)
    assert all(request.query.get("alt") != "media" for request in storage.requests)
    storage.put(KEY, CONTENT)
    assert isinstance(get(storage, tmp_path, known), DownloadedFile)


def test_what_breaks_off_is_taken_up_again(storage: CloudStorage, tmp_path: Path) -> None:
    storage.script(Fault(status=503), Fault(), Fault(cut_after=50_000), method="GET")
    found = get(storage, tmp_path)
    assert isinstance(found, DownloadedFile)
    assert found.path.read_bytes() == CONTENT


def test_a_file_replaced_while_it_is_fetched_is_never_a_mixture(storage: CloudStorage, tmp_path: Path) -> None:
    storage.script(Fault(before=lambda: storage.put(KEY, b"a,b\n")), method="GET", path="/download/")
    assert "was replaced or damaged" in refusal(storage, tmp_path, PublisherUnreachableError)


def test_bytes_that_were_changed_on_the_way_are_refused(storage: CloudStorage, tmp_path: Path) -> None:
    storage.script(Fault(corrupt=True), method="GET", path="/download/")
    assert "was replaced or damaged" in refusal(storage, tmp_path, PublisherUnreachableError)


def test_what_is_missing_is_named(storage: CloudStorage, tmp_path: Path) -> None:
    storage.delete(KEY)
    message = refusal(storage, tmp_path, NotPublishedError)
    assert f"gs://{storage.bucket}/published/green_tripdata_2020-10.parquet (no such object)" in message
    message = refusal(storage, tmp_path, PublisherRequestError, bucket="another-bucket")
    assert "gs://another-bucket/" in message
    assert "no such bucket" in message


def test_what_is_forbidden_is_named_with_the_role_that_allows_it(storage: CloudStorage, tmp_path: Path) -> None:
    storage.forbid("storage.objects.get")
    message = refusal(storage, tmp_path, PublisherRequestError)
    assert "storage.objects.get" in message
    assert f"roles/storage.objectViewer) on the bucket {storage.bucket}" in message


# --- stored compressed once more, which the emulator does not know ---------------------------------------------------


class _Compressing(BaseHTTPRequestHandler):
    """One object, whatever its name: stored as gzip, and said to be so."""

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
        """Say nothing."""


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A service that has all objects stored so."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Compressing)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def get_compressed(
    ending: str, output_dir: Path, limits: FileLimits = DEFAULT_LIMITS
) -> DownloadedFile | UnchangedFile:
    candidates = resolve_publisher("gs://bucket").source_urls(GREEN, Month(2020, 10))
    (wanted,) = [candidate for candidate in candidates if candidate.format == ending]
    return download(
        "green 2020-10", [wanted], known=None, output_dir=output_dir, log=logging.getLogger("test"), limits=limits
    )


@pytest.mark.usefixtures("compressed")
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_an_object_that_was_compressed_for_storage_is_recorded_as_it_arrives(tmp_path: Path, ending: str) -> None:
    found = get_compressed(ending, tmp_path)
    assert isinstance(found, DownloadedFile)
    content = found.path.read_bytes()
    assert (gzip.decompress(content) if ending == "csv.gz" else content) == CONTENT
    assert (found.record.bytes, found.record.rows) == (len(content), 50_000)


@pytest.mark.usefixtures("compressed")
@pytest.mark.parametrize(
    ("limits", "finding"),
    [
        (FileLimits(max_bytes=10_000_000, max_expansion_ratio=10_000), "it is larger than 10,000,000 bytes"),
        (FileLimits(max_expansion_ratio=200), "it expands to more than 200 times its size"),
    ],
)
def test_an_object_that_expands_on_its_way_is_written_no_further_than_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: FileLimits, finding: str
) -> None:
    content = gzip.compress(CONTENT + b"1,2\n" * 25_000_000, 9, mtime=0)
    monkeypatch.setattr(_Compressing, "content", content)
    written: list[int] = []
    unlink = Path.unlink

    def measure_and_unlink(path: Path, **how: bool) -> None:
        written.append(path.stat().st_size)
        unlink(path, **how)

    monkeypatch.setattr(Path, "unlink", measure_and_unlink)
    with pytest.raises(InvalidFileError, match=f"^green 2020-10 from gs://bucket/.* was rejected: {finding}"):
        get_compressed("csv", tmp_path, limits)
    assert list(tmp_path.iterdir()) == []
    assert 0 < max(written) <= min(limits.max_bytes, limits.max_expansion_ratio * len(content))
