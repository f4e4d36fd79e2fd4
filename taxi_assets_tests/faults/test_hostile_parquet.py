"""Parquet that lies: read in a process of its own, where a crash, a hang, or all memory eaten would be seen.

Months of unheard-of types are in `unit/tlc/cleaning/test_clean_properties.py`.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from taxi_assets.errors import InvalidFileError, TaxiAssetsError
from taxi_assets_tests.faults.bad_data import refusal_of, take_in
from taxi_assets_tests.faults.conftest import LONG_SECONDS
from taxi_assets_tests.faults.subprocess_runner import Solitary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "green_tripdata_2023-01.parquet"
ROWS, ROW_GROUP = 4999, 2501
INPUTS_A_ROUND = 150
ALLOWED = {"kept", "InvalidFileError", "ColumnMismatchError", "TooManyQuarantinedError", "ReconciliationError"}
ABSURD = [0, 1, -1, ROW_GROUP - 1, 16_383, 2**31 - 1, 2**31, 2**40, 2**62, -(2**62)]
FOOTER_END = 8
"""The footer's length, and PAR1."""


def take(path: str) -> str:
    """In the other process: "kept" with each row on one side, or the kind of the one error."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = take_in(Path(path), Path(folder))
        except TaxiAssetsError as error:
            return refusal_of(error, Path(path))
        rows = [
            row
            for half in (made.clean, made.quarantine)
            for row in pyarrow.parquet.read_table(half, columns=["source_row"])["source_row"].to_pylist()
        ]
        assert sorted(rows) == list(range(1, len(rows) + 1))
        assert len(rows) == pyarrow.parquet.read_metadata(path).num_rows
    return "kept"


@pytest.fixture(scope="module")
def reader() -> Iterator[Solitary]:
    # For a page that lies about its size pyarrow takes up to 2 GiB, before it sees that there is less.
    with Solitary(take, megabytes=2500) as reader:
        yield reader


@pytest.fixture(scope="module")
def real(data: Path) -> Any:
    return pyarrow.parquet.read_table(data / "months" / NAME).slice(0, ROWS)


@pytest.fixture(scope="module")
def whole(real: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The start of a real month as Parquet, in two row groups of many pages; its numbers of rows are unmistakable."""
    path = tmp_path_factory.mktemp("whole") / NAME
    pyarrow.parquet.write_table(real, path, row_group_size=ROW_GROUP, data_page_size=2000)
    return path.read_bytes()


def footer_length(content: bytes) -> int:
    return int.from_bytes(content[-FOOTER_END:-4], "little")


def varint(number: int) -> bytes:
    """A whole number as Thrift's compact protocol writes it."""
    rest = ((number << 1) ^ (number >> 63)) & (2**64 - 1)
    written = bytearray()
    while rest > 127:
        written.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*written, rest])


