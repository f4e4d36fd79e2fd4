"""What the lake in Cloud Storage promises besides: nothing is lost on the way, nor overwritten, nor badly explained."""

from __future__ import annotations

import gc
import os
import stat
import tempfile
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from requests.adapters import HTTPAdapter

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
from taxi_assets_tests.trips import fetched, published_month

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from taxi_assets_tests.google.cloud_storage import Request

NAME = f"nyc/taxi/{KEY}"
PIECE = 8 << 20
LARGE = bytes(range(256)) * (17 << 12)  # 17 MiB: two pieces and a bit
RANGED = bytes(range(256)) * (3 << 12)  # 3 MiB: read in parts
STEM = "raw/green_trips/2020-10"


@pytest.fixture(autouse=True)
def _clients_wait_a_hundredth(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 100))


# Google's client drops the connection of a download's error answer without closing it.
_DROPS_SOCKETS = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def _dropped_sockets_are_gone_with_their_test() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def lake(cloud_storage: CloudStorage) -> GcsLake:
    return open_lake(cloud_storage.environment, cloud_storage.bucket)


def impatient(storage: CloudStorage) -> GcsLake:
    return GcsLake(storage=CloudStorageResource(), bucket=storage.bucket, prefix="nyc/taxi", timeout_seconds=0.3)


def local(lake: GcsLake, version: str | None = None) -> bytes:
    with lake.as_local_file(KEY, version) as path:
        return path.read_bytes()


def uploads(storage: CloudStorage) -> list[Request]:
    return [request for request in storage.requests if request.path.startswith("/upload/")]


def versions(lake: GcsLake) -> list[Any]:
    """Every version of every object, by the client itself."""
    return list(lake.storage.get_client().list_blobs(lake.bucket, versions=True))


# --- uploads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"new", LARGE], ids=["small", "large"])
def test_every_request_of_an_upload_names_the_generation_it_replaces(
    lake: GcsLake, cloud_storage: CloudStorage, content: bytes
) -> None:
    for replaces in ("0", None):
        expected = replaces or lake.version(KEY)
        cloud_storage.requests.clear()
        put(lake, content)
        assert {request.query["ifGenerationMatch"] for request in uploads(cloud_storage)} == {expected}


class Garbling(HTTPAdapter):
    """A network that changes what is sent."""

    def send(self, request: Any, *args: Any, **named: Any) -> Any:
        if request.body and b"truth" in request.body:
            request.body = request.body.replace(b"truth", b"trash")
        return super().send(request, *args, **named)


@pytest.mark.parametrize("content", [b"truth", LARGE + b"truth"], ids=["small", "large"])
def test_bytes_that_changed_on_their_way_up_are_refused_by_their_checksum(
    lake: GcsLake, cloud_storage: CloudStorage, content: bytes
) -> None:
    put(lake, b"old")
    with pytest.MonkeyPatch.context() as monkeypatch:
        session = lake.storage.get_client()._http  # noqa: SLF001  (the client has no public way)
        monkeypatch.setattr(session, "adapters", session.adapters.copy())
        session.mount(cloud_storage.endpoint, Garbling())
        with pytest.raises(LakeConfigurationError, match="CRC32C"):
            put(lake, content)
        session.get_adapter(cloud_storage.endpoint).close()
    assert cloud_storage.object(NAME) == b"old"


def test_an_object_tells_its_digest_and_the_run_that_wrote_it(lake: GcsLake) -> None:
    put(lake, b"new", run="the-run")
    (blob,) = versions(lake)
    assert blob.metadata == {
        "taxi-sha256": "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437",
        "taxi-run": "the-run",
    }


