"""The Parquet writer: identical rows produce identical bytes and row groups, in any batches."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from taxi_assets.tlc.cleaning.quarantine import QUARANTINE_SCHEMA
from taxi_assets.tlc.parquet_io import ROW_GROUP_ROWS, TripWriter
from taxi_assets.tlc.services.green import GREEN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA = pa.schema([("pickup_datetime", pa.timestamp("us")), ("source_row", pa.int64()), ("zone", pa.string())])


def rows(start: int, count: int) -> Any:
    numbers = np.arange(start, start + count)
    zones = pa.array((numbers % 7).astype(str))
    return pa.record_batch([pa.array(numbers * 1_000_000).cast(SCHEMA[0].type), pa.array(numbers), zones], SCHEMA)


def write(path: Path, counts: Sequence[int]) -> Any:
    start = 0
    with TripWriter(path, SCHEMA) as writer:
        for count in counts:
            writer.write(rows(start, count))
            start += count
        writer.finish({b"key": b"value"})
    return pyarrow.parquet.read_metadata(path)


def row_groups(metadata: Any) -> list[int]:
    return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]


@pytest.mark.parametrize(
    ("counts", "groups"),
    [
        ([], []),
        ([0, 0], []),
        ([1], [1]),
        ([131_072], [131_072]),
        ([131_071, 1, 1], [131_072, 1]),
        ([50_000] * 6, [131_072, 131_072, 37_856]),
        ([131_073], [131_072, 1]),
    ],
)
def test_row_groups_have_one_size_and_only_the_last_is_smaller(
    tmp_path: Path, counts: list[int], groups: list[int]
) -> None:
    path = tmp_path / "trips.parquet"
    assert row_groups(write(path, counts)) == groups
    assert pyarrow.parquet.read_table(path).equals(pa.Table.from_batches([rows(0, sum(counts))]))


def test_the_same_rows_give_the_same_bytes_in_any_batches(tmp_path: Path) -> None:
    pick = random.Random(5)  # noqa: S311  (no secret)
    cuts = [pick.randint(0, 9_000) for _ in range(30)]
    write(tmp_path / "one.parquet", [sum(cuts)])
    write(tmp_path / "many.parquet", cuts)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "many.parquet").read_bytes()


def test_long_texts_end_a_row_group_early_in_any_batches(tmp_path: Path) -> None:
    texts = ["x" * size for size in [16 << 20, 16 << 20, 1, 40 << 20, 40 << 20, (32 << 20) - 1, 0, 1, 5]]
    batch = pa.record_batch([pa.nulls(9, SCHEMA[0].type), pa.array(range(9)), pa.array(texts)], SCHEMA)
    for name, cuts in {"one": [9], "some": [1, 4, 4], "many": [1] * 9}.items():
        with TripWriter(tmp_path / name, SCHEMA) as writer:
            for stop, size in zip(itertools.accumulate(cuts), cuts, strict=True):
                writer.write(batch.slice(stop - size, size))
            writer.finish({})
    assert row_groups(pyarrow.parquet.read_metadata(tmp_path / "one")) == [2, 2, 1, 3, 1]
    assert pyarrow.parquet.read_table(tmp_path / "one")["zone"].to_pylist() == texts
    assert len({(tmp_path / name).read_bytes() for name in ("one", "some", "many")}) == 1


def test_the_footer_is_kept(tmp_path: Path) -> None:
    assert write(tmp_path / "trips.parquet", [3]).metadata[b"key"] == b"value"


@pytest.mark.parametrize("schema", [GREEN.arrow_schema, QUARANTINE_SCHEMA], ids=["clean", "quarantine"])
def test_types_are_read_back_as_written(tmp_path: Path, schema: Any) -> None:
    path = tmp_path / "trips.parquet"
    nothing = pa.record_batch([pa.nulls(2, field.type) for field in schema], schema)
    with TripWriter(path, schema) as writer:
        writer.write(nothing)
        writer.finish({})
    assert pyarrow.parquet.read_table(path).equals(pa.Table.from_batches([nothing]))


def test_an_unfinished_file_has_no_footer_metadata(tmp_path: Path) -> None:
    path = tmp_path / "trips.parquet"

    def fail_in_the_middle() -> None:
        with TripWriter(path, SCHEMA) as writer:
            writer.write(rows(0, 200_000))
            raise LookupError

    with pytest.raises(LookupError):
        fail_in_the_middle()
    assert b"key" not in (pyarrow.parquet.read_metadata(path).metadata or {})


def column_chunk(metadata: Any, name: str) -> Any:
    index = metadata.schema.names.index(name)
    return metadata.row_group(0).column(index)


# Parquet stores nulls as RLE. All engines read these three encodings; see docs/decisions.md.
READ_BY_EVERY_ENGINE = {"PLAIN", "RLE_DICTIONARY", "RLE"}


@pytest.mark.parametrize(
    "schema", [GREEN.working_schema, GREEN.arrow_schema, QUARANTINE_SCHEMA], ids=["working", "clean", "quarantine"]
)
def test_every_column_has_encodings_that_every_engine_reads(tmp_path: Path, schema: Any) -> None:
    path = tmp_path / "trips.parquet"
    with TripWriter(path, schema) as writer:
        writer.write(pa.record_batch([pa.nulls(2, field.type) for field in schema], schema))
        writer.finish({})
    metadata = pyarrow.parquet.read_metadata(path)
    chunks = [metadata.row_group(0).column(index) for index in range(metadata.num_columns)]
    assert {encoding for chunk in chunks for encoding in chunk.encodings} <= READ_BY_EVERY_ENGINE


def test_times_and_row_numbers_are_plain_and_repeated_values_a_dictionary(tmp_path: Path) -> None:
    metadata = write(tmp_path / "trips.parquet", [200_000])
    for name in ("pickup_datetime", "source_row"):
        assert set(column_chunk(metadata, name).encodings) == {"PLAIN", "RLE"}
    assert "RLE_DICTIONARY" in column_chunk(metadata, "zone").encodings
    assert {column_chunk(metadata, name).compression for name in SCHEMA.names} == {"ZSTD"}


# --- working types ---------------------------------------------------------------------------------------------------

TEXTS = pa.schema([("text", pa.dictionary(pa.int32(), pa.string()))])


def write_texts(path: Path, texts: Sequence[str | None], cuts: Sequence[int] = ()) -> Any:
    """Write a column of texts in batches that end at these indices, each with its own dictionary."""
    bounds = itertools.pairwise([0, *cuts, len(texts)])
    with TripWriter(path, TEXTS) as writer:
        for start, stop in bounds:
            writer.write(pa.record_batch([pa.array(texts[start:stop], pa.string()).dictionary_encode()], TEXTS))
        writer.finish({})
    return pyarrow.parquet.read_metadata(path)


def test_a_file_written_from_working_types_has_the_canonical_types(tmp_path: Path) -> None:
    path = tmp_path / "trips.parquet"
    schema = GREEN.working_schema
    with TripWriter(path, schema) as writer:
        writer.write(pa.record_batch([pa.nulls(2, field.type) for field in schema], schema))
        writer.finish({})
    assert pyarrow.parquet.read_schema(path).equals(GREEN.arrow_schema)


def test_texts_that_hardly_repeat_are_plain_and_not_a_large_dictionary(tmp_path: Path) -> None:
    texts = [f"{number:036d}" for number in range(ROW_GROUP_ROWS)]
    chunk = column_chunk(write_texts(tmp_path / "many.parquet", texts), "text")
    assert "PLAIN" in chunk.encodings
    assert chunk.dictionary_page_offset is None or chunk.data_page_offset - chunk.dictionary_page_offset < 1_000
    assert pyarrow.parquet.read_table(tmp_path / "many.parquet")["text"].to_pylist() == texts

    few = [f"{number % 1000:036d}" for number in range(ROW_GROUP_ROWS)]
    chunk = column_chunk(write_texts(tmp_path / "few.parquet", few), "text")
    assert "RLE_DICTIONARY" in chunk.encodings
    assert pyarrow.parquet.read_table(tmp_path / "few.parquet")["text"].to_pylist() == few


@pytest.mark.parametrize("distinct", [3, 5_000, 60_000])
def test_the_same_texts_give_the_same_bytes_in_any_batches(tmp_path: Path, distinct: int) -> None:
    pick = random.Random(distinct)  # noqa: S311  (no secret)
    texts = [None if pick.random() < 0.1 else f"{pick.randrange(distinct):040d}" for _ in range(150_000)]
    write_texts(tmp_path / "one.parquet", texts)
    write_texts(tmp_path / "many.parquet", texts, sorted(pick.sample(range(len(texts)), 20)))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "many.parquet").read_bytes()
    assert pyarrow.parquet.read_table(tmp_path / "one.parquet")["text"].to_pylist() == texts


def test_short_texts_count_towards_the_limit_of_a_row_group(tmp_path: Path) -> None:
    schema = pa.schema([(f"text_{number}", TEXTS.field(0).type) for number in range(16)])
    codes = pa.array(["x" * 32, "y" * 32, None] * (ROW_GROUP_ROWS // 3), pa.string()).dictionary_encode()
    path = tmp_path / "wide.parquet"
    with TripWriter(path, schema) as writer:
        writer.write(pa.record_batch([codes] * len(schema), schema))
        writer.finish({})
    groups = row_groups(pyarrow.parquet.read_metadata(path))
    bytes_of_three_rows = 2 * 32 * len(schema)
    assert groups[0] == pytest.approx(3 * (32 << 20) / bytes_of_three_rows, abs=3)
    assert sum(groups) == len(codes)


def test_at_most_one_row_group_is_buffered(tmp_path: Path) -> None:
    path = tmp_path / "trips.parquet"
    sizes = []
    with TripWriter(path, SCHEMA) as writer:
        for index in range(3):
            writer.write(rows(index * ROW_GROUP_ROWS, ROW_GROUP_ROWS))
            sizes.append(path.stat().st_size)
        writer.finish({})
    # The thread may have written one of them already, or not yet.
    assert sizes[0] < sizes[2]
    assert sizes == sorted(sizes)
