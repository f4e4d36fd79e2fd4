"""Shelves: what a crash between two writes leaves can be told, and heals; damage is never taken for a good object."""

from __future__ import annotations

import dataclasses
import io
import os
import random
import signal
import struct
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet
import pytest

from taxi_assets.errors import (
    LakeConfigurationError,
    LakeConflictError,
    LakeObjectDamagedError,
    LakeObjectMissingError,
)
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake.objects import ParquetPartition, RawFile, StagedParquet, StagedRawFile
from taxi_assets.tlc.cleaning.report import FOOTER_KEY
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.trips import MONTH, cleaned_month, csv_lines, fetched, published_month

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection

    from taxi_assets.tlc.sources.download import DownloadedFile

STEM = "raw/green_trips/2020-10"
OLD, NEW = b"header\nold\n", b"header\nnew\n"
CSV, CSV_GZ, PARQUET = FileFormat.CSV, FileFormat.CSV_GZ, FileFormat.PARQUET


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(folder=str(tmp_path / "lake"))


def publish(lake: LocalLake, content: bytes, *, ending: FileFormat = CSV_GZ, etag: str = '"1"') -> RawFile:
    with lake.staging() as folder:
        new = fetched(content, folder, ending=ending, etag=etag)
        return RawFile.publish(lake, STEM, StagedRawFile(new, RawFile.current_versions(lake, STEM)), run_id="a run")


def files(lake: LocalLake) -> dict[str, bytes]:
    """The objects of the month, by what follows its stem."""
    folder = Path(lake.folder, STEM).parent
    return {path.name.removeprefix("2020-10."): path.read_bytes() for path in sorted(folder.iterdir())}


def content(file: RawFile) -> bytes:
    with file.as_local_file() as path:
        return path.read_bytes()


def written(lake: LocalLake) -> Mapping[str, tuple[int, int]]:
    folder = Path(lake.folder, STEM).parent
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


# --- published files --------------------------------------------------------------------------------------------------


def test_a_published_file_is_found_again_byte_for_byte_with_its_record(lake: LocalLake) -> None:
    new = publish(lake, NEW)
    found = RawFile.get(lake, STEM)
    assert found == new == RawFile.find(lake, STEM)
    assert found.is_intact()
    assert content(found) == NEW
    assert set(files(lake)) == {"csv.gz", "source.json"}


def test_what_was_never_published_is_named_with_what_to_do(lake: LocalLake) -> None:
    assert RawFile.find(lake, STEM) is None
    with pytest.raises(LakeObjectMissingError, match=f"{STEM}: there is no .*source.json. Materialize it first."):
        RawFile.get(lake, STEM)


@pytest.mark.parametrize(("before", "after"), [(CSV_GZ, PARQUET), (PARQUET, CSV), (CSV, CSV_GZ)])
def test_a_change_of_format_leaves_one_file(lake: LocalLake, before: FileFormat, after: FileFormat) -> None:
    publish(lake, OLD, ending=before)
    publish(lake, NEW, ending=after)
    assert set(files(lake)) == {str(after), "source.json"}
    assert content(RawFile.get(lake, STEM)) == NEW


def test_the_same_bytes_in_another_format_are_written_under_their_name(lake: LocalLake) -> None:
    publish(lake, OLD, ending=CSV)
    publish(lake, OLD, ending=CSV_GZ)
    assert set(files(lake)) == {"csv.gz", "source.json"}
    assert RawFile.get(lake, STEM).is_intact()


def test_the_same_bytes_with_a_new_etag_rewrite_the_record_alone(lake: LocalLake) -> None:
    publish(lake, OLD)
    before = written(lake)
    publish(lake, OLD, etag='"2"')
    after = written(lake)
    assert before["2020-10.csv.gz"] == after["2020-10.csv.gz"]
    assert before["2020-10.source.json"] != after["2020-10.source.json"]
    assert RawFile.get(lake, STEM).record.etag == '"2"'


def test_the_same_bytes_replace_an_object_that_is_damaged(lake: LocalLake) -> None:
    publish(lake, OLD)
    Path(lake.folder, f"{STEM}.csv.gz").write_bytes(NEW)
    assert content(publish(lake, OLD)) == OLD


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(NEW),  # as long as the old one
        lambda path: path.write_bytes(OLD[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ],
    ids=["other bytes", "cut off", "empty", "gone"],
)
def test_an_object_that_is_not_what_was_recorded_is_told_and_never_handed_out(
    lake: LocalLake, damage: Callable[[Path], object]
) -> None:
    publish(lake, OLD)
    damage(Path(lake.folder, f"{STEM}.csv.gz"))
    found = RawFile.find(lake, STEM)
    assert found is not None
    assert not found.is_intact()
    with pytest.raises(LakeObjectDamagedError) as error:
        content(RawFile.get(lake, STEM))
    assert f"{STEM}.csv.gz" in error.value.problem
    assert "downloads the file again" in error.value.remedy


