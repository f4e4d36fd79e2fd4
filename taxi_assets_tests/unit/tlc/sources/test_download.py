"""Downloads from a real HTTP server, from folders and from the synthetic sample: results and rejected files."""

from __future__ import annotations

import gzip
import logging
import os
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from taxi_assets.errors import (
    InvalidFileError,
    NotPublishedError,
    PublisherRequestError,
    PublisherUnreachableError,
    TaxiAssetsError,
)
from taxi_assets.tlc import synthetic
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.yellow import YELLOW
from taxi_assets.tlc.sources.content_limits import FileLimits
from taxi_assets.tlc.sources.download import DownloadedFile, RetrySettings, UnchangedFile, download
from taxi_assets.tlc.sources.publishers import resolve_publisher
from taxi_assets.tlc.sources.source_record import SourceRecord, SourceUrl
from taxi_assets_tests.loopback_publisher import HTML_PAGE, Answer, LoopbackPublisher
from taxi_assets_tests.unit.tlc.sources.downloads import (
    CSV_FILE,
    DATA,
    LOG,
    NAME,
    NO_WAIT,
    OTHER_CSV,
    ROWS,
    SHORT_TIMEOUT,
    download_csv,
    download_error,
    downloaded_record,
    output_dir,
    publisher,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["output_dir", "publisher"]


# --- a well-behaved server --------------------------------------------------------------------------------------------


def test_a_file_is_downloaded_byte_for_byte_with_a_complete_record(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    record = downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
    assert record.url == publisher.url(NAME)
    assert record.publisher == "a publisher"
    assert record.format is FileFormat.CSV
    assert record.rows == ROWS
    assert record.etag is not None
    assert record.last_modified is not None
    assert record.fetched_at.utcoffset() is not None
    assert not record.generated
    (request,) = publisher.requests
    assert request.headers["Accept-Encoding"] == "identity"
    assert {"Range", "If-None-Match", "If-Modified-Since"}.isdisjoint(request.headers)


def test_an_unchanged_file_is_not_sent_again(publisher: LoopbackPublisher, output_dir: Path) -> None:
    known = downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
    result = download_csv(publisher.url(NAME), output_dir, known=known)
    assert isinstance(result, UnchangedFile)
    assert result.record.fetched_at > known.fetched_at
    assert result.record == known.model_copy(update={"fetched_at": result.record.fetched_at})
    assert publisher.requests[-1].headers["If-None-Match"] == known.etag
    assert publisher.requests[-1].headers["If-Modified-Since"] == known.last_modified


def test_last_modified_alone_is_enough_to_revalidate(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script(NAME, Answer(headers={"ETag": None}))
    known = downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
    assert known.etag is None
    assert isinstance(download_csv(publisher.url(NAME), output_dir, known=known), UnchangedFile)


def test_a_changed_file_is_downloaded_again(publisher: LoopbackPublisher, output_dir: Path) -> None:
    known = downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
    publisher.publish(NAME, OTHER_CSV)
    record = downloaded_record(download_csv(publisher.url(NAME), output_dir, known=known), OTHER_CSV)
    assert record.etag != known.etag


def test_a_record_from_another_url_does_not_skip_the_download(publisher: LoopbackPublisher, output_dir: Path) -> None:
    known = downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
    downloaded_record(
        download_csv(publisher.url(NAME), output_dir, known=known.model_copy(update={"url": "http://elsewhere/x"})),
        CSV_FILE,
    )
    assert "If-None-Match" not in publisher.requests[-1].headers


def test_a_redirect_is_followed_and_the_requested_url_is_recorded(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    publisher.script("moved.csv", then=Answer(redirect=f"/{NAME}?signature=s3cret"))
    assert downloaded_record(download_csv(publisher.url("moved.csv"), output_dir), CSV_FILE).url == publisher.url(
        "moved.csv"
    )


@pytest.mark.parametrize("answer", [Answer(chunked=True), Answer(headers={"Content-Length": None})])
def test_a_body_without_a_length_is_accepted(publisher: LoopbackPublisher, output_dir: Path, answer: Answer) -> None:
    if not answer.chunked:
        answer = Answer(headers={"Content-Length": None, "Connection": "close"}, cut_after=len(CSV_FILE))
    publisher.script(NAME, answer)
    downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)


# --- rejected content -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((DATA / "broken").iterdir()), ids=lambda path: path.name)
def test_files_that_real_users_received_instead_are_rejected_and_removed(path: Path, output_dir: Path) -> None:
    file_format = next(ending for ending in FileFormat if path.name.endswith(f".{ending}"))
    is_page = "html" in path.name
    finding = r"is not published at http\S+ \(an HTML page" if is_page else r"from http\S+ was rejected: it is "
    with LoopbackPublisher(path.parent) as publisher:
        with pytest.raises(NotPublishedError if is_page else InvalidFileError, match=f"green 2020-10 {finding}"):
            download_csv(publisher.url(path.name), output_dir, file_format=file_format)
        assert len(publisher.requests) == 1
    assert list(output_dir.iterdir()) == []


def test_an_endless_body_is_stopped_at_the_limit(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script(NAME, then=Answer(endless=True))
    text = download_error(InvalidFileError, publisher.url(NAME), output_dir, FileLimits(max_bytes=5_000_000))
    assert "larger than 5,000,000 bytes" in text


def test_a_file_with_a_too_large_content_length_is_not_downloaded(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    publisher.script(NAME, then=Answer(content_length=1 << 50))
    assert "larger than" in download_error(InvalidFileError, publisher.url(NAME), output_dir)


def test_a_decompression_bomb_is_rejected(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.publish("bomb.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 1_000_000))
    with pytest.raises(InvalidFileError, match="expands to more than 200 times its size"):
        download_csv(publisher.url("bomb.csv.gz"), output_dir, file_format=FileFormat.CSV_GZ)
    assert list(output_dir.iterdir()) == []


# --- several sources --------------------------------------------------------------------------------------------------


def download_first(
    publisher: LoopbackPublisher, output_dir: Path, *names: str, known: SourceRecord | None = None
) -> SourceRecord:
    sources = [SourceUrl(publisher.url(name), "a publisher", FileFormat.CSV) for name in names]
    return download("yellow 2031-01", sources, known=known, output_dir=output_dir, log=LOG, retry=NO_WAIT).record


def test_the_next_source_is_used_if_one_has_no_file(publisher: LoopbackPublisher, output_dir: Path) -> None:
    known = download_first(publisher, output_dir, "nothing.csv", NAME)
    assert known.url == publisher.url(NAME)
    assert download_first(publisher, output_dir, "nothing.csv", NAME, known=known).etag == known.etag
    assert publisher.requests[-1].headers["If-None-Match"] == known.etag
    assert "If-None-Match" not in publisher.requests[-2].headers


def test_if_no_source_has_the_file_the_error_names_every_url(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script("b.csv", then=Answer(status=403))
    with pytest.raises(NotPublishedError) as error:
        download_first(publisher, output_dir, "a.csv", "b.csv")
    base = publisher.base
    assert error.value.problem == (
        f"yellow 2031-01 is not published at {base}/a.csv (HTTP 404), nor at {base}/b.csv (HTTP 403)."
    )


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(status=503), PublisherUnreachableError),
        (Answer(status=401), PublisherRequestError),
        (Answer(body=b'{"message": "Sorry"}'), InvalidFileError),
    ],
)
def test_a_failing_source_is_never_silently_replaced_by_the_next(
    publisher: LoopbackPublisher, output_dir: Path, answer: Answer, error: type[TaxiAssetsError]
) -> None:
    publisher.script("failing.csv", then=answer)
    with pytest.raises(error):
        download_first(publisher, output_dir, "failing.csv", NAME)
    assert publisher.requests_for(NAME) == []
    assert list(output_dir.iterdir()) == []


# --- secrets and logs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        Answer(),
        Answer(cut_after=500_000),
        Answer(status=404),
        Answer(status=401),
        Answer(status=503),
        Answer(delay=20),
        Answer(body=HTML_PAGE),
        Answer(cut_after=100, ranges=False),
        Answer(redirect=f"/{NAME}?token=s3cret"),
        Answer(redirect="gopher://me:hush@host/?token=s3cret"),
    ],
)
def test_no_secret_reaches_records_logs_or_errors(
    publisher: LoopbackPublisher, output_dir: Path, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    publisher.script(NAME, then=answer)
    base = f"http://me:hush@127.0.0.1:{publisher.port}?sig=s3cret"
    sources = [c for c in resolve_publisher(base).source_urls(GREEN, Month(2020, 10)) if c.format is FileFormat.CSV]
    try:
        shown = repr(
            download("green 2020-10", sources, known=None, output_dir=output_dir, log=LOG, retry=SHORT_TIMEOUT)
        )
    except TaxiAssetsError as error:
        shown = "".join(traceback.format_exception(error))
    assert publisher.requests[0].query == "sig=s3cret"
    assert publisher.requests[0].headers["Authorization"].startswith("Basic ")
    for secret in ("hush", "s3cret"):
        assert secret not in shown
        assert secret not in caplog.text


def test_a_finished_download_logs_one_line(
    publisher: LoopbackPublisher, output_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOG.name)
    download_csv(publisher.url(NAME), output_dir)
    (line,) = caplog.messages
    assert line.startswith(f"green 2020-10: 1.5 MB, 40,000 rows, from {publisher.url(NAME)} in ")


def test_a_long_download_logs_its_progress_and_its_retries(
    publisher: LoopbackPublisher, output_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOG.name)
    publisher.script(NAME, Answer(cut_after=500_000))
    download_csv(
        publisher.url(NAME),
        output_dir,
        retry=RetrySettings(first_wait_seconds=0, max_wait_seconds=0, progress_interval_seconds=0),
    )
    assert "green 2020-10: 0.5 MB of 1.5 MB, " in caplog.text
    assert "after 0.5 MB; retrying in 0.0 s" in caplog.text


# --- folders and the synthetic sample ---------------------------------------------------------------------------------


def test_a_real_folder_is_read_byte_for_byte_without_a_network(output_dir: Path) -> None:
    publisher = resolve_publisher(str(DATA / "months"))
    sources = publisher.source_urls(GREEN, Month(2013, 8))
    result = download("green 2013-08", sources, known=None, output_dir=output_dir, log=LOG)
    record = downloaded_record(result, (DATA / "months" / "green_tripdata_2013-08.csv").read_bytes())
    assert (record.rows, record.publisher, record.format) == (7_623, publisher.name, FileFormat.CSV)
    zones = download("taxi zones", publisher.zones(), known=None, output_dir=output_dir, log=LOG)
    assert zones.record.rows == 265
    assert isinstance(download("green 2013-08", sources, known=record, output_dir=output_dir, log=LOG), UnchangedFile)


def test_a_month_that_a_folder_does_not_have_is_not_published(tmp_path: Path, output_dir: Path) -> None:
    sources = resolve_publisher(str(tmp_path)).source_urls(YELLOW, Month(2031, 1))
    with pytest.raises(NotPublishedError) as error:
        download("yellow 2031-01", sources, known=None, output_dir=output_dir, log=LOG)
    first = f"{tmp_path.as_uri()}/yellow_tripdata_2031-01"
    assert error.value.problem == (
        f"yellow 2031-01 is not published at {first}.csv.gz (no such file), nor at {first}.csv (no such file), "
        f"nor at {first}.parquet (no such file), nor at {first}.zip (no such file), "
        f"nor at {first}.parquet/ (no such file), nor at {first}.csv/ (no such file)."
    )


def test_a_pipe_is_a_permanent_error(tmp_path: Path, output_dir: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert "it is not a regular file" in download_error(
        PublisherRequestError, (tmp_path / "pipe.csv").as_uri(), output_dir
    )


def test_a_file_above_the_size_limit_is_not_copied(tmp_path: Path, output_dir: Path) -> None:
    (tmp_path / NAME).write_bytes(CSV_FILE)
    assert "larger than 10 bytes" in download_error(
        InvalidFileError, (tmp_path / NAME).as_uri(), output_dir, FileLimits(max_bytes=10)
    )


def test_the_synthetic_sample_is_downloaded_like_any_file_and_recorded_as_generated(output_dir: Path) -> None:
    sources = resolve_publisher("sample").source_urls(GREEN, Month(2020, 4))
    result = download("green 2020-04", sources, known=None, output_dir=output_dir, log=LOG)
    assert isinstance(result, DownloadedFile)
    record = downloaded_record(result, result.path.read_bytes())
    assert record.rows > 1000
    assert record.generated
    assert (record.url, record.etag) == ("sample:green/2020-04", f"sample-{synthetic.SAMPLE_VERSION}")
    assert isinstance(download("green 2020-04", sources, known=record, output_dir=output_dir, log=LOG), UnchangedFile)


def test_a_service_without_a_synthetic_sample_is_not_published(output_dir: Path) -> None:
    sources = resolve_publisher("sample").source_urls(replace(GREEN, name="boats"), Month(2020, 4))
    with pytest.raises(NotPublishedError, match="boats 2020-04 is not published anywhere: its publisher has no"):
        download("boats 2020-04", sources, known=None, output_dir=output_dir, log=LOG)


def test_the_synthetic_sample_and_folders_have_tlcs_zone_table(tmp_path: Path, output_dir: Path) -> None:
    for source in ("sample", str(tmp_path)):
        record = download(
            "taxi zones", resolve_publisher(source).zones(), known=None, output_dir=output_dir, log=LOG
        ).record
        assert (record.url, record.rows, record.generated) == ("sample:taxi_zone_lookup", 265, False)


def test_a_file_without_any_source_is_not_published(output_dir: Path) -> None:
    with pytest.raises(NotPublishedError, match="not published anywhere"):
        download("green 2020-10", [], known=None, output_dir=output_dir, log=LOG)
