"""The revisions of a month, on every lake: each published file is kept once, whatever ends a run, and none is copied
through this machine.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from taxi_assets.errors import LakeObjectDamagedError
from taxi_assets.storage.lake.objects import RawFile, StagedRawFile
from taxi_assets.storage.lake.revisions import Revisions
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.trips import write_download

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets_tests.contract.stores import LakeBackend

MONTH = Month(2021, 3)
PREFIX = "raw/green_trips/2021-03"
FOLDER = "raw/green_trips/revisions/2021-03"
A, B, C = b"header\na\n", b"header\nb\nb\n", b"header\nc\nc\nc\n"
WRITES = ("publish", "copy_object", "delete")


@pytest.fixture
def lake(lake_backend: LakeBackend) -> Lake:
    return lake_backend.open()


def publish(lake: Lake, content: bytes, *, extension: FileFormat = FileFormat.CSV, day: int = 1) -> RawFile:
    """Publish a file that was downloaded on a day of 2024, as a run does."""
    with lake.staging() as folder:
        new = write_download(content, folder, extension=extension)
        new = replace(
            new, record=new.record.model_copy(update={"fetched_at": dt.datetime(2024, 1, day, tzinfo=dt.UTC)})
        )
        staged = StagedRawFile(new, RawFile.current_versions(lake, PREFIX))
        return RawFile.publish(lake, PREFIX, staged, run_id="a run", revisions=Revisions(lake, PREFIX))


def contents(lake: Lake) -> list[bytes]:
    """Return the verified bytes of all revisions, newest first."""
    found = []
    for revision in Revisions.of(lake, GREEN, MONTH).list_all():
        with revision.as_local_file() as path:
            found.append(path.read_bytes())
    return found


def stored_files(lake: Lake) -> Counter[str]:
    """Count the files of the month, the present one included, by their bytes' digest. Records do not count."""
    keys = [key for folder in ("raw/green_trips", FOLDER) for key in lake.sizes_in(folder) if ".source." not in key]
    found: Counter[str] = Counter()
    for key in keys:
        with lake.open(key) as file:
            found[digest(file.read())] += 1
    return found


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def once(*files: bytes) -> Counter[str]:
    return Counter({digest(content): 1 for content in files})


def test_a_first_file_has_no_older_revision_and_writes_nothing_else(lake: Lake) -> None:
    publish(lake, A)
    assert contents(lake) == [A]
    assert lake.sizes_in(FOLDER) == {}


def test_every_replaced_file_is_kept_with_its_record_under_its_digest(lake: Lake) -> None:
    records = [publish(lake, content, day=day).record for day, content in enumerate((A, B, C), start=1)]
    assert contents(lake) == [C, B, A]
    assert [revision.record for revision in Revisions.of(lake, GREEN, MONTH).list_all()] == records[::-1]
    kept = {f"{FOLDER}/{digest(content)[:12]}.csv" for content in (A, B)}
    assert kept == {key for key in lake.sizes_in(FOLDER) if key.endswith(".csv")}
    assert stored_files(lake) == once(A, B, C)


def test_months_do_not_mix_and_the_folder_of_raw_files_lists_no_revision(lake: Lake) -> None:
    publish(lake, A)
    publish(lake, B)
    assert [*lake.sizes_in("raw/green_trips")] == [f"{PREFIX}.csv", f"{PREFIX}.source.json"]
    assert Revisions.of(lake, GREEN, Month(2021, 4)).list_all() == []


def test_a_file_in_another_format_is_a_revision_and_the_old_format_is_kept(lake: Lake) -> None:
    publish(lake, A)
    publish(lake, B, extension=FileFormat.PARQUET, day=2)
    assert contents(lake) == [B, A]
    assert stored_files(lake) == once(A, B)


@pytest.mark.parametrize("files", [(A, A), (A, B, B), (A, B, A), (A, B, A, B), (A, B, C, A)])
def test_the_same_bytes_published_again_are_one_revision(lake: Lake, files: Sequence[bytes]) -> None:
    for day, content in enumerate(files, start=1):
        publish(lake, content, day=day)
    assert contents(lake)[0] == files[-1]
    assert stored_files(lake) == once(*files)
    assert sorted(contents(lake)) == sorted({*files})


