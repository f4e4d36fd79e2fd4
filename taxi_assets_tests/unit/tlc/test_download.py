"""Fetching from a real HTTP server that misbehaves, from folders, and from the sample."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import logging
import os
import socket
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from taxi_assets.errors import (
    ContentRefusedError,
    NotPublishedError,
    PublisherRefusedError,
    PublisherUnreachableError,
    TaxiAssetsError,
)
from taxi_assets.tlc import sample
from taxi_assets.tlc.download import Fetched, RetrySettings, Unchanged, fetch
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.publishers import publisher_from
from taxi_assets.tlc.schemas.green import GREEN
from taxi_assets.tlc.schemas.yellow import YELLOW
from taxi_assets.tlc.source import Candidate, FileFormat, SourceRecord
from taxi_assets.tlc.verify import Limits
from taxi_assets_tests.loopback_publisher import HTML_PAGE, Answer, LoopbackPublisher

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"
LOG = logging.getLogger("test_download")
NAME = "green_tripdata_2020-10.csv"
HASTY = RetrySettings(attempts=3, first_wait=0, longest_wait=0, longest_retry_after=0)
IMPATIENT = replace(HASTY, read_timeout=0.3)
CSV_FILE = b"a,b,c\r\n" + b"".join(b"%d,2020-10-01 00:31:19,%d\r\n" % (row, row * 7919) for row in range(40_000))
ROWS = 40_000
OTHER_CSV = b"a,b,c\r\n" + b"".join(b"%d,2020-10-31 23:59:59,%d\r\n" % (row, row * 104729) for row in range(30_000))


@pytest.fixture
def publisher() -> Iterator[LoopbackPublisher]:
    with LoopbackPublisher({NAME: CSV_FILE}) as publisher:
        yield publisher


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def get(
    url: str,
    into: Path,
    *,
    known: SourceRecord | None = None,
    limits: Limits | None = None,
    retry: RetrySettings = HASTY,
    file_format: FileFormat = FileFormat.CSV,
) -> Fetched | Unchanged:
    candidate = Candidate(url, "somebody", file_format)
    return fetch("green 2020-10", [candidate], known=known, into=into, limits=limits or Limits(), log=LOG, retry=retry)


def fetched(result: Fetched | Unchanged, content: bytes) -> SourceRecord:
    """The record of a file that has come whole."""
    assert isinstance(result, Fetched)
    assert result.path.read_bytes() == content
    assert result.record.bytes == len(content)
    assert result.record.sha256 == hashlib.sha256(content).hexdigest()
    return result.record


def refuse(
    error_class: type[TaxiAssetsError],
    url: str,
    into: Path,
    limits: Limits | None = None,
    retry: RetrySettings = HASTY,
) -> str:
    """The text of the one clear error; nothing is left behind."""
    with pytest.raises(error_class) as error:
        get(url, into, limits=limits, retry=retry)
    assert list(into.iterdir()) == []
    assert "green 2020-10" in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- a good server --------------------------------------------------------------------------------------------------


def test_a_file_arrives_byte_for_byte_with_everything_known_of_it(publisher: LoopbackPublisher, into: Path) -> None:
    record = fetched(get(publisher.url(NAME), into), CSV_FILE)
    assert record.url == publisher.url(NAME)
    assert record.publisher == "somebody"
    assert record.format is FileFormat.CSV
    assert record.rows == ROWS
    assert record.etag is not None
    assert record.last_modified is not None
    assert record.fetched_at.utcoffset() is not None
    assert not record.generated
    (request,) = publisher.requests
    assert request.headers["Accept-Encoding"] == "identity"
    assert {"Range", "If-None-Match", "If-Modified-Since"}.isdisjoint(request.headers)


def test_an_unchanged_file_is_not_sent_again(publisher: LoopbackPublisher, into: Path) -> None:
    known = fetched(get(publisher.url(NAME), into), CSV_FILE)
    result = get(publisher.url(NAME), into, known=known)
    assert isinstance(result, Unchanged)
    assert result.record.fetched_at > known.fetched_at
    assert result.record == known.model_copy(update={"fetched_at": result.record.fetched_at})
    assert publisher.requests[-1].headers["If-None-Match"] == known.etag
    assert publisher.requests[-1].headers["If-Modified-Since"] == known.last_modified


def test_last_modified_alone_is_enough_to_revalidate(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script(NAME, Answer(headers={"ETag": None}))
    known = fetched(get(publisher.url(NAME), into), CSV_FILE)
    assert known.etag is None
    assert isinstance(get(publisher.url(NAME), into, known=known), Unchanged)


def test_a_changed_file_is_fetched_anew(publisher: LoopbackPublisher, into: Path) -> None:
    known = fetched(get(publisher.url(NAME), into), CSV_FILE)
    publisher.publish(NAME, OTHER_CSV)
    record = fetched(get(publisher.url(NAME), into, known=known), OTHER_CSV)
    assert record.etag != known.etag


def test_what_came_from_elsewhere_is_no_reason_to_skip(publisher: LoopbackPublisher, into: Path) -> None:
    known = fetched(get(publisher.url(NAME), into), CSV_FILE)
    fetched(get(publisher.url(NAME), into, known=known.model_copy(update={"url": "http://elsewhere/x"})), CSV_FILE)
    assert "If-None-Match" not in publisher.requests[-1].headers


def test_published_bytes_are_kept_even_when_the_server_calls_them_an_encoding(
    publisher: LoopbackPublisher, into: Path
) -> None:
    content = gzip.compress(CSV_FILE)
    publisher.publish("month.csv.gz", content)
    publisher.script("month.csv.gz", then=Answer(headers={"Content-Encoding": "gzip"}))
    record = fetched(get(publisher.url("month.csv.gz"), into, file_format=FileFormat.CSV_GZ), content)
    assert record.rows == ROWS


def test_a_redirect_is_followed_and_the_address_asked_is_the_one_recorded(
    publisher: LoopbackPublisher, into: Path
) -> None:
    publisher.script("moved.csv", then=Answer(redirect=f"/{NAME}?signature=s3cret"))
    assert fetched(get(publisher.url("moved.csv"), into), CSV_FILE).url == publisher.url("moved.csv")


@pytest.mark.parametrize("answer", [Answer(chunked=True), Answer(headers={"Content-Length": None})])
def test_a_body_without_a_length_is_fine(publisher: LoopbackPublisher, into: Path, answer: Answer) -> None:
    if not answer.chunked:
        answer = Answer(headers={"Content-Length": None, "Connection": "close"}, cut_after=len(CSV_FILE))
    publisher.script(NAME, answer)
    fetched(get(publisher.url(NAME), into), CSV_FILE)


# --- broken connections ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        Answer(cut_after=500_000),
        Answer(stall_after=500_000),
        Answer(cut_after=500_000, chunked=True),
    ],
    ids=["cut", "timeout", "chunked and cut"],
)
def test_a_broken_connection_is_resumed_where_it_broke_off(
    publisher: LoopbackPublisher, into: Path, broken: Answer
) -> None:
    publisher.script(NAME, broken)
    record = fetched(get(publisher.url(NAME), into, retry=IMPATIENT), CSV_FILE)
    assert record.rows == ROWS
    first, second = publisher.requests
    assert "Range" not in first.headers
    assert second.headers["Range"] == "bytes=500000-"
    assert second.headers["If-Range"] == record.etag


def test_a_connection_reset_by_the_publisher_is_resumed(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script(NAME, Answer(cut_after=500_000, reset=True))
    fetched(get(publisher.url(NAME), into), CSV_FILE)
    assert len(publisher.requests) == 2


def test_breaking_off_often_is_fine_as_long_as_something_new_arrives(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script(NAME, *[Answer(cut_after=100_000)] * 10)
    fetched(get(publisher.url(NAME), into), CSV_FILE)
    assert [request.headers["Range"] for request in publisher.requests[1:]] == [
        f"bytes={count * 100_000}-" for count in range(1, 11)
    ]


def test_last_modified_guards_the_resumption_when_the_etag_is_weak(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.publish(NAME, CSV_FILE, etag='W/"1"')
    publisher.script(NAME, Answer(cut_after=500_000))
    record = fetched(get(publisher.url(NAME), into), CSV_FILE)
    assert publisher.requests[1].headers["If-Range"] == record.last_modified


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_without_a_strong_validator_it_starts_over(publisher: LoopbackPublisher, into: Path, etag: str | None) -> None:
    headers = {"ETag": etag, "Last-Modified": None}
    publisher.script(NAME, Answer(cut_after=500_000, headers=headers), then=Answer(headers=headers))
    fetched(get(publisher.url(NAME), into), CSV_FILE)
    assert "Range" not in publisher.requests[1].headers


@pytest.mark.parametrize("withheld", ["Last-Modified", "ETag"])
@pytest.mark.parametrize("heed_if_range", [True, False], ids=["the server heeds If-Range", "it does not"])
@pytest.mark.parametrize("other", [OTHER_CSV, CSV_FILE.replace(b"-01 ", b"-02 ")], ids=["other length", "same length"])
def test_a_file_replaced_in_the_middle_of_a_resumption_arrives_whole_in_its_new_version(
    publisher: LoopbackPublisher, into: Path, other: bytes, heed_if_range: bool, withheld: str
) -> None:
    headers = {withheld: None}
    publisher.script(
        NAME,
        Answer(cut_after=500_000, headers=headers),
        Answer(before=lambda: publisher.publish(NAME, other), heed_if_range=heed_if_range, headers=headers),
        then=Answer(headers=headers),
    )
    fetched(get(publisher.url(NAME), into), other)
    assert publisher.requests[1].headers["Range"] == "bytes=500000-"


def test_a_new_etag_at_every_request_is_fine_when_one_of_them_comes_whole(
    publisher: LoopbackPublisher, into: Path
) -> None:
    versions = [Answer(cut_after=300_000 + 100_000 * n, headers={"ETag": f'"{n}"'}, ranges=False) for n in range(5)]
    publisher.script(NAME, *versions)
    fetched(get(publisher.url(NAME), into), CSV_FILE)


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
def test_when_it_cannot_be_resumed_it_starts_over(
    publisher: LoopbackPublisher, into: Path, resumed: Answer, requests: int
) -> None:
    publisher.script(NAME, Answer(cut_after=500_000), resumed)
    fetched(get(publisher.url(NAME), into), CSV_FILE)
    assert publisher.requests[1].headers["Range"] == "bytes=500000-"
    assert len(publisher.requests) == requests
    assert all("Range" not in request.headers for request in publisher.requests[2:])


def test_a_file_withdrawn_in_the_middle_is_not_published(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script(NAME, Answer(cut_after=500_000), Answer(before=lambda: publisher.withdraw(NAME)))
    assert "(HTTP 404)" in refuse(NotPublishedError, publisher.url(NAME), into)


def test_a_length_that_is_always_too_large_ends_as_unreachable(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script(NAME, then=Answer(content_length=len(CSV_FILE) + 1000))
    assert "tried" in refuse(PublisherUnreachableError, publisher.url(NAME), into)
    assert len(publisher.requests) < 10


def test_a_length_that_is_too_small_is_noticed_by_content(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script(NAME, then=Answer(content_length=CSV_FILE.index(b"\n20000,") + 4))
    assert "cut off in the middle of its last line" in refuse(ContentRefusedError, publisher.url(NAME), into)


# --- what may pass, and what does not -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_an_answer_that_may_pass_is_asked_again(publisher: LoopbackPublisher, into: Path, status: int) -> None:
    publisher.script(NAME, Answer(status=status), Answer(status=status))
    fetched(get(publisher.url(NAME), into), CSV_FILE)
    assert len(publisher.requests) == 3


def test_after_so_many_attempts_it_gives_up_and_says_why(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script(NAME, then=Answer(status=503))
    text = refuse(PublisherUnreachableError, publisher.url(NAME), into)
    assert f"could not be fetched from {publisher.url(NAME)}: HTTP 503 (tried 3 times" in text
    assert len(publisher.requests) == 3


def test_attempts_that_always_break_off_at_the_same_place_come_to_an_end(
    publisher: LoopbackPublisher, into: Path
) -> None:
    publisher.script(NAME, then=Answer(cut_after=500_000, ranges=False))
    refuse(PublisherUnreachableError, publisher.url(NAME), into)
    assert len(publisher.requests) == 4


def test_a_server_that_never_answers_is_unreachable(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script(NAME, then=Answer(delay=20))
    text = refuse(PublisherUnreachableError, publisher.url(NAME), into, retry=IMPATIENT)
    assert "nothing came in time (tried 3 times" in text


def test_a_port_where_nobody_listens_is_unreachable(into: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    text = refuse(PublisherUnreachableError, f"http://127.0.0.1:{port}/{NAME}", into)
    assert "connection refused (tried 3 times" in text


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
def test_retry_after_is_waited_for(publisher: LoopbackPublisher, into: Path, as_date: bool) -> None:
    # A date has whole seconds: two from now is at least one.
    asked = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    publisher.script(NAME, Answer(status=429, headers={"Retry-After": asked}))
    started = time.monotonic()
    retry = RetrySettings(first_wait=0, longest_wait=0)
    fetched(get(publisher.url(NAME), into, retry=retry), CSV_FILE)
    assert 0.9 < time.monotonic() - started < 5


@pytest.mark.parametrize("asked", ["86400", "Fri, 31 Dec 2049 23:59:59 GMT", "soon", "-1"])
def test_retry_after_has_a_cap_and_nonsense_is_ignored(publisher: LoopbackPublisher, into: Path, asked: str) -> None:
    publisher.script(NAME, Answer(status=429, headers={"Retry-After": asked}))
    started = time.monotonic()
    fetched(get(publisher.url(NAME), into), CSV_FILE)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_not_published_is_asked_for_exactly_once(publisher: LoopbackPublisher, into: Path, status: int) -> None:
    publisher.script(NAME, then=Answer(status=status))
    text = refuse(NotPublishedError, publisher.url(NAME), into)
    assert text.startswith(f"green 2020-10 is not published at {publisher.url(NAME)} (HTTP {status}). ")
    assert len(publisher.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 418, 451, 501, 204, 304, 206, 416])
def test_any_other_answer_is_a_refusal_and_is_asked_for_exactly_once(
    publisher: LoopbackPublisher, into: Path, status: int
) -> None:
    publisher.script(NAME, then=Answer(status=status))
    assert f"the answer was HTTP {status}" in refuse(PublisherRefusedError, publisher.url(NAME), into)
    assert len(publisher.requests) == 1


def test_a_redirect_to_itself_is_a_refusal(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script(NAME, then=Answer(redirect=f"/{NAME}"))
    assert "more than 10 redirects" in refuse(PublisherRefusedError, publisher.url(NAME), into)
    assert len(publisher.requests) == 11


def test_a_redirect_away_from_http_is_a_refusal(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script(NAME, then=Answer(redirect="file:///etc/hostname"))
    assert "cannot be followed" in refuse(PublisherRefusedError, publisher.url(NAME), into)


# --- what arrives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((DATA / "broken").iterdir()), ids=lambda path: path.name)
def test_what_real_people_got_instead_is_refused_and_nothing_is_left(path: Path, into: Path) -> None:
    file_format = next(ending for ending in FileFormat if path.name.endswith(f".{ending}"))
    with LoopbackPublisher(path.parent) as publisher:
        with pytest.raises(ContentRefusedError, match=r"green 2020-10 from http\S+ was refused: it is "):
            get(publisher.url(path.name), into, file_format=file_format)
        assert len(publisher.requests) == 1
    assert list(into.iterdir()) == []


def test_an_html_page_with_status_200_is_refused_without_a_retry(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script(NAME, then=Answer(body=HTML_PAGE))
    assert 'an HTML page ("Maintenance & repair")' in refuse(ContentRefusedError, publisher.url(NAME), into)
    assert len(publisher.requests) == 1


def test_an_endless_body_is_stopped_at_the_limit(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script(NAME, then=Answer(endless=True))
    text = refuse(ContentRefusedError, publisher.url(NAME), into, Limits(max_bytes=5_000_000))
    assert "larger than 5,000,000 bytes" in text


def test_a_file_announced_as_too_large_is_not_even_begun(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script(NAME, then=Answer(content_length=1 << 50))
    assert "larger than" in refuse(ContentRefusedError, publisher.url(NAME), into)


def test_a_bomb_is_refused(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.publish("bomb.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 1_000_000))
    with pytest.raises(ContentRefusedError, match="expands to more than 200 times its size"):
        get(publisher.url("bomb.csv.gz"), into, file_format=FileFormat.CSV_GZ)
    assert list(into.iterdir()) == []


# --- several candidates ---------------------------------------------------------------------------------------------


def fetch_first(
    publisher: LoopbackPublisher, into: Path, *names: str, known: SourceRecord | None = None
) -> SourceRecord:
    candidates = [Candidate(publisher.url(name), "somebody", FileFormat.CSV) for name in names]
    return fetch("yellow 2031-01", candidates, known=known, into=into, log=LOG, retry=HASTY).record


def test_the_next_candidate_is_taken_when_one_is_not_published(publisher: LoopbackPublisher, into: Path) -> None:
    known = fetch_first(publisher, into, "nothing.csv", NAME)
    assert known.url == publisher.url(NAME)
    assert fetch_first(publisher, into, "nothing.csv", NAME, known=known).etag == known.etag
    assert publisher.requests[-1].headers["If-None-Match"] == known.etag
    assert "If-None-Match" not in publisher.requests[-2].headers


def test_when_none_is_published_every_address_is_named(publisher: LoopbackPublisher, into: Path) -> None:
    publisher.script("b.csv", then=Answer(status=403))
    with pytest.raises(NotPublishedError) as error:
        fetch_first(publisher, into, "a.csv", "b.csv")
    base = publisher.base
    assert error.value.what == (
        f"yellow 2031-01 is not published at {base}/a.csv (HTTP 404), nor at {base}/b.csv (HTTP 403)."
    )


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(status=503), PublisherUnreachableError),
        (Answer(status=401), PublisherRefusedError),
        (Answer(body=HTML_PAGE), ContentRefusedError),
    ],
)
def test_a_failing_candidate_is_never_silently_replaced_by_the_next(
    publisher: LoopbackPublisher, into: Path, answer: Answer, error: type[TaxiAssetsError]
) -> None:
    publisher.script("failing.csv", then=answer)
    with pytest.raises(error):
        fetch_first(publisher, into, "failing.csv", NAME)
    assert publisher.requests_for(NAME) == []
    assert list(into.iterdir()) == []


# --- secrets and logs -----------------------------------------------------------------------------------------------


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
    publisher: LoopbackPublisher, into: Path, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    publisher.script(NAME, then=answer)
    base = f"http://me:hush@127.0.0.1:{publisher.port}?sig=s3cret"
    candidates = [c for c in publisher_from(base).candidates(GREEN, Month(2020, 10)) if c.format is FileFormat.CSV]
    try:
        shown = repr(fetch("green 2020-10", candidates, known=None, into=into, log=LOG, retry=IMPATIENT))
    except TaxiAssetsError as error:
        shown = "".join(traceback.format_exception(error))
    assert publisher.requests[0].query == "sig=s3cret"
    assert publisher.requests[0].headers["Authorization"].startswith("Basic ")
    for secret in ("hush", "s3cret"):
        assert secret not in shown
        assert secret not in caplog.text


def test_one_line_tells_when_it_is_done(
    publisher: LoopbackPublisher, into: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOG.name)
    get(publisher.url(NAME), into)
    (line,) = caplog.messages
    assert line.startswith(f"green 2020-10: 1.5 MB, 40,000 rows, from {publisher.url(NAME)} in ")


def test_a_long_download_tells_its_progress_and_a_broken_one_that_it_goes_on(
    publisher: LoopbackPublisher, into: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOG.name)
    publisher.script(NAME, Answer(cut_after=500_000))
    get(publisher.url(NAME), into, retry=RetrySettings(first_wait=0, longest_wait=0, progress_every=0))
    assert "green 2020-10: 0.5 MB of 1.5 MB, " in caplog.text
    assert "after 0.5 MB; trying again in 0.0 s" in caplog.text


# --- folders and the sample -----------------------------------------------------------------------------------------


def test_a_real_folder_is_read_byte_for_byte_and_stays_offline(into: Path) -> None:
    publisher = publisher_from(str(DATA / "months"))
    candidates = publisher.candidates(GREEN, Month(2013, 8))
    result = fetch("green 2013-08", candidates, known=None, into=into, log=LOG)
    record = fetched(result, (DATA / "months" / "green_tripdata_2013-08.csv").read_bytes())
    assert (record.rows, record.publisher, record.format) == (7_623, publisher.name, FileFormat.CSV)
    zones = fetch("taxi zones", publisher.zones(), known=None, into=into, log=LOG)
    assert zones.record.rows == 265
    assert isinstance(fetch("green 2013-08", candidates, known=record, into=into, log=LOG), Unchanged)


def test_a_file_of_a_folder_is_read_again_only_when_it_was_touched(tmp_path: Path, into: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(CSV_FILE)
    record = fetched(get(path.as_uri(), into), CSV_FILE)
    result = get(path.as_uri(), into, known=record)
    assert isinstance(result, Unchanged)
    assert result.record.fetched_at > record.fetched_at
    os.utime(path, ns=(1, 1))
    assert fetched(get(path.as_uri(), into, known=record), CSV_FILE).etag == f'"1-{len(CSV_FILE)}"'


def test_a_month_that_a_folder_does_not_have_is_not_published_there(tmp_path: Path, into: Path) -> None:
    candidates = publisher_from(str(tmp_path)).candidates(YELLOW, Month(2031, 1))
    with pytest.raises(NotPublishedError) as error:
        fetch("yellow 2031-01", candidates, known=None, into=into, log=LOG)
    first = f"{tmp_path.as_uri()}/yellow_tripdata_2031-01"
    assert error.value.what == (
        f"yellow 2031-01 is not published at {first}.csv.gz (no such file), nor at {first}.csv (no such file), "
        f"nor at {first}.parquet (no such file)."
    )


def test_what_is_no_file_is_a_refusal(tmp_path: Path, into: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert "it is no file" in refuse(PublisherRefusedError, (tmp_path / "pipe.csv").as_uri(), into)
    (tmp_path / "folder.csv").mkdir()
    assert "it is no file" in refuse(PublisherRefusedError, (tmp_path / "folder.csv").as_uri(), into)


def test_a_file_beyond_the_largest_size_is_not_copied(tmp_path: Path, into: Path) -> None:
    (tmp_path / NAME).write_bytes(CSV_FILE)
    assert "larger than 10 bytes" in refuse(ContentRefusedError, (tmp_path / NAME).as_uri(), into, Limits(max_bytes=10))


def test_the_sample_is_fetched_like_any_other_and_says_that_it_is_generated(into: Path) -> None:
    candidates = publisher_from("sample").candidates(GREEN, Month(2020, 4))
    result = fetch("green 2020-04", candidates, known=None, into=into, log=LOG)
    assert isinstance(result, Fetched)
    record = fetched(result, result.path.read_bytes())
    assert record.rows > 1000
    assert record.generated
    assert (record.url, record.etag) == ("sample:green/2020-04", f"sample-{sample.SAMPLE_VERSION}")
    assert isinstance(fetch("green 2020-04", candidates, known=record, into=into, log=LOG), Unchanged)


def test_a_service_that_the_sample_does_not_have_is_not_published_there(into: Path) -> None:
    candidates = publisher_from("sample").candidates(replace(GREEN, name="boats"), Month(2020, 4))
    with pytest.raises(NotPublishedError, match="boats 2020-04 is not published anywhere: its publisher has no"):
        fetch("boats 2020-04", candidates, known=None, into=into, log=LOG)


def test_the_samples_zones_are_the_real_ones(tmp_path: Path, into: Path) -> None:
    for source in ("sample", str(tmp_path)):
        record = fetch("taxi zones", publisher_from(source).zones(), known=None, into=into, log=LOG).record
        assert (record.url, record.rows, record.generated) == ("sample:taxi_zone_lookup", 265, False)


def test_an_address_list_that_is_empty_is_not_published(into: Path) -> None:
    with pytest.raises(NotPublishedError, match="not published anywhere"):
        fetch("green 2020-10", [], known=None, into=into, log=LOG)
