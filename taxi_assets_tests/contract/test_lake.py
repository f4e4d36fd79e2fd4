"""What every lake promises: an object is replaced whole, nothing leaves the lake, unfinished files vanish."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from taxi_assets.errors import LakeObjectMissingError
from taxi_assets.storage import staging
from taxi_assets.storage.lake import Lake, LocalLake
from taxi_assets_tests.contract.conftest import child

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from taxi_assets_tests.contract.conftest import LakeBackend

KEY = "clean/green_trips/2020-10.parquet"
NEIGHBOUR = "clean/green_trips/2020-11.parquet"
OBJECT_BYTES = 1 << 18


@pytest.fixture
def lake(lake_backend: LakeBackend) -> Lake:
    return lake_backend.open()


def put(lake: Lake, content: bytes, key: str = KEY) -> None:
    with lake.staging() as folder:
        file = folder / "file"
        file.write_bytes(content)
        lake.publish(file, key)


def read(lake: Lake, key: str = KEY) -> bytes:
    with lake.open(key) as file:
        return file.read()


# --- objects ----------------------------------------------------------------------------------------------------------


def test_a_published_object_can_be_opened_measured_and_had_as_a_local_file(lake: Lake) -> None:
    put(lake, b"0123456789")
    with lake.open(KEY) as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"789"
    with lake.local(KEY) as path:
        assert path.read_bytes() == b"0123456789"
    assert lake.size(KEY) == 10


def test_publishing_uses_the_file_up(lake: Lake) -> None:
    with lake.staging() as folder:
        file = folder / "file"
        file.write_bytes(b"new")
        lake.publish(file, KEY)
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
    with lake.local(key):
        pass


@pytest.mark.parametrize("access", ["open", "local"])
def test_a_missing_object_is_named_with_what_to_do(lake: Lake, access: str) -> None:
    put(lake, b"neighbour", NEIGHBOUR)
    with pytest.raises(LakeObjectMissingError) as error:
        _local(lake, KEY) if access == "local" else lake.open(KEY).close()
    assert lake.uri(KEY) in error.value.what
    assert "Materialize" in error.value.remedy
    assert lake.size(KEY) is None


@pytest.mark.parametrize(
    "key", ["../outside", "clean/../../outside", "/etc/passwd", "clean//x", "clean/./x", "clean/", "", ".", ".."]
)
def test_a_key_cannot_leave_the_lake_nor_have_two_spellings(lake: Lake, key: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"new")
    uses: list[Callable[[], object]] = [
        lambda: lake.publish(file, key),
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
        lake.publish(folder / "never-made", KEY)
    assert read(lake) == b"old"


def test_a_publish_that_fails_in_the_middle_leaves_the_old_object(lake_backend: LakeBackend) -> None:
    lake = lake_backend.open()
    put(lake, b"old")
    for fault in lake_backend.faults.values():
        with pytest.MonkeyPatch.context() as monkeypatch:
            fault(monkeypatch)
            with pytest.raises(OSError, match="No space left"):
                put(lake, b"new")
        assert read(lake) == b"old"
    put(lake, b"new")
    assert read(lake) == b"new"


def test_two_writers_of_one_object_both_end_well_and_leave_one_of_theirs(lake_backend: LakeBackend) -> None:
    contents = [letter * OBJECT_BYTES for letter in (b"a", b"b")]
    failures: list[BaseException] = []

    def write(content: bytes) -> None:
        lake = lake_backend.open()
        try:
            for _ in range(20):
                put(lake, content)
        except BaseException as error:  # noqa: BLE001  (whatever it is, it must reach the test)
            failures.append(error)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures
    assert read(lake_backend.open()) in contents


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
    with child(stage_and_wait, lake_backend.open) as other:
        folder = other.hear()
        other.kill()
    assert (folder / "half").exists()
    with lake_backend.open().staging():
        assert not folder.exists()


def test_the_files_of_a_process_at_work_are_left_alone(lake_backend: LakeBackend) -> None:
    with child(stage_and_wait, lake_backend.open) as other:
        folder = other.hear()
        with lake_backend.open().staging():
            assert (folder / "half").read_bytes() == b"half"
        other.tell()
        assert other.ends() == 0
    assert not folder.exists()


# --- the lake in a folder ---------------------------------------------------------------------------------------------


@pytest.fixture
def local_lake(tmp_path: Path) -> LocalLake:
    return LocalLake(folder=str(tmp_path / "lake"))


def test_a_local_lake_has_the_bytes_on_disk_before_it_renames_and_the_name_afterwards(
    local_lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(local_lake, b"old")
    folder = Path(local_lake.folder, KEY).parent.stat().st_ino
    steps: list[tuple[str, int]] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        steps.append(("flush", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        steps.append(("rename", path.stat().st_ino))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    put(local_lake, b"new")
    file = Path(local_lake.folder, KEY).stat().st_ino
    assert steps == [("flush", file), ("rename", file), ("flush", folder)]


def test_a_local_lake_keeps_nothing_but_objects_once_all_is_done(local_lake: LocalLake) -> None:
    put(local_lake, b"new")
    files = [path for path in Path(local_lake.folder).rglob("*") if path.is_file()]
    assert files == [Path(local_lake.folder, KEY)]


def test_a_folder_just_made_is_not_swept_by_others(local_lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def make_while_others_sweep(self: Path, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        if self.parent.name == ".staging":
            staging._sweep(self.parent)  # noqa: SLF001
            assert self.is_dir()

    monkeypatch.setattr(Path, "mkdir", make_while_others_sweep)
    put(local_lake, b"new")
    assert read(local_lake) == b"new"
    assert list(Path(local_lake.folder, ".staging").iterdir()) == []


def test_what_cannot_be_swept_stops_nobody(local_lake: LocalLake) -> None:
    strange = Path(local_lake.folder, ".staging", "strange.lock")
    strange.mkdir(parents=True)
    put(local_lake, b"new")
    assert strange.exists()


def test_staging_at_the_same_time_never_loses_a_file(local_lake: LocalLake) -> None:
    lost: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(15):
                put(local_lake, b"%d %d" % (number, turn), f"raw/{number}")
        except BaseException as error:  # noqa: BLE001  (whatever it is, it must reach the test)
            lost.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not lost
    assert [read(local_lake, f"raw/{number}") for number in range(6)] == [b"%d 14" % number for number in range(6)]


def test_a_relative_folder_is_a_lake_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(LocalLake(folder="lake"), b"new")
    assert (tmp_path / "lake" / KEY).read_bytes() == b"new"
