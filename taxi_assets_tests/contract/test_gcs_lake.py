"""The lake in Cloud Storage: checksums, conflicts, retries and error messages."""

from __future__ import annotations

import gc
import hashlib
import os
import stat
import tempfile
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from taxi_assets.errors import (
    LakeConfigurationError,
    LakeConflictError,
    LakeObjectDamagedError,
    LakeUnreachableError,
)
from taxi_assets.resources.google import CloudStorageResource
from taxi_assets.storage.lake.gcs_lake import GcsLake
from taxi_assets.storage.lake.objects import ParquetPartition, RawFile, StagedRawFile
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets_tests.contract.stores.gcs import open_lake
from taxi_assets_tests.contract.test_any_lake import KEY, put, read
from taxi_assets_tests.google.cloud_storage import CloudStorage, Fault
from taxi_assets_tests.google.service_account import ServiceAccount
from taxi_assets_tests.trips import publish_generated_month, write_download

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from taxi_assets_tests.google.cloud_storage import Request

NAME = f"nyc/taxi/{KEY}"
CHUNK_BYTES = 8 << 20
LARGE = bytes(range(256)) * (17 << 12)  # 17 MiB: two chunks and a part
RANGED = bytes(range(256)) * (3 << 12)  # 3 MiB: read in ranges
PREFIX = "raw/green_trips/2020-10"


@pytest.fixture(autouse=True)
def _shorten_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 100))


# Google's client does not close the connection after an error response to a download.
_IGNORE_UNCLOSED_SOCKETS = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def _collect_unclosed_sockets() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def lake(cloud_storage: CloudStorage) -> GcsLake:
    return open_lake(cloud_storage.environment, cloud_storage.bucket)


def open_lake_with_short_timeout(storage: CloudStorage) -> GcsLake:
    return GcsLake(storage=CloudStorageResource(), bucket=storage.bucket, prefix="nyc/taxi", timeout_seconds=0.3)


def download(lake: GcsLake, version: str | None = None) -> bytes:
    with lake.as_local_file(KEY, version) as path:
        return path.read_bytes()


def upload_requests(storage: CloudStorage) -> list[Request]:
    return [request for request in storage.requests if request.path.startswith("/upload/")]


def list_generations(lake: GcsLake) -> list[Any]:
    """Return every generation of every object, listed with Google's client."""
    return list(lake.storage.get_client().list_blobs(lake.bucket, versions=True))


# --- uploads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"new", LARGE], ids=["small", "large"])
def test_every_request_of_an_upload_names_the_generation_that_it_replaces(
    lake: GcsLake, cloud_storage: CloudStorage, content: bytes
) -> None:
    for replaces in ("0", None):
        expected = replaces or lake.version(KEY)
        cloud_storage.requests.clear()
        put(lake, content)
        assert {request.query["ifGenerationMatch"] for request in upload_requests(cloud_storage)} == {expected}


