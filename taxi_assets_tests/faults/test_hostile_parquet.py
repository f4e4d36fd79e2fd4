"""Hostile Parquet files, read in a worker process so that crashes, hangs and excessive memory are detected.

Months with unusual types are in `unit/tlc/cleaning/test_clean_properties.py`.
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
from taxi_assets_tests.faults.bad_data import error_name, fetch_and_clean
from taxi_assets_tests.faults.conftest import LONG_SECONDS
from taxi_assets_tests.faults.subprocess_runner import IsolatedWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "green_tripdata_2023-01.parquet"
ROWS, ROW_GROUP = 4999, 2501
INPUTS_PER_ROUND = 150
ALLOWED = {"kept", "InvalidFileError", "ColumnMismatchError", "TooManyQuarantinedError", "ReconciliationError"}
EXTREME_NUMBERS = [0, 1, -1, ROW_GROUP - 1, 16_383, 2**31 - 1, 2**31, 2**40, 2**62, -(2**62)]
FOOTER_END = 8
"""Bytes after the footer: its length, and PAR1."""


def clean(path: str) -> str:
    """Clean a file: return "kept" if each row is clean or quarantined, or the name of the error. Runs in the worker."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = fetch_and_clean(Path(path), Path(folder))
        except TaxiAssetsError as error:
            return error_name(error, Path(path))
        rows = [
            row
            for half in (made.clean, made.quarantine)
            for row in pyarrow.parquet.read_table(half, columns=["source_row"])["source_row"].to_pylist()
        ]
        assert sorted(rows) == list(range(1, len(rows) + 1))
        assert len(rows) == pyarrow.parquet.read_metadata(path).num_rows
    return "kept"


@pytest.fixture(scope="module")
def reader() -> Iterator[IsolatedWorker]:
    # pyarrow allocates up to 2 GiB for a page with a wrong size before it detects the error.
    with IsolatedWorker(clean, max_megabytes=2250) as reader:
        yield reader


@pytest.fixture(scope="module")
def real(data: Path) -> Any:
    return pyarrow.parquet.read_table(data / "months" / NAME).slice(0, ROWS)


@pytest.fixture(scope="module")
def parquet(real: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The first rows of a real month as Parquet, in two row groups of many pages, with unambiguous row counts."""
    path = tmp_path_factory.mktemp("parquet") / NAME
    pyarrow.parquet.write_table(real, path, row_group_size=ROW_GROUP, data_page_size=2000)
    return path.read_bytes()


def footer_length(content: bytes) -> int:
    return int.from_bytes(content[-FOOTER_END:-4], "little")


def varint(number: int) -> bytes:
    """Encode an integer as Thrift's compact protocol does."""
    rest = ((number << 1) ^ (number >> 63)) & (2**64 - 1)
    written = bytearray()
    while rest > 127:
        written.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*written, rest])


