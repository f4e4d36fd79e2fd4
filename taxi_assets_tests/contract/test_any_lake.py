"""The contract of every lake: atomic replacement, no lost updates, safe keys, and private staging folders."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from taxi_assets.errors import LakeConflictError, LakeObjectMissingError
from taxi_assets_tests.contract.stores import child_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets_tests.contract.stores import LakeBackend

KEY = "clean/green_trips/2020-10.parquet"
NEIGHBOR = "clean/green_trips/2020-11.parquet"
COPY = "clean/green_trips/copies/2020-10.parquet"
OBJECT_BYTES = 1 << 18


@pytest.fixture
def lake(lake_backend: LakeBackend) -> Lake:
    return lake_backend.open()


def put(
    lake: Lake, content: bytes, key: str = KEY, *, replaces: str | None = "the current version", run: str = "a"
) -> None:
    with lake.staging() as folder:
        file = folder / "file"
        file.write_bytes(content)
        lake.publish(
            file, key, replaces=lake.version(key) if replaces == "the current version" else replaces, run_id=run
        )


def read(lake: Lake, key: str = KEY) -> bytes:
    with lake.open(key) as file:
        return file.read()


# --- objects ----------------------------------------------------------------------------------------------------------


def test_a_published_object_is_readable_and_has_a_size(lake: Lake) -> None:
    put(lake, b"0123456789")
    with lake.open(KEY) as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"789"
    with lake.as_local_file(KEY) as path:
        assert path.read_bytes() == b"0123456789"
    assert lake.size(KEY) == 10


def test_publishing_removes_the_staged_file(lake: Lake) -> None:
    with lake.staging() as folder:
        file = folder / "file"
        file.write_bytes(b"new")
        lake.publish(file, KEY, replaces=None, run_id="a")
        assert not file.exists()


def test_replacing_an_object_leaves_other_objects_unchanged(lake: Lake) -> None:
    put(lake, b"old")
    put(lake, b"neighbor", NEIGHBOR)
    put(lake, b"new")
    assert (read(lake), read(lake, NEIGHBOR)) == (b"new", b"neighbor")


def test_another_client_sees_what_was_published(lake_backend: LakeBackend) -> None:
    put(lake_backend.open(), b"new")
    assert read(lake_backend.open()) == b"new"


def test_delete_removes_one_object_and_is_idempotent(lake: Lake) -> None:
    put(lake, b"old")
    put(lake, b"neighbor", NEIGHBOR)
    lake.delete(KEY)
    lake.delete(KEY)
    assert lake.size(KEY) is None
    assert read(lake, NEIGHBOR) == b"neighbor"


def test_keys_in_lists_the_objects_directly_in_a_folder(lake: Lake) -> None:
    for key in (
        NEIGHBOR,
        KEY,
        "clean/green_trips_more/2020-10.parquet",
        f"{KEY}s/x.parquet",
        "clean/own [1] #?%25.parquet",
    ):
        put(lake, b"new", key)
    assert list(lake.sizes_in("clean/green_trips")) == [KEY, NEIGHBOR]
    assert list(lake.sizes_in("clean")) == ["clean/own [1] #?%25.parquet"]
    assert list(lake.sizes_in(f"{KEY}s")) == [f"{KEY}s/x.parquet"]
    lake.delete(KEY)
    assert list(lake.sizes_in("clean/green_trips")) == [NEIGHBOR]


def test_keys_in_a_missing_folder_or_in_an_object_is_empty(lake: Lake) -> None:
    assert list(lake.sizes_in("clean/green_trips")) == []
    put(lake, b"new")
    assert list(lake.sizes_in(KEY)) == []
    assert list(lake.sizes_in("green_trips")) == []


def test_keys_in_leaves_out_hidden_and_unfinished_files(lake: Lake) -> None:
    put(lake, b"new")
    put(lake, b"new", "clean/green_trips/.hidden")
    with lake.staging() as folder:
        (folder / "2020-12.parquet").write_bytes(b"half")
        assert list(lake.sizes_in("clean/green_trips")) == [KEY]
        assert list(lake.sizes_in("clean")) == []


def test_keys_in_lists_a_large_folder_completely_while_an_object_is_replaced(lake_backend: LakeBackend) -> None:
    lake = lake_backend.open()
    stored = sorted(f"clean/own/{number}.parquet" for number in range(1200))
    for key in stored:
        lake_backend.put(key)
    assert list(lake.sizes_in("clean/own")) == stored
    incomplete: list[int] = []
    started, stop = threading.Event(), threading.Event()

    def list_repeatedly() -> None:
        reader = lake_backend.open()
        while not stop.is_set():
            found = list(reader.sizes_in("clean/own"))
            if found != stored:
                incomplete.append(len(found))
            started.set()

    reader = threading.Thread(target=list_repeatedly)
    reader.start()
    try:
        assert started.wait(600)
        for turn in range(50):
            put(lake, bytes([turn]), stored[turn * 20])
    finally:
        stop.set()
        reader.join()
    assert not incomplete


def test_the_uri_ends_with_the_key(lake: Lake) -> None:
    assert lake.uri(KEY).endswith(f"/{KEY}")


def _read_local_file(lake: Lake, key: str) -> None:
    with lake.as_local_file(key):
        pass


@pytest.mark.parametrize("access", ["open", "as_local_file"])
def test_the_error_for_a_missing_object_names_it_and_the_remedy(lake: Lake, access: str) -> None:
    put(lake, b"neighbor", NEIGHBOR)
    with pytest.raises(LakeObjectMissingError) as error:
        _read_local_file(lake, KEY) if access == "as_local_file" else lake.open(KEY).close()
    assert lake.uri(KEY) in error.value.problem
    assert "Materialize" in error.value.remedy
    assert lake.size(KEY) is None


@pytest.mark.parametrize(
    "key", ["../outside", "clean/../../outside", "/etc/passwd", "clean//x", "clean/./x", "clean/", "", ".", ".."]
)
def test_keys_outside_the_lake_or_with_redundant_parts_are_rejected(lake: Lake, key: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"new")
    calls: list[Callable[[], object]] = [
        lambda: lake.publish(file, key, replaces=None, run_id="a"),
        lambda: lake.copy_object(key, KEY, version="1", run_id="a"),
        lambda: lake.copy_object(KEY, key, version="1", run_id="a"),
        lambda: lake.version(key),
        lambda: list(lake.sizes_in(key)),
        lambda: lake.has_digest(key, sha256=""),
        lambda: lake.open(key),
        lambda: _read_local_file(lake, key),
        lambda: lake.size(key),
        lambda: lake.delete(key),
        lambda: lake.uri(key),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="key"):
            call()
    assert file.read_bytes() == b"new"


# --- atomic replacement -----------------------------------------------------------------------------------------------


def test_a_reader_sees_only_complete_objects_during_replacements(lake_backend: LakeBackend) -> None:
    contents = [letter * OBJECT_BYTES for letter in (b"a", b"b", b"c")]
    put(lake_backend.open(), contents[0])
    seen: set[bytes] = set()
    incomplete: list[str] = []
    started, stop = threading.Event(), threading.Event()

    def read_repeatedly() -> None:
        lake = lake_backend.open()
        while not stop.is_set():
            content = read(lake)
            seen.add(content[:1])
            if content not in contents:
                incomplete.append(f"{len(content)} bytes of {set(content)}")
            started.set()

    reader = threading.Thread(target=read_repeatedly)
    reader.start()
    try:
        assert started.wait(600)
        lake = lake_backend.open()
        for turn in range(300):
            put(lake, contents[turn % 3])
    finally:
        stop.set()
        reader.join()
    assert not incomplete
    assert len(seen) > 1, "the reader saw no replacement: nothing was tested"


def test_an_open_file_keeps_its_bytes_while_the_object_is_replaced(lake: Lake) -> None:
    put(lake, b"old" * OBJECT_BYTES)
    with lake.open(KEY) as file:
        start = file.read(7)
        put(lake, b"new" * OBJECT_BYTES)
        assert start + file.read() == b"old" * OBJECT_BYTES
    assert read(lake) == b"new" * OBJECT_BYTES


def test_publishing_a_file_that_does_not_exist_leaves_the_old_object(lake: Lake) -> None:
    put(lake, b"old")
    with lake.staging() as folder, pytest.raises(OSError, match="missing-file"):
        lake.publish(folder / "missing-file", KEY, replaces=lake.version(KEY), run_id="a")
    assert read(lake) == b"old"


def test_a_failed_publish_leaves_the_old_object(lake_backend: LakeBackend) -> None:
    lake = lake_backend.open()
    put(lake, b"old")
    for fault in lake_backend.faults.values():
        with pytest.MonkeyPatch.context() as monkeypatch:
            fault(monkeypatch)
            with pytest.raises(lake_backend.publish_error):
                put(lake, b"new")
        assert read(lake) == b"old"
    put(lake, b"new")
    assert read(lake) == b"new"


# --- copies -----------------------------------------------------------------------------------------------------------


def copy(lake: Lake, key: str = KEY, target: str = COPY, *, version: str | None = None) -> None:
    lake.copy_object(key, target, version=version or lake.version(key) or "1", run_id="a")


def test_a_copy_has_the_bytes_and_the_digest_and_outlives_the_object(lake: Lake) -> None:
    put(lake, b"old")
    copy(lake)
    put(lake, b"new")
    assert (read(lake), read(lake, COPY)) == (b"new", b"old")
    assert lake.has_digest(COPY, sha256=hashlib.sha256(b"old").hexdigest())
    lake.delete(KEY)
    assert read(lake, COPY) == b"old"


def test_a_copy_replaces_an_object_and_can_be_repeated_and_replaced(lake: Lake) -> None:
    put(lake, b"other", COPY)
    put(lake, b"old")
    copy(lake)
    copy(lake)
    assert (read(lake), read(lake, COPY)) == (b"old", b"old")
    put(lake, b"new", COPY)
    assert (read(lake), read(lake, COPY)) == (b"old", b"new")


def test_a_version_that_was_replaced_or_deleted_is_not_copied(lake_backend: LakeBackend) -> None:
    lake = lake_backend.open()
    put(lake, b"old")
    seen = lake.version(KEY)
    put(lake, b"new")
    with suppress(LakeConflictError):  # a bucket with versioning still has it
        copy(lake, version=seen)
        assert read(lake, COPY) == b"old"
    assert lake.size(COPY) is None or read(lake, COPY) == b"old"
    lake.delete(KEY)
    lake.delete(COPY)
    with pytest.raises(LakeObjectMissingError, match=KEY):
        copy(lake, version="1")
    assert lake.size(COPY) is None


# --- versions and conflicts -------------------------------------------------------------------------------------------


def test_a_version_changes_only_when_its_object_is_published(lake: Lake) -> None:
    assert lake.version(KEY) is None
    put(lake, b"old")
    old = lake.version(KEY)
    put(lake, b"neighbor", NEIGHBOR)
    assert lake.version(KEY) == old
    put(lake, b"new")
    assert lake.version(KEY) not in {None, old}


def test_an_older_run_does_not_overwrite_the_object_of_a_newer_run(lake: Lake) -> None:
    put(lake, b"old")
    seen = lake.version(KEY)
    put(lake, b"new")
    for replaces in (seen, None):
        with pytest.raises(LakeConflictError) as error:
            put(lake, b"from the older run", replaces=replaces, run="older")
        assert lake.uri(KEY) in error.value.problem
        assert read(lake) == b"new"


def test_a_run_that_replaces_a_deleted_object_fails(lake: Lake) -> None:
    put(lake, b"old")
    seen = lake.version(KEY)
    lake.delete(KEY)
    with pytest.raises(LakeConflictError):
        put(lake, b"new", replaces=seen)
    assert lake.size(KEY) is None


def test_two_runs_that_publish_the_same_bytes_do_not_conflict(lake: Lake) -> None:
    put(lake, b"old")
    seen = lake.version(KEY)
    put(lake, b"new", run="one")
    put(lake, b"new", replaces=seen, run="other")
    assert read(lake) == b"new"


def test_one_of_two_concurrent_writers_fails_and_the_object_is_complete(lake_backend: LakeBackend) -> None:
    contents = [letter * OBJECT_BYTES for letter in (b"a", b"b")]
    for _ in range(10):
        seen = lake_backend.open().version(KEY)
        rejected: list[bytes] = []
        begin = threading.Barrier(2)

        def write(content: bytes, seen: str | None = seen, rejected: list[bytes] = rejected) -> None:
            begin.wait(600)  # noqa: B023  (joined within the iteration)
            try:
                put(lake_backend.open(), content, replaces=seen)
            except LakeConflictError:
                rejected.append(content)

        writers = [threading.Thread(target=write, args=(content,)) for content in contents]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert len(rejected) == 1
        assert read(lake_backend.open()) == next(content for content in contents if content not in rejected)


def test_reading_a_version_never_returns_the_bytes_of_another_version(lake: Lake) -> None:
    put(lake, b"old")
    seen = lake.version(KEY)
    with lake.open(KEY, seen) as file, lake.as_local_file(KEY, seen) as path:
        assert file.read() == path.read_bytes() == b"old"
    put(lake, b"new")
    for access in (_read_version, _read_version_as_local_file):
        with suppress(LakeConflictError):
            assert access(lake, seen) == b"old"


def _read_version(lake: Lake, version: str | None) -> bytes:
    with lake.open(KEY, version) as file:
        return file.read()


def _read_version_as_local_file(lake: Lake, version: str | None) -> bytes:
    with lake.as_local_file(KEY, version) as path:
        return path.read_bytes()


def test_has_digest_compares_the_bytes_of_the_object(lake: Lake) -> None:
    new, other = (hashlib.sha256(content).hexdigest() for content in (b"new", b"other"))
    assert not lake.has_digest(KEY, sha256=new)
    put(lake, b"new")
    assert lake.has_digest(KEY, sha256=new)
    assert not lake.has_digest(KEY, sha256=other)


# --- staging ----------------------------------------------------------------------------------------------------------


def test_staging_folders_are_private_and_deleted_after_use(lake: Lake) -> None:
    with lake.staging() as one, lake.staging() as other:
        assert one != other
        (one / "file").write_bytes(b"half")
        assert list(other.iterdir()) == []
    assert not one.exists()
    assert not other.exists()


def test_a_staging_folder_is_deleted_after_an_error(lake: Lake) -> None:
    with suppress(RuntimeError), lake.staging() as folder:
        (folder / "file").write_bytes(b"half")
        raise RuntimeError
    assert not folder.exists()


def stage_and_wait(open_lake: Callable[[], Lake], pipe: Connection) -> None:
    with open_lake().staging() as folder:
        (folder / "half").write_bytes(b"half")
        pipe.send(folder)
        pipe.recv()


def test_the_staging_folder_of_a_killed_process_is_deleted_by_the_next_process(lake_backend: LakeBackend) -> None:
    with child_process(stage_and_wait, lake_backend.open) as other:
        folder = other.receive()
        other.kill()
    assert (folder / "half").exists()
    with lake_backend.open().staging():
        assert not folder.exists()


def test_the_staging_folder_of_a_running_process_is_kept(lake_backend: LakeBackend) -> None:
    with child_process(stage_and_wait, lake_backend.open) as other:
        folder = other.receive()
        with lake_backend.open().staging():
            assert (folder / "half").read_bytes() == b"half"
        other.send()
        assert other.wait_for_exit() == 0
    assert not folder.exists()
