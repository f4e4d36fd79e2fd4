"""How trips are written: the same rows give the same bytes, in row groups of one size, however they arrive."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from taxi_assets.tlc.parquet import ROW_GROUP_ROWS, TripWriter
from taxi_assets.tlc.part import QUARANTINE_SCHEMA
from taxi_assets.tlc.schemas.green import GREEN

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
def test_row_groups_are_of_one_size_and_only_the_last_is_smaller(
    tmp_path: Path, counts: list[int], groups: list[int]
) -> None:
    path = tmp_path / "trips.parquet"
    assert row_groups(write(path, counts)) == groups
    assert pyarrow.parquet.read_table(path).equals(pa.Table.from_batches([rows(0, sum(counts))]))


def test_the_same_rows_give_the_same_bytes_however_they_are_cut(tmp_path: Path) -> None:
    pick = random.Random(5)  # noqa: S311  (no secret)
    cuts = [pick.randint(0, 9_000) for _ in range(30)]
    write(tmp_path / "one.parquet", [sum(cuts)])
    write(tmp_path / "many.parquet", cuts)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "many.parquet").read_bytes()


def test_long_texts_end_a_row_group_by_their_bytes_however_they_are_cut(tmp_path: Path) -> None:
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
def test_types_come_back_as_they_were_written(tmp_path: Path, schema: Any) -> None:
    path = tmp_path / "trips.parquet"
    nothing = pa.record_batch([pa.nulls(2, field.type) for field in schema], schema)
    with TripWriter(path, schema) as writer:
        writer.write(nothing)
        writer.finish({})
    assert pyarrow.parquet.read_table(path).equals(pa.Table.from_batches([nothing]))


def test_a_file_that_was_not_finished_carries_no_footer(tmp_path: Path) -> None:
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


def test_times_and_row_numbers_are_stored_as_differences_and_all_is_zstd(tmp_path: Path) -> None:
    path = tmp_path / "trips.parquet"
    metadata = write(path, [200_000])
    for name in ("pickup_datetime", "source_row"):
        encodings = column_chunk(metadata, name).encodings
        assert "DELTA_BINARY_PACKED" in encodings
        assert not any("DICTIONARY" in encoding for encoding in encodings)
    assert any("DICTIONARY" in encoding for encoding in column_chunk(metadata, "zone").encodings)
    assert {column_chunk(metadata, name).compression for name in SCHEMA.names} == {"ZSTD"}
    assert path.stat().st_size < 200_000  # less than a byte a row: nothing but steady differences


def test_the_schemas_of_clean_and_quarantine_ask_for_these_encodings(tmp_path: Path) -> None:
    for schema, delta in (
        (GREEN.arrow_schema, {"pickup_datetime", "dropoff_datetime", "source_row"}),
        (QUARANTINE_SCHEMA, {"pickup_datetime", "source_row"}),
    ):
        path = tmp_path / "trips.parquet"
        with TripWriter(path, schema) as writer:
            writer.write(pa.record_batch([pa.nulls(2, field.type) for field in schema], schema))
            writer.finish({})
        metadata = pyarrow.parquet.read_metadata(path)
        chunks = [metadata.row_group(0).column(index) for index in range(metadata.num_columns)]
        assert {c.path_in_schema for c in chunks if "DELTA_BINARY_PACKED" in c.encodings} == delta


def test_no_more_than_a_row_group_is_held_back(tmp_path: Path) -> None:
    path = tmp_path / "trips.parquet"
    sizes = []
    with TripWriter(path, SCHEMA) as writer:
        for index in range(3):
            writer.write(rows(index * ROW_GROUP_ROWS, ROW_GROUP_ROWS))
            sizes.append(path.stat().st_size)
        writer.finish({})
    # One of them may be written already, or not yet.
    assert sizes[0] < sizes[2]
    assert sizes == sorted(sizes)