@pytest.mark.parametrize("lost", [Fault(status=503, after=True), Fault(reset=True, after=True)], ids=["503", "reset"])
def test_an_upload_whose_answer_was_lost_ends_well_and_is_there_once(
    lake: GcsLake, cloud_storage: CloudStorage, lost: Fault
) -> None:
    cloud_storage.script(lost, method="POST")
    put(lake, b"new")
    assert [request.status for request in uploads(cloud_storage)] == [lost.status, 412]
    assert len(versions(lake)) == 1
    assert read(lake) == b"new"


def test_what_another_wrote_at_the_same_time_is_not_taken_for_ones_own(
    lake: GcsLake, cloud_storage: CloudStorage
) -> None:
    put(lake, b"old")
    cloud_storage.script(Fault(before=lambda: cloud_storage.put(NAME, b"theirs")), method="POST", path="/upload/")
    with pytest.raises(LakeConflictError):
        put(lake, b"ours")
    assert read(lake) == b"theirs"


@pytest.mark.parametrize(
    ("faults", "sent_again"),
    [
        ([Fault(), Fault(status=503), Fault(reset=True)], 2 * PIECE),
        ([Fault(), Fault(status=503, after=True)], PIECE),
        ([Fault(), Fault(), Fault(reset=True, after=True)], len(LARGE) - 2 * PIECE),
    ],
    ids=["pieces are lost", "an answer is lost", "the last answer is lost"],
)
def test_a_large_upload_goes_on_from_where_it_broke_off(
    lake: GcsLake, cloud_storage: CloudStorage, faults: Sequence[Fault], sent_again: int
) -> None:
    cloud_storage.script(*faults, method="PUT")
    put(lake, LARGE)
    assert cloud_storage.object(NAME) == LARGE
    assert len(versions(lake)) == 1
    chunks = [request.body_bytes for request in uploads(cloud_storage) if request.method == "PUT"]
    assert sum(chunks) == len(LARGE) + sent_again


# --- a service that fails for a while, or for long --------------------------------------------------------------------


def failing(status: int) -> Fault:
    return Fault(status=status, message="The zone is\non fire.")


ACTIONS: dict[str, tuple[str, str, Callable[[GcsLake], object], object]] = {
    "metadata": ("GET", "/storage/v1", lambda lake: lake.size(KEY), len(RANGED)),
    "download": ("GET", "/download/", local, RANGED),
    "range read": ("GET", "/download/", read, RANGED),
    "upload": ("POST", "/upload/", lambda lake: put(lake, b"new"), None),
    "delete": ("DELETE", "", lambda lake: lake.delete(KEY), None),
}


@_DROPS_SOCKETS
@pytest.mark.usefixtures("_dropped_sockets_are_gone_with_their_test")
@pytest.mark.parametrize(
    "fault", [failing(503), failing(429), Fault(reset=True), Fault(cut_after=1)], ids=["503", "429", "reset", "cut"]
)
@pytest.mark.parametrize("action", ACTIONS)
def test_what_fails_once_is_asked_again(lake: GcsLake, cloud_storage: CloudStorage, fault: Fault, action: str) -> None:
    method, path, act, expected = ACTIONS[action]
    put(lake, RANGED)
    cloud_storage.requests.clear()
    # An answer without a body cannot be cut.
    cloud_storage.script(
        fault if action != "delete" or fault.cut_after is None else failing(502), method=method, path=path
    )
    assert act(lake) == expected
    asked = [request for request in cloud_storage.requests if request.method == method and path in request.path]
    assert len(asked) > 1
    if action == "upload":
        assert read(lake) == b"new"
    if action == "delete":
        assert lake.size(KEY) is None


@_DROPS_SOCKETS
@pytest.mark.usefixtures("_dropped_sockets_are_gone_with_their_test")
@pytest.mark.parametrize("action", ACTIONS)
def test_what_keeps_failing_is_named_with_the_services_reason_and_leaves_the_old_object(
    cloud_storage: CloudStorage, action: str
) -> None:
    method, path, act, _ = ACTIONS[action]
    lake = impatient(cloud_storage)
    put(lake, RANGED)
    cloud_storage.script(*[failing(503)] * 1000, method=method, path=path)
    with pytest.raises(LakeUnreachableError) as error:
        act(lake)
    assert str(error.value).startswith(lake.uri(KEY))
    assert str(error.value).endswith(": 503 The zone is on fire. Try again later. [LakeUnreachableError]")
    assert cloud_storage.object(NAME) == RANGED


