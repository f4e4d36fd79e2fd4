"""Downloads from a real HTTP server that misbehaves: resumed, retried, or failed with the cause."""

from __future__ import annotations

import email.utils
import socket
import time
from typing import TYPE_CHECKING

import pytest

from taxi_assets.errors import (
    InvalidFileError,
    NotPublishedError,
    PublisherRequestError,
    PublisherUnreachableError,
)
from taxi_assets.tlc.sources.download import RetrySettings
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher
from taxi_assets_tests.unit.tlc.sources.downloads import (
    CSV_FILE,
    NAME,
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


# --- interrupted connections ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        Answer(cut_after=500_000),
        Answer(stall_after=500_000),
        Answer(cut_after=500_000, chunked=True),
    ],
    ids=["cut", "timeout", "chunked and cut"],
)
def test_an_interrupted_download_is_resumed_where_it_stopped(
    publisher: LoopbackPublisher, output_dir: Path, broken: Answer
) -> None:
    publisher.script(NAME, broken)
    record = downloaded_record(download_csv(publisher.url(NAME), output_dir, retry=SHORT_TIMEOUT), CSV_FILE)
    assert record.rows == ROWS
    first, second = publisher.requests
    assert "Range" not in first.headers
    assert second.headers["Range"] == "bytes=500000-"
    assert second.headers["If-Range"] == record.etag