@pytest.mark.parametrize("content", [b"new", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("times", [1, 2])
def test_an_upload_that_is_damaged_in_transit_is_repeated(
    lake: GcsLake, cloud_storage: CloudStorage, content: bytes, times: int
) -> None:
    put(lake, b"old")
    requests = [Fault(), Fault(), Fault()] if content is LARGE else []  # the start of the upload, and two chunks
    for _ in range(times):
        cloud_storage.script(*requests, Fault(corrupt=True), path="/upload/")
    put(lake, content)
    assert cloud_storage.object(NAME) == content
    refused = [request for request in upload_requests(cloud_storage) if request.status == 400]
    assert len(refused) == times


@pytest.mark.parametrize("content", [b"new", LARGE], ids=["small", "large"])
def test_an_upload_that_is_damaged_every_time_is_a_transient_error_and_changes_nothing(
    lake: GcsLake, cloud_storage: CloudStorage, content: bytes
) -> None:
    put(lake, b"old")
    cloud_storage.requests.clear()
    cloud_storage.script(*[Fault(corrupt=True)] * 99, method="PUT" if content is LARGE else "POST")
    with pytest.raises(LakeUnreachableError) as error:
        put(lake, content)
    line = str(error.value)
    assert line.startswith(f"{lake.uri(KEY)} cannot be written: the file was damaged in transit 3 times (400 Provided ")
    assert "role" not in line
    assert "check proxies" in error.value.remedy
    assert cloud_storage.object(NAME) == b"old"
    assert [request for request in cloud_storage.requests if request.method == "DELETE"] == []


def test_an_upload_never_deletes_what_another_run_wrote(lake: GcsLake, cloud_storage: CloudStorage) -> None:
    put(lake, b"old")
    # The client would compare this checksum with its own, and delete the object.
    cloud_storage.script(Fault(), Fault(), Fault(fields={"crc32c": "AAAAAA=="}), method="PUT")
    cloud_storage.script(Fault(before=lambda: cloud_storage.put(NAME, b"another run's")), method="DELETE")
    put(lake, LARGE)
    assert cloud_storage.object(NAME) == LARGE


def test_an_error_that_is_no_matter_of_permissions_names_no_role(lake: GcsLake, cloud_storage: CloudStorage) -> None:
    cloud_storage.script(Fault(status=400, message="Invalid argument."), method="POST", path="/upload/")
    with pytest.raises(LakeConfigurationError, match="400 Invalid argument") as error:
        put(lake, b"new")
    assert error.value.remedy == "Check the bucket taxi-lake in the Google Cloud console."


def test_an_object_that_another_tool_has_copied_is_read_once_to_compare_its_bytes(
    lake: GcsLake, cloud_storage: CloudStorage
) -> None:
    generation = cloud_storage.put(NAME, b"month")  # without the digest
    assert lake.has_digest(KEY, sha256=hashlib.sha256(b"month").hexdigest())
    assert not lake.has_digest(KEY, sha256=hashlib.sha256(b"other").hexdigest())
    downloads = [request for request in cloud_storage.requests if request.path.startswith("/download/")]
    assert len(downloads) == 1
    assert lake.version(KEY) == str(generation)


def test_object_metadata_contains_the_digest_and_run_id(lake: GcsLake) -> None:
    put(lake, b"new", run="the-run")
    (blob,) = list_generations(lake)
    assert blob.metadata == {
        "taxi-sha256": "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437",
        "taxi-run": "the-run",
    }


@pytest.mark.parametrize("lost", [Fault(status=503, after=True), Fault(reset=True, after=True)], ids=["503", "reset"])
def test_an_upload_whose_response_was_lost_succeeds_and_is_stored_once(
    lake: GcsLake, cloud_storage: CloudStorage, lost: Fault
) -> None:
    cloud_storage.script(lost, method="POST")
    put(lake, b"new")
    assert [request.status for request in upload_requests(cloud_storage)] == [lost.status, 412]
    assert len(list_generations(lake)) == 1
    assert read(lake) == b"new"


def test_publishing_over_a_concurrent_write_raises_a_conflict(lake: GcsLake, cloud_storage: CloudStorage) -> None:
    put(lake, b"old")
    cloud_storage.script(Fault(before=lambda: cloud_storage.put(NAME, b"theirs")), method="POST", path="/upload/")
    with pytest.raises(LakeConflictError):
        put(lake, b"ours")
    assert read(lake) == b"theirs"


@pytest.mark.parametrize(
    ("faults", "resent_bytes"),
    [
        ([Fault(), Fault(status=503), Fault(reset=True)], 2 * CHUNK_BYTES),
        ([Fault(), Fault(status=503, after=True)], CHUNK_BYTES),
        ([Fault(), Fault(), Fault(reset=True, after=True)], len(LARGE) - 2 * CHUNK_BYTES),
    ],
    ids=["chunks are lost", "a response is lost", "the last response is lost"],
)
def test_an_interrupted_large_upload_resumes(
    lake: GcsLake, cloud_storage: CloudStorage, faults: Sequence[Fault], resent_bytes: int
) -> None:
    cloud_storage.script(*faults, method="PUT")
    put(lake, LARGE)
    assert cloud_storage.object(NAME) == LARGE
    assert len(list_generations(lake)) == 1
    chunks = [request.body_bytes for request in upload_requests(cloud_storage) if request.method == "PUT"]
    assert sum(chunks) == len(LARGE) + resent_bytes


# --- failures of the service ------------------------------------------------------------------------------------------


def server_error(status: int) -> Fault:
    return Fault(status=status, message="The zone is\nunavailable.")


ACTIONS: dict[str, tuple[str, str, Callable[[GcsLake], object], object]] = {
    "metadata": ("GET", "/storage/v1", lambda lake: lake.size(KEY), len(RANGED)),
    "list": ("GET", "/o", lambda lake: list(lake.sizes_in("clean/green_trips")), [KEY]),
    "download": ("GET", "/download/", download, RANGED),
    "range read": ("GET", "/download/", read, RANGED),
    "upload": ("POST", "/upload/", lambda lake: put(lake, b"new"), None),
    "delete": ("DELETE", "", lambda lake: lake.delete(KEY), None),
}


@_IGNORE_UNCLOSED_SOCKETS
@pytest.mark.usefixtures("_collect_unclosed_sockets")
@pytest.mark.parametrize(
    "fault",
    [server_error(503), server_error(429), Fault(reset=True), Fault(cut_after=1)],
    ids=["503", "429", "reset", "truncated"],
)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_request_that_fails_once_is_retried(
    lake: GcsLake, cloud_storage: CloudStorage, fault: Fault, action: str
) -> None:
    method, path, act, expected = ACTIONS[action]
    put(lake, RANGED)
    cloud_storage.requests.clear()
    # A response without a body cannot be truncated.
    cloud_storage.script(
        fault if action != "delete" or fault.cut_after is None else server_error(502), method=method, path=path
    )
    assert act(lake) == expected
    sent = [request for request in cloud_storage.requests if request.method == method and path in request.path]
    assert len(sent) > 1
    if action == "upload":
        assert read(lake) == b"new"
    if action == "delete":
        assert lake.size(KEY) is None


@_IGNORE_UNCLOSED_SOCKETS
@pytest.mark.usefixtures("_collect_unclosed_sockets")
@pytest.mark.parametrize("action", ACTIONS)
def test_after_all_retries_the_error_includes_the_service_message_and_the_old_object_is_kept(
    cloud_storage: CloudStorage, action: str
) -> None:
    method, path, act, _ = ACTIONS[action]
    lake = open_lake_with_short_timeout(cloud_storage)
    put(lake, RANGED)
    cloud_storage.script(*[server_error(503)] * 1000, method=method, path=path)
    with pytest.raises(LakeUnreachableError) as error:
        act(lake)
    assert str(error.value).startswith(lake.uri(KEY if action != "list" else "clean/green_trips"))
    assert str(error.value).endswith(": 503 The zone is unavailable. Try again later. [LakeUnreachableError]")
    assert cloud_storage.object(NAME) == RANGED


def test_an_unreachable_service_is_reported_as_a_connection_failure(cloud_storage: CloudStorage) -> None:
    lake = open_lake_with_short_timeout(cloud_storage)
    cloud_storage.script(*[Fault(reset=True)] * 1000)
    with pytest.raises(LakeUnreachableError, match="the connection was interrupted or could not be opened"):
        lake.version(KEY)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("access", [read, download])
def test_a_download_that_does_not_match_its_checksum_raises_and_returns_nothing(
    lake: GcsLake, cloud_storage: CloudStorage, access: Callable[[GcsLake], bytes]
) -> None:
    put(lake, b"0123456789")
    cloud_storage.script(Fault(corrupt=True), method="GET", path="/download/")
    with pytest.raises(LakeObjectDamagedError) as error:
        access(lake)
    assert lake.uri(KEY) in error.value.problem
    assert access(lake) == b"0123456789"


@_IGNORE_UNCLOSED_SOCKETS
@pytest.mark.usefixtures("_collect_unclosed_sockets")
@pytest.mark.parametrize("access", [read, download])
@pytest.mark.parametrize("content", [b"old", RANGED], ids=["small", "read in ranges"])
def test_reading_an_object_replaced_before_its_download_returns_the_old_version_or_raises_a_conflict(
    monkeypatch: pytest.MonkeyPatch, content: bytes, access: Callable[[GcsLake], bytes]
) -> None:
    for versioning in (True, False):
        with CloudStorage(versioning=versioning) as storage:
            for name, value in storage.environment.items():
                monkeypatch.setenv(name, value)
            lake = open_lake(storage.environment, storage.bucket)
            put(lake, content)
            storage.script(Fault(before=lambda: storage.put(NAME, b"theirs")), method="GET", path="/download/")
            if versioning:
                assert access(lake) == content
            else:
                with pytest.raises(LakeConflictError):
                    access(lake)
            assert access(lake) == b"theirs"
            lake.storage.get_client().close()


# --- missing buckets and permissions ----------------------------------------------------------------------------------

CALLS: dict[str, Callable[[GcsLake], object]] = {
    "version": lambda lake: lake.version(KEY),
    "list": lambda lake: list(lake.sizes_in(KEY)),
    "open": read,
    "download": download,
    "write": lambda lake: put(lake, b"new", replaces=None),
    "write large": lambda lake: put(lake, LARGE, replaces=None),
    "delete": lambda lake: lake.delete(KEY),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_names_a_missing_bucket(cloud_storage: CloudStorage, name: str) -> None:
    assert cloud_storage.bucket != "missing-bucket"
    lake = GcsLake(storage=CloudStorageResource(), bucket="missing-bucket")
    with pytest.raises(LakeConfigurationError) as error:
        CALLS[name](lake)
    assert str(error.value) == (
        "The bucket missing-bucket does not exist. Create it (for example with deploy/gcp), or set TAXI_LAKE to "
        "another bucket. [LakeConfigurationError]"
    )


def test_the_name_of_a_bucket_may_contain_the_word_bucket(lake: GcsLake) -> None:
    lake.storage.get_client().create_bucket("taxi-bucket", project="taxi-project")
    lake_in_bucket = GcsLake(storage=lake.storage, bucket="taxi-bucket")
    assert lake_in_bucket.version(KEY) is None
    lake_in_bucket.delete(KEY)
    put(lake_in_bucket, b"new")
    assert read(lake_in_bucket) == b"new"


@pytest.mark.parametrize(
    ("permission", "calls"),
    [
        ("storage.objects.get", ["version", "open", "download"]),
        ("storage.objects.list", ["list"]),
        ("storage.objects.create", ["write", "write large"]),
        ("storage.objects.delete", ["delete"]),
    ],
)
def test_the_error_for_a_missing_permission_names_the_role_in_one_line(
    lake: GcsLake, cloud_storage: CloudStorage, permission: str, calls: Sequence[str]
) -> None:
    cloud_storage.forbid(permission)
    for name in calls:
        with pytest.raises(LakeConfigurationError) as error:
            CALLS[name](lake)
        line = str(error.value)
        assert line.startswith(lake.uri(KEY))
        assert permission in line
        assert error.value.remedy.endswith("Storage Object User (roles/storage.objectUser) on the bucket taxi-lake.")
        assert "\n" not in line
        assert "{" not in line


def test_overwriting_without_delete_permission_names_the_permission_and_role(
    lake: GcsLake, cloud_storage: CloudStorage
) -> None:
    put(lake, b"old")
    cloud_storage.forbid("storage.objects.delete")
    with pytest.raises(LakeConfigurationError, match=r"storage\.objects\.delete.*roles/storage\.objectUser"):
        put(lake, b"new")
    assert read(lake) == b"old"


def test_the_error_for_rejected_credentials_is_one_line(cloud_storage: CloudStorage) -> None:
    with ServiceAccount(refuses=True) as account:
        storage = CloudStorageResource(credentials=account.base64)
        lake = GcsLake(storage=storage, bucket=cloud_storage.bucket)
        with pytest.raises(LakeConfigurationError) as error:
            lake.version(KEY)
    line = str(error.value)
    assert line.startswith(f"{lake.uri(KEY)} cannot be read: Google does not accept the credentials (invalid_grant: ")
    assert error.value.remedy.endswith("or run `gcloud auth application-default login`.")


# --- months in the lake -----------------------------------------------------------------------------------------------


def publish_raw_file(lake: GcsLake, content: bytes, extension: FileFormat) -> RawFile:
    with lake.staging() as folder:
        staged = StagedRawFile(
            write_download(content, folder, extension=extension), RawFile.current_versions(lake, PREFIX)
        )
        return RawFile.publish(lake, PREFIX, staged, run_id="a")


def test_publishing_another_format_deletes_the_old_file(lake: GcsLake, cloud_storage: CloudStorage) -> None:
    first = publish_raw_file(lake, b"header\n1\n", FileFormat.CSV)
    assert RawFile.find(lake, PREFIX) == first
    second = publish_raw_file(lake, b"PAR1PAR1", FileFormat.PARQUET)
    assert RawFile.get(lake, PREFIX) == second
    assert set(cloud_storage.objects()) == {f"nyc/taxi/{PREFIX}.parquet", f"nyc/taxi/{PREFIX}.source.json"}
    with second.as_local_file() as path:
        assert path.read_bytes() == b"PAR1PAR1"


def test_publishing_the_same_file_again_does_not_upload_it(lake: GcsLake, cloud_storage: CloudStorage) -> None:
    publish_raw_file(lake, b"header\n1\n", FileFormat.CSV)
    before = cloud_storage.objects()[f"nyc/taxi/{PREFIX}.csv"]
    publish_raw_file(lake, b"header\n1\n", FileFormat.CSV)
    assert cloud_storage.objects()[f"nyc/taxi/{PREFIX}.csv"] == before


def test_finding_a_month_reads_only_its_footer(lake: GcsLake, cloud_storage: CloudStorage) -> None:
    report = publish_generated_month(lake).report
    with lake.staging() as folder:
        rows = pa.table({"noise": [os.urandom(1 << 16) for _ in range(100)]})
        pyarrow.parquet.write_table(rows.replace_schema_metadata(report.footer()), folder / "file")
        length = (folder / "file").stat().st_size
        lake.publish(folder / "file", "clean/green_trips/2020-11.parquet", replaces=None, run_id="a")
    cloud_storage.requests.clear()
    month = ParquetPartition.get(lake, "clean/green_trips/2020-11")
    assert (month.rows, month.report, month.bytes) == (100, report, length)
    assert sum(request.sent_bytes for request in cloud_storage.requests) < length / 10


def test_the_mark_of_a_folder_is_not_listed(lake: GcsLake, cloud_storage: CloudStorage) -> None:
    cloud_storage.put(NAME.rpartition("/")[0] + "/", b"")  # as Google's console creates an empty folder
    put(lake, b"new")
    assert list(lake.sizes_in("clean/green_trips")) == [KEY]
    assert list(lake.sizes_in("clean")) == []


# --- staging ----------------------------------------------------------------------------------------------------------


def test_other_accounts_cannot_read_staging_folders(
    lake: GcsLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    home = tmp_path / f"taxi-assets-{os.getuid()}"
    for has_wrong_mode in (False, True):
        if has_wrong_mode:
            home.chmod(0o777)
        with lake.staging() as folder:
            assert folder.parent == home
            assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_symlink_in_place_of_the_staging_folder_is_rejected(
    lake: GcsLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"taxi-assets-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LakeConfigurationError, match="TMPDIR"):
        lake.staging()
