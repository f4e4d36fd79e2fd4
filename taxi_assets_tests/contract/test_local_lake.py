"""What the lake in a folder promises besides: what it leaves on the disk, and when."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from taxi_assets.errors import LakeBusyError, LakeConfigurationError
from taxi_assets.storage.lake import staging
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.tlc.sources.download import download
from taxi_assets.tlc.sources.publishers import resolve_publisher
from taxi_assets_tests.contract.test_any_lake import KEY, put, read

if TYPE_CHECKING:
    from collections.abc import Callable


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

    def make_while_others_delete_abandoned_folders(self: Path, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        if self.parent.name == ".staging":
            staging._delete_abandoned_folders(self.parent)  # noqa: SLF001
            assert self.is_dir()

    monkeypatch.setattr(Path, "mkdir", make_while_others_delete_abandoned_folders)
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


def test_a_process_that_is_paused_while_it_publishes_does_not_stop_the_others_for_ever(lake: LocalLake) -> None:
    put(lake, b"old")
    layer = Path(lake.folder, KEY).parent
    descriptor = os.open(layer, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(LakeBusyError) as error:
            put(LocalLake(folder=lake.folder, wait_seconds=0.1), b"new")
        assert str(layer) in error.value.problem
        assert f"the process {os.getpid()}" in error.value.problem or "another process" in error.value.problem
        assert "end it" in error.value.remedy
        assert read(lake) == b"old"
    finally:
        os.close(descriptor)
    put(lake, b"new")
    assert read(lake) == b"new"


def zones_into(lake: LocalLake, publisher: Path, spoil: Callable[[Path], object]) -> str:
    """What a run says that fetches a file of a folder into a lake that is spoiled meanwhile."""
    (publisher / "taxi_zone_lookup.csv").write_bytes(b"LocationID,Borough,Zone,service_zone\n1,EWR,x,EWR\n")
    candidates = resolve_publisher(str(publisher)).zones()

    def run() -> None:
        with lake.staging() as folder:
            spoil(folder)
            download("taxi zones", candidates, known=None, output_dir=folder, log=logging.getLogger(__name__))

    with pytest.raises(LakeConfigurationError) as error:
        run()
    return str(error.value)


def test_a_staging_folder_that_is_gone_is_the_lakes_and_not_the_publishers(lake: LocalLake, tmp_path: Path) -> None:
    message = zones_into(lake, tmp_path, shutil.rmtree)
    assert f"{lake.folder}/.staging/" in message
    assert ", the staging folder of this run, was deleted while the run used it. " in message
    assert f"Do not change {lake.folder}/.staging" in message


def test_a_lake_that_may_not_be_written_to_any_more_is_named_and_not_the_publisher(
    lake: LocalLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = Path.open

    def forbid(folder: Path) -> None:
        def opened(path: Path, mode: str = "r", **options: Any) -> Any:
            if "w" in mode and path.is_relative_to(folder):  # root may write to whatever is read-only
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return open_file(path, mode, **options)

        monkeypatch.setattr(Path, "open", opened)

    message = zones_into(lake, tmp_path, forbid)
    assert f"{lake.folder} cannot be written to (Permission denied)" in message
    assert "TAXI_LAKE" in message
