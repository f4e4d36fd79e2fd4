"""Snapshots of a lake in a folder: files that are never replaced, kept for a day after a newer snapshot."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from taxi_assets.errors import LakeConfigurationError
from taxi_assets.storage.lake import snapshots
from taxi_assets.storage.lake.local_lake import LocalLake

KEYS = ["clean/green_trips/2020-10.parquet", "reference/taxi_zones.parquet"]


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(folder=str(tmp_path / "lake"))


def put(lake: LocalLake, key: str, content: str) -> None:
    with lake.staging() as folder:
        (folder / "file").write_text(content)
        lake.publish(folder / "file", key, replaces=lake.version(key), run_id="a run")


def snapshot(lake: LocalLake) -> Path:
    return Path(lake.snapshot(KEYS))


def lake_folder(lake: LocalLake) -> Path:
    return Path(lake.folder)


def current(lake: LocalLake) -> Path:
    return lake_folder(lake) / "snapshots/current"


def names(lake: LocalLake) -> list[str]:
    return sorted(path.name for path in (lake_folder(lake) / "snapshots").iterdir())


def test_a_snapshot_keeps_each_file_as_it_was(lake: LocalLake) -> None:
    put(lake, KEYS[0], "old")
    taken = snapshot(lake)
    put(lake, KEYS[0], "new")
    put(lake, KEYS[1], "new")
    assert (taken / KEYS[0]).read_text() == "old"
    assert not (taken / KEYS[1]).exists()
    newer = snapshot(lake)
    assert [(newer / key).read_text() for key in KEYS] == ["new", "new"]
    assert (taken / KEYS[0]).read_text() == "old"
    assert current(lake).resolve() == newer


def test_a_snapshot_takes_no_space_while_the_lake_has_the_same_version(lake: LocalLake) -> None:
    put(lake, KEYS[0], "old")
    taken = snapshot(lake)
    assert (taken / KEYS[0]).stat().st_ino == (lake_folder(lake) / KEYS[0]).stat().st_ino


def test_a_lake_that_has_not_changed_gets_no_new_snapshot(lake: LocalLake) -> None:
    put(lake, KEYS[0], "old")
    assert snapshot(lake) == snapshot(lake)
    assert len(names(lake)) == 2  # with `current`
    lake.delete(KEYS[0])
    put(lake, KEYS[1], "new")
    assert not (snapshot(lake) / KEYS[0]).exists()


def test_a_snapshot_is_deleted_a_day_after_a_newer_one_replaced_it(
    lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    for number in range(3):
        put(lake, KEYS[0], f"version {number}")
        taken.append(snapshot(lake))
    assert all(path.is_dir() for path in taken)  # the second and the third have just replaced the one before
    monkeypatch.setattr(snapshots, "KEPT_FOR", dt.timedelta(seconds=-1))
    put(lake, KEYS[0], "version 3")
    newest = snapshot(lake)
    assert names(lake) == sorted([newest.name, "current"])


def test_old_snapshots_are_deleted_even_if_the_lake_has_not_changed_since(
    lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        put(lake, KEYS[0], f"version {number}")
        newest = snapshot(lake)
    monkeypatch.setattr(snapshots, "KEPT_FOR", dt.timedelta(seconds=-1))
    assert snapshot(lake) == newest
    assert names(lake) == sorted([newest.name, "current"])


def test_the_path_of_a_snapshot_begins_with_the_configured_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "lake").symlink_to(tmp_path / "disk")  # a container may have only one of both paths
    lake = LocalLake(folder=str(tmp_path / "lake"))
    put(lake, KEYS[0], "a file")
    assert {snapshot(lake).parent, snapshot(lake).parent} == {tmp_path / "lake/snapshots"}


def test_a_snapshot_is_deleted_as_a_whole(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        put(lake, key, "old")
    taken, real_unlink = snapshot(lake), os.unlink

    def unlink(path: str, **options: int) -> None:
        # A query that is just starting finds all files of the snapshot, or none.
        assert [(taken / key).exists() for key in KEYS] in ([True, True], [False, False])
        real_unlink(path, **options)

    monkeypatch.setattr(snapshots, "KEPT_FOR", dt.timedelta(seconds=-1))
    monkeypatch.setattr(os, "unlink", unlink)
    put(lake, KEYS[0], "new")
    snapshot(lake)
    assert not taken.exists()


def test_other_files_in_the_folder_of_snapshots_are_kept(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "KEPT_FOR", dt.timedelta(seconds=-1))
    for number in range(2):
        put(lake, KEYS[0], f"version {number}")
        snapshot(lake)
        (lake_folder(lake) / "snapshots/mine").mkdir(exist_ok=True)
    assert "mine" in names(lake)


def test_a_run_that_is_killed_before_the_link_leaves_the_older_snapshot_current(
    lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, KEYS[0], "old")
    older = snapshot(lake)
    put(lake, KEYS[0], "new")
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.symlink_to", _killed)
        with pytest.raises(KeyboardInterrupt):
            snapshot(lake)
    assert current(lake).resolve() == older
    assert (snapshot(lake) / KEYS[0]).read_text() == "new"


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_full_disk_is_one_error(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: object, target: object) -> None:
        raise OSError(28, os.strerror(28), str(target))

    put(lake, KEYS[0], "old")
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(LakeConfigurationError, match="cannot be written to"):
        snapshot(lake)
    assert not (lake_folder(lake) / "snapshots/current").exists()
