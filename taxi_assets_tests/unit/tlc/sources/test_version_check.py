"""Checks whether a month is published, and in which version: HTTP, folders, buckets and the synthetic sample."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from taxi_assets.errors import PublisherRequestError, PublisherServerError, PublisherUnreachableError
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.sources.download import DownloadedFile, download
from taxi_assets.tlc.sources.publishers import resolve_publisher
from taxi_assets.tlc.sources.source_record import FileVersion, SourceRecord, SourceUrl
from taxi_assets.tlc.sources.version_check import NO_RETRY, check_version
from taxi_assets_tests.google.cloud_storage import CloudStorage, Fault
from taxi_assets_tests.loopback_publisher import HTML_PAGE, Answer, LoopbackPublisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "green_tripdata_2020-10.csv"
CONTENT = b"a,b\n1,2\n"
LABEL = "green 2020-10"


@pytest.fixture
def publisher() -> Iterator[LoopbackPublisher]:
    with LoopbackPublisher({NAME: CONTENT}) as publisher:
        yield publisher


def source_urls(source: str) -> list[SourceUrl]:
    return resolve_publisher(source).source_urls(GREEN, Month(2020, 10))


def single_source(url: str) -> list[SourceUrl]:
    return [SourceUrl(url, "a publisher", FileFormat.CSV)]


def existing(answer: FileVersion | None) -> FileVersion:
    assert answer is not None
    return answer


def version_of(record: SourceRecord) -> FileVersion:
    return FileVersion(record.url, record.publisher, record.etag, record.last_modified, record.bytes)


# --- over HTTP --------------------------------------------------------------------------------------------------------


def test_a_published_file_is_described_without_being_sent(publisher: LoopbackPublisher) -> None:
    version = existing(check_version(LABEL, single_source(publisher.url(NAME))))
    assert (version.url, version.publisher, version.bytes) == (publisher.url(NAME), "a publisher", len(CONTENT))
    assert version.etag is not None
    assert version.last_modified is not None
    assert [request.method for request in publisher.requests] == ["HEAD"]


def test_a_known_version_makes_the_request_conditional(publisher: LoopbackPublisher) -> None:
    known = existing(check_version(LABEL, single_source(publisher.url(NAME))))
    assert check_version(LABEL, single_source(publisher.url(NAME)), known=known) is known
    assert publisher.requests[-1].headers["If-None-Match"] == known.etag
    assert publisher.requests[-1].headers["If-Modified-Since"] == known.last_modified
    publisher.publish(NAME, b"a,b\n3,4\n")
    assert not existing(check_version(LABEL, single_source(publisher.url(NAME)), known=known)).is_same_as(known)


def test_a_version_from_another_url_makes_no_condition(publisher: LoopbackPublisher) -> None:
    known = replace(existing(check_version(LABEL, single_source(publisher.url(NAME)))), url="http://elsewhere/")
    assert not existing(check_version(LABEL, single_source(publisher.url(NAME)), known=known)).is_same_as(known)
    assert "If-None-Match" not in publisher.requests[-1].headers


def test_the_first_source_that_has_the_file_is_used(publisher: LoopbackPublisher) -> None:
    assert existing(check_version(LABEL, source_urls(publisher.base))).url == publisher.url(NAME)
    assert [request.path for request in publisher.requests] == [NAME.replace(".csv", ".csv.gz"), NAME]


@pytest.mark.parametrize(
    "answer", [Answer(status=403), Answer(status=404), Answer(status=410),
               Answer(body=HTML_PAGE, headers={"Content-Type": "text/html; charset=utf-8"})],
)  # fmt: skip
def test_a_file_that_is_not_published_has_no_version(publisher: LoopbackPublisher, answer: Answer) -> None:
    publisher.script(NAME, then=answer)
    assert check_version(LABEL, single_source(publisher.url(NAME))) is None


def test_a_server_without_head_receives_a_get_and_its_body_is_not_read(publisher: LoopbackPublisher) -> None:
    for status in (405, 501):
        publisher.script(NAME, Answer(status=status), Answer(endless=True))
        assert existing(check_version(LABEL, single_source(publisher.url(NAME)))).etag
        assert [request.method for request in publisher.requests[-2:]] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(status=503), "HTTP 503"),
        (Answer(status=429), "HTTP 429"),
        (Answer(reset=True, cut_after=0, headers={"Content-Length": None}, delay=1e6), "no data arrived in time"),
    ],
)
def test_a_transient_error_is_raised_at_once_in_one_line_without_secrets(
    publisher: LoopbackPublisher, answer: Answer, message: str
) -> None:
    publisher.script(NAME, answer, then=answer)
    url = publisher.url(NAME).replace("http://", "http://user:secret@") + "?signature=secret"
    with pytest.raises(PublisherUnreachableError, match=message) as error:
        check_version(LABEL, single_source(url), retry=replace(NO_RETRY, read_timeout=1))
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    assert len(publisher.requests) == 1


def test_a_publisher_that_is_down_is_named() -> None:
    with LoopbackPublisher() as publisher:
        url = publisher.url(NAME)
    with pytest.raises(PublisherUnreachableError, match="connection refused") as error:
        check_version(LABEL, single_source(url))
    assert url in str(error.value)
    assert not isinstance(error.value, PublisherServerError), "that error would concern only this file"


def test_a_failing_source_is_not_silently_replaced_by_the_next(publisher: LoopbackPublisher) -> None:
    publisher.script(NAME.replace(".csv", ".csv.gz"), Answer(status=401))
    with pytest.raises(PublisherRequestError, match="HTTP 401"):
        check_version(LABEL, source_urls(publisher.base))


# --- versions ---------------------------------------------------------------------------------------------------------

VERSION = FileVersion("http://a/b", "a publisher", '"1"', "Sun, 13 Sep 2020 12:26:40 GMT", 8)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"etag": 'W/"1"'}, True),
        ({"etag": '"2"'}, False),
        ({"etag": '"1"', "last_modified": "Sun, 13 Sep 2020 12:26:41 GMT"}, True),
        ({"etag": None}, True),
        ({"etag": None, "last_modified": "Sun, 13 Sep 2020 12:26:41 GMT"}, False),
        ({"etag": None, "last_modified": None}, True),
        ({"etag": None, "last_modified": None, "bytes": 9}, False),
        ({"etag": None, "last_modified": None, "bytes": None}, True),
        ({"url": "http://a/c"}, False),
    ],
)
def test_versions_are_compared_by_the_most_precise_common_attribute(
    changes: dict[str, str | int | None], same: bool
) -> None:
    assert replace(VERSION, **changes).is_same_as(VERSION) == same  # type: ignore[arg-type]  # fields by name


def test_a_version_is_named_by_its_most_precise_attribute() -> None:
    assert VERSION.name == replace(VERSION, etag='W/"1"').name == '"1"'
    assert replace(VERSION, etag=None).name == VERSION.last_modified
    assert replace(VERSION, etag=None, last_modified=None).name == "8 bytes"


# --- folders, buckets and the synthetic sample ------------------------------------------------------------------------


def downloaded_version(source: str, output_dir: Path) -> FileVersion:
    result = download(
        LABEL, source_urls(source), known=None, output_dir=output_dir, log=logging.getLogger("test_version_check")
    )
    assert isinstance(result, DownloadedFile)
    return version_of(result.record)


def test_in_a_folder_the_version_is_the_one_that_a_download_records(tmp_path: Path) -> None:
    folder, output_dir = tmp_path / "published", tmp_path / "output"
    folder.mkdir()
    output_dir.mkdir()
    assert check_version(LABEL, source_urls(str(folder))) is None
    (folder / NAME).write_bytes(CONTENT)
    assert check_version(LABEL, source_urls(str(folder))) == downloaded_version(str(folder), output_dir)
    os.mkfifo(folder / NAME.replace(".csv", ".csv.gz"))
    with pytest.raises(PublisherRequestError, match="it is not a regular file"):
        check_version(LABEL, source_urls(str(folder)))


def test_a_folder_that_cannot_be_read_is_unreachable_in_one_line(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to(NAME)
    with pytest.raises(PublisherUnreachableError, match="too many levels of symbolic links") as error:
        check_version(LABEL, single_source((tmp_path / NAME).as_uri()))
    assert "\n" not in str(error.value)


def test_a_folder_that_no_longer_exists_is_unreachable(tmp_path: Path) -> None:
    gone = PublisherResource(source=str(tmp_path / "gone"))
    with pytest.raises(PublisherUnreachableError, match="no such folder") as error:
        _ = gone.publisher
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("answer", [Answer(status=502), Answer(delay=10)])
def test_a_server_error_is_distinguished_from_an_unreachable_publisher(
    publisher: LoopbackPublisher, answer: Answer
) -> None:
    publisher.script(NAME, answer)
    with pytest.raises(PublisherServerError):
        check_version(LABEL, single_source(publisher.url(NAME)), retry=replace(NO_RETRY, read_timeout=0.2))


def test_all_sources_of_a_month_share_its_time_limit(publisher: LoopbackPublisher) -> None:
    for source in source_urls(publisher.base):
        publisher.script(source.url.rpartition("/")[2], then=Answer(status=404, delay=1))
    with pytest.raises(PublisherServerError, match="was not complete in time"):
        check_version(LABEL, source_urls(publisher.base), seconds=1.9)
    assert len(publisher.requests) == 2


def test_every_month_of_the_synthetic_sample_has_its_generators_version(tmp_path: Path) -> None:
    assert existing(check_version(LABEL, source_urls("sample"))).is_same_as(downloaded_version("sample", tmp_path))


def test_in_a_bucket_the_generation_is_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with CloudStorage() as storage:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        source = f"gs://{storage.bucket}/published"
        assert check_version(LABEL, source_urls(source)) is None
        storage.put(f"published/{NAME}", CONTENT)
        known = existing(check_version(LABEL, source_urls(source)))
        assert known == downloaded_version(source, tmp_path)
        storage.put(f"published/{NAME}", CONTENT)
        assert not existing(check_version(LABEL, source_urls(source), known=known)).is_same_as(known)
        with pytest.raises(PublisherRequestError, match="no such bucket"):
            check_version(LABEL, source_urls("gs://another-bucket"))
        storage.script(Fault(status=503), method="GET")
        storage.requests.clear()
        with pytest.raises(PublisherUnreachableError):
            check_version(LABEL, source_urls(source))
        assert len(storage.requests) == 1
