"""Publishers that are slow, wrong or false: one clear error, nothing is stored, and every run ends.

Cut and resumed connections, wrong lengths, replaced files, redirects away from HTTP and error responses are in
`unit/tlc/sources/test_download.py`; the same for Google's services in `contract/test_gcs_lake.py`,
`contract/test_bigquery_jobs.py` and `pipeline/test_google_cloud_pipeline.py`.
"""

from __future__ import annotations

import gzip
import logging
import time
from typing import TYPE_CHECKING

import pytest

from taxi_assets.errors import (
    InvalidFileError,
    LakeConfigurationError,
    NotPublishedError,
    PublisherRequestError,
    PublisherUnreachableError,
    TaxiAssetsError,
)
from taxi_assets.resources.google import CloudStorageResource
from taxi_assets.storage.lake.gcs_lake import GcsLake
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.sources.download import DownloadedFile, RetrySettings, download
from taxi_assets.tlc.sources.source_record import SourceUrl
from taxi_assets.tlc.sources.transports.base_transport import VersionRequest
from taxi_assets.tlc.sources.transports.http_transport import HttpTransport
from taxi_assets_tests.contract.test_any_lake import KEY, put, read
from taxi_assets_tests.faults.subprocess_runner import peak_memory_megabytes, reset_peak_memory
from taxi_assets_tests.google.cloud_storage import CloudStorage, Fault
from taxi_assets_tests.google.service_account import ServiceAccount
from taxi_assets_tests.loopback_publisher import HTML_PAGE, Answer, LoopbackPublisher
from taxi_assets_tests.pipeline_harness import Deployment, failure_messages, stray_files
from taxi_assets_tests.tls_certificate import write_certificate
from taxi_assets_tests.trips import MONTH, csv_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)

NAME = "green_tripdata_2020-10.csv"
CONTENT = "".join(f"{line}\n" for line in csv_lines(MONTH, 3000)).encode()
NO_RETRY = RetrySettings(
    attempts=2, first_wait_seconds=0, max_wait_seconds=0, max_retry_after_seconds=0, connect_timeout=10, read_timeout=2
)


@pytest.fixture
def publisher() -> Iterator[LoopbackPublisher]:
    with LoopbackPublisher({NAME: CONTENT}) as publisher:
        yield publisher


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


def get(url: str, output_dir: Path) -> bytes:
    candidate = SourceUrl(url, "test", FileFormat.CSV)
    fetched = download(
        "green 2020-10", [candidate], known=None, output_dir=output_dir, log=logging.getLogger("x"), retry=NO_RETRY
    )
    assert isinstance(fetched, DownloadedFile)
    return fetched.path.read_bytes()


def download_error(error_class: type[TaxiAssetsError], url: str, output_dir: Path) -> str:
    with pytest.raises(error_class) as error:
        get(url, output_dir)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("green 2020-10")
    assert list(output_dir.iterdir()) == []
    return str(error.value)


# --- slow -------------------------------------------------------------------------------------------------------------


