"""Bodies with a Content-Encoding header: what a download stores in each combination of header, bytes and format."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets.errors import InvalidFileError, PublisherUnreachableError
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.sources.content_limits import FileLimits
from taxi_assets.tlc.sources.download import UnchangedFile
from taxi_assets.tlc.sources.source_record import SourceUrl
from taxi_assets.tlc.sources.version_check import check_version
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher
from taxi_assets_tests.unit.tlc.sources.downloads import (
    CSV_FILE,
    NAME,
    OTHER_CSV,
    download_csv,
    download_error,
    downloaded_record,
    output_dir,
    publisher,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["output_dir", "publisher"]

CASE = REPOSITORY / ".." / "shared" / "cases" / "37-http-content-encoding" / "yellow_tripdata_2021-03.csv"


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"]}), stream)
    return stream.getvalue()


PLAIN = {FileFormat.CSV: CSV_FILE, FileFormat.CSV_GZ: gzip.compress(CSV_FILE), FileFormat.PARQUET: parquet()}
ENCODERS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda content: pa.compress(content, "brotli", asbytes=True),
    "zstd": lambda content: pa.compress(content, "zstd", asbytes=True),
    "GZIP, identity": gzip.compress,
    "br, gzip": lambda content: gzip.compress(pa.compress(content, "brotli", asbytes=True)),
}


def serve(publisher: LoopbackPublisher, body: bytes, encoding: str, *first: Answer) -> str:
    """Publish a body with a Content-Encoding header, and return its URL."""
    publisher.publish(NAME, body)
    publisher.script(NAME, *first, then=Answer(headers={"Content-Encoding": encoding}))
    return publisher.url(NAME)


@pytest.mark.parametrize("file_format", PLAIN)
@pytest.mark.parametrize("encoding", ENCODERS)
def test_a_body_is_decoded_as_the_header_says(
    publisher: LoopbackPublisher, output_dir: Path, file_format: FileFormat, encoding: str
) -> None:
    content = PLAIN[file_format]
    url = serve(publisher, ENCODERS[encoding](content), encoding)
    downloaded_record(download_csv(url, output_dir, file_format=file_format), content)
    assert len(list(output_dir.iterdir())) == 1


@pytest.mark.parametrize("file_format", PLAIN)
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "UTF-8", "aws-chunked", "none", ""])
def test_a_body_that_is_not_encoded_as_the_header_says_is_kept(
    publisher: LoopbackPublisher, output_dir: Path, file_format: FileFormat, encoding: str
) -> None:
    """A `.csv.gz` file that is labeled with its own compression is one of them."""
    content = PLAIN[file_format]
    downloaded_record(download_csv(serve(publisher, content, encoding), output_dir, file_format=file_format), content)


def test_a_parquet_file_that_is_not_encoded_as_the_header_says_is_kept(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    url = serve(publisher, PLAIN[FileFormat.PARQUET], "br")
    downloaded_record(download_csv(url, output_dir, file_format=FileFormat.PARQUET), PLAIN[FileFormat.PARQUET])


def test_the_file_of_the_case_is_decoded(publisher: LoopbackPublisher, output_dir: Path) -> None:
    content = CASE.read_bytes()
    downloaded_record(download_csv(serve(publisher, gzip.compress(content), "gzip"), output_dir), content)


@pytest.mark.parametrize("encoding", ["compress", "br", "deflate", "zstd"])
def test_a_body_that_cannot_be_decoded_names_the_coding(
    publisher: LoopbackPublisher, output_dir: Path, encoding: str
) -> None:
    text = download_error(InvalidFileError, serve(publisher, b"\x1f\x9d" + bytes(range(200)), encoding), output_dir)
    assert f"it was sent with Content-Encoding: {encoding}, and cannot be decoded" in text


def test_an_encoded_download_is_resumed(publisher: LoopbackPublisher, output_dir: Path) -> None:
    body = gzip.compress(CSV_FILE)
    half = len(body) // 2
    url = serve(publisher, body, "gzip", Answer(cut_after=half, headers={"Content-Encoding": "gzip"}))
    downloaded_record(download_csv(url, output_dir), CSV_FILE)
    assert publisher.requests[-1].headers["Range"] == f"bytes={half}-"


def test_a_rest_with_another_encoding_is_not_appended(publisher: LoopbackPublisher, output_dir: Path) -> None:
    body = gzip.compress(CSV_FILE)
    other = Answer(headers={"Content-Encoding": None})
    url = serve(publisher, body, "gzip", Answer(cut_after=1000, headers={"Content-Encoding": "gzip"}), other)
    downloaded_record(download_csv(url, output_dir), CSV_FILE)
    assert "Range" not in publisher.requests[-1].headers


@pytest.mark.parametrize("keep", [0.5, 0.999])
def test_the_content_length_is_that_of_the_encoded_body(
    publisher: LoopbackPublisher, output_dir: Path, keep: float
) -> None:
    body = gzip.compress(CSV_FILE)
    cut = Answer(cut_after=int(len(body) * keep), headers={"Content-Encoding": "gzip"}, ranges=False)
    publisher.publish(NAME, body)
    publisher.script(NAME, then=cut)
    assert "the connection was interrupted" in download_error(
        PublisherUnreachableError, publisher.url(NAME), output_dir
    )


def test_a_truncated_body_of_unknown_length_is_rejected(publisher: LoopbackPublisher, output_dir: Path) -> None:
    body = gzip.compress(CSV_FILE)
    publisher.publish(NAME, body)
    headers = {"Content-Encoding": "gzip", "Content-Length": None}
    publisher.script(NAME, then=Answer(cut_after=len(body) // 2, headers=headers))
    assert "cannot be decoded" in download_error(InvalidFileError, publisher.url(NAME), output_dir)


def test_a_bomb_is_stopped_at_the_limits(publisher: LoopbackPublisher, output_dir: Path) -> None:
    bomb = gzip.compress(b"a,b\n" + b"1,2\n" * 2_000_000)
    text = download_error(InvalidFileError, serve(publisher, bomb, "gzip"), output_dir)
    assert "it expands to more than 200 times its size" in text
    limits = FileLimits(max_bytes=1_000_000, max_expansion_ratio=5_000)
    assert "larger than 1,000,000 bytes" in download_error(InvalidFileError, publisher.url(NAME), output_dir, limits)


def test_an_encoded_file_is_revalidated_and_its_version_has_no_length(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    url = serve(publisher, gzip.compress(CSV_FILE), "gzip")
    known = downloaded_record(download_csv(url, output_dir), CSV_FILE)
    assert isinstance(download_csv(url, output_dir, known=known), UnchangedFile)
    version = check_version("green 2020-10", [SourceUrl(url, "a publisher", FileFormat.CSV)])
    assert version is not None
    assert version.bytes is None
    publisher.publish(NAME, gzip.compress(OTHER_CSV))
    assert downloaded_record(download_csv(url, output_dir, known=known), OTHER_CSV).etag != known.etag