def with_footer(content: bytes, footer: bytes) -> bytes:
    rows = content[: -FOOTER_END - footer_length(content)]
    return rows + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def test_the_unchanged_file_is_kept(reader: IsolatedWorker, parquet: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(parquet)
    assert reader.call(str(tmp_path / NAME)) == "kept"


# --- bytes ------------------------------------------------------------------------------------------------------------


def corrupt(parquet: bytes, seed: int) -> bytes:
    """Change a few bytes, in the pages or in the footer."""
    chance = np.random.default_rng(seed)
    content = bytearray(parquet)
    pages_end = len(parquet) - FOOTER_END - footer_length(parquet)
    low, high = [(4, pages_end), (pages_end, len(parquet))][seed % 2]
    for _ in range([1, 1, 2, 4, 8][chance.integers(5)]):
        place = int(chance.integers(low, high))
        flipped = bytes([content[place] ^ (1 << int(chance.integers(8)))])
        puts = [flipped, flipped, b"\0", b"\xff", b"\x7f", b"\0" * 4, b"\xff" * 4, *map(varint, EXTREME_NUMBERS)]
        put = puts[chance.integers(len(puts))]
        content[place : place + len(put)] = put
    return bytes(content[: len(parquet)])


@pytest.mark.fuzz
@pytest.mark.timeout(2 * LONG_SECONDS)
def test_corrupted_parquet_is_kept_or_refused(
    reader: IsolatedWorker,
    parquet: bytes,
    tmp_path: Path,
    fuzz_seconds: int,
    record_property: Callable[[str, object], None],
) -> None:
    outcomes: Counter[str] = Counter()
    ends = time.monotonic() + fuzz_seconds
    for number in itertools.count():
        content = corrupt(parquet, number)
        (tmp_path / NAME).write_bytes(content)
        outcome = reader.call(str(tmp_path / NAME))
        assert outcome in ALLOWED, (number, outcome)
        outcomes[outcome] += 1
        if outcomes.total() >= INPUTS_PER_ROUND and time.monotonic() >= ends:
            break
    assert {"kept", "InvalidFileError"} <= set(outcomes), outcomes
    record_property("bad inputs", outcomes.total())
    record_property("reader crashes", 0)
    record_property("hangs", 0)


def test_a_column_that_contradicts_the_schema_is_refused_instead_of_crashing_pyarrow(
    reader: IsolatedWorker, parquet: bytes, tmp_path: Path
) -> None:
    """Its size statistics contradict the schema. Fuzzing found this file as number 24,096."""
    path = tmp_path / NAME
    path.write_bytes(corrupt(parquet, 24_095))
    assert reader.call(str(path)) == "InvalidFileError"
    with pytest.raises(InvalidFileError, match=r"cannot be read \(row group 1: Definition level histogram size"):
        fetch_and_clean(path, tmp_path)


def test_rows_without_columns_are_refused(reader: IsolatedWorker, tmp_path: Path) -> None:
    """pyarrow would allocate memory for each batch of rows, and the file can claim any number of rows."""
    path = tmp_path / NAME
    pyarrow.parquet.write_table(pa.table({}), path)
    content = path.read_bytes()
    # The rows of the file, then the bytes and the rows of its only row group.
    start, bytes_, rows, end = content[-FOOTER_END - footer_length(content) : -FOOTER_END].split(b"\x16\0", 3)
    many = b"\x16" + varint(2**62)
    path.write_bytes(with_footer(content, start + many + bytes_ + b"\x16\0" + rows + many + end))
    assert pyarrow.parquet.read_metadata(path).num_rows == 2**62
    assert reader.call(str(path)) == "InvalidFileError"
    with pytest.raises(InvalidFileError, match="it is a Parquet file without columns"):
        fetch_and_clean(path, tmp_path)


def test_a_column_of_long_fixed_length_bytes_is_read_in_little_memory(real: Any, tmp_path: Path) -> None:
    """The column is all null, but a batch of many rows would reserve the full length for each of them."""
    path = tmp_path / NAME
    rows = pa.concat_tables([real] * (1 + 65_536 // len(real))).slice(0, 65_536)
    wide = pa.nulls(len(rows), pa.binary(20_000))
    pyarrow.parquet.write_table(rows.add_column(0, "x", wide), path)
    with IsolatedWorker(clean, max_megabytes=450) as reader:
        assert reader.call(str(path)) == "kept"


# --- metadata ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["rows", "rows of a group", "bytes of a group", "bytes of a column", "place"])
def test_an_extreme_number_in_the_footer_is_kept_or_refused(
    reader: IsolatedWorker, parquet: bytes, tmp_path: Path, number: str, record_property: Callable[[str, object], None]
) -> None:
    group = pyarrow.parquet.read_metadata(pa.BufferReader(parquet)).row_group(0)
    column = group.column(2)
    encoded = varint(
        {
            "rows": ROWS, "rows of a group": ROW_GROUP, "bytes of a group": group.total_byte_size,
            "bytes of a column": column.total_compressed_size, "place": column.data_page_offset,
        }[number]
    )  # fmt: skip
    footer = parquet[-FOOTER_END - footer_length(parquet) : -FOOTER_END]
    places = [place for place in range(len(footer)) if footer.startswith(encoded, place)]
    assert places
    tried = [(place, extreme) for place in places[:4] for extreme in EXTREME_NUMBERS]
    for place, extreme in tried:
        changed = footer[:place] + varint(extreme) + footer[place + len(encoded) :]
        (tmp_path / NAME).write_bytes(with_footer(parquet, changed))
        assert reader.call(str(tmp_path / NAME)) in ALLOWED, (place, extreme)
    record_property("bad inputs", len(tried))


@pytest.mark.parametrize("rows", [ROW_GROUP + 1, 2 * ROW_GROUP, 10**5])
def test_a_consistently_wrong_row_count_is_detected_by_reading_the_file(
    reader: IsolatedWorker, parquet: bytes, tmp_path: Path, rows: int
) -> None:
    footer = parquet[-FOOTER_END - footer_length(parquet) : -FOOTER_END]
    changed = footer.replace(varint(ROWS), varint(rows + ROWS - ROW_GROUP)).replace(varint(ROW_GROUP), varint(rows))
    (tmp_path / NAME).write_bytes(with_footer(parquet, changed))
    assert reader.call(str(tmp_path / NAME)) == "ReconciliationError"


def test_millions_of_rows_in_some_kilobytes_are_refused_before_they_are_read(
    reader: IsolatedWorker, real: Any, tmp_path: Path
) -> None:
    rows = 3_000_000
    one = pa.array(np.zeros(rows, np.int8))
    columns = {
        name: pa.DictionaryArray.from_arrays(one, real[name].combine_chunks()[:1])
        for name in real.column_names
        if real[name].null_count == 0
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / NAME, row_group_size=rows)
    assert reader.call(str(tmp_path / NAME)) == "InvalidFileError"
    before = reader.cpu_seconds()
    assert reader.call(str(tmp_path / NAME)) == "InvalidFileError"
    assert reader.cpu_seconds() - before < 5


LONG = "".join(map(chr, np.random.default_rng(5).integers(32, 127, 1 << 20)))
"""An incompressible text of one megabyte."""


def repeated(value: Any, rows: int) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))


def many_texts(rows: int) -> Any:
    """Return different texts of one megabyte each."""
    return pa.array([np.random.default_rng(number).bytes(8000).hex() + "x" * (1 << 20) for number in range(rows)])


BOMBS: dict[str, tuple[Callable[[int], Any], dict[str, Any]]] = {
    "in a dictionary": (lambda rows: repeated(LONG, rows), {}),
    "in a dictionary, as bytes": (lambda rows: repeated(LONG.encode(), rows), {}),
    "in a dictionary, in lists": (
        lambda rows: pa.ListArray.from_arrays(pa.array(np.arange(rows + 1), pa.int32()), repeated(LONG, rows)),
        {},
    ),
    "in a dictionary, in structures": (lambda rows: pa.StructArray.from_arrays([repeated(LONG, rows)], ["x"]), {}),
    "as an equal prefix": (
        lambda rows: repeated(LONG, min(rows, 300)).dictionary_decode(),
        {"use_dictionary": False, "column_encoding": {"x": "DELTA_BYTE_ARRAY"}},
    ),
    "one by one": (lambda _: many_texts(280), {"use_dictionary": False, "compression": "zstd"}),
    "a list of many": (lambda _: pa.array([np.zeros(10_000_000, np.int8)]), {}),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_unknown_column_that_expands_to_gigabytes_is_refused_in_little_memory(
    real: Any, tmp_path: Path, bomb: str
) -> None:
    make, write_options = BOMBS[bomb]
    column = make(16_000)
    rows = pa.concat_tables([real] * 4).slice(0, len(column))
    path = tmp_path / NAME
    pyarrow.parquet.write_table(
        rows.append_column("x", column), path, dictionary_pagesize_limit=1 << 30, **write_options
    )
    assert path.stat().st_size < 4_000_000
    with IsolatedWorker(clean, max_megabytes=150) as reader:
        assert reader.call(str(path)) == "InvalidFileError"


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_texts_packed_as_deltas_are_refused_with_a_fix(real: Any, tmp_path: Path, encoding: str) -> None:
    path, name = tmp_path / NAME, "store_and_fwd_flag"
    pyarrow.parquet.write_table(real, path, use_dictionary=False, column_encoding={name: encoding})
    with pytest.raises(InvalidFileError, match=rf"strings are encoded as {encoding} \(column {name}\)\. Rewrite it"):
        fetch_and_clean(path, tmp_path)


def test_a_few_values_of_a_megabyte_are_kept_in_little_memory(real: Any, tmp_path: Path) -> None:
    """One column has variable length, the other a fixed length."""
    column = repeated(LONG.encode(), 60).cast(pa.binary(1 << 20))
    path = tmp_path / NAME
    pyarrow.parquet.write_table(
        real.slice(0, 60).append_column("x", repeated(LONG, 60)).append_column("y", column), path
    )
    with IsolatedWorker(clean, max_megabytes=350) as reader:
        assert reader.call(str(path)) == "kept"


def nested(real: Any, depth: int) -> Any:
    type_ = pa.int64()
    for _ in range(depth):
        type_ = pa.list_(type_)
    return real.append_column("deep", pa.nulls(len(real), type_))


SHAPES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "10,000 additional columns": (
        lambda real: pa.table(
            {**dict(zip(real.column_names, real.columns, strict=True)), **{f"x{i}": real[0] for i in range(10_000)}}
        ),
        "kept",
    ),
    "a required column twice": (lambda real: real.append_column("VendorID", real[0]), "kept"),
    "an unknown column twice": (lambda real: real.append_column("x", real[0]).append_column("x", real[0]), "kept"),
    "an unknown column of lists in lists in lists": (lambda real: nested(real, 20), "kept"),
    "an unknown column 300 lists deep": (lambda real: nested(real, 300), "InvalidFileError"),
    "an unknown column of structures": (
        lambda real: real.append_column("s", pa.array([{"a": 1, "b": [2]}] * len(real))),
        "kept",
    ),
    "an unknown column of an extension type": (
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
def test_a_column_of_an_unusual_type_is_kept_or_refused(
    reader: IsolatedWorker, real: Any, tmp_path: Path, shape: str
) -> None:
    make, expected = SHAPES[shape]
    pyarrow.parquet.write_table(make(real.slice(0, 30)), tmp_path / NAME)
    assert reader.call(str(tmp_path / NAME)) == expected


def test_many_row_groups_of_at_most_one_row_are_kept(reader: IsolatedWorker, real: Any, tmp_path: Path) -> None:
    with pyarrow.parquet.ParquetWriter(tmp_path / NAME, real.schema) as writer:
        for row in range(300):
            writer.write_table(real.slice(row, row % 2))
    assert reader.call(str(tmp_path / NAME)) == "kept"


# --- the worker process -----------------------------------------------------------------------------------------------


def misbehave(kind: str) -> str:
    import ctypes  # noqa: PLC0415  (imported in the worker only)

    match kind:
        case "crash":
            ctypes.string_at(0)
        case "hang":
            time.sleep(60)
        case "eat":
            return str(len(b"x" * (500 << 20)))
        case "fail":
            raise RuntimeError("unexpected error")
    return "fine"


def test_the_worker_reports_crashes_hangs_excessive_memory_and_exceptions() -> None:
    with IsolatedWorker(misbehave, timeout_seconds=2) as process:
        assert process.call("hang") == "hang"
    with IsolatedWorker(misbehave, max_megabytes=250) as process:
        assert process.call("crash") == "killed by SIGSEGV"
        assert process.call("fine") == "fine"
        assert process.call("eat").startswith("too much memory")
        assert "unexpected error" in process.call("fail")