def test_a_publisher_that_sends_slowly_does_not_block_a_run(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script(NAME, then=Answer(drip=0.02))
    text = download_error(PublisherUnreachableError, publisher.url(NAME), output_dir)
    assert "too little data arrived in time (tried 2 times" in text


def test_a_download_that_is_slow_at_first_succeeds(publisher: LoopbackPublisher, output_dir: Path) -> None:
    publisher.script(NAME, Answer(drip=0.02))
    assert get(publisher.url(NAME), output_dir) == CONTENT


def test_a_slow_chunked_body_that_is_cut_is_not_accepted_as_complete(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    publisher.script(NAME, then=Answer(drip=0.001, chunked=True))
    download_error(PublisherUnreachableError, publisher.url(NAME), output_dir)


def test_a_publisher_that_sends_one_byte_per_request_does_not_block_a_run(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    publisher.script(NAME, then=Answer(cut_after=1))
    assert "tried 2 times, 0.0 MB arrived" in download_error(PublisherUnreachableError, publisher.url(NAME), output_dir)
    assert [request.headers["Range"] for request in publisher.requests] == [None, "bytes=1-"]


def test_a_download_with_many_interruptions_succeeds_if_each_attempt_makes_progress(
    publisher: LoopbackPublisher, output_dir: Path
) -> None:
    publisher.script(NAME, then=Answer(cut_after=NO_RETRY.minimum_progress_bytes // 2 + 1))
    assert get(publisher.url(NAME), output_dir) == CONTENT
    assert len(publisher.requests) > 2 * NO_RETRY.attempts


# --- wrong ------------------------------------------------------------------------------------------------------------


def test_two_contents_under_one_etag_are_detected_by_validation(publisher: LoopbackPublisher, output_dir: Path) -> None:
    other = CONTENT[: len(CONTENT) // 2] + b"\n<html>"
    etag = '"the same"'
    publisher.publish(NAME, CONTENT, etag=etag)
    publisher.script(
        NAME, Answer(cut_after=len(other)), Answer(before=lambda: publisher.publish(NAME, other, etag=etag))
    )
    # The download resumes beyond the end of the other content, so it restarts, and gets a file that is not a trip file.
    text = download_error(InvalidFileError, publisher.url(NAME), output_dir)
    assert "truncated in the middle of its last line" in text


@pytest.mark.parametrize("type_", ["application/parquet", "image/png", "text/html"])
def test_the_content_type_of_a_response_is_ignored(publisher: LoopbackPublisher, output_dir: Path, type_: str) -> None:
    publisher.script(NAME, Answer(headers={"Content-Type": type_}))
    assert get(publisher.url(NAME), output_dir) == CONTENT
    (output_dir / f"download.{FileFormat.CSV}").unlink()
    publisher.script(NAME, Answer(body=HTML_PAGE, headers={"Content-Type": "text/csv"}))
    assert 'an HTML page ("Maintenance & repair")' in download_error(NotPublishedError, publisher.url(NAME), output_dir)


REDIRECTS = {
    "endless": Answer(redirect=NAME, endless=True),
    "a bomb": Answer(
        redirect=NAME, body=gzip.compress(bytes(300_000_000), 1, mtime=0), headers={"Content-Encoding": "gzip"}
    ),
}


@pytest.mark.parametrize("body", REDIRECTS)
@pytest.mark.parametrize("checks_version", [False, True], ids=["download", "version check"])
def test_the_body_of_a_redirect_is_not_read(
    publisher: LoopbackPublisher, output_dir: Path, body: str, *, checks_version: bool
) -> None:
    publisher.script("moved.csv", *[Answer(status=405)] * checks_version, then=REDIRECTS[body])
    candidate = SourceUrl(publisher.url("moved.csv"), "test", FileFormat.CSV)
    before = reset_peak_memory()
    if checks_version:
        ends = time.monotonic() + 60
        version_request = VersionRequest(
            label="green 2020-10", source=candidate, retry=NO_RETRY, known=None, deadline=ends
        )
        version = HttpTransport().check_version(version_request)
        assert version is not None
        assert version.bytes == len(CONTENT)
    else:
        assert get(candidate.url, output_dir) == CONTENT
    assert peak_memory_megabytes() - before < 50
    assert [request.path for request in publisher.requests][-2:] == ["moved.csv", NAME]


# --- false ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["self-signed", "expired"])
def certificate(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A PEM file with a key and an untrusted certificate."""
    return write_certificate(tmp_path / "certificate.pem", is_expired=request.param == "expired")


def test_an_untrusted_certificate_is_refused_at_once(certificate: Path, output_dir: Path) -> None:
    with LoopbackPublisher({NAME: CONTENT}, certificate=certificate) as publisher:
        text = download_error(PublisherRequestError, publisher.url(NAME), output_dir)
        assert publisher.requests == []
    assert "its certificate is not trusted (" in text
    assert text.endswith("Check the URL, and which certificates this machine trusts. [PublisherRequestError]")


def test_a_redirect_to_a_server_with_an_untrusted_certificate_is_refused(
    publisher: LoopbackPublisher, certificate: Path, output_dir: Path
) -> None:
    with LoopbackPublisher({NAME: CONTENT}, certificate=certificate) as other:
        publisher.script(NAME, then=Answer(redirect=other.url(NAME)))
        assert "is not trusted" in download_error(PublisherRequestError, publisher.url(NAME), output_dir)


# --- all layers, with limits from the environment ---------------------------------------------------------------------

BOMB = gzip.compress(CONTENT + CONTENT.splitlines(keepends=True)[1] * 100_000, compresslevel=1, mtime=0)
SENT: dict[str, tuple[str, Answer, bytes, str]] = {
    "endless": (NAME, Answer(endless=True), CONTENT, "larger than 1,000,000 bytes"),
    "announced as too large": (NAME, Answer(content_length=10**9), CONTENT, "larger than 1,000,000 bytes"),
    "a bomb": (f"{NAME}.gz", Answer(), BOMB, "expands to more than 20 times its size"),
    "redirected to itself": (NAME, Answer(redirect=NAME), CONTENT, "more than 10 redirects"),
}


@pytest.mark.parametrize("sent", SENT)
def test_a_file_over_a_limit_is_not_stored_and_the_error_names_the_setting(
    publisher: LoopbackPublisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    name, answer, content, finding = SENT[sent]
    publisher.withdraw(NAME)
    publisher.publish(name, content)
    publisher.script(name, then=answer)
    monkeypatch.setenv("TAXI_MAX_FILE_BYTES", "1000000")
    monkeypatch.setenv("TAXI_MAX_EXPANSION_RATIO", "20")
    deployment = Deployment(tmp_path / "home", publisher.base)
    (text,) = failure_messages(deployment.run("green", "2020-10"))
    assert finding in text
    assert "\n" not in text
    assert sent.startswith("redirected") or "TAXI_MAX_" in text
    assert [path for path in deployment.home.rglob("*") if path.is_file()] == []
    assert stray_files(deployment) == []


def test_a_file_over_a_limit_is_accepted_after_the_limit_is_raised(
    publisher: LoopbackPublisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.withdraw(NAME)
    publisher.publish(f"{NAME}.gz", BOMB)
    monkeypatch.setenv("TAXI_MAX_EXPANSION_RATIO", "1000")
    assert (
        failure_messages(
            Deployment(tmp_path / "home", publisher.base).run("green", "2020-10", only=["raw/green_trips"])
        )
        == []
    )


# --- Google: a token that expires -------------------------------------------------------------------------------------


def test_an_expired_token_is_replaced_and_rejected_credentials_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ServiceAccount() as account, CloudStorage() as storage:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        lake = GcsLake(
            storage=CloudStorageResource(credentials=account.base64), bucket=storage.bucket, prefix="nyc/taxi"
        )
        put(lake, b"old")
        actions: list[Callable[[], object]] = [lambda: put(lake, b"new"), lambda: read(lake), lambda: lake.size(KEY)]
        for act in actions:
            storage.script(Fault(status=401))
            act()
        assert read(lake) == b"new"
        storage.script(*[Fault(status=401)] * 100)
        with pytest.raises(LakeConfigurationError, match="Google does not accept the credentials"):
            put(lake, b"newer")
        assert storage.object(f"nyc/taxi/{KEY}") == b"new"