@pytest.mark.parametrize(
    "record", [b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe", b'{"url": 1}', b"\0" * 100], ids=repr
)
def test_a_record_that_cannot_be_read_counts_as_none_and_is_replaced(lake: LocalLake, record: bytes) -> None:
    publish(lake, OLD)
    Path(lake.folder, f"{STEM}.source.json").write_bytes(record)
    assert RawFile.find(lake, STEM) is None
    with pytest.raises(LakeObjectMissingError):
        RawFile.get(lake, STEM)
    publish(lake, OLD)
    assert content(RawFile.get(lake, STEM)) == OLD


def test_a_record_of_a_later_version_with_more_in_it_is_read(lake: LocalLake) -> None:
    new = publish(lake, NEW)
    path = Path(lake.folder, f"{STEM}.source.json")
    path.write_text(path.read_text().replace("{", '{"added_later": [1],', 1))
    assert RawFile.find(lake, STEM) == new


def test_tidying_up_removes_what_a_killed_run_left_and_nothing_else(lake: LocalLake) -> None:
    new = publish(lake, NEW)
    (Path(lake.folder, STEM).with_name("2020-10.parquet")).write_bytes(OLD)
    (Path(lake.folder, STEM).with_name("2020-11.parquet")).write_bytes(OLD)
    new.delete_other_formats()
    assert set(files(lake)) == {"csv.gz", "source.json", "2020-11.parquet"}


def test_tidying_up_after_an_earlier_file_leaves_the_newer_one_alone(lake: LocalLake) -> None:
    old = publish(lake, OLD, ending=CSV_GZ)
    new = publish(lake, NEW, ending=PARQUET)
    old.delete_other_formats()
    assert new.is_intact()


# --- a crash in between -----------------------------------------------------------------------------------------------

# What each crash leaves: at the rename of the object, at the rename of the record, after both.
CRASHES = {1: "old", 2: "neither", 3: "new"}


def crash_at_rename(
    number: int, folder: str, ending: str, crash: Callable[[], object], _line: Connection | None = None
) -> None:
    """Publish the new file, and crash just before the n-th rename."""
    renames, replace = count(1), Path.replace

    def rename_or_crash(path: Path, target: Path) -> Path:
        if next(renames) == number:
            crash()
        return replace(path, target)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Path, "replace", rename_or_crash)
        publish(LocalLake(folder=folder), NEW, ending=FileFormat(ending))


def fail() -> None:
    raise OSError(28, "No space left on device")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def told(lake: LocalLake) -> str:
    """What stands there, as anyone can tell."""
    found = RawFile.get(lake, STEM)
    if not found.is_intact():
        with pytest.raises(LakeObjectDamagedError):
            content(found)
        return "neither"
    return {OLD: "old", NEW: "new"}[content(found)]


@pytest.mark.parametrize("number", CRASHES)
@pytest.mark.parametrize("killed", [False, True], ids=["by an error", "by SIGKILL"])
def test_a_crash_between_object_and_record_is_told_apart_and_healed_by_the_next_publish(
    lake: LocalLake, number: int, killed: bool
) -> None:
    publish(lake, OLD)
    if killed:
        with child_process(crash_at_rename, number, lake.folder, "csv.gz", die) as other:
            assert other.wait_for_exit() == (-signal.SIGKILL if number < 3 else 0)
    elif number < 3:
        with pytest.raises(LakeConfigurationError, match="No space left"):
            crash_at_rename(number, lake.folder, "csv.gz", fail)
    else:
        crash_at_rename(number, lake.folder, "csv.gz", fail)
    assert told(lake) == CRASHES[number]
    publish(lake, NEW)
    assert told(lake) == "new"
    assert set(files(lake)) == {"csv.gz", "source.json"}


def test_a_crash_while_the_format_changes_keeps_the_old_file_whole_and_is_healed(lake: LocalLake) -> None:
    publish(lake, OLD)
    with pytest.raises(LakeConfigurationError, match="No space left"):
        crash_at_rename(2, lake.folder, "parquet", fail)
    assert told(lake) == "old"
    publish(lake, NEW, ending=PARQUET)
    assert told(lake) == "new"
    assert set(files(lake)) == {"parquet", "source.json"}