def test_a_service_that_is_not_there_is_named(cloud_storage: CloudStorage) -> None:
    lake = impatient(cloud_storage)
    cloud_storage.script(*[Fault(reset=True)] * 1000)
    with pytest.raises(LakeUnreachableError, match="the connection was interrupted or could not be opened"):
        lake.version(KEY)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("access", [read, local])
def test_a_download_that_does_not_fit_its_checksum_is_named_and_its_bytes_are_not_to_be_had(
    lake: GcsLake, cloud_storage: CloudStorage, access: Callable[[GcsLake], bytes]
) -> None:
    put(lake, b"0123456789")
    cloud_storage.script(Fault(corrupt=True), method="GET", path="/download/")
    with pytest.raises(LakeObjectDamagedError) as error:
        access(lake)
    assert lake.uri(KEY) in error.value.problem
    assert access(lake) == b"0123456789"


@_DROPS_SOCKETS
@pytest.mark.usefixtures("_dropped_sockets_are_gone_with_their_test")
@pytest.mark.parametrize("access", [read, local])
@pytest.mark.parametrize("content", [b"old", RANGED], ids=["small", "read in parts"])
def test_an_object_replaced_between_looking_and_downloading_is_the_old_one_or_none(
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


# --- what is missing --------------------------------------------------------------------------------------------------

USES: dict[str, Callable[[GcsLake], object]] = {
    "look": lambda lake: lake.version(KEY),
    "open": read,
    "download": local,
    "write": lambda lake: put(lake, b"new", replaces=None),
    "write much": lambda lake: put(lake, LARGE, replaces=None),
    "delete": lambda lake: lake.delete(KEY),
}


@pytest.mark.parametrize("use", USES)
def test_a_missing_bucket_is_named_whatever_is_done_with_it(cloud_storage: CloudStorage, use: str) -> None:
    assert cloud_storage.bucket != "not-made"
    lake = GcsLake(storage=CloudStorageResource(), bucket="not-made")
    with pytest.raises(LakeConfigurationError) as error:
        USES[use](lake)
    assert str(error.value) == (
        "There is no bucket not-made. Create it (deploy/gcp does), or name another one in TAXI_LAKE. "
        "[LakeConfigurationError]"
    )


def test_a_bucket_may_be_called_a_bucket(lake: GcsLake) -> None:
    lake.storage.get_client().create_bucket("taxi-bucket", project="taxi-project")
    named_so = GcsLake(storage=lake.storage, bucket="taxi-bucket")
    assert named_so.version(KEY) is None
    named_so.delete(KEY)
    put(named_so, b"new")
    assert read(named_so) == b"new"


@pytest.mark.parametrize(
    ("permission", "uses"),
    [
        ("storage.objects.get", ["look", "open", "download"]),
        ("storage.objects.create", ["write", "write much"]),
        ("storage.objects.delete", ["delete"]),
    ],
)
def test_a_missing_permission_is_one_line_with_the_role_that_grants_it(
    lake: GcsLake, cloud_storage: CloudStorage, permission: str, uses: Sequence[str]
) -> None:
    cloud_storage.forbid(permission)
    for use in uses:
        with pytest.raises(LakeConfigurationError) as error:
            USES[use](lake)
        line = str(error.value)
        assert line.startswith(lake.uri(KEY))
        assert permission in line
        assert error.value.remedy.endswith("Storage Object Admin (roles/storage.objectAdmin) on the bucket taxi-lake.")
        assert "\n" not in line
        assert "{" not in line


def test_overwriting_needs_the_permission_to_delete_and_says_so(lake: GcsLake, cloud_storage: CloudStorage) -> None:
    put(lake, b"old")
    cloud_storage.forbid("storage.objects.delete")
    with pytest.raises(LakeConfigurationError, match=r"storage\.objects\.delete.*roles/storage\.objectAdmin"):
        put(lake, b"new")
    assert read(lake) == b"old"


def test_a_rejected_key_is_one_line(cloud_storage: CloudStorage) -> None:
    with ServiceAccount(refuses=True) as account:
        storage = CloudStorageResource(credentials=account.base64)
        lake = GcsLake(storage=storage, bucket=cloud_storage.bucket)
        with pytest.raises(LakeConfigurationError) as error:
            lake.version(KEY)
    line = str(error.value)
    assert line.startswith(f"{lake.uri(KEY)} cannot be read: Google does not accept the credentials (invalid_grant: ")
    assert error.value.remedy.endswith("or run `gcloud auth application-default login`.")


# --- shelves on it ----------------------------------------------------------------------------------------------------


def published(lake: GcsLake, content: bytes, ending: FileFormat) -> RawFile:
    with lake.staging() as folder:
        staged = StagedRawFile(fetched(content, folder, ending=ending), RawFile.current_versions(lake, STEM))
        return RawFile.publish(lake, STEM, staged, run_id="a")


def test_a_published_file_is_found_again_and_its_other_formats_are_tidied_away(
    lake: GcsLake, cloud_storage: CloudStorage
) -> None:
    first = published(lake, b"header\n1\n", FileFormat.CSV)
    assert RawFile.find(lake, STEM) == first
    second = published(lake, b"PAR1PAR1", FileFormat.PARQUET)
    assert RawFile.get(lake, STEM) == second
    assert set(cloud_storage.objects()) == {f"nyc/taxi/{STEM}.parquet", f"nyc/taxi/{STEM}.source.json"}
    with second.as_local_file() as path:
        assert path.read_bytes() == b"PAR1PAR1"


def test_the_same_published_file_again_is_not_uploaded_again(lake: GcsLake, cloud_storage: CloudStorage) -> None:
    published(lake, b"header\n1\n", FileFormat.CSV)
    seen = cloud_storage.objects()[f"nyc/taxi/{STEM}.csv"]
    published(lake, b"header\n1\n", FileFormat.CSV)
    assert cloud_storage.objects()[f"nyc/taxi/{STEM}.csv"] == seen


def test_finding_a_month_reads_its_footer_only(lake: GcsLake, cloud_storage: CloudStorage) -> None:
    report = published_month(lake).report
    with lake.staging() as folder:
        rows = pa.table({"noise": [os.urandom(1 << 16) for _ in range(100)]})
        pyarrow.parquet.write_table(rows.replace_schema_metadata(report.footer()), folder / "file")
        length = (folder / "file").stat().st_size
        lake.publish(folder / "file", "clean/green_trips/2020-11.parquet", replaces=None, run_id="a")
    cloud_storage.requests.clear()
    month = ParquetPartition.get(lake, "clean/green_trips/2020-11")
    assert (month.rows, month.report, month.bytes) == (100, report, length)
    assert sum(request.sent_bytes for request in cloud_storage.requests) < length / 10


# --- staging ----------------------------------------------------------------------------------------------------------


def test_unfinished_files_are_nobody_elses_business(
    lake: GcsLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    home = tmp_path / f"taxi-assets-{os.getuid()}"
    for made_by_another_hand in (False, True):
        if made_by_another_hand:
            home.chmod(0o777)
        with lake.staging() as folder:
            assert folder.parent == home
            assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_link_in_the_place_of_unfinished_files_is_refused(
    lake: GcsLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"taxi-assets-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LakeConfigurationError, match="TMPDIR"):
        lake.staging()
