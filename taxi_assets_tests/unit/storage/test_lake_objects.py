"""Handles to lake objects: the next run recovers from a crash between two writes, and damaged objects are detected."""

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
from taxi_assets.tlc.cleaning.report import CleaningReport
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.trips import MONTH, clean_generated_month, csv_lines, publish_generated_month, write_download

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection

    from taxi_assets.tlc.sources.download import DownloadedFile

PREFIX = "raw/green_trips/2020-10"
OLD, NEW = b"header\nold\n", b"header\nnew\n"
CSV, CSV_GZ, PARQUET = FileFormat.CSV, FileFormat.CSV_GZ, FileFormat.PARQUET


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(folder=str(tmp_path / "lake"))


def publish(lake: LocalLake, content: bytes, *, extension: FileFormat = CSV_GZ, etag: str = '"1"') -> RawFile:
    with lake.staging() as folder:
        new = write_download(content, folder, extension=extension, etag=etag)
        return RawFile.publish(lake, PREFIX, StagedRawFile(new, RawFile.current_versions(lake, PREFIX)), run_id="a run")


def files(lake: LocalLake) -> dict[str, bytes]:
    """Return the content of the month's objects, by file extension."""
    folder = Path(lake.folder, PREFIX).parent
    return {path.name.removeprefix("2020-10."): path.read_bytes() for path in sorted(folder.iterdir())}


def content(file: RawFile) -> bytes:
    with file.as_local_file() as path:
        return path.read_bytes()


def inodes_and_times(lake: LocalLake) -> Mapping[str, tuple[int, int]]:
    folder = Path(lake.folder, PREFIX).parent
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


# --- raw files --------------------------------------------------------------------------------------------------------


def test_a_published_file_is_read_back_byte_for_byte_with_its_record(lake: LocalLake) -> None:
    new = publish(lake, NEW)
    found = RawFile.get(lake, PREFIX)
    assert found == new == RawFile.find(lake, PREFIX)
    assert found.is_intact()
    assert content(found) == NEW
    assert set(files(lake)) == {"csv.gz", "source.json"}


def test_the_error_for_a_file_that_was_never_published_names_it_and_the_remedy(lake: LocalLake) -> None:
    assert RawFile.find(lake, PREFIX) is None
    with pytest.raises(
        LakeObjectMissingError,
        match=f"{PREFIX} is not in the lake: .*source.json is missing or cannot be parsed. Materialize",
    ):
        RawFile.get(lake, PREFIX)


@pytest.mark.parametrize(("before", "after"), [(CSV_GZ, PARQUET), (PARQUET, CSV), (CSV, CSV_GZ)])
def test_publishing_another_format_deletes_the_file_of_the_old_format(
    lake: LocalLake, before: FileFormat, after: FileFormat
) -> None:
    publish(lake, OLD, extension=before)
    publish(lake, NEW, extension=after)
    assert set(files(lake)) == {str(after), "source.json"}
    assert content(RawFile.get(lake, PREFIX)) == NEW


def test_the_same_bytes_in_another_format_are_published_under_the_new_extension(lake: LocalLake) -> None:
    publish(lake, OLD, extension=CSV)
    publish(lake, OLD, extension=CSV_GZ)
    assert set(files(lake)) == {"csv.gz", "source.json"}
    assert RawFile.get(lake, PREFIX).is_intact()


def test_the_same_bytes_with_a_new_etag_replace_only_the_record(lake: LocalLake) -> None:
    publish(lake, OLD)
    before = inodes_and_times(lake)
    publish(lake, OLD, etag='"2"')
    after = inodes_and_times(lake)
    assert before["2020-10.csv.gz"] == after["2020-10.csv.gz"]
    assert before["2020-10.source.json"] != after["2020-10.source.json"]
    assert RawFile.get(lake, PREFIX).record.etag == '"2"'


def test_publishing_the_same_bytes_repairs_a_damaged_file(lake: LocalLake) -> None:
    publish(lake, OLD)
    Path(lake.folder, f"{PREFIX}.csv.gz").write_bytes(NEW)
    assert content(publish(lake, OLD)) == OLD


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(NEW),  # of the same length as the old ones
        lambda path: path.write_bytes(OLD[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ],
    ids=["other bytes", "truncated", "empty", "deleted"],
)
def test_a_file_that_does_not_match_its_record_is_detected_and_never_returned(
    lake: LocalLake, damage: Callable[[Path], object]
) -> None:
    publish(lake, OLD)
    damage(Path(lake.folder, f"{PREFIX}.csv.gz"))
    found = RawFile.find(lake, PREFIX)
    assert found is not None
    assert not found.is_intact()
    with pytest.raises(LakeObjectDamagedError) as error:
        content(RawFile.get(lake, PREFIX))
    assert f"{PREFIX}.csv.gz" in error.value.problem
    assert "downloads the file again" in error.value.remedy


