"""Corrupted files: one clear error, or every row is clean or quarantined with the values in the file.

Hypothesis corrupts real files, with fixed seeds. Generated files are in `unit/tlc/cleaning/test_clean_properties.py`,
real broken downloads in `test_broken_files.py`, hostile Parquet in `test_hostile_parquet.py`.
"""

from __future__ import annotations

import gzip
import itertools
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from taxi_assets.errors import ColumnMismatchError, InvalidFileError
from taxi_assets.tlc.cleaning.clean_month import clean_month
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.faults.bad_data import (
    CORRUPTIONS,
    Corruption,
    clean_corrupt_csv,
    corrupt,
    fetch_and_clean,
    split_lines,
)
from taxi_assets_tests.faults.conftest import LONG_SECONDS
from taxi_assets_tests.faults.subprocess_runner import IsolatedWorker, peak_memory_megabytes, reset_peak_memory
from taxi_assets_tests.trip_files import REAL, source_record
from taxi_assets_tests.trips import MONTH, csv_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REAL_STARTS = sorted((REAL / "first100").glob("*.csv"))
INPUTS_PER_ROUND = 300


@pytest.mark.fuzz
@pytest.mark.timeout(2 * LONG_SECONDS)
def test_a_corrupted_real_file_is_kept_row_by_row_or_refused(
    data: Path, tmp_path: Path, fuzz_seconds: int, record_property: Callable[[str, object], None]
) -> None:
    assert len(REAL_STARTS) == len(list((data / "first100").iterdir()))
    contents = {path: path.read_bytes() for path in REAL_STARTS}
    outcomes: Counter[str] = Counter()

    def check(path: Path, corruptions: Sequence[Corruption]) -> None:
        corrupted = tmp_path / path.name
        corrupted.write_bytes(corrupt(contents[path], corruptions))
        outcomes[clean_corrupt_csv(corrupted, tmp_path)] += 1

    ends = time.monotonic() + fuzz_seconds
    for number in itertools.count():
        limits = settings(
            max_examples=INPUTS_PER_ROUND,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # no shrinking: the inputs are small already
        )
        files = st.sampled_from(REAL_STARTS)
        limits(seed(number)(given(files, st.lists(CORRUPTIONS, min_size=1, max_size=6))(check)))()
        if time.monotonic() >= ends:
            break

    # Without each of these outcomes, the test has tried too little.
    assert outcomes["kept"] > 0.3 * outcomes.total(), outcomes
    assert {"InvalidFileError", "ColumnMismatchError"} <= set(outcomes), outcomes
    record_property("bad inputs", outcomes.total())
    record_property("rows lost", 0)
    record_property("rows duplicated", 0)
    record_property("hangs", 0)


# --- single cases -----------------------------------------------------------------------------------------------------

GREEN_2013 = REAL / "months" / "green_tripdata_2013-08.csv"


def month_of(size: int) -> bytes:
    """Return a CSV of at most `size` bytes that repeats the rows of a real month."""
    header, rows = GREEN_2013.read_bytes().split(b"\n", 1)
    rows = rows.lstrip()
    return (header + b"\n" + rows * (size // len(rows) + 1))[:size].rpartition(b"\n")[0] + b"\n"


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("inserted", [b'"', b"\r\n", b"\xff"], ids=repr)
def test_special_bytes_around_the_ends_of_blocks_are_kept(tmp_path: Path, inserted: bytes) -> None:
    content = bytearray(month_of((2 << 20) + 100_000))
    ends = range(1 << 16, len(content), 1 << 16)
    for number, end in enumerate(ends):
        # Before, across and after the end. A block most likely ends at a power of two, so two variants there.
        for start in (
            end - len(inserted) * (number % 3) // 2,
            *([end - len(inserted) // 2 - 1] if number % 16 == 15 else ()),
        ):
            content[start : start + len(inserted)] = inserted
    path = tmp_path / GREEN_2013.name
    path.write_bytes(content)
    assert clean_corrupt_csv(path, tmp_path) == "kept"


@pytest.mark.usefixtures("data")
def test_a_file_with_ten_thousand_columns_is_kept(tmp_path: Path) -> None:
    header, *rows = [line.encode() for line in split_lines(GREEN_2013.read_bytes())[:50]]
    # Rows of this era have two extra fields at the end, which the header does not name.
    header += b"," + b",".join(b"new_%d" % number for number in range(10_000))
    path = tmp_path / GREEN_2013.name
    path.write_bytes(b"\n".join([header, *(row + b",7" * 9_998 for row in rows)]) + b"\n")
    assert clean_corrupt_csv(path, tmp_path) == "kept"


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("extension", ["csv", "csv.gz"])
@pytest.mark.parametrize("where", ["header", "row"])
def test_a_line_of_200_megabytes_is_refused_in_little_memory(tmp_path: Path, where: str, extension: str) -> None:
    size = 200 << 20
    path = tmp_path / f"green_tripdata_2013-08.{extension}"
    pack = partial(gzip.compress, compresslevel=1, mtime=0) if extension == "csv.gz" else bytes
    noise = pack(np.random.default_rng(1).bytes(1 << 16).translate(bytes(33 + byte % 90 for byte in range(256))))
    with path.open("wb") as file:
        file.write(pack(b"" if where == "header" else GREEN_2013.read_bytes()[:5000]))
        for _ in range(0, size, 1 << 16):
            file.write(noise)
    service, month = "green", Month(2013, 8)
    record = source_record(path, rows=1)
    output_dir = tmp_path / "output"
    output_dir.mkdir()
    before = reset_peak_memory()
    with pytest.raises(InvalidFileError, match="longer than 1,048,576 bytes"):
        fetch_and_clean(path, output_dir)
    # A file that bypasses validation, for example in a lake that others write to, is refused by cleaning too.
    with pytest.raises((InvalidFileError, ColumnMismatchError)):
        clean_month(path, record, SERVICES[service], month, SERVICES[service].rules, output_dir)
    assert peak_memory_megabytes() - before < 100


def clean_in_little_memory(path: str) -> str:
    """Return the numbers of clean and quarantined rows. Runs in the worker process."""
    with tempfile.TemporaryDirectory() as folder:
        report = fetch_and_clean(Path(path), Path(folder)).report
    return f"{report.clean.rows} and {report.rows_quarantined}"


def test_many_lines_of_a_megabyte_are_kept_in_little_memory(tmp_path: Path) -> None:
    header, row, *_ = (line.encode() for line in csv_lines(MONTH, 1))
    flag = header.decode().split(",").index("store_and_fwd_flag")
    fields = row.split(b",")
    many, padding = 250, b"x" * ((1 << 20) - len(row) - 10)
    path = tmp_path / f"green_tripdata_{MONTH}.csv"
    with path.open("wb") as file:
        file.write(b"\n".join([header, *[row] * many, b""]))
        for number in range(many - 1):
            note = b"%06d" % number + padding
            ragged, whole = [*fields, note], [*fields[:flag], note, *fields[flag + 1 :]]
            file.write(b",".join(ragged if number % 2 else whole) + b"\n")
    with IsolatedWorker(clean_in_little_memory, timeout_seconds=800, max_megabytes=350) as process:
        assert process.call(str(path)) == f"{many} and {many - 1}"
