"""What every lake promises: an object is replaced whole, nothing leaves the lake, unfinished files vanish."""

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
NEIGHBOUR = "clean/green_trips/2020-11.parquet"
OBJECT_BYTES = 1 << 18


@pytest.fixture
def lake(lake_backend: LakeBackend) -> Lake:
    return lake_backend.open()


def put(lake: Lake, content: bytes, key: str = KEY, *, replaces: str | None = "what is there", run: str = "a") -> None:
    with lake.staging() as folder:
        file = folder / "file"
        file.write_bytes(content)
        lake.publish(file, key, replaces=lake.version(key) if replaces == "what is there" else replaces, run_id=run)


def read(lake: Lake, key: str = KEY) -> bytes:
    with lake.open(key) as file:
        return file.read()


# --- objects ----------------------------------------------------------------------------------------------------------


def test_a_published_object_can_be_opened_measured_and_had_as_a_local_file(lake: Lake) -> None:
    put(lake, b"0123456789")
    with lake.open(KEY) as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"789"
    with lake.as_local_file(KEY) as path:
        assert path.read_bytes() == b"0123456789"
    assert lake.size(KEY) == 10


def test_publishing_uses_the_file_up(lake: Lake) -> None:
    with lake.staging() as folder:
        file = folder / "file"
        file.write_bytes(b"new")
        lake.publish(file, KEY, replaces=None, run_id="a")
        assert not file.exists()


def test_replacing_leaves_the_neighbours_byte_for_byte(lake: Lake) -> None:
    put(lake, b"old")
    put(lake, b"neighbour", NEIGHBOUR)
    put(lake, b"new")
    assert (read(lake), read(lake, NEIGHBOUR)) == (b"new", b"neighbour")


def test_another_client_sees_what_was_published(lake_backend: LakeBackend) -> None:
    put(lake_backend.open(), b"new")
    assert read(lake_backend.open()) == b"new"


def test_a_deleted_object_is_gone_and_deleting_nothing_is_no_error(lake: Lake) -> None:
    put(lake, b"old")
    put(lake, b"neighbour", NEIGHBOUR)
    lake.delete(KEY)
    lake.delete(KEY)
    assert lake.size(KEY) is None
    assert read(lake, NEIGHBOUR) == b"neighbour"


def test_an_address_is_shown_in_full(lake: Lake) -> None:
    assert lake.uri(KEY).endswith(f"/{KEY}")


def _local(lake: Lake, key: str) -> None:
    with lake.as_local_file(key):
        pass


@pytest.mark.parametrize("access", ["open", "local"])
def test_a_missing_object_is_named_with_what_to_do(lake: Lake, access: str) -> None:
    put(lake, b"neighbour", NEIGHBOUR)
    with pytest.raises(LakeObjectMissingError) as error:
        _local(lake, KEY) if access == "local" else lake.open(KEY).close()
    assert lake.uri(KEY) in error.value.problem
    assert "Materialize" in error.value.remedy
    assert lake.size(KEY) is None


@pytest.mark.parametrize(
    "key", ["../outside", "clean/../../outside", "/etc/passwd", "clean//x", "clean/./x", "clean/", "", ".", ".."]
)
def test_a_key_cannot_leave_the_lake_nor_have_two_spellings(lake: Lake, key: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"new")
    uses: list[Callable[[], object]] = [
        lambda: lake.publish(file, key, replaces=None, run_id="a"),
        lambda: lake.version(key),
        lambda: lake.has_digest(key, sha256=""),
        lambda: lake.open(key),
        lambda: _local(lake, key),
        lambda: lake.size(key),
        lambda: lake.delete(key),
        lambda: lake.uri(key),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="key"):
            use()
    assert file.read_bytes() == b"new"


# --- replaced whole ---------------------------------------------------------------------------------------------------


def test_a_reader_sees_whole_objects_only_while_they_are_replaced(lake_backend: LakeBackend) -> None:
    contents = [letter * OBJECT_BYTES for letter in (b"a", b"b", b"c")]
    put(lake_backend.open(), contents[0])
    seen: set[bytes] = set()
    half: list[str] = []
    started, stop = threading.Event(), threading.Event()

    def read_on() -> None:
        lake = lake_backend.open()
        while not stop.is_set():
            content = read(lake)
            seen.add(content[:1])
            if content not in contents:
                half.append(f"{len(content)} bytes of {set(content)}")
            started.set()

    reader = threading.Thread(target=read_on)
    reader.start()
    try:
        assert started.wait(60)
        lake = lake_backend.open()
        for turn in range(300):
            put(lake, contents[turn % 3])
    finally:
        stop.set()
        reader.join()
    assert not half
    assert len(seen) > 1, "the reader has seen no replacement: nothing was tested"


def test_what_was_opened_stays_what_it_was_to_its_end(lake: Lake) -> None:
    put(lake, b"old" * OBJECT_BYTES)
    with lake.open(KEY) as file:
        start = file.read(7)
        put(lake, b"new" * OBJECT_BYTES)
        assert start + file.read() == b"old" * OBJECT_BYTES
    assert read(lake) == b"new" * OBJECT_BYTES