@pytest.mark.parametrize(
    "record", [b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe", b'{"url": 1}', b"\0" * 100], ids=repr
)
def test_an_unreadable_record_counts_as_missing_and_is_replaced(lake: LocalLake, record: bytes) -> None:
    publish(lake, OLD)
    Path(lake.folder, f"{PREFIX}.source.json").write_bytes(record)
    assert RawFile.find(lake, PREFIX) is None
    with pytest.raises(LakeObjectMissingError):
        RawFile.get(lake, PREFIX)
    publish(lake, OLD)
    assert content(RawFile.get(lake, PREFIX)) == OLD


def test_a_record_with_unknown_fields_of_a_later_version_is_readable(lake: LocalLake) -> None:
    new = publish(lake, NEW)
    path = Path(lake.folder, f"{PREFIX}.source.json")
    path.write_text(path.read_text().replace("{", '{"added_later": [1],', 1))
    assert RawFile.find(lake, PREFIX) == new


def test_deleting_other_formats_deletes_files_of_the_same_month_only(lake: LocalLake) -> None:
    new = publish(lake, NEW)
    (Path(lake.folder, PREFIX).with_name("2020-10.parquet")).write_bytes(OLD)
    (Path(lake.folder, PREFIX).with_name("2020-11.parquet")).write_bytes(OLD)
    new.delete_other_formats()
    assert set(files(lake)) == {"csv.gz", "source.json", "2020-11.parquet"}


def test_an_old_handle_does_not_delete_the_newer_file_of_another_format(lake: LocalLake) -> None:
    old = publish(lake, OLD, extension=CSV_GZ)
    new = publish(lake, NEW, extension=PARQUET)
    old.delete_other_formats()
    assert new.is_intact()


# --- a crash between writes -------------------------------------------------------------------------------------------

# What a crash leaves in the lake: before the rename of the file, before the rename of the record, after both.
STATE_AFTER_CRASH = {1: "old", 2: "neither", 3: "new"}


def crash_at_rename(
    number: int, folder: str, ending: str, crash: Callable[[], object], _pipe: Connection | None = None
) -> None:
    """Publish the new file, and crash just before the rename with this number."""
    renames, replace = count(1), Path.replace

    def rename_or_crash(path: Path, target: Path) -> Path:
        if next(renames) == number:
            crash()
        return replace(path, target)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Path, "replace", rename_or_crash)
        publish(LocalLake(folder=folder), NEW, extension=FileFormat(ending))


def fail() -> None:
    raise OSError(28, "No space left on device")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def state(lake: LocalLake) -> str:
    """Return which file the lake contains, as a reader sees it."""
    found = RawFile.get(lake, PREFIX)
    if not found.is_intact():
        with pytest.raises(LakeObjectDamagedError):
            content(found)
        return "neither"
    return {OLD: "old", NEW: "new"}[content(found)]


