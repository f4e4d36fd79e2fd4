"""Servers that say one thing and mean another: pages instead of files, refusals that pass, refusals of HEAD."""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from taxi_assets.errors import NotPublishedError, PublisherRequestError, PublisherServerError, PublisherUnreachableError
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.sources.download import DownloadedFile, RetrySettings, UnchangedFile, download
from taxi_assets.tlc.sources.source_record import FileVersion, SourceUrl
from taxi_assets.tlc.sources.version_check import check_version
from taxi_assets_tests.loopback_publisher import HTML_PAGE, Answer, LoopbackPublisher
from taxi_assets_tests.unit.tlc.sources.downloads import (
    CSV_FILE,
    LOG,
    NAME,
    NO_WAIT,
    OTHER_CSV,
    download_csv,
    download_error,
    downloaded_record,
    output_dir,
    publisher,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["output_dir", "publisher"]

ANOTHER = "another/green_tripdata_2020-10.csv"
PAGE = Answer(body=HTML_PAGE, headers={"Content-Type": "text/html; charset=utf-8"})
S3_ERROR = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>%b</Code><Message>Access Denied</Message></Error>'
MISSING_KEY = Answer(status=403, body=S3_ERROR % b"AccessDenied", headers={"Content-Type": "application/xml"})
BLOCK_PAGES = {
    "cloudfront": b"<HTML><HEAD><TITLE>ERROR: The request could not be satisfied</TITLE></HEAD>"
    b"<BODY><H1>403 ERROR</H1>Request blocked. We can't connect to the server.</BODY></HTML>",
    "cloudflare": b"<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head></html>",
    "akamai": b"<HTML><HEAD>\n<TITLE>Access Denied</TITLE>\n</HEAD><BODY>Reference #18.2d3c4f17</BODY></HTML>",
    "load balancer": b"<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body></body></html>",
    "rate limit": b"403 Forbidden: rate limit exceeded",
    "json": b'{"message": "API rate limit exceeded for 203.0.113.7."}',
    "text": b"Your request was blocked. Access denied.",
}


def published_version(publisher: LoopbackPublisher, *names: str) -> FileVersion | None:
    sources = [SourceUrl(publisher.url(name), "a publisher", FileFormat.CSV) for name in names or [NAME]]
    return check_version("green 2020-10", sources)


def existing(version: FileVersion | None) -> FileVersion:
    assert version is not None
    return version


# --- pages with status 200 --------------------------------------------------------------------------------------------


def download_first(publisher: LoopbackPublisher, output_dir: Path, *names: str) -> DownloadedFile | UnchangedFile:
    sources = [SourceUrl(publisher.url(name), "a publisher", FileFormat.CSV) for name in names]
    return download("green 2020-10", sources, known=None, output_dir=output_dir, log=LOG, retry=NO_WAIT)


@pytest.mark.parametrize("type_", ["text/html", "text/plain", "text/csv", None])
def test_a_page_with_status_200_leads_to_the_next_address(
    publisher: LoopbackPublisher, output_dir: Path, type_: str | None
) -> None:
    publisher.publish(ANOTHER, CSV_FILE)
    publisher.script(NAME, then=replace(PAGE, headers={"Content-Type": type_}))
    record = downloaded_record(download_first(publisher, output_dir, NAME, ANOTHER), CSV_FILE)
    assert record.url == publisher.url(ANOTHER)
    assert existing(published_version(publisher, NAME, ANOTHER)).url == publisher.url(ANOTHER)
    assert published_version(publisher) is None


def test_if_every_address_has_a_page_the_error_names_the_titles(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script(NAME, then=PAGE)
    other = b"<html><head><title>No such\n month</title></head></html>"
    publisher.script(ANOTHER, then=Answer(body=gzip.compress(other), headers={"Content-Encoding": "gzip"}))
    with pytest.raises(NotPublishedError) as error:
        download_first(publisher, output_dir, NAME, ANOTHER)
    assert error.value.problem == (
        f'green 2020-10 is not published at {publisher.url(NAME)} (an HTML page ("Maintenance & repair")), '
        f'nor at {publisher.url(ANOTHER)} (an HTML page ("No such month")).'
    )
    assert list(output_dir.iterdir()) == []


def test_a_stored_file_is_described_by_its_headers_alone(publisher: LoopbackPublisher) -> None:
    publisher.script(NAME, then=Answer(headers={"Content-Type": "application/octet-stream"}))
    assert published_version(publisher) is not None
    assert [request.method for request in publisher.requests] == ["HEAD"]


def test_where_the_headers_leave_a_doubt_only_the_first_bytes_are_requested(publisher: LoopbackPublisher) -> None:
    publisher.script(NAME, then=Answer(headers={"Content-Type": "text/csv"}))
    known = existing(published_version(publisher))
    assert known.bytes == len(CSV_FILE)
    assert publisher.requests[-1].headers["Range"] == "bytes=0-8191"
    sources = [SourceUrl(publisher.url(NAME), "a publisher", FileFormat.CSV)]
    assert check_version("green 2020-10", sources, known=known) is known
    assert [request.method for request in publisher.requests] == ["HEAD", "GET", "HEAD"]


def test_a_page_with_status_200_that_says_blocked_is_transient(publisher: LoopbackPublisher, output_dir: Path) -> None:
    blocked = replace(PAGE, body=b"<html><head><title>Just a moment...</title></head></html>")
    publisher.script(NAME, blocked)
    downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
    publisher.script(NAME, then=blocked)
    with pytest.raises(PublisherServerError, match=r'for now \(HTTP 200 with an HTML page \("Just a moment\.\.\."\)\)'):
        published_version(publisher)


# --- status 403 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", BLOCK_PAGES.values(), ids=BLOCK_PAGES)
def test_a_block_page_is_transient_and_named(publisher: LoopbackPublisher, output_dir: Path, body: bytes) -> None:
    publisher.script(NAME, then=Answer(status=403, body=body))
    reason = "the publisher blocks requests from this machine for now (HTTP 403 with "
    assert reason in download_error(PublisherUnreachableError, publisher.url(NAME), output_dir)
    assert len(publisher.requests) == NO_WAIT.attempts
    with pytest.raises(PublisherServerError) as error:
        published_version(publisher, NAME, ANOTHER)
    assert reason in str(error.value)
    assert publisher.requests_for(ANOTHER) == []


def test_a_download_goes_on_after_a_block_page_and_waits_as_it_requests(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    blocked = Answer(status=403, body=BLOCK_PAGES["akamai"], headers={"Retry-After": "120"})
    publisher.script(NAME, Answer(cut_after=500_000), blocked)
    downloaded_record(download_csv(publisher.url(NAME), output_dir), CSV_FILE)
    assert publisher.requests[-1].headers["Range"] == "bytes=500000-"


@pytest.mark.parametrize("name", ["cf-mitigated", "x-amzn-waf-action"])
@pytest.mark.parametrize("status", [202, 403, 405])
def test_the_header_of_a_firewall_is_enough(publisher: LoopbackPublisher, name: str, status: int) -> None:
    publisher.script(NAME, then=Answer(status=status, body=b"", headers={name: "challenge"}))
    with pytest.raises(PublisherServerError, match=f"HTTP {status} with the header {name}"):
        published_version(publisher)


@pytest.mark.parametrize("answer", [MISSING_KEY, Answer(status=403), Answer(status=403, body=b"")])
def test_a_missing_key_of_an_object_store_is_not_published(
    publisher: LoopbackPublisher, output_dir: Path, answer: Answer
) -> None:
    publisher.script(NAME, then=answer)
    assert "is not published at" in download_error(NotPublishedError, publisher.url(NAME), output_dir)
    assert published_version(publisher) is None


def test_another_error_of_an_object_store_is_a_refusal(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script(NAME, then=replace(MISSING_KEY, body=S3_ERROR % b"SignatureDoesNotMatch"))
    text = download_error(PublisherRequestError, publisher.url(NAME), output_dir)
    assert "HTTP 403 (SignatureDoesNotMatch)" in text
    with pytest.raises(PublisherRequestError, match=r"HTTP 403 \(SignatureDoesNotMatch\)"):
        published_version(publisher)


# --- HEAD -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_server_that_refuses_head_is_asked_for_one_byte(publisher: LoopbackPublisher, status: int) -> None:
    expected = existing(published_version(publisher))
    publisher.script(NAME, Answer(status=status))
    assert published_version(publisher) == expected
    assert [request.method for request in publisher.requests[-2:]] == ["HEAD", "GET"]
    assert publisher.requests[-1].headers["Range"] == "bytes=0-0"


def test_a_known_version_is_confirmed_without_head(publisher: LoopbackPublisher) -> None:
    known = existing(published_version(publisher))
    publisher.script(NAME, Answer(status=403), Answer(), Answer(status=403))
    sources = [SourceUrl(publisher.url(NAME), "a publisher", FileFormat.CSV)]
    assert check_version("green 2020-10", sources, known=known) is known
    publisher.publish(NAME, OTHER_CSV)
    assert not existing(check_version("green 2020-10", sources, known=known)).is_same_as(known)


def test_a_slow_block_page_is_cut_off(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script(NAME, then=Answer(status=403, body=BLOCK_PAGES["akamai"], stall_after=10))
    retry = RetrySettings(attempts=2, first_wait_seconds=0, max_wait_seconds=0, connect_timeout=0.2, read_timeout=0.3)
    text = download_error(PublisherUnreachableError, publisher.url(NAME), output_dir, retry=retry)
    assert "no data arrived in time" in text or "too little data arrived in time" in text
