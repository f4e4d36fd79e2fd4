"""The Cloud Storage double behaves as the service does; seen through the official client."""

from __future__ import annotations

import io
import json
import multiprocessing
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import requests
from google.api_core import exceptions
from google.cloud import storage as google_storage  # it ships no types
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from taxi_assets_tests.google.cloud_storage import ACCOUNT, CloudStorage, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "raw/yellow 2021-01.parquet"
CHUNK = 256 << 10
RETRY = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.02)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudStorage]:
    with CloudStorage(versioning=True) as storage:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        yield storage


@pytest.fixture
def client(storage: CloudStorage) -> Iterator[Any]:
    client = google_storage.Client(project="taxi-tests")
    yield client
    client.close()
    assert storage.requests


@pytest.fixture
def frequent_thread_switches() -> Iterator[None]:
    """Switch between threads so often that other threads see every change that is not atomic."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def bucket(client: Any, storage: CloudStorage) -> Any:
    return client.bucket(storage.bucket)


def _upload(bucket: Any, content: bytes, **options: Any) -> Any:
    blob = bucket.blob(KEY)
    blob.upload_from_string(content, retry=RETRY, **options)
    return blob


def _upload_in_chunks(bucket: Any, content: bytes, **options: Any) -> None:
    # Without a size; otherwise the client sends a small file in one request.
    bucket.blob(KEY, chunk_size=CHUNK).upload_from_file(io.BytesIO(content), retry=RETRY, **options)


def _error(raised: pytest.ExceptionInfo[Any]) -> Any:
    return json.loads(raised.value.response.text)["error"]


def test_it_stops_with_a_connected_client_and_leaves_nothing_behind() -> None:
    threads = threading.active_count()
    with requests.Session() as session:
        with CloudStorage() as storage:
            assert session.get(f"{storage.endpoint}/storage/v1/b/{storage.bucket}", timeout=120).ok
        assert threading.active_count() == threads


def test_an_object_is_read_back_with_its_metadata(storage: CloudStorage, bucket: Any) -> None:
    content = bytes(range(256)) * 100 + b"\r\n\n\r--==\r\n"
    blob = bucket.blob(KEY)
    blob.metadata = {"sha256": "ab", "run": "1"}
    blob.upload_from_string(content, checksum="crc32c")
    found = bucket.get_blob(KEY)
    assert found.metadata == {"sha256": "ab", "run": "1"}
    assert (found.generation, found.metageneration, found.size) == (blob.generation, 1, len(content))
    assert found.download_as_bytes(checksum="crc32c") == content == storage.object(KEY)
    assert storage.objects() == {KEY: blob.generation}


def test_generations_increase(storage: CloudStorage, bucket: Any) -> None:
    generations = [storage.put(KEY, b"same") for _ in range(50)]
    generations.append(_upload(bucket, b"same").generation)
    assert generations == sorted(set(generations))


@pytest.mark.parametrize("upload", [_upload, _upload_in_chunks])
def test_an_upload_of_a_new_object_is_rejected_if_the_object_exists(
    storage: CloudStorage, bucket: Any, upload: Any
) -> None:
    storage.put(KEY, b"theirs")
    with pytest.raises(exceptions.PreconditionFailed) as raised:
        upload(bucket, b"ours", if_generation_match=0)
    assert _error(raised)["code"] == 412
    assert _error(raised)["errors"][0]["reason"] == "conditionNotMet"
    assert _error(raised)["message"] == "At least one of the pre-conditions you specified did not hold."
    assert storage.object(KEY) == b"theirs"


def test_an_upload_replaces_only_the_generation_it_names(storage: CloudStorage, bucket: Any) -> None:
    first = storage.put(KEY, b"1")
    second = _upload(bucket, b"2", if_generation_match=first).generation
    with pytest.raises(exceptions.PreconditionFailed):
        _upload(bucket, b"3", if_generation_match=first)
    with pytest.raises(exceptions.PreconditionFailed):
        _upload(bucket, b"3", if_generation_not_match=second)
    assert storage.objects() == {KEY: second}


def test_a_resumable_upload_in_chunks_survives_errors_and_lost_answers(storage: CloudStorage, bucket: Any) -> None:
    content = bytes(range(256)) * 3000
    faults = Fault(), Fault(status=503), Fault(status=503, after=True), Fault(reset=True), Fault(reset=True, after=True)
    storage.script(*faults, method="PUT")
    _upload_in_chunks(bucket, content, if_generation_match=0)
    assert storage.object(KEY) == content
    assert [request.status for request in storage.requests] == [200, 308, 503, 503, None, None, 308, 200]


def test_the_answer_to_the_last_chunk_may_be_lost(storage: CloudStorage, bucket: Any) -> None:
    storage.script(Fault(), Fault(status=503, after=True), method="PUT")
    _upload_in_chunks(bucket, b"x" * (CHUNK + 1), if_generation_match=0)
    assert [request.status for request in storage.requests] == [200, 308, 503, 200]
    assert storage.object(KEY) == b"x" * (CHUNK + 1)


def test_an_object_that_appears_during_a_resumable_upload_is_not_replaced(storage: CloudStorage, bucket: Any) -> None:
    storage.script(Fault(before=lambda: storage.put(KEY, b"theirs")), method="PUT")
    with pytest.raises(exceptions.PreconditionFailed):
        _upload_in_chunks(bucket, b"x" * (CHUNK + 1), if_generation_match=0)
    assert [request.status for request in storage.requests] == [200, 308, 412]
    assert storage.object(KEY) == b"theirs"


def test_a_status_query_reports_how_much_has_arrived(storage: CloudStorage) -> None:
    url = f"{storage.endpoint}/upload/storage/v1/b/{storage.bucket}/o?uploadType=resumable"
    with requests.Session() as session:
        session_url = session.post(url, json={"name": KEY}, timeout=120).headers["Location"]
        nothing = session.put(session_url, headers={"Content-Range": "bytes */*"}, timeout=120)
        session.put(session_url, b"x" * CHUNK, headers={"Content-Range": f"bytes 0-{CHUNK - 1}/*"}, timeout=120)
        chunk = session.put(session_url, headers={"Content-Range": "bytes */*"}, timeout=120)
    assert (nothing.status_code, "Range" in nothing.headers) == (308, False)
    assert (chunk.status_code, chunk.headers["Range"]) == (308, f"bytes=0-{CHUNK - 1}")


def test_a_retry_of_an_upload_whose_answer_was_lost_is_rejected(storage: CloudStorage, bucket: Any) -> None:
    storage.script(Fault(status=503, after=True), method="POST", path="/upload/")
    with pytest.raises(exceptions.PreconditionFailed):
        _upload(bucket, b"ours", if_generation_match=0)
    assert [request.status for request in storage.requests] == [503, 412]
    assert storage.object(KEY) == b"ours"


def test_a_retried_upload_is_stored_once(storage: CloudStorage, bucket: Any) -> None:
    storage.script(Fault(status=503), Fault(status=429, headers={"Retry-After": "1"}), Fault(reset=True), method="POST")
    generation = _upload(bucket, b"ours", if_generation_match=0).generation
    assert [request.status for request in storage.requests] == [503, 429, None, 200]
    assert storage.objects() == {KEY: generation}


@pytest.mark.parametrize(("status", "reason"), [(503, "backendError"), (429, "rateLimitExceeded"), (403, "forbidden")])
def test_a_fault_has_googles_error_body(storage: CloudStorage, client: Any, status: int, reason: str) -> None:
    storage.script(Fault(status=status, headers={"Retry-After": "7"}))
    storage.script(Fault(status=status, message="Quota.", reason="quotaExceeded"), method="GET")
    with pytest.raises(exceptions.GoogleAPICallError) as usual:
        client.get_bucket(storage.bucket, retry=None)
    with pytest.raises(exceptions.GoogleAPICallError) as own:
        client.get_bucket(storage.bucket, retry=None)
    assert (usual.value.code, usual.value.errors[0]["reason"]) == (status, reason)
    assert usual.value.response.headers["Retry-After"] == "7"
    assert (own.value.message.endswith("Quota."), own.value.errors[0]["reason"]) == (True, "quotaExceeded")


def test_faults_apply_to_the_next_matching_request(storage: CloudStorage, bucket: Any) -> None:
    storage.script(Fault(status=500), method="DELETE")
    storage.script(Fault(status=500), path="quarantine/")
    _upload(bucket, b"1")
    with pytest.raises(exceptions.InternalServerError):
        bucket.blob(KEY).delete(retry=None)
    bucket.blob(KEY).delete()
    assert storage.objects() == {}


def test_wrong_checksums_are_rejected(storage: CloudStorage, bucket: Any) -> None:
    blob = bucket.blob(KEY)
    blob.crc32c = "AAAAAA=="
    with pytest.raises(exceptions.BadRequest, match=r"Provided CRC32C .*AAAAAA=="):
        blob.upload_from_string(b"content", checksum=None)
    base = f"{storage.endpoint}/upload/storage/v1/b/{storage.bucket}/o?name=x&uploadType="
    with requests.Session() as session:
        location = session.post(base + "resumable", timeout=120).headers["Location"]
        wrong = {"Content-Range": "bytes 0-2/3", "X-Goog-Hash": "crc32c=AAAAAA=="}
        refused = session.put(location, b"abc", headers=wrong, timeout=120)
    assert (refused.status_code, refused.json()["error"]["errors"][0]["reason"]) == (400, "invalid")
    assert storage.objects() == {}


@pytest.mark.parametrize("size", [3, 9 << 20], ids=["multipart", "resumable"])
def test_an_upload_damaged_in_transit_is_rejected_by_its_checksum(
    storage: CloudStorage, bucket: Any, size: int
) -> None:
    # The status, the reason and the message are those of googleapis/python-storage #1541.
    storage.script(Fault(corrupt=True), method="PUT" if size > 8 << 20 else "POST")
    with pytest.raises(exceptions.BadRequest, match=r'Provided CRC32C \\?".*doesn\'t match calculated CRC32C'):
        bucket.blob(KEY).upload_from_string(bytes(size), checksum="crc32c")
    assert storage.objects() == {}


def test_the_client_deletes_an_object_if_the_answer_to_its_upload_has_another_checksum(
    storage: CloudStorage, bucket: Any
) -> None:
    storage.script(Fault(fields={"crc32c": "AAAAAA=="}), method="PUT")
    with pytest.raises(DataCorruption):
        bucket.blob(KEY).upload_from_string(bytes(9 << 20), checksum="crc32c")
    assert storage.objects() == {}


def test_old_versions_are_kept_and_read_by_generation(storage: CloudStorage, client: Any, bucket: Any) -> None:
    first, second = storage.put(KEY, b"1", {"run": "a"}), storage.put(KEY, b"22")
    bucket.blob(KEY).delete(if_generation_match=second)
    assert bucket.get_blob(KEY) is None
    assert bucket.get_blob(KEY, generation=first).metadata == {"run": "a"}
    assert bucket.blob(KEY, generation=second).download_as_bytes() == b"22" == storage.object(KEY, second)
    assert [blob.generation for blob in client.list_blobs(bucket, versions=True)] == [first, second]
    bucket.blob(KEY, generation=first).delete()
    assert bucket.get_blob(KEY, generation=first) is None


def test_without_versioning_a_replaced_generation_is_gone(client: Any, storage: CloudStorage) -> None:
    bucket = client.get_bucket(storage.bucket)
    bucket.versioning_enabled = False
    bucket.patch()
    first = storage.put(KEY, b"1")
    storage.put(KEY, b"2")
    with pytest.raises(exceptions.NotFound, match=f"No such object: taxi-lake/{KEY}"):
        bucket.blob(KEY, generation=first).download_as_bytes()
    assert bucket.get_blob(KEY, generation=first) is None


def test_preconditions_hold_for_reading_and_deleting(storage: CloudStorage, bucket: Any) -> None:
    first, second = storage.put(KEY, b"1"), storage.put(KEY, b"2")
    blob = bucket.blob(KEY)
    for refused in (blob.download_as_bytes, blob.reload, blob.delete, blob.patch):
        with pytest.raises(exceptions.PreconditionFailed):
            refused(if_generation_match=first)
    with pytest.raises(exceptions.NotModified):
        blob.reload(if_generation_not_match=second)
    with pytest.raises(exceptions.PreconditionFailed):
        blob.delete(if_generation_not_match=second)
    assert blob.download_as_bytes(if_generation_match=second) == b"2"
    blob.delete(if_generation_match=second)
    assert storage.objects() == {}


def test_ranges_are_read_as_the_client_requests_them(storage: CloudStorage, bucket: Any) -> None:
    storage.put(KEY, b"0123456789")
    blob = bucket.blob(KEY)
    assert blob.download_as_bytes(start=2, end=4) == b"234"
    assert blob.download_as_bytes(start=-3) == b"789"
    assert blob.download_as_bytes(start=8, end=99) == b"89"
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=10)
    with blob.open("rb", chunk_size=4) as reader:
        assert reader.read(3) + reader.read() == b"0123456789"
        reader.seek(-1, io.SEEK_END)
        assert reader.read() == b"9"


def test_a_download_names_its_generation_and_hashes(storage: CloudStorage) -> None:
    generation = storage.put(KEY, b"123456789")
    url = f"{storage.endpoint}/download/storage/v1/b/{storage.bucket}/o/raw%2Fyellow%202021-01.parquet?alt=media"
    with requests.Session() as session:
        for span in ({}, {"Range": "bytes=2-4"}):
            headers = session.get(url, headers=span, timeout=120).headers
            assert headers["x-goog-generation"] == str(generation)
            assert headers["x-goog-hash"] == "crc32c=4waSgw==,md5=JfnnlDI7RTiF9RgfG2JNCw=="
            assert headers["x-goog-stored-content-length"] == "9"


def test_an_object_is_read_by_the_xml_api(storage: CloudStorage) -> None:
    generation = storage.put(KEY, b"123456789")
    url = f"{storage.endpoint}/{storage.bucket}/{quote(KEY, safe='')}"
    with requests.Session() as session:
        whole, part = (session.get(url, headers=span, timeout=120) for span in ({}, {"Range": "bytes=2-4"}))
        described, missing = session.head(url, timeout=120), session.get(f"{url}x", timeout=120)
    assert (whole.content, part.content, described.content) == (b"123456789", b"345", b"")
    assert (whole.status_code, part.status_code, missing.status_code) == (200, 206, 404)
    for answer in (whole, part, described):
        assert answer.headers["x-goog-generation"] == str(generation)
        assert parsedate_to_datetime(answer.headers["Last-Modified"]).tzinfo is not None
    assert described.headers["Content-Length"] == "9"
    storage.forbid("storage.objects.get")
    assert requests.get(url, timeout=120).status_code == 403


def test_an_interrupted_download_continues_with_the_same_generation(storage: CloudStorage, bucket: Any) -> None:
    content = b"0" * 100_000
    first = storage.put(KEY, content)
    storage.script(Fault(cut_after=50_000), Fault(before=lambda: storage.put(KEY, b"1" * 100_000)), method="GET")
    target = io.BytesIO()
    bucket.blob(KEY).download_to_file(target, retry=RETRY)
    assert target.getvalue() == content
    whole, rest = storage.requests
    assert (whole.status, whole.sent_bytes, rest.status) == (200, 50_000, 206)
    assert rest.query["generation"] == str(first)


def test_a_corrupt_download_is_detected(storage: CloudStorage, bucket: Any) -> None:
    storage.put(KEY, b"0123456789")
    storage.script(Fault(corrupt=True))
    with pytest.raises(DataCorruption):
        bucket.blob(KEY).download_as_bytes(checksum="crc32c")


def test_a_listing_has_pages_of_a_thousand_objects_and_folders(storage: CloudStorage, client: Any, bucket: Any) -> None:
    names = [f"a/{number:04}" for number in range(1200)]
    for name in (*names, "a/0500/b", "b"):
        storage.put(name, b"")
    listing = client.list_blobs(bucket, prefix="a/", delimiter="/")
    pages = [[blob.name for blob in page] for page in listing.pages]
    assert [len(page) for page in pages] == [999, 201]  # the folder is in the first page
    assert [name for page in pages for name in page] == names
    assert listing.prefixes == {"a/0500/"}
    assert [len(list(page)) for page in client.list_blobs(bucket, page_size=700).pages] == [700, 502]


def test_a_listing_has_only_the_fields_that_are_requested(storage: CloudStorage, client: Any, bucket: Any) -> None:
    for number in range(1200):
        storage.put(f"{number:04}", b"")
    assert len(list(client.list_blobs(bucket, fields="items(name),nextPageToken"))) == 1200
    assert (
        len(list(client.list_blobs(bucket, fields="items(name)"))) == 1000
    )  # the token is what the client continues with


def test_missing_objects_and_buckets_are_named(storage: CloudStorage, client: Any, bucket: Any) -> None:
    with pytest.raises(exceptions.NotFound, match=r"No such object: taxi-lake/nothing") as missing:
        bucket.blob("nothing").reload()
    assert missing.value.errors[0]["reason"] == "notFound"
    nowhere = client.bucket("no-such-bucket")
    for refused in (
        nowhere.reload,
        nowhere.blob(KEY).reload,
        lambda: _upload(nowhere, b""),
        lambda: list(nowhere.list_blobs()),
    ):
        with pytest.raises(exceptions.NotFound, match="The specified bucket does not exist"):
            refused()
    assert storage.objects() == {}


def test_a_missing_permission_is_named_in_the_error(storage: CloudStorage, bucket: Any) -> None:
    storage.forbid("storage.objects.create", "storage.objects.get")
    with pytest.raises(exceptions.Forbidden) as raised:
        _upload(bucket, b"1")
    assert _error(raised)["errors"][0]["reason"] == "forbidden"
    assert _error(raised)["message"] == (
        f"{ACCOUNT} does not have storage.objects.create access to the Google Cloud Storage object. "
        "Permission 'storage.objects.create' denied on resource (or it may not exist)."
    )
    with pytest.raises(exceptions.Forbidden, match=r"storage\.objects\.get access"):
        bucket.blob(KEY).download_as_bytes()
    storage.forbid()
    _upload(bucket, b"1")
    assert storage.object(KEY) == b"1"


def test_replacing_needs_the_permission_to_delete(storage: CloudStorage, bucket: Any) -> None:
    storage.forbid("storage.objects.delete")
    _upload(bucket, b"1")
    with pytest.raises(exceptions.Forbidden, match=r"storage\.objects\.delete access"):
        _upload(bucket, b"2")
    assert storage.object(KEY) == b"1"


@pytest.mark.usefixtures("frequent_thread_switches")
def test_of_many_writers_for_the_same_generation_one_wins(storage: CloudStorage) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(_race, [(storage.endpoint, number) for number in range(8)]))
    assert sorted(results) == [200] + [412] * 7
    assert storage.object(KEY) == str(results.index(200)).encode()


def _race(work: tuple[str, int]) -> int:
    endpoint, number = work
    url = f"{endpoint}/upload/storage/v1/b/taxi-lake/o?uploadType=media&ifGenerationMatch=0"
    return requests.post(url, str(number).encode(), params={"name": KEY}, timeout=120).status_code


@pytest.mark.usefixtures("frequent_thread_switches")
def test_a_reader_sees_one_complete_version_while_others_replace_it(storage: CloudStorage, bucket: Any) -> None:
    contents = {storage.put(KEY, b"0" * 100_000): b"0"}
    done = threading.Event()

    def replace() -> None:
        for number in range(1, 200):
            letter = b"%d" % (number % 10)
            contents[storage.put(KEY, letter * 100_000)] = letter
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    seen: list[tuple[bytes, int]] = []
    while not done.is_set() or not seen:
        blob = bucket.blob(KEY)
        seen.append((blob.download_as_bytes(checksum="crc32c"), blob.generation))
    writer.join()
    assert all(content == contents[generation] * 100_000 for content, generation in seen)