def test_a_publish_that_fails_before_it_begins_leaves_the_old_object(lake: Lake) -> None:
    put(lake, b"old")
    with lake.staging() as folder, pytest.raises(OSError, match="never-made"):
        lake.publish(folder / "never-made", KEY, replaces=lake.version(KEY), run_id="a")
    assert read(lake) == b"old"


def test_a_publish_that_fails_in_the_middle_leaves_the_old_object(lake_backend: LakeBackend) -> None:
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


# --- not overwritten unseen -------------------------------------------------------------------------------------------


def test_a_version_changes_with_every_publish_and_not_otherwise(lake: Lake) -> None:
    assert lake.version(KEY) is None
    put(lake, b"old")
    old = lake.version(KEY)
    put(lake, b"neighbour", NEIGHBOUR)
    assert lake.version(KEY) == old
    put(lake, b"new")
    assert lake.version(KEY) not in {None, old}


def test_a_run_that_began_before_a_newer_one_published_does_not_overwrite_it(lake: Lake) -> None:
    put(lake, b"old")
    seen = lake.version(KEY)
    put(lake, b"new")
    for replaces in (seen, None):
        with pytest.raises(LakeConflictError) as error:
            put(lake, b"from the older run", replaces=replaces, run="older")
        assert lake.uri(KEY) in error.value.problem
        assert read(lake) == b"new"


def test_an_object_that_has_gone_since_is_not_made_anew(lake: Lake) -> None:
    put(lake, b"old")
    seen = lake.version(KEY)
    lake.delete(KEY)
    with pytest.raises(LakeConflictError):
        put(lake, b"new", replaces=seen)
    assert lake.size(KEY) is None


def test_the_same_bytes_published_by_another_run_are_no_conflict(lake: Lake) -> None:
    put(lake, b"old")
    seen = lake.version(KEY)
    put(lake, b"new", run="one")
    put(lake, b"new", replaces=seen, run="other")
    assert read(lake) == b"new"


def test_of_two_writers_that_began_together_one_is_refused_and_the_object_is_whole(lake_backend: LakeBackend) -> None:
    contents = [letter * OBJECT_BYTES for letter in (b"a", b"b")]
    for _ in range(10):
        seen = lake_backend.open().version(KEY)
        refused: list[bytes] = []
        begin = threading.Barrier(2)

        def write(content: bytes, seen: str | None = seen, refused: list[bytes] = refused) -> None:
            begin.wait(60)  # noqa: B023  (of this turn)
            try:
                put(lake_backend.open(), content, replaces=seen)
            except LakeConflictError:
                refused.append(content)

        writers = [threading.Thread(target=write, args=(content,)) for content in contents]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert len(refused) == 1
        assert read(lake_backend.open()) == next(content for content in contents if content not in refused)


def test_a_version_can_be_read_as_long_as_it_is_there_and_nothing_else_in_its_place(lake: Lake) -> None:
    put(lake, b"old")
    seen = lake.version(KEY)
    with lake.open(KEY, seen) as file, lake.as_local_file(KEY, seen) as path:
        assert file.read() == path.read_bytes() == b"old"
    put(lake, b"new")
    for access in (_open_version, _local_version):
        with suppress(LakeConflictError):
            assert access(lake, seen) == b"old"


def _open_version(lake: Lake, version: str | None) -> bytes:
    with lake.open(KEY, version) as file:
        return file.read()


def _local_version(lake: Lake, version: str | None) -> bytes:
    with lake.as_local_file(KEY, version) as path:
        return path.read_bytes()


def test_a_lake_knows_whether_it_holds_these_bytes(lake: Lake) -> None:
    new, other = (hashlib.sha256(content).hexdigest() for content in (b"new", b"other"))
    assert not lake.has_digest(KEY, sha256=new)
    put(lake, b"new")
    assert lake.has_digest(KEY, sha256=new)
    assert not lake.has_digest(KEY, sha256=other)


# --- staging ----------------------------------------------------------------------------------------------------------


def test_staging_is_private_and_vanishes_afterwards(lake: Lake) -> None:
    with lake.staging() as one, lake.staging() as other:
        assert one != other
        (one / "file").write_bytes(b"half")
        assert list(other.iterdir()) == []
    assert not one.exists()
    assert not other.exists()


def test_staging_vanishes_after_an_error(lake: Lake) -> None:
    with suppress(RuntimeError), lake.staging() as folder:
        (folder / "file").write_bytes(b"half")
        raise RuntimeError
    assert not folder.exists()


def stage_and_wait(open_lake: Callable[[], Lake], line: Connection) -> None:
    with open_lake().staging() as folder:
        (folder / "half").write_bytes(b"half")
        line.send(folder)
        line.recv()


def test_what_a_killed_process_left_is_swept_by_the_next(lake_backend: LakeBackend) -> None:
    with child_process(stage_and_wait, lake_backend.open) as other:
        folder = other.receive()
        other.kill()
    assert (folder / "half").exists()
    with lake_backend.open().staging():
        assert not folder.exists()


def test_the_files_of_a_process_at_work_are_left_alone(lake_backend: LakeBackend) -> None:
    with child_process(stage_and_wait, lake_backend.open) as other:
        folder = other.receive()
        with lake_backend.open().staging():
            assert (folder / "half").read_bytes() == b"half"
        other.send()
        assert other.wait_for_exit() == 0
    assert not folder.exists()
