"""Whatever a file holds: one clear error, or every row on one side with the values that the file says.

Real files are spoilt by hypothesis, seeded. Invented files are in `unit/tlc/cleaning/test_clean_properties.py`, what people
really got instead of a file in `test_broken_files.py`, Parquet that lies in `test_hostile_parquet.py`.
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
from taxi_assets_tests.faults.bad_data import SPOILINGS, Spoiling, lines_of, spoil, take_in, try_csv
from taxi_assets_tests.faults.conftest import LONG_SECONDS
from taxi_assets_tests.faults.subprocess_runner import Solitary, forget_peak, peak_megabytes
from taxi_assets_tests.trip_files import REAL, source_record
from taxi_assets_tests.trips import MONTH, csv_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REAL_STARTS = sorted((REAL / "first100").glob("*.csv"))
INPUTS_A_ROUND = 300


@pytest.mark.fuzz
@pytest.mark.timeout(2 * LONG_SECONDS)
def test_a_spoilt_real_file_is_kept_row_by_row_or_refused_by_name(
    data: Path, tmp_path: Path, fuzz_seconds: int, record_property: Callable[[str, object], None]
) -> None:
    assert len(REAL_STARTS) == len(list((data / "first100").iterdir()))
    contents = {path: path.read_bytes() for path in REAL_STARTS}
    outcomes: Counter[str] = Counter()

    def check(path: Path, spoilings: Sequence[Spoiling]) -> None:
        spoilt = tmp_path / path.name
        spoilt.write_bytes(spoil(contents[path], spoilings))
        outcomes[try_csv(spoilt, tmp_path)] += 1

    ends = time.monotonic() + fuzz_seconds
    for number in itertools.count():
        limits = settings(
            max_examples=INPUTS_A_ROUND,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # what fails is small as it is
        )
        files = st.sampled_from(REAL_STARTS)
        limits(seed(number)(given(files, st.lists(SPOILINGS, min_size=1, max_size=6))(check)))()
        if time.monotonic() >= ends:
            break

    # Some of each, or nothing was tried.
    assert outcomes["kept"] > 0.3 * outcomes.total(), outcomes
    assert {"InvalidFileError", "ColumnMismatchError"} <= set(outcomes), outcomes
    record_property("bad inputs", outcomes.total())
    record_property("rows lost", 0)
    record_property("rows doubled", 0)
    record_property("hangs", 0)


# --- one by one -------------------------------------------------------------------------------------------------------

GREEN_2013 = REAL / "months" / "green_tripdata_2013-08.csv"


def month_of(size: int) -> bytes:
    """A real month, over and over, as a CSV of so many bytes; the last line may be cut."""
    header, rows = GREEN_2013.read_bytes().split(b"\n", 1)
    rows = rows.lstrip()
    return (header + b"\n" + rows * (size // len(rows) + 1))[:size].rpartition(b"\n")[0] + b"\n"


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("put", [b'"', b"\r\n", b"\xff"], ids=repr)
def test_what_stands_on_both_sides_of_where_a_block_may_end(tmp_path: Path, put: bytes) -> None:
    content = bytearray(month_of((2 << 20) + 100_000))
    ends = range(1 << 16, len(content), 1 << 16)
    for number, end in enumerate(ends):
        # Before it, across it, behind it; a block is most likely to end at a power of two, so there in two ways.
        for start in (end - len(put) * (number % 3) // 2, *([end - len(put) // 2 - 1] if number % 16 == 15 else ())):
            content[start : start + len(put)] = put
    path = tmp_path / GREEN_2013.name
    path.write_bytes(content)
    assert try_csv(path, tmp_path) == "kept"


@pytest.mark.usefixtures("data")
def test_ten_thousand_columns(tmp_path: Path) -> None:
    header, *rows = [line.encode() for line in lines_of(GREEN_2013.read_bytes())[:50]]
    # Rows of this era have two fields that the header does not name: they come last.
    header += b"," + b",".join(b"new_%d" % number for number in range(10_000))
    path = tmp_path / GREEN_2013.name
    path.write_bytes(b"\n".join([header, *(row + b",7" * 9_998 for row in rows)]) + b"\n")
    assert try_csv(path, tmp_path) == "kept"


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
@pytest.mark.parametrize("where", ["header", "row"])
def test_a_line_of_200_megabytes_is_refused_in_little_memory(tmp_path: Path, where: str, ending: str) -> None:
    size = 200 << 20
    path = tmp_path / f"green_tripdata_2013-08.{ending}"
    pack = partial(gzip.compress, compresslevel=1, mtime=0) if ending == "csv.gz" else bytes
    noise = pack(np.random.default_rng(1).bytes(1 << 16).translate(bytes(33 + byte % 90 for byte in range(256))))
    with path.open("wb") as file:
        file.write(pack(b"" if where == "header" else GREEN_2013.read_bytes()[:5000]))
        for _ in range(0, size, 1 << 16):
            file.write(noise)
    service, month = "green", Month(2013, 8)
    record = source_record(path, rows=1)
    output_dir = tmp_path / "into"
    output_dir.mkdir()
    before = forget_peak()
    with pytest.raises(InvalidFileError, match="longer than 1,048,576 bytes"):
        take_in(path, output_dir)
    # Whoever gets past that, as from a lake that others write to, does not get further.
    with pytest.raises((InvalidFileError, ColumnMismatchError)):
        clean_month(path, record, SERVICES[service], month, SERVICES[service].rules, output_dir)
    assert peak_megabytes() - before < 100


def clean_in_little_memory(path: str) -> str:
    """In the other process: how many rows are clean, and how many are not."""
    with tempfile.TemporaryDirectory() as folder:
        report = take_in(Path(path), Path(folder)).report
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
    with Solitary(clean_in_little_memory, deadline=50, megabytes=550) as process:
        assert process.try_(str(path)) == f"{many} and {many - 1}"