def test_a_first_publish_that_crashes_in_between_leaves_no_record(lake: LocalLake) -> None:
    with pytest.raises(LakeConfigurationError, match="No space left"):
        crash_at_rename(2, lake.folder, "csv.gz", fail)
    assert RawFile.find(lake, STEM) is None
    publish(lake, NEW)
    assert told(lake) == "new"


# --- Parquet months ---------------------------------------------------------------------------------------------------

CLEAN = "clean/green_trips/2020-10"


def put(lake: LocalLake, content: bytes) -> None:
    with lake.staging() as folder:
        (folder / "file").write_bytes(content)
        key = f"{CLEAN}.parquet"
        lake.publish(folder / "file", key, replaces=lake.version(key), run_id="a run")


def parquet(footer: Mapping[bytes, bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    table = pa.table({"a": list(range(100))})
    pyarrow.parquet.write_table(table.replace_schema_metadata(dict(footer) if footer else None), buffer)
    return buffer.getvalue()


def test_a_month_is_found_again_with_its_report(lake: LocalLake) -> None:
    trips = published_month(lake, rows=50, dirty=3)
    assert ParquetPartition.find(lake, CLEAN) == ParquetPartition.get(lake, CLEAN) == trips
    assert (trips.rows, trips.report.clean.rows, trips.report.rows_quarantined) == (50, 50, 3)
    assert trips.bytes == Path(trips.uri).stat().st_size
    assert len(trips.to_pandas()) == 50
    assert trips.to_pandas(10)["source_row"].tolist() == list(range(1, 11))


def test_an_empty_month_is_a_month(lake: LocalLake) -> None:
    trips = published_month(lake, rows=0)
    assert trips.rows == 0
    assert list(trips.to_pandas(10).columns) == list(trips.to_pandas().columns)
    assert str(trips.to_pandas(10)["vendor_id"].dtype) == "Int64"


def test_a_staged_file_tells_its_rows_and_bytes(tmp_path: Path) -> None:
    cleaned = cleaned_month(tmp_path, rows=20, dirty=2)
    clean, quarantine = (StagedParquet(p, cleaned.report, None) for p in (cleaned.clean, cleaned.quarantine))
    assert (clean.rows, quarantine.rows) == (20, 2)
    assert clean.bytes == cleaned.clean.stat().st_size
    assert quarantine.to_pandas(1)["source_row"].tolist() == [21]


def test_a_month_that_is_not_there_is_named_with_what_to_do(lake: LocalLake) -> None:
    assert ParquetPartition.find(lake, CLEAN) is None
    with pytest.raises(LakeObjectMissingError, match=f"{CLEAN}.parquet. Materialize the clean asset"):
        ParquetPartition.get(lake, CLEAN)


def test_the_bytes_of_a_month_that_has_gone_are_none(lake: LocalLake) -> None:
    trips = published_month(lake)
    lake.delete(trips.key)
    assert trips.bytes == 0
    with pytest.raises(LakeObjectMissingError), trips.as_local_file():
        pass


FOOTER_LENGTH = 100
STRANGERS = {
    "nothing": b"",
    "garbage": b"x" * 1000,
    "four bytes": b"PAR1",
    "a footer of zeros": b"PAR1" + bytes(FOOTER_LENGTH) + struct.pack("<I", FOOTER_LENGTH) + b"PAR1",
    "a footer of ones": b"PAR1" + b"\xff" * FOOTER_LENGTH + struct.pack("<I", FOOTER_LENGTH) + b"PAR1",
    "no footer": b"PAR1" + bytes(FOOTER_LENGTH) + struct.pack("<I", 0) + b"PAR1",
    "a footer longer than the file": b"PAR1" + bytes(FOOTER_LENGTH) + struct.pack("<I", 2**32 - 1) + b"PAR1",
    "an encrypted file": b"PARE" + bytes(FOOTER_LENGTH) + struct.pack("<I", FOOTER_LENGTH) + b"PARE",
    "cut off": parquet()[:-20],
    "Parquet of others": parquet(),
    "Parquet of others with a footer of theirs": parquet({b"pandas": b"{}"}),
    "a report that is none": parquet({FOOTER_KEY: b"no JSON"}),
    "a report of another version": parquet({FOOTER_KEY: b'{"service": "green", "schema_version": 0}'}),
}


@pytest.mark.parametrize("wrong_format", STRANGERS)
def test_what_is_no_month_of_this_package_is_none_and_getting_it_is_one_clear_error(
    lake: LocalLake, wrong_format: str
) -> None:
    put(lake, STRANGERS[wrong_format])
    assert ParquetPartition.find(lake, CLEAN) is None
    with pytest.raises(LakeObjectDamagedError) as error:
        ParquetPartition.get(lake, CLEAN)
    assert f"{CLEAN}.parquet" in error.value.problem
    assert "Materialize" in error.value.remedy
    assert "\n" not in str(error.value)


def test_any_damage_to_a_footer_is_told_and_not_raised(lake: LocalLake) -> None:
    whole = Path(published_month(lake).uri).read_bytes()
    (length,) = struct.unpack("<I", whole[-8:-4])
    chance = random.Random(1)  # noqa: S311  (the same every time)
    none = 0
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(5):
            damaged[-8 - chance.randrange(1, length)] = chance.randrange(256)
        put(lake, bytes(damaged))
        none += ParquetPartition.find(lake, CLEAN) is None
    assert none > 10, "the damage was none: nothing was tested"


def test_handles_hold_no_rows(lake: LocalLake) -> None:
    trips = published_month(lake, rows=50)
    assert {field.name for field in dataclasses.fields(trips)} == {"lake", "key", "version", "report", "rows"}
    assert len(trips.to_pandas()) == 50


def test_a_handle_never_reads_what_has_come_in_its_place(lake: LocalLake) -> None:
    trips = published_month(lake, rows=50)
    published_month(lake, rows=20, seed=1)
    for read in (trips.to_pandas, lambda: trips.to_pandas(10), lambda: trips.control_totals(GREEN)):
        with pytest.raises(LakeConflictError, match=trips.key):
            read()


# --- two runs at once -------------------------------------------------------------------------------------------------


def test_an_older_run_does_not_put_its_file_over_that_of_a_newer_one(lake: LocalLake) -> None:
    publish(lake, OLD)
    seen = RawFile.current_versions(lake, STEM)
    new = publish(lake, NEW)
    with lake.staging() as folder, pytest.raises(LakeConflictError, match=STEM):
        RawFile.publish(lake, STEM, StagedRawFile(fetched(b"header\nolder\n", folder), seen), run_id="older")
    assert RawFile.find(lake, STEM) == new
    assert content(new) == NEW


def test_two_runs_that_fetched_the_same_file_agree(lake: LocalLake) -> None:
    seen = RawFile.current_versions(lake, STEM)
    first = publish(lake, NEW, etag='"1"')
    with lake.staging() as folder:
        staged = StagedRawFile(fetched(NEW, folder, ending=CSV_GZ, etag='"2"'), seen)
        assert RawFile.publish(lake, STEM, staged, run_id="other") == first


def test_two_runs_that_cleaned_the_same_month_agree_and_one_with_other_data_is_refused(
    lake: LocalLake, tmp_path: Path
) -> None:
    first = published_month(lake, rows=50)
    for rows, refused in ((50, False), (40, True)):
        (tmp_path / str(rows)).mkdir()
        cleaned = cleaned_month(tmp_path / str(rows), rows=rows)
        # Of the same data, but not byte for byte, as another version of pyarrow would write it.
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(cleaned.clean), cleaned.clean, compression="none")
        staged = StagedParquet(cleaned.clean, cleaned.report, replaces=None)
        if refused:
            with pytest.raises(LakeConflictError, match=CLEAN):
                ParquetPartition.publish(lake, CLEAN, staged, run_id="other")
        else:
            assert ParquetPartition.publish(lake, CLEAN, staged, run_id="other") == first
        assert ParquetPartition.get(lake, CLEAN) == first


# --- the helper that the tests above and others build on --------------------------------------------------------------


def test_made_months_are_the_same_every_time_and_different_by_seed(tmp_path: Path) -> None:
    made: list[bytes] = []
    for number, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        made.append(cleaned_month(folder, rows=30, dirty=2, seed=seed).clean.read_bytes())
    assert made[0] == made[1] != made[2]
    assert len(list(csv_lines(MONTH, 3, dirty=2))) == 6


def test_a_fetched_file_says_what_it_is(tmp_path: Path) -> None:
    file: DownloadedFile = fetched(OLD, tmp_path)
    assert (file.record.bytes, file.record.rows, file.path.read_bytes()) == (len(OLD), 1, OLD)
