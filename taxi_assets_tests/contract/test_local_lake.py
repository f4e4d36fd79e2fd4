"""The lake in a folder: durability, staging folders, locks, and its errors."""

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


def test_a_publish_flushes_the_file_then_renames_it_then_flushes_the_folder(
    lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, b"old")
    folder = Path(lake.folder, KEY).parent.stat().st_ino
    steps: list[tuple[str, int]] = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        steps.append(("flush", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def record_replace(path: Path, target: Path) -> Path:
        steps.append(("rename", path.stat().st_ino))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    put(lake, b"new")
    file = Path(lake.folder, KEY).stat().st_ino
    assert steps == [("flush", file), ("rename", file), ("flush", folder)]


def test_a_publish_leaves_only_objects_in_the_folder(lake: LocalLake) -> None:
    put(lake, b"new")
    files = [path for path in Path(lake.folder).rglob("*") if path.is_file()]
    assert files == [Path(lake.folder, KEY)]


def test_a_new_staging_folder_is_not_deleted_by_other_processes(
    lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def mkdir_then_delete_abandoned(self: Path, *arguments: Any, **options: Any) -> None:
        mkdir(self, *arguments, **options)
        if self.parent.name == ".staging":
            staging._delete_abandoned_folders(self.parent)  # noqa: SLF001
            assert self.is_dir()

    monkeypatch.setattr(Path, "mkdir", mkdir_then_delete_abandoned)
    put(lake, b"new")
    assert read(lake) == b"new"
    assert list(Path(lake.folder, ".staging").iterdir()) == []


def test_an_unexpected_file_among_the_staging_folders_does_not_block_runs(lake: LocalLake) -> None:
    unexpected = Path(lake.folder, ".staging", "unexpected.lock")
    unexpected.mkdir(parents=True)
    put(lake, b"new")
    assert unexpected.exists()


def test_concurrent_staging_never_loses_a_file(lake: LocalLake) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(15):
                put(lake, b"%d %d" % (number, turn), f"raw/{number}")
        except BaseException as error:  # noqa: BLE001  (every error must reach the test)
            failures.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    assert [read(lake, f"raw/{number}") for number in range(6)] == [b"%d 14" % number for number in range(6)]


def test_the_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(LocalLake(folder="lake"), b"new")
    assert (tmp_path / "lake" / KEY).read_bytes() == b"new"


def test_a_process_paused_during_a_publish_does_not_block_others_forever(lake: LocalLake) -> None:
    put(lake, b"old")
    layer = Path(lake.folder, KEY).parent
    descriptor = os.open(layer, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(LakeBusyError) as error:
            put(LocalLake(folder=lake.folder, wait_seconds=0.1), b"new")
        assert str(layer) in error.value.problem
        assert f"PID {os.getpid()}" in error.value.problem or "another process" in error.value.problem
        assert "stop it" in error.value.remedy
        assert read(lake) == b"old"
    finally:
        os.close(descriptor)
    put(lake, b"new")
    assert read(lake) == b"new"


def zones_error(lake: LocalLake, publisher: Path, damage: Callable[[Path], object]) -> str:
    """Return the error of a download whose staging folder is damaged before it begins."""
    (publisher / "taxi_zone_lookup.csv").write_bytes(b"LocationID,Borough,Zone,service_zone\n1,EWR,x,EWR\n")
    sources = resolve_publisher(str(publisher)).zones()

    def run() -> None:
        with lake.staging() as folder:
            damage(folder)
            download("taxi zones", sources, known=None, output_dir=folder, log=logging.getLogger(__name__))

    with pytest.raises(LakeConfigurationError) as error:
        run()
    return str(error.value)


def test_a_deleted_staging_folder_is_an_error_of_the_lake_not_of_the_publisher(lake: LocalLake, tmp_path: Path) -> None:
    message = zones_error(lake, tmp_path, shutil.rmtree)
    assert f"{lake.folder}/.staging/" in message
    assert ", the staging folder of this run, was deleted while the run used it. " in message
    assert f"do not modify {lake.folder}/.staging while runs are in progress" in message


def test_a_lake_that_became_read_only_is_an_error_of_the_lake_not_of_the_publisher(
    lake: LocalLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = Path.open

    def forbid(folder: Path) -> None:
        def opened(path: Path, mode: str = "r", **options: Any) -> Any:
            if "w" in mode and path.is_relative_to(folder):  # not by permissions: root may write anywhere
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return open_file(path, mode, **options)

        monkeypatch.setattr(Path, "open", opened)

    message = zones_error(lake, tmp_path, forbid)
    assert f"{lake.folder} cannot be written to (Permission denied)" in message
    assert "TAXI_LAKE" in message
