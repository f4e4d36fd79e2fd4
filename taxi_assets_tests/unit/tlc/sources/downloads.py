"""Helpers for downloads from a scripted publisher on loopback: the record of a file, or the error."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.sources.content_limits import FileLimits
from taxi_assets.tlc.sources.download import DownloadedFile, RetrySettings, UnchangedFile, download
from taxi_assets.tlc.sources.source_record import SourceRecord, SourceUrl
from taxi_assets_tests.loopback_publisher import LoopbackPublisher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.errors import TaxiAssetsError

DATA = Path(__file__).parents[4] / ".." / "shared" / "data"
LOG = logging.getLogger("test_download")
NAME = "green_tripdata_2020-10.csv"
NO_WAIT = RetrySettings(attempts=3, first_wait_seconds=0, max_wait_seconds=0, max_retry_after_seconds=0)
SHORT_TIMEOUT = replace(NO_WAIT, read_timeout=1)
CSV_FILE = b"a,b,c\r\n" + b"".join(b"%d,2020-10-01 00:31:19,%d\r\n" % (row, row * 7919) for row in range(40_000))
ROWS = 40_000
OTHER_CSV = b"a,b,c\r\n" + b"".join(b"%d,2020-10-31 23:59:59,%d\r\n" % (row, row * 104729) for row in range(30_000))


@pytest.fixture
def publisher() -> Iterator[LoopbackPublisher]:
    with LoopbackPublisher({NAME: CSV_FILE}) as publisher:
        yield publisher


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


def download_csv(
    url: str,
    output_dir: Path,
    *,
    known: SourceRecord | None = None,
    limits: FileLimits | None = None,
    retry: RetrySettings = NO_WAIT,
    file_format: FileFormat = FileFormat.CSV,
) -> DownloadedFile | UnchangedFile:
    source = SourceUrl(url, "a publisher", file_format)
    return download(
        "green 2020-10",
        [source],
        known=known,
        output_dir=output_dir,
        limits=limits or FileLimits(),
        log=LOG,
        retry=retry,
    )


def downloaded_record(result: DownloadedFile | UnchangedFile, content: bytes) -> SourceRecord:
    """Check that the file was downloaded completely, and return its record."""
    assert isinstance(result, DownloadedFile)
    assert result.path.read_bytes() == content
    assert result.record.bytes == len(content)
    assert result.record.sha256 == hashlib.sha256(content).hexdigest()
    return result.record


def download_error(
    error_class: type[TaxiAssetsError],
    url: str,
    output_dir: Path,
    limits: FileLimits | None = None,
    retry: RetrySettings = NO_WAIT,
) -> str:
    """Return the message of the one-line error, and check that no file is left."""
    with pytest.raises(error_class) as error:
        download_csv(url, output_dir, limits=limits, retry=retry)
    assert list(output_dir.iterdir()) == []
    assert "green 2020-10" in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)
