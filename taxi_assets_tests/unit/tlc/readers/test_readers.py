"""Readers: every line is one row with the right number and its exact text, even if it is malformed."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_assets.errors import ColumnMismatchError, InvalidFileError
from taxi_assets.tlc.file_format import TLC_DIALECT, FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.readers import csv, csv_blocks
from taxi_assets.tlc.readers.csv import CsvReader
from taxi_assets.tlc.readers.csv_blocks import BLOCK_BYTES, CsvBlockReader
from taxi_assets.tlc.readers.open_trips import FirstRows, first_rows, open_trips
from taxi_assets.tlc.schema import Column, ColumnType, Service
from taxi_assets_tests.trip_files import write_csv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from taxi_assets.tlc.readers.base_reader import TripReader

TWO = Service(
    "two",
    "Two",
    "two columns of text",
    Month(2020, 1),
    (Column("a", ColumnType.TEXT, "First.", required=True), Column("b", ColumnType.TEXT, "Second.")),
    (),
)
NUMBERS = replace(
    TWO, columns=(Column("a", ColumnType.MONEY, "First.", required=True), Column("b", ColumnType.INTEGER, "Second."))
)
OCTOBER = Month(2020, 10)
Read = tuple[dict[int, str], dict[int, tuple[str, list[str]]], set[int]]


def read_all(reader: Any) -> Read:
    """Return regular rows by number, malformed rows with their reasons by number, and the numbers of invalid UTF-8."""
    regular: dict[int, str] = {}
    malformed_rows: dict[int, tuple[str, list[str]]] = {}
    not_utf8: set[int] = set()
    for batch in reader.batches():
        numbers = batch.source_rows.tolist()
        assert all(len(array) == len(numbers) for array in batch.arrays)
        together = [*numbers, *(malformed_row.source_row for malformed_row in batch.malformed_rows)]
        assert not set(together) & {*regular, *malformed_rows}
        assert min(together, default=np.inf) > max([0, *regular, *malformed_rows]), "batches are in the file's order"
        originals = batch.original_texts(pa.array(range(len(numbers)), pa.int64())).to_pylist()
        regular.update(zip(numbers, originals, strict=True))
        malformed_rows.update(
            {
                malformed_row.source_row: (malformed_row.text, list(malformed_row.reasons))
                for malformed_row in batch.malformed_rows
            }
        )
        not_utf8 |= batch.not_utf8
    return regular, malformed_rows, not_utf8


def open_csv(content: bytes) -> CsvReader:
    return CsvReader(CsvBlockReader(io.BytesIO(content), label="two 2020-10"), TWO, label="two 2020-10", month=OCTOBER)


def open_month(path: Path, format_: FileFormat) -> AbstractContextManager[TripReader]:
    return open_trips(path, format_, TWO, label="two 2020-10", month=OCTOBER)


def read_csv(content: bytes) -> Read:
    return read_all(open_csv(content))


def expected(content: str, width: int = 2) -> tuple[dict[int, str], dict[int, tuple[str, list[str]]]]:
    """Return regular and malformed rows by a plain split: at line ends, then at commas."""
    rows = [line for line in content.replace("\r\n", "\n").split("\n") if line][1:]
    numbered = dict(enumerate(rows, 1))
    return (
        {number: row for number, row in numbered.items() if row.count(",") == width - 1},
        {n: (row, ["wrong_field_count"]) for n, row in numbered.items() if row.count(",") != width - 1},
    )


@pytest.fixture(params=[13, 16, 17, 31, 64, BLOCK_BYTES])
def _block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    set_block(monkeypatch, request.param)


def set_block(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", size)


# --- CSV: regular and malformed rows ---------------------------------------------------------------------------------

SHAPES = {
    "all regular": "a,b\n1,2\n3,4\n",
    "no line end": "a,b\n1,2\n3,4",
    "blank lines": "a,b\n\r\n\n1,2\r\n\n\n\n3,4\n\r\n\r\n",
    "too few fields at the start": "a,b\n1,2\n" + "x\n" + "3,4\n5,6\n7,8\n",
    "too many fields at the end": "a,b\n1,2\n3,4\n5,6\n7,8,9\n",
    "too few fields at the end, no line end": "a,b\n1,2\n3,4\n5,6\n7",
    "malformed rows in between, CRLF": "a,b\r\n1,2\r\n3\r\n4,5\r\n6,7,8\r\n\r\n9,10\r\n",
    "long runs": "a,b\n" + "1,2\n" * 25 + "1,2,3\n" * 20 + "1,2\n" * 45 + "x\n" * 19 + "3,4\n",
    "every other row": "a,b\n1,2\n" + "1,2\nx\n" * 30 + "1,2\n1,2\n",
    "stray quotes": 'a,b\n"1,2\n3,"4\n5,6"\n"7","8"\n9,""\n"\n',
    "empty and blank fields": "a,b\n,\n , \n1,\n,2\n  \n",
    "line separators of Unicode": "a,b\n1,\x0b\x0c2\n3,\x1c4\n5,\u2028\u00856\n",
    "null bytes": "a,b\n\x00,2\n3,\x004\n",
    "no rows": "a,b\n",
    "only blank lines": "a,b\n\n\r\n\n",
}


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("shape", SHAPES)
def test_every_row_is_read_once_with_its_number_and_text(shape: str) -> None:
    regular, malformed_rows, not_utf8 = read_csv(SHAPES[shape].encode())
    assert (regular, malformed_rows) == expected(SHAPES[shape])
    assert not_utf8 == set()


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from(["1,2", "11,22", ",", "x", "a,b,c", ",,", '"1,2', '3,4"', "", "", "é,€"]), max_size=60),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(12, 80),
)
def test_a_block_may_end_anywhere(rows: list[str], line_end: str, size: int) -> None:
    content = line_end.join(["a,b", *["1,2"] * len(rows), *rows])
    with pytest.MonkeyPatch.context() as patch:
        set_block(patch, size)
        regular, malformed_rows, _ = read_csv(content.encode())
    assert (regular, malformed_rows) == expected(content)


def test_row_numbers_are_right_in_a_file_of_several_megabytes() -> None:
    pick = random.Random(3)  # noqa: S311  (no secret)
    rows = pick.choices(["1,2", "x", "1,2,3", "", f"{'y' * 90},{'z' * 90}"], [50, 1, 1, 1, 20], k=280_000)
    content = "\r\n".join(["a,b", "", *["1,2"] * 1000, *rows])
    assert len(content) > 2 * BLOCK_BYTES
    regular, malformed_rows, _ = read_csv(content.encode())
    assert (regular, malformed_rows) == expected(content)
    assert len(malformed_rows) > 1000


def test_a_run_of_malformed_rows_may_fill_whole_blocks() -> None:
    content = "a,b\n" + "1,2\n" * 2000 + f"1,2,{'x' * 90}\n" * 160_000 + "3,4\n"
    assert len(content) > 3 * BLOCK_BYTES
    regular, malformed_rows, _ = read_csv(content.encode())
    assert list(regular) == [*range(1, 2001), 162_001]
    assert list(malformed_rows) == list(range(2001, 162_001))


def test_too_many_malformed_rows_in_one_block_stop_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "_MAXIMUM_MALFORMED_ROWS", 10)
    regular, malformed_rows, _ = read_csv(b"a,b\n" + b"1,2\n" * 20 + b"x\n" * 10)
    assert (len(regular), len(malformed_rows)) == (20, 10)
    with pytest.raises(pa.ArrowInvalid, match="Expected 2 columns, got 1"):
        read_csv(b"a,b\n" + b"1,2\n" * 20 + b"x\n" * 11)


# --- CSV: header and fields ------------------------------------------------------------------------------------------


def test_fields_that_the_header_does_not_name_are_empty() -> None:
    content = b"b,a\n\n1,2,,\n3,4,,5\n6,7\n8,9,,\n"
    layout = open_csv(content).layout
    assert layout.names == ["b", "a", "", ""]
    assert layout.match.positions == {"b": [0], "a": [1]}
    regular, malformed_rows, _ = read_csv(content)
    assert regular == {1: "1,2,,", 4: "8,9,,"}
    assert malformed_rows == {2: ("3,4,,5", ["wrong_field_count"]), 3: ("6,7", ["wrong_field_count"])}


def test_rows_with_fewer_fields_than_the_header_are_malformed() -> None:
    regular, malformed_rows, _ = read_csv(b"a,b,c\n1,2\n3,4\n5,6,7\n")
    assert regular == {3: "5,6,7"}
    assert set(malformed_rows) == {1, 2}


def test_the_field_count_is_that_of_most_rows_not_of_the_first() -> None:
    regular, malformed_rows, _ = read_csv(b"a,b\n1,2,3,4\n" + b"1,2,\n" * 5)
    assert set(regular) == {2, 3, 4, 5, 6}
    assert set(malformed_rows) == {1}


def test_a_quoted_header_with_quoted_rows_is_read() -> None:
    regular, malformed_rows, _ = read_csv(b'"A","B"\r\n"1","2"\r\n"3","4"\r\n')
    assert regular == {1: '"1","2"', 2: '"3","4"'}
    assert malformed_rows == {}


def test_a_byte_order_mark_does_not_hide_a_column() -> None:
    assert read_csv(b"\xef\xbb\xbfa,b\n1,2\n")[0] == {1: "1,2"}


def test_a_byte_order_mark_at_the_start_of_a_row_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (16, 1 << 16):
        set_block(monkeypatch, size)
        regular, malformed_rows, _ = read_csv(b"a,b\n" + "\ufeff1,2\n".encode() * 3 + "\ufeff\n".encode() + b"3,4\n")
        assert regular == {1: "\ufeff1,2", 2: "\ufeff1,2", 3: "\ufeff1,2", 5: "3,4"}
        assert malformed_rows == {4: ("\ufeff", ["wrong_field_count"])}


# --- CSV: not UTF-8 --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_block")
def test_invalid_utf8_is_found_in_regular_and_malformed_rows() -> None:
    content = b"a,b\n\n1,2\n\xff,2\n\n3\xfe\n4,5,\xe9\n\xc3\xa9,6\n7,\xe2\x82\n1,2\nx\n8,\xff"
    regular, malformed_rows, not_utf8 = read_csv(content)
    assert regular == {1: "1,2", 2: r"\xff,2", 5: "é,6", 6: r"7,\xe2\x82", 7: "1,2", 9: r"8,\xff"}
    both = ["wrong_field_count", "not_utf8"]
    assert malformed_rows == {3: (r"3\xfe", both), 4: (r"4,5,\xe9", both), 8: ("x", ["wrong_field_count"])}
    assert not_utf8 & set(regular) == {2, 6, 9}


def test_a_column_is_parsed_as_numbers_until_its_text_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    set_block(monkeypatch, 16)
    path = io.BytesIO(b"b,a\n" + b"1,2\n" * 3 + b"3,y\n" * 4 + b"5,6\n" * 8)
    reader = CsvReader(CsvBlockReader(path, label=""), NUMBERS, label="", month=OCTOBER)
    found = []
    for batch in reader.batches():
        found.append([str(array.type) for array in batch.arrays])
        if batch.source_rows[0] == 8:
            assert batch.texts is not None
            assert batch.texts.column(0).to_pylist() == ["5"] * 4
    # Before the value y; the block with y; column a stays text; the text of column b was requested too.
    assert found == [["int64", "double"], ["string", "string"], ["int64", "string"], ["string", "string"]]


# --- errors and files ------------------------------------------------------------------------------------------------


def test_a_line_that_is_too_long_raises_invalid_file_error() -> None:
    content = b"a,b\n" + b"1,2\n" * 600_000 + b"x" * (BLOCK_BYTES + 1)
    with pytest.raises(InvalidFileError, match="two 2020-10: the line after data row 600,000 is longer"):
        read_csv(content)


@pytest.mark.parametrize("name", ["month.csv", "month.csv.gz", "month.parquet"])
def test_a_file_with_other_columns_is_rejected_and_closed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table({"x": [1]}), path)
    else:
        write_csv(path, b"x,y\n1,2\n")
    format_ = next(ending for ending in FileFormat if name.endswith(f".{ending}"))
    # If the file were left open, this test would fail, because warnings are errors.
    with (
        pytest.raises(ColumnMismatchError, match="two 2020-10"),
        open_trips(path, format_, TWO, label="two 2020-10", month=OCTOBER),
    ):
        pass


def test_a_file_with_too_long_a_header_is_closed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "month.csv", b"x" * (BLOCK_BYTES + 1))
    with (
        pytest.raises(InvalidFileError, match="longer"),
        open_month(path, FileFormat.CSV),
    ):
        pass


def test_reading_may_stop_in_the_middle(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "month.csv.gz", b"a,b\n" + b"1,2\n" * 1_000_000)

    def first_batch() -> Iterator[int]:
        with open_month(path, FileFormat.CSV_GZ) as reader:
            for batch in reader.batches():
                yield len(batch.source_rows)

    assert next(first_batch()) > 0


# --- Parquet ---------------------------------------------------------------------------------------------------------


def open_table(table: Any, folder: Path, **options: Any) -> Any:
    path = folder / "month.parquet"
    pyarrow.parquet.write_table(table, path, **options)
    return open_month(path, FileFormat.PARQUET)


@pytest.mark.parametrize("row_group", [1_000, 16_384, 50_000])
def test_parquet_rows_are_numbered_through_all_row_groups(tmp_path: Path, row_group: int) -> None:
    table = pa.table({"b": range(40_000), "A": [str(i) for i in range(40_000)]})
    with open_table(table, tmp_path, row_group_size=row_group) as reader:
        assert (reader.layout.names, reader.layout.types) == (["b", "A"], ["int64", "string"])
        assert reader.layout.match.positions == {"b": [0], "a": [1]}
        batches = list(reader.batches())
    assert np.concatenate([batch.source_rows for batch in batches]).tolist() == list(range(1, 40_001))
    assert [value for batch in batches for value in batch.arrays[0].to_pylist()] == list(range(40_000))
    assert not any(batch.malformed_rows or batch.not_utf8 for batch in batches)


def test_a_parquet_row_is_kept_as_json(tmp_path: Path) -> None:
    table = pa.table(
        {
            "a": pa.array(["é", None]),
            "Number": pa.array([1.5, np.nan]),
            "Amount": pa.array(["1.50", None]).cast(pa.decimal128(5, 2)),
            "Late": pa.array([253_402_300_800_000_000, 0], pa.timestamp("us")),
            "Nested": pa.array([{"x": [1]}, None]),
        }
    )
    with open_table(table, tmp_path) as reader:
        batch = next(reader.batches())
        originals = batch.original_texts(pa.array([1, 0])).to_pylist()
    second, first = (json.loads(text, parse_constant=pytest.fail) for text in originals)
    assert first.pop("Late").startswith("10000-01-01")
    assert first == {"a": "é", "Number": 1.5, "Amount": "1.50", "Nested": {"x": [1]}}
    assert second == {"a": None, "Number": "nan", "Amount": None, "Late": "1970-01-01 00:00:00", "Nested": None}


@pytest.mark.parametrize(
    ("unit", "late", "shown"),
    [
        ("us", 253_402_300_800_000_000, "10000-01-01 00:00:00"),
        ("us", 253_402_300_800_250_000, "10000-01-01 00:00:00.250000"),
        ("ms", 253_402_300_800_000, "10000-01-01 00:00:00"),
        ("s", 253_402_300_800, "10000-01-01 00:00:00"),
        ("us", 1_000_000, "1970-01-01 00:00:01"),
        ("ms", 1_500, "1970-01-01 00:00:01.500000"),
    ],
)
def test_the_original_of_a_row_does_not_depend_on_its_neighbors(
    tmp_path: Path, unit: str, late: int, shown: str
) -> None:
    half_a_second = {"us": 500_000, "ms": 500, "s": 1}[unit]
    table = pa.table({"a": ["1", "2"], "b": pa.array([late, half_a_second], pa.timestamp(unit))})
    with open_table(table, tmp_path) as reader:
        batch = next(reader.batches())
        alone = batch.original_texts(pa.array([0])).to_pylist()
        together = batch.original_texts(pa.array([0, 1])).to_pylist()
    assert json.loads(alone[0]) == {"a": "1", "b": shown}
    assert together[0] == alone[0]


def test_numbers_of_an_original_are_as_published(tmp_path: Path) -> None:
    values = [0.0, -0.0, 1e300, -5e-324, 0.1, 2.6299999999999999, np.inf, -np.inf, np.nan, None]
    table = pa.table({"a": pa.array(values, pa.float64()), "b": pa.array(["x"] * len(values))})
    with open_table(table, tmp_path) as reader:
        batch = next(reader.batches())
        originals = batch.original_texts(pa.array(range(len(values)))).to_pylist()
    shown = ["0.0", "-0.0", "1e+300", "-5e-324", "0.1", "2.63", '"inf"', '"-inf"', '"nan"', "null"]
    assert originals == [f'{{"a": {number}, "b": "x"}}' for number in shown]


@pytest.mark.parametrize(("zone", "shown"), [("UTC", "04:36:54+00:00"), ("No/Such_Zone", "04:36:54+00:00")])
@pytest.mark.parametrize("fraction", [0, 500_000])
def test_times_in_a_zone_are_kept_as_published_whatever_the_zone_is(
    tmp_path: Path, zone: str, shown: str, fraction: int
) -> None:
    times = pa.array([1_614_573_414_000_000, fraction, 2**62, None], pa.int64()).cast(pa.timestamp("us", zone))
    with open_table(pa.table({"a": times, "b": ["x"] * 4}), tmp_path) as reader:
        (batch,) = reader.batches()
    originals = [json.loads(text)["a"] for text in batch.original_texts(pa.array(range(4))).to_pylist()]
    assert originals[0] == f"2021-03-01 {shown}"
    assert originals[1] == "1970-01-01 00:00:00" + (".500000" if fraction else "") + "+00:00"
    assert originals[3] is None


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()], ids=str)
def test_repeated_texts_stay_a_dictionary(tmp_path: Path, type_: pa.DataType) -> None:
    table = pa.table({"a": pa.array(["Y", "N", None] * 1_000, type_), "b": range(3_000)})
    with open_table(table, tmp_path) as reader:
        (batch,) = reader.batches()
    assert len(batch.arrays[0].dictionary) == 2
    assert batch.arrays[0].to_pylist() == table["a"].to_pylist()


def test_many_short_texts_are_within_the_limit_of_a_batch(tmp_path: Path) -> None:
    """One long text in a column must not make all of its rows count as long."""
    texts = pa.array(["x" * 2_000, *["y"] * 9_999]).dictionary_encode()
    table = pa.table({f"text_{number}": texts for number in range(20)} | {"a": texts, "b": texts})
    with open_table(table, tmp_path) as reader:
        assert sum(len(batch.source_rows) for batch in reader.batches()) == 10_000


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()], ids=str)
def test_invalid_utf8_in_parquet_is_escaped_and_its_row_is_reported(tmp_path: Path, type_: pa.DataType) -> None:
    binary = pa.large_binary() if type_ == pa.large_string() else pa.binary()
    broken = pa.array([b"fine", b"B\xff\xfe", None, "é".encode()], binary).view(type_)
    with open_table(pa.table({"a": broken, "b": [1, 2, 3, 4]}), tmp_path) as reader:
        (batch,) = reader.batches()
        assert batch.arrays[0].to_pylist() == ["fine", "B\\xff\\xfe", None, "é"]
        assert batch.arrays[1].to_pylist() == [1, 2, 3, 4]
        assert batch.not_utf8 == {2}


@pytest.mark.parametrize(
    "type_", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1), pa.string_view()], ids=str
)
def test_bytes_of_a_known_column_are_text_and_those_of_an_unknown_column_are_not(
    tmp_path: Path, type_: pa.DataType
) -> None:
    is_text = type_ == pa.string_view()
    values = pa.array([b"Y", None, b"N", b"Z" if is_text else b"\xff"]).cast(type_)
    with open_table(pa.table({"a": values, "b": [1, 2, 3, 4], "unknown": values}), tmp_path) as reader:
        (batch,) = reader.batches()
    assert batch.arrays[0].to_pylist() == ["Y", None, "N", "Z" if is_text else "\\xff"]
    assert batch.arrays[2].to_pylist() == (batch.arrays[0] if is_text else values).to_pylist()
    assert batch.not_utf8 == (set() if is_text else {4})
    assert batch.original_texts(pa.array([0])).to_pylist()[0].startswith('{"a": "Y", "b": 1, ')


def test_parquet_without_rows_has_no_batches(tmp_path: Path) -> None:
    with open_table(pa.table({"a": pa.array([], pa.string())}), tmp_path) as reader:
        assert read_all(reader) == ({}, {}, set())


# --- previews --------------------------------------------------------------------------------------------------------


def first_rows_of(path: Path, format_: FileFormat, rows: int) -> FirstRows:
    with path.open("rb") as file:
        return first_rows(file, format_, rows, TLC_DIALECT)


def test_the_first_rows_of_a_csv_are_shown_as_published(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "m.csv.gz", b'a,b\r\n\r\n"1",2,,\r\n3,\x1c4,,\r\nx\r\n5,6,,\r\n')
    names, types, rows = first_rows_of(path, FileFormat.CSV_GZ, 3)
    assert types == ["text"] * 4
    assert names == ["a", "b", "", ""]
    assert rows == [["1", "2", "", ""], ["3", "\x1c4", "", ""], ["x", "", "", ""]]


def test_the_first_rows_of_parquet_are_shown_as_published(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pyarrow.parquet.write_table(pa.table({"A": [1, None, 3], "b": ["x", "y", "z"]}), path)
    assert first_rows_of(path, FileFormat.PARQUET, 2) == (["A", "b"], ["int64", "string"], [(1, "x"), (None, "y")])
    assert first_rows_of(path, FileFormat.PARQUET, 9).rows[-1] == (3, "z")


def test_no_value_makes_the_preview_fail(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    late = pa.array([2**62], pa.timestamp("us"))
    pyarrow.parquet.write_table(pa.table({"a": late, "b": pa.array([b"\xff"]).view(pa.string())}), path)
    ((time, text),) = first_rows_of(path, FileFormat.PARQUET, 3).rows
    assert isinstance(time, str)
    assert text == "\\xff"


def test_a_file_without_rows_has_an_empty_preview(tmp_path: Path) -> None:
    assert first_rows_of(write_csv(tmp_path / "m.csv", b"a,b\n"), FileFormat.CSV, 3) == (["a", "b"], ["text"] * 2, [])
    empty = tmp_path / "m.parquet"
    pyarrow.parquet.write_table(pa.table({"a": pa.array([], pa.string())}), empty)
    assert first_rows_of(empty, FileFormat.PARQUET, 3) == (["a"], ["string"], [])
