"""What the lake in a folder promises besides: what it leaves on the disk, and when."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from taxi_assets.storage import staging
from taxi_assets.storage.local_lake import LocalLake
from taxi_assets_tests.contract.test_lake import KEY, put, read


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(folder=str(tmp_path / "lake"))


def test_a_local_lake_has_the_bytes_on_disk_before_it_renames_and_the_name_afterwards(
    lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, b"old")
    folder = Path(lake.folder, KEY).parent.stat().st_ino
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
    put(lake, b"new")
    file = Path(lake.folder, KEY).stat().st_ino
    assert steps == [("flush", file), ("rename", file), ("flush", folder)]


def test_a_local_lake_keeps_nothing_but_objects_once_all_is_done(lake: LocalLake) -> None:
    put(lake, b"new")
    files = [path for path in Path(lake.folder).rglob("*") if path.is_file()]
    assert files == [Path(lake.folder, KEY)]


def test_a_folder_just_made_is_not_swept_by_others(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def make_while_others_sweep(self: Path, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        if self.parent.name == ".staging":
            staging._sweep(self.parent)  # noqa: SLF001
            assert self.is_dir()

    monkeypatch.setattr(Path, "mkdir", make_while_others_sweep)
    put(lake, b"new")
    assert read(lake) == b"new"
    assert list(Path(lake.folder, ".staging").iterdir()) == []


def test_what_cannot_be_swept_stops_nobody(lake: LocalLake) -> None:
    strange = Path(lake.folder, ".staging", "strange.lock")
    strange.mkdir(parents=True)
    put(lake, b"new")
    assert strange.exists()


def test_staging_at_the_same_time_never_loses_a_file(lake: LocalLake) -> None:
    lost: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(15):
                put(lake, b"%d %d" % (number, turn), f"raw/{number}")
        except BaseException as error:  # noqa: BLE001  (whatever it is, it must reach the test)
            lost.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not lost
    assert [read(lake, f"raw/{number}") for number in range(6)] == [b"%d 14" % number for number in range(6)]


def test_a_relative_folder_is_a_lake_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(LocalLake(folder="lake"), b"new")
    assert (tmp_path / "lake" / KEY).read_bytes() == b"new"