@pytest.mark.parametrize("number", STATE_AFTER_CRASH)
@pytest.mark.parametrize("killed", [False, True], ids=["by an error", "by SIGKILL"])
def test_a_crash_between_file_and_record_is_detected_and_repaired_by_the_next_publish(
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
    assert state(lake) == STATE_AFTER_CRASH[number]
    publish(lake, NEW)
    assert state(lake) == "new"
    assert set(files(lake)) == {"csv.gz", "source.json"}


def test_a_crash_during_a_change_of_format_keeps_the_old_file_and_is_repaired(lake: LocalLake) -> None:
    publish(lake, OLD)
    with pytest.raises(LakeConfigurationError, match="No space left"):
        crash_at_rename(2, lake.folder, "parquet", fail)
    assert state(lake) == "old"
    publish(lake, NEW, extension=PARQUET)
    assert state(lake) == "new"
    assert set(files(lake)) == {"parquet", "source.json"}


def test_a_crash_of_the_first_publish_leaves_no_record(lake: LocalLake) -> None:
    with pytest.raises(LakeConfigurationError, match="No space left"):
        crash_at_rename(2, lake.folder, "csv.gz", fail)
    assert RawFile.find(lake, PREFIX) is None
    publish(lake, NEW)
    assert state(lake) == "new"


# --- Parquet months ---------------------------------------------------------------------------------------------------

CLEAN = "clean/green_trips/2020-10"


def put_clean_object(lake: LocalLake, content: bytes) -> None:
    with lake.staging() as folder:
        (folder / "file").write_bytes(content)
        key = f"{CLEAN}.parquet"
        lake.publish(folder / "file", key, replaces=lake.version(key), run_id="a run")


def parquet(footer: Mapping[bytes, bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    table = pa.table({"a": list(range(100))})
    pyarrow.parquet.write_table(table.replace_schema_metadata(dict(footer) if footer else None), buffer)
    return buffer.getvalue()


def test_a_published_month_is_read_back_with_its_report(lake: LocalLake) -> None:
    trips = publish_generated_month(lake, rows=50, dirty=3)
    assert ParquetPartition.find(lake, CLEAN) == ParquetPartition.get(lake, CLEAN) == trips
    assert (trips.rows, trips.report.clean.rows, trips.report.rows_quarantined) == (50, 50, 3)
    assert trips.bytes == Path(trips.uri).stat().st_size
    assert len(trips.to_pandas()) == 50
    assert trips.to_pandas(10)["source_row"].tolist() == list(range(1, 11))


def test_a_month_without_rows_has_columns_and_types(lake: LocalLake) -> None:
    trips = publish_generated_month(lake, rows=0)
    assert trips.rows == 0
    assert list(trips.to_pandas(10).columns) == list(trips.to_pandas().columns)
    assert str(trips.to_pandas(10)["vendor_id"].dtype) == "int64[pyarrow]"


def test_a_staged_file_reports_its_rows_and_bytes(tmp_path: Path) -> None:
    cleaned = clean_generated_month(tmp_path, rows=20, dirty=2)
    clean, quarantine = (StagedParquet(p, cleaned.report, None) for p in (cleaned.clean, cleaned.quarantine))
    assert (clean.rows, quarantine.rows) == (20, 2)
    assert clean.bytes == cleaned.clean.stat().st_size
    assert quarantine.to_pandas(1)["source_row"].tolist() == [21]


def test_the_error_for_a_missing_month_names_it_and_the_remedy(lake: LocalLake) -> None:
    assert ParquetPartition.find(lake, CLEAN) is None
    with pytest.raises(LakeObjectMissingError, match=f"{CLEAN}.parquet does not exist. Materialize the clean asset"):
        ParquetPartition.get(lake, CLEAN)


def test_a_handle_to_a_deleted_month_has_no_bytes(lake: LocalLake) -> None:
    trips = publish_generated_month(lake)
    lake.delete(trips.key)
    assert trips.bytes == 0
    with pytest.raises(LakeObjectMissingError), trips.as_local_file():
        pass


FOOTER_LENGTH = 100
INVALID_FILES = {
    "nothing": b"",
    "garbage": b"x" * 1000,
    "four bytes": b"PAR1",
    "a footer of zeros": b"PAR1" + bytes(FOOTER_LENGTH) + struct.pack("<I", FOOTER_LENGTH) + b"PAR1",
    "a footer of ones": b"PAR1" + b"\xff" * FOOTER_LENGTH + struct.pack("<I", FOOTER_LENGTH) + b"PAR1",
    "no footer": b"PAR1" + bytes(FOOTER_LENGTH) + struct.pack("<I", 0) + b"PAR1",
    "a footer longer than the file": b"PAR1" + bytes(FOOTER_LENGTH) + struct.pack("<I", 2**32 - 1) + b"PAR1",
    "an encrypted file": b"PARE" + bytes(FOOTER_LENGTH) + struct.pack("<I", FOOTER_LENGTH) + b"PARE",
    "truncated": parquet()[:-20],
    "Parquet of another program": parquet(),
    "Parquet of another program with metadata": parquet({b"pandas": b"{}"}),
    "a report that is not JSON": parquet({CleaningReport.FOOTER_KEY: b"no JSON"}),
    "a report of another version": parquet({CleaningReport.FOOTER_KEY: b'{"service": "green", "schema_version": 0}'}),
}


@pytest.mark.parametrize("name", INVALID_FILES)
def test_an_invalid_parquet_file_is_not_found_and_getting_it_raises_a_one_line_error(
    lake: LocalLake, name: str
) -> None:
    put_clean_object(lake, INVALID_FILES[name])
    assert ParquetPartition.find(lake, CLEAN) is None
    with pytest.raises(LakeObjectDamagedError) as error:
        ParquetPartition.get(lake, CLEAN)
    assert f"{CLEAN}.parquet" in error.value.problem
    assert "Materialize" in error.value.remedy
    assert "\n" not in str(error.value)


def test_damage_to_a_footer_never_raises_an_unexpected_error(lake: LocalLake) -> None:
    whole = Path(publish_generated_month(lake).uri).read_bytes()
    (length,) = struct.unpack("<I", whole[-8:-4])
    generator = random.Random(1)  # noqa: S311  (the same every time)
    not_found = 0
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(5):
            damaged[-8 - generator.randrange(1, length)] = generator.randrange(256)
        put_clean_object(lake, bytes(damaged))
        not_found += ParquetPartition.find(lake, CLEAN) is None
    assert not_found > 10, "hardly any damage was detected: nothing was tested"


def test_handles_contain_no_rows(lake: LocalLake) -> None:
    trips = publish_generated_month(lake, rows=50)
    assert {field.name for field in dataclasses.fields(trips)} == {"lake", "key", "version", "report", "rows"}
    assert len(trips.to_pandas()) == 50


def test_a_handle_never_reads_a_newer_version(lake: LocalLake) -> None:
    trips = publish_generated_month(lake, rows=50)
    publish_generated_month(lake, rows=20, seed=1)
    for read in (trips.to_pandas, lambda: trips.to_pandas(10), lambda: trips.control_totals(GREEN)):
        with pytest.raises(LakeConflictError, match=trips.key):
            read()


# --- two runs at once -------------------------------------------------------------------------------------------------


def test_an_older_run_does_not_overwrite_the_file_of_a_newer_run(lake: LocalLake) -> None:
    publish(lake, OLD)
    versions = RawFile.current_versions(lake, PREFIX)
    new = publish(lake, NEW)
    with lake.staging() as folder, pytest.raises(LakeConflictError, match=PREFIX):
        RawFile.publish(
            lake, PREFIX, StagedRawFile(write_download(b"header\nolder\n", folder), versions), run_id="older"
        )
    assert RawFile.find(lake, PREFIX) == new
    assert content(new) == NEW


def test_two_runs_that_downloaded_the_same_file_both_succeed(lake: LocalLake) -> None:
    versions = RawFile.current_versions(lake, PREFIX)
    first = publish(lake, NEW, etag='"1"')
    with lake.staging() as folder:
        staged = StagedRawFile(write_download(NEW, folder, extension=CSV_GZ, etag='"2"'), versions)
        assert RawFile.publish(lake, PREFIX, staged, run_id="other") == first


def test_two_runs_that_cleaned_the_same_data_both_succeed_and_one_with_other_data_fails(
    lake: LocalLake, tmp_path: Path
) -> None:
    first = publish_generated_month(lake, rows=50)
    for rows, conflicts in ((50, False), (40, True)):
        (tmp_path / str(rows)).mkdir()
        cleaned = clean_generated_month(tmp_path / str(rows), rows=rows)
        # The same data in other bytes, as another version of pyarrow would write them.
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(cleaned.clean), cleaned.clean, compression="none")
        staged = StagedParquet(cleaned.clean, cleaned.report, replaces=None)
        if conflicts:
            with pytest.raises(LakeConflictError, match=CLEAN):
                ParquetPartition.publish(lake, CLEAN, staged, run_id="other")
        else:
            assert ParquetPartition.publish(lake, CLEAN, staged, run_id="other") == first
        assert ParquetPartition.get(lake, CLEAN) == first


# --- helpers of these and other tests ---------------------------------------------------------------------------------


def test_generated_months_depend_only_on_the_seed(tmp_path: Path) -> None:
    contents: list[bytes] = []
    for number, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        contents.append(clean_generated_month(folder, rows=30, dirty=2, seed=seed).clean.read_bytes())
    assert contents[0] == contents[1] != contents[2]
    assert len(list(csv_lines(MONTH, 3, dirty=2))) == 6


def test_a_downloaded_file_has_the_record_of_its_content(tmp_path: Path) -> None:
    file: DownloadedFile = write_download(OLD, tmp_path)
    assert (file.record.bytes, file.record.rows, file.path.read_bytes()) == (len(OLD), 1, OLD)