def test_a_connection_reset_by_the_publisher_is_resumed(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script(NAME, Answer(cut_after=500_000, reset=True))
    downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
    assert len(publisher.requests) == 2


def test_many_interruptions_are_tolerated_while_new_data_arrives(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    publisher.script(NAME, *[Answer(cut_after=100_000)] * 10)
    downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
    assert [request.headers["Range"] for request in publisher.requests[1:]] == [
        f"bytes={count * 100_000}-" for count in range(1, 11)
    ]


def test_last_modified_guards_the_resumption_if_the_etag_is_weak(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    publisher.publish(NAME, CSV_FILE, etag='W/"1"')
    publisher.script(NAME, Answer(cut_after=500_000))
    record = downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
    assert publisher.requests[1].headers["If-Range"] == record.last_modified


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_without_a_strong_validator_the_download_starts_over(
    publisher: LoopbackPublisher, output_dir: Path, etag: str | None
) -> None:
    headers = {"ETag": etag, "Last-Modified": None}
    publisher.script(NAME, Answer(cut_after=500_000, headers=headers), then=Answer(headers=headers))
    downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
    assert "Range" not in publisher.requests[1].headers


@pytest.mark.parametrize("withheld", ["Last-Modified", "ETag"])
@pytest.mark.parametrize("honor_if_range", [True, False], ids=["the server honors If-Range", "it does not"])
@pytest.mark.parametrize("other", [OTHER_CSV, CSV_FILE.replace(b"-01 ", b"-02 ")], ids=["other length", "same length"])
def test_a_file_replaced_before_a_resumption_arrives_complete_in_its_new_version(
    publisher: LoopbackPublisher, output_dir: Path, other: bytes, honor_if_range: bool, withheld: str
) -> None:
    headers = {withheld: None}
    publisher.script(
        NAME,
        Answer(cut_after=500_000, headers=headers),
        Answer(before=lambda: publisher.publish(NAME, other), honor_if_range=honor_if_range, headers=headers),
        then=Answer(headers=headers),
    )
    downloaded_record(download_csv(publisher.url(NAME), output_dir), other)
    assert publisher.requests[1].headers["Range"] == "bytes=500000-"


def test_a_new_etag_at_every_request_is_tolerated_if_one_response_is_complete(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    versions = [Answer(cut_after=300_000 + 100_000 * n, headers={"ETag": f'"{n}"'}, ranges=False) for n in range(5)]
    publisher.script(NAME, *versions)
    downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)


@pytest.mark.parametrize(
    ("resumed", "requests"),
    [
        (Answer(ranges=False), 2),
        (Answer(status=416), 3),
        (Answer(headers={"Content-Range": f"bytes 0-{len(CSV_FILE) - 1}/{len(CSV_FILE)}"}), 3),
        (Answer(headers={"Content-Range": f"bytes 500000-{len(CSV_FILE)}/{len(CSV_FILE) + 1}"}), 3),
        (Answer(headers={"Content-Range": None}), 3),
    ],
    ids=["200", "416", "another range", "another total", "no Content-Range"],
)
def test_a_download_that_cannot_be_resumed_starts_over(
    publisher: LoopbackPublisher, output_dir: Path, resumed: Answer, requests: int
) -> None:
    publisher.script(NAME, Answer(cut_after=500_000), resumed)
    downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
    assert publisher.requests[1].headers["Range"] == "bytes=500000-"
    assert len(publisher.requests) == requests
    assert all("Range" not in request.headers for request in publisher.requests[2:])


def test_a_file_withdrawn_during_the_download_is_not_published(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script(NAME, Answer(cut_after=500_000), Answer(before=lambda: publisher.withdraw(NAME)))
    assert "(HTTP 404)" in download_error(NotPublishedError, publisher.url(NAME), output_dir)


def test_a_length_that_is_always_too_large_ends_as_unreachable(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script(NAME, then=Answer(content_length=len(CSV_FILE) + 1000))
    assert "tried" in download_error(PublisherUnreachableError, publisher.url(NAME), output_dir)
    assert len(publisher.requests) < 10


def test_a_length_that_is_too_small_is_detected_from_the_content(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    publisher.script(NAME, then=Answer(content_length=CSV_FILE.index(b"\n20000,") + 4))
    assert "truncated in the middle of its last line" in download_error(
        InvalidFileError, publisher.url(NAME), output_dir
    )


# --- transient and permanent errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_transient_status_is_retried(publisher: LoopbackPublisher, output_dir: Path, status: int) -> None:
    publisher.script(NAME, Answer(status=status), Answer(status=status))
    downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
    assert len(publisher.requests) == 3


def test_the_download_fails_with_the_cause_after_the_last_attempt(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    publisher.script(NAME, then=Answer(status=503))
    text = download_error(PublisherUnreachableError, publisher.url(NAME), output_dir)
    assert f"could not be fetched from {publisher.url(NAME)}: HTTP 503 (tried 3 times" in text
    assert len(publisher.requests) == 3


def test_attempts_that_always_stop_at_the_same_byte_come_to_an_end(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    publisher.script(NAME, then=Answer(cut_after=500_000, ranges=False))
    download_error(PublisherUnreachableError, publisher.url(NAME), output_dir)
    assert len(publisher.requests) == 4


def test_a_server_that_never_answers_is_unreachable(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script(NAME, then=Answer(delay=20))
    text = download_error(PublisherUnreachableError, publisher.url(NAME), output_dir, retry=SHORT_TIMEOUT)
    assert "no data arrived in time (tried 3 times" in text


def test_a_port_without_a_server_is_unreachable(output_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    text = download_error(PublisherUnreachableError, f"http://127.0.0.1:{port}/{NAME}", output_dir)
    assert "connection refused (tried 3 times" in text


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
def test_the_next_attempt_waits_for_retry_after(publisher: LoopbackPublisher, output_dir: Path, as_date: bool) -> None:
    # A date has whole seconds: three from now is at least two.
    asked = email.utils.formatdate(time.time() + 3, usegmt=True) if as_date else "1"
    publisher.script(NAME, Answer(status=429, headers={"Retry-After": asked}))
    started = time.monotonic()
    retry = RetrySettings(first_wait_seconds=0, max_wait_seconds=0)
    downloaded_record(download_csv(publisher.url(NAME), output_dir, retry=retry), CSV_FILE)
    assert time.monotonic() - started > 0.9


@pytest.mark.parametrize("asked", ["86400", "Fri, 31 Dec 2049 23:59:59 GMT", "soon", "-1"])
def test_retry_after_has_a_maximum_and_invalid_values_are_ignored(
    publisher: LoopbackPublisher, output_dir: Path, asked: str
) -> None:
    publisher.script(NAME, Answer(status=429, headers={"Retry-After": asked}))
    downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)  # at once, not in a day


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_is_not_published_is_requested_exactly_once(
    publisher: LoopbackPublisher, output_dir: Path, status: int
) -> None:
    publisher.script(NAME, then=Answer(status=status))
    text = download_error(NotPublishedError, publisher.url(NAME), output_dir)
    assert text.startswith(f"green 2020-10 is not published at {publisher.url(NAME)} (HTTP {status}). ")
    assert len(publisher.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 418, 451, 501, 204, 304, 206, 416])
def test_any_other_status_is_permanent_and_requested_exactly_once(
    publisher: LoopbackPublisher, output_dir: Path, status: int
) -> None:
    publisher.script(NAME, then=Answer(status=status))
    assert f"the publisher answered HTTP {status}" in download_error(
        PublisherRequestError, publisher.url(NAME), output_dir
    )
    assert len(publisher.requests) == 1


def test_a_redirect_to_itself_is_a_permanent_error(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script(NAME, then=Answer(redirect=f"/{NAME}"))
    assert "more than 10 redirects" in download_error(PublisherRequestError, publisher.url(NAME), output_dir)
    assert len(publisher.requests) == 11


def test_a_redirect_away_from_http_is_a_permanent_error(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script(NAME, then=Answer(redirect="file:///etc/hostname"))
    assert "cannot be followed" in download_error(PublisherRequestError, publisher.url(NAME), output_dir)