def test_a_damaged_file_is_not_kept(lake_backend: LakeBackend) -> None:
    lake = lake_backend.open()
    publish(lake, A)
    with lake.staging() as folder:
        damaged = folder / "damaged"
        damaged.write_bytes(b"damaged")
        lake.publish(damaged, f"{PREFIX}.csv", replaces=lake.version(f"{PREFIX}.csv"), run_id="a")
    publish(lake, B)
    assert contents(lake) == [B]


def test_a_damaged_revision_is_not_read(lake: Lake) -> None:
    publish(lake, A)
    publish(lake, B)
    older = Revisions.of(lake, GREEN, MONTH).list_all()[1]
    with lake.staging() as folder:
        damaged = folder / "damaged"
        damaged.write_bytes(b"damaged")
        lake.publish(damaged, older.key, replaces=lake.version(older.key), run_id="a")
    with pytest.raises(LakeObjectDamagedError, match="backup"), older.as_local_file():
        pass


# --- how many are kept ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "expected"), [(None, [C, B, A]), (1, [C, B]), (0, [C])])
def test_the_setting_limits_the_number_of_older_revisions(lake: Lake, keep: int | None, expected: list[bytes]) -> None:
    limited = lake.model_copy(update={"keep_revisions": keep})
    for day, content in enumerate((A, B, C), start=1):
        publish(limited, content, day=day)
    assert contents(lake) == expected
    assert stored_files(lake) == once(*expected)


def test_prune_deletes_the_oldest_and_never_the_present_one(lake: Lake) -> None:
    for day, content in enumerate((A, B, C), start=1):
        publish(lake, content, day=day)
    revisions = Revisions.of(lake, GREEN, MONTH)
    assert [file.record.sha256 for file in revisions.prunable(1)] == [digest(A)]
    assert contents(lake) == [C, B, A]
    assert [file.record.sha256 for file in revisions.prune(1)] == [digest(A)]
    assert contents(lake) == [C, B]
    revisions.prune(0)
    assert contents(lake) == [C]
    assert stored_files(lake) == once(C)


# --- killed -----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The end of a process between two requests."""


def kill_at(monkeypatch: pytest.MonkeyPatch, lake: Lake, number: int, *, effect: bool) -> list[str]:
    """End the run at its write of this number, before or after it takes effect; return the writes so far."""
    writes: list[str] = []

    def wrap(name: str, write: Callable[..., None]) -> Callable[..., None]:
        def reported(self: Lake, *args: Any, **options: Any) -> None:
            writes.append(name)
            if len(writes) == number + 1 and not effect:
                raise Killed
            write(self, *args, **options)
            if len(writes) == number + 1:
                raise Killed

        return reported

    for name in WRITES:
        monkeypatch.setattr(type(lake), name, wrap(name, getattr(type(lake), name)))
    return writes


HISTORIES = {"a new file": (A, B), "a third file": (A, B, C), "a file that was published before": (A, B, A)}


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("after", ["the same file", "another file", "the old file"])
def test_a_run_that_is_killed_at_any_write_loses_no_revision_and_the_next_run_doubles_none(
    lake_backend: LakeBackend, history: str, after: str
) -> None:
    """`after` is what the publisher has when the next run begins."""
    *before, new = HISTORIES[history]
    next_file = {"the same file": new, "another file": b"header\nd\n", "the old file": before[-1]}[after]
    number, kills = 0, 0
    while True:
        for effect in (False, True):
            lake = lake_backend.open()
            for key in [*lake.sizes_in("raw/green_trips"), *lake.sizes_in(FOLDER)]:
                lake.delete(key)
            for day, content in enumerate(before, start=1):
                publish(lake, content, day=day)
            with pytest.MonkeyPatch.context() as monkeypatch:
                writes = kill_at(monkeypatch, lake, number, effect=effect)
                try:
                    publish(lake, new, day=9)
                except Killed:
                    kills += 1
            present = stored_files(lake)
            assert once(*before) - present == Counter(), "a revision is lost"
            seen = [content for content in (*before, new) if digest(content) in present]
            assert lake.version(f"{PREFIX}.csv") is not None
            publish(lake, next_file, day=10)
            # Every file that a reader could have seen is kept, even if the run could not write its record.
            expected = once(*seen, next_file)
            assert Counter(set(stored_files(lake))) == expected, (writes, effect)
            assert sorted(map(digest, contents(lake))) == sorted(expected)
            if after == "the same file":
                assert stored_files(lake) == expected
        if number >= len(writes):
            break
        number += 1
    assert kills >= 12