def with_footer(content: bytes, footer: bytes) -> bytes:
    rows = content[: -FOOTER_END - footer_length(content)]
    return rows + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def test_what_lies_here_is_taken_in_when_it_does_not(reader: Solitary, whole: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(whole)
    assert reader.try_(str(tmp_path / NAME)) == "kept"


# --- bytes ------------------------------------------------------------------------------------------------------------


def spoilt(whole: bytes, seed: int) -> bytes:
    """A few bytes changed, in the pages or in the footer."""
    chance = np.random.default_rng(seed)
    content = bytearray(whole)
    pages_end = len(whole) - FOOTER_END - footer_length(whole)
    low, high = [(4, pages_end), (pages_end, len(whole))][seed % 2]
    for _ in range([1, 1, 2, 4, 8][chance.integers(5)]):
        place = int(chance.integers(low, high))
        flipped = bytes([content[place] ^ (1 << int(chance.integers(8)))])
        puts = [flipped, flipped, b"\0", b"\xff", b"\x7f", b"\0" * 4, b"\xff" * 4, *map(varint, ABSURD)]
        put = puts[chance.integers(len(puts))]
        content[place : place + len(put)] = put
    return bytes(content[: len(whole)])


@pytest.mark.fuzz
@pytest.mark.timeout(2 * LONG_SECONDS)
def test_parquet_with_spoilt_bytes_is_kept_or_refused_by_name(
    reader: Solitary, whole: bytes, tmp_path: Path, fuzz_seconds: int, record_property: Callable[[str, object], None]
) -> None:
    outcomes: Counter[str] = Counter()
    ends = time.monotonic() + fuzz_seconds
    for number in itertools.count():
        content = spoilt(whole, number)
        (tmp_path / NAME).write_bytes(content)
        outcome = reader.try_(str(tmp_path / NAME))
        assert outcome in ALLOWED, (number, outcome)
        outcomes[outcome] += 1
        if outcomes.total() >= INPUTS_A_ROUND and time.monotonic() >= ends:
            break
    assert {"kept", "InvalidFileError"} <= set(outcomes), outcomes
    record_property("bad inputs", outcomes.total())
    record_property("reader crashes", 0)
    record_property("hangs", 0)


def test_a_column_that_contradicts_the_schema_is_refused_where_pyarrow_would_end_the_process(
    reader: Solitary, whole: bytes, tmp_path: Path
) -> None:
    """By its size statistics; the 24,096th of half an hour's spoilt files was the first that did."""
    path = tmp_path / NAME
    path.write_bytes(spoilt(whole, 24_095))
    assert reader.try_(str(path)) == "InvalidFileError"
    with pytest.raises(InvalidFileError, match=r"cannot be read \(row group 1: Definition level histogram size"):
        take_in(path, tmp_path)


def test_rows_without_columns_are_refused(reader: Solitary, tmp_path: Path) -> None:
    """As many as it likes: pyarrow keeps a place for each batch of them."""
    path = tmp_path / NAME
    pyarrow.parquet.write_table(pa.table({}), path)
    content = path.read_bytes()
    # Rows of the file; bytes, then rows of its one group.
    start, bytes_, rows, end = content[-FOOTER_END - footer_length(content) : -FOOTER_END].split(b"\x16\0", 3)
    many = b"\x16" + varint(2**62)
    path.write_bytes(with_footer(content, start + many + bytes_ + b"\x16\0" + rows + many + end))
    assert pyarrow.parquet.read_metadata(path).num_rows == 2**62
    assert reader.try_(str(path)) == "InvalidFileError"
    with pytest.raises(InvalidFileError, match="it is Parquet without columns"):
        take_in(path, tmp_path)


def test_fixed_lengths_are_no_reason_to_take_memory(real: Any, tmp_path: Path) -> None:
    """A first column of bytes of a fixed length, nearly all null: a batch of many rows would reserve all of them."""
    path = tmp_path / NAME
    rows = pa.concat_tables([real] * (1 + 65_536 // len(real))).slice(0, 65_536)
    wide = pa.nulls(len(rows), pa.binary(20_000))
    pyarrow.parquet.write_table(rows.add_column(0, "x", wide), path)
    with Solitary(take, megabytes=700) as reader:
        assert reader.try_(str(path)) == "kept"


# --- metadata ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["rows", "rows of a group", "bytes of a group", "bytes of a column", "place"])
def test_a_number_in_the_footer_that_is_absurd(
    reader: Solitary, whole: bytes, tmp_path: Path, number: str, record_property: Callable[[str, object], None]
) -> None:
    group = pyarrow.parquet.read_metadata(pa.BufferReader(whole)).row_group(0)
    column = group.column(2)
    message = varint(
        {
            "rows": ROWS, "rows of a group": ROW_GROUP, "bytes of a group": group.total_byte_size,
            "bytes of a column": column.total_compressed_size, "place": column.data_page_offset,
        }[number]
    )  # fmt: skip
    footer = whole[-FOOTER_END - footer_length(whole) : -FOOTER_END]
    places = [place for place in range(len(footer)) if footer.startswith(message, place)]
    assert places
    tried = [(place, absurd) for place in places[:4] for absurd in ABSURD]
    for place, absurd in tried:
        lying = footer[:place] + varint(absurd) + footer[place + len(message) :]
        (tmp_path / NAME).write_bytes(with_footer(whole, lying))
        assert reader.try_(str(tmp_path / NAME)) in ALLOWED, (place, absurd)
    record_property("bad inputs", len(tried))


@pytest.mark.parametrize("rows", [ROW_GROUP + 1, 2 * ROW_GROUP, 10**5])
def test_more_rows_than_there_are_said_everywhere_alike(
    reader: Solitary, whole: bytes, tmp_path: Path, rows: int
) -> None:
    footer = whole[-FOOTER_END - footer_length(whole) : -FOOTER_END]
    lying = footer.replace(varint(ROWS), varint(rows + ROWS - ROW_GROUP)).replace(varint(ROW_GROUP), varint(rows))
    (tmp_path / NAME).write_bytes(with_footer(whole, lying))
    # Only reading it all tells.
    assert reader.try_(str(tmp_path / NAME)) == "ReconciliationError"


def test_millions_of_rows_in_some_kilobytes_are_refused_before_they_are_read(
    reader: Solitary, real: Any, tmp_path: Path
) -> None:
    rows = 3_000_000
    one = pa.array(np.zeros(rows, np.int8))
    columns = {
        name: pa.DictionaryArray.from_arrays(one, real[name].combine_chunks()[:1])
        for name in real.column_names
        if real[name].null_count == 0
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / NAME, row_group_size=rows)
    assert reader.try_(str(tmp_path / NAME)) == "InvalidFileError"
    before = reader.cpu_seconds()
    assert reader.try_(str(tmp_path / NAME)) == "InvalidFileError"
    assert reader.cpu_seconds() - before < 5


LONG = "".join(map(chr, np.random.default_rng(5).integers(32, 127, 1 << 20)))
"""A text of a megabyte that nothing makes shorter."""


def repeated(value: Any, rows: int) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))


def many_texts(rows: int) -> Any:
    """Each of a megabyte, and another one."""
    return pa.array([np.random.default_rng(number).bytes(8000).hex() + "x" * (1 << 20) for number in range(rows)])


BOMBS: dict[str, tuple[Callable[[int], Any], dict[str, Any]]] = {
    "in a dictionary": (lambda rows: repeated(LONG, rows), {}),
    "in a dictionary, as bytes": (lambda rows: repeated(LONG.encode(), rows), {}),
    "in a dictionary, in lists": (
        lambda rows: pa.ListArray.from_arrays(pa.array(np.arange(rows + 1), pa.int32()), repeated(LONG, rows)),
        {},
    ),
    "in a dictionary, in structures": (lambda rows: pa.StructArray.from_arrays([repeated(LONG, rows)], ["x"]), {}),
    "said to be as the one before": (
        lambda rows: repeated(LONG, min(rows, 300)).dictionary_decode(),
        {"use_dictionary": False, "column_encoding": {"x": "DELTA_BYTE_ARRAY"}},
    ),
    "one by one": (lambda _: many_texts(280), {"use_dictionary": False, "compression": "zstd"}),
    "a list of many": (lambda _: pa.array([np.zeros(10_000_000, np.int8)]), {}),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_unknown_column_that_stands_for_gigabytes_is_refused_in_little_memory(
    real: Any, tmp_path: Path, bomb: str
) -> None:
    make, how = BOMBS[bomb]
    column = make(16_000)
    rows = pa.concat_tables([real] * 4).slice(0, len(column))
    path = tmp_path / NAME
    pyarrow.parquet.write_table(rows.append_column("x", column), path, dictionary_pagesize_limit=1 << 30, **how)
    assert path.stat().st_size < 4_000_000
    with Solitary(take, megabytes=400) as reader:
        assert reader.try_(str(path)) == "InvalidFileError"


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_texts_packed_as_deltas_are_refused_with_what_to_do(real: Any, tmp_path: Path, encoding: str) -> None:
    path, name = tmp_path / NAME, "store_and_fwd_flag"
    pyarrow.parquet.write_table(real, path, use_dictionary=False, column_encoding={name: encoding})
    with pytest.raises(InvalidFileError, match=rf"strings are encoded as {encoding} \(column {name}\)\. Rewrite it"):
        take_in(path, tmp_path)


def test_values_of_a_megabyte_that_are_few_are_kept_in_little_memory(real: Any, tmp_path: Path) -> None:
    """Also where their type says how long they are."""
    column = repeated(LONG.encode(), 60).cast(pa.binary(1 << 20))
    path = tmp_path / NAME
    pyarrow.parquet.write_table(
        real.slice(0, 60).append_column("x", repeated(LONG, 60)).append_column("y", column), path
    )
    with Solitary(take, megabytes=600) as reader:
        assert reader.try_(str(path)) == "kept"


def nested(real: Any, depth: int) -> Any:
    type_ = pa.int64()
    for _ in range(depth):
        type_ = pa.list_(type_)
    return real.append_column("deep", pa.nulls(len(real), type_))


SHAPES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "10,000 columns more": (
        lambda real: pa.table(
            {**dict(zip(real.column_names, real.columns, strict=True)), **{f"x{i}": real[0] for i in range(10_000)}}
        ),
        "kept",
    ),
    "a required column twice": (lambda real: real.append_column("VendorID", real[0]), "ColumnMismatchError"),
    "an unknown column twice": (lambda real: real.append_column("x", real[0]).append_column("x", real[0]), "kept"),
    "an unknown column of lists in lists in lists": (lambda real: nested(real, 20), "kept"),
    "an unknown column 300 lists deep": (lambda real: nested(real, 300), "InvalidFileError"),
    "an unknown column of structures": (
        lambda real: real.append_column("s", pa.array([{"a": 1, "b": [2]}] * len(real))),
        "kept",
    ),
    "an unknown column of texts that are no dictionary": (
        lambda real: real.append_column("x", pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}"] * len(real)))),
        "InvalidFileError",
    ),
    "amounts that are structures": (
        lambda real: real.set_column(
            real.column_names.index("fare_amount"), "fare_amount", pa.array([{"a": 1.0}] * len(real))
        ),
        "TooManyQuarantinedError",
    ),
    "texts in a dictionary": (
        lambda real: real.set_column(
            real.column_names.index("store_and_fwd_flag"),
            "store_and_fwd_flag",
            real["store_and_fwd_flag"].dictionary_encode(),
        ),
        "kept",
    ),
    "no columns": (lambda _: pa.table({}), "InvalidFileError"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_columns_of_unheard_of_shapes(reader: Solitary, real: Any, tmp_path: Path, shape: str) -> None:
    make, expected = SHAPES[shape]
    pyarrow.parquet.write_table(make(real.slice(0, 30)), tmp_path / NAME)
    assert reader.try_(str(tmp_path / NAME)) == expected


def test_many_row_groups_of_no_row_or_one(reader: Solitary, real: Any, tmp_path: Path) -> None:
    with pyarrow.parquet.ParquetWriter(tmp_path / NAME, real.schema) as writer:
        for row in range(300):
            writer.write_table(real.slice(row, row % 2))
    assert reader.try_(str(tmp_path / NAME)) == "kept"


# --- the other process ------------------------------------------------------------------------------------------------


def misbehave(how: str) -> str:
    import ctypes  # noqa: PLC0415  (in the other process alone)

    match how:
        case "crash":
            ctypes.string_at(0)
        case "hang":
            time.sleep(60)
        case "eat":
            return str(len(b"x" * (500 << 20)))
        case "fail":
            raise RuntimeError("no error of ours")
    return "fine"


def test_how_the_other_process_ends_is_seen() -> None:
    with Solitary(misbehave, deadline=2) as process:
        assert process.try_("hang") == "hang"
    with Solitary(misbehave, megabytes=500) as process:
        assert process.try_("crash") == "killed by SIGSEGV"
        assert process.try_("fine") == "fine"
        assert process.try_("eat").startswith("too much memory")
        assert "no error of ours" in process.try_("fail")
