"""Parquet: written one way for all months, so that the same rows always give the same bytes; read in small parts."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

ROW_GROUP_ROWS = 131_072
# Quarantined rows carry their original text, and a row group is held in memory until it is full.
QUARANTINE_ROW_GROUP_ROWS = 8_192
# Real ones have a fifth of that at most.
_ROW_GROUP_TEXT_BYTES = 32 << 20
# Of each column that is read; a published row group may hold millions of rows.
_COLUMN_BUFFER_BYTES = 1 << 18
# Where pyarrow stops adding to a dictionary that it builds itself, and writes the other values as they are.
_DICTIONARY_BYTES = 1 << 20

# Nearly every row has a value of its own: a dictionary would only add to it. They are written PLAIN, not as deltas:
# Spark before 3.3, Synapse and StarRocks do not read DELTA_BINARY_PACKED, and Google does not say that BigQuery does.
_DISTINCT_COLUMNS = ("pickup_datetime", "dropoff_datetime", "source_row")
# Only of what is sorted do least and greatest tell which row groups a query can pass over; finding them for the others
# takes an eighth of the time that writing takes.
_STATISTICS = (*_DISTINCT_COLUMNS, "pickup_date", "data_month")


def open_parquet_stream(source: Path | BinaryIO, *, text_as_dictionary: bool = False) -> Any:
    """A `pyarrow.parquet.ParquetFile` whose batches are read as they are asked for.

    By itself pyarrow reads all columns of all row groups ahead. `text_as_dictionary`: texts come as dictionaries, in which each
    stands once, however many rows of a few bytes say that they have it.
    """
    footer = pyarrow.parquet.read_metadata(source) if text_as_dictionary else None
    texts = text_columns(footer) if text_as_dictionary else []
    return pyarrow.parquet.ParquetFile(
        source, metadata=footer, read_dictionary=texts, pre_buffer=False, buffer_size=_COLUMN_BUFFER_BYTES
    )


def text_columns(footer: Any) -> list[str]:
    """The paths of the columns whose values may have any length."""
    columns = map(footer.schema.column, range(footer.num_columns))
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]


class TripWriter:
    """Writes batches of one schema as Parquet, in row groups of exactly so many rows, or fewer where texts are long.

    At most one is held back, and one written, in a thread, while the next one is filled. Dictionaries and decimal64 of
    a working schema are written as the strings and decimals that they stand for.
    """

    def __init__(self, path: Path, schema: Any, row_group_rows: int = ROW_GROUP_ROWS) -> None:
        self._schema = schema
        self._texts = [field.name for field in schema if pa.types.is_string(field.type)]
        self._dictionaries = [field.name for field in schema if pa.types.is_dictionary(field.type)]
        self._row_group_rows = row_group_rows
        self._writer = pyarrow.parquet.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[name for name in schema.names if name not in _DISTINCT_COLUMNS],
            store_decimal_as_integer=True,
            max_rows_per_page=ROW_GROUP_ROWS,  # the default of 20,000 makes files a tenth larger
            store_schema=False,  # or readers would get the working types
            write_statistics=[name for name in _STATISTICS if name in schema.names],
        )
        self._held: list[Any] = []
        self._held_rows = self._held_bytes = 0
        self._thread = ThreadPoolExecutor(1, "write")
        self._written: Future[None] | None = None

    def write(self, batch: Any) -> None:
        """Add a record batch."""
        # Where a row group ends depends on its rows alone, however they arrive: so the same rows give the same bytes.
        while batch.num_rows:
            rows = batch.slice(0, self._row_group_rows - self._held_rows)
            row_bytes = self._text_bytes(rows)
            added = int(row_bytes.sum())
            if self._held_bytes + added >= _ROW_GROUP_TEXT_BYTES:
                ends = np.cumsum(row_bytes)
                last = int(np.searchsorted(ends, _ROW_GROUP_TEXT_BYTES - self._held_bytes))
                rows, added = rows.slice(0, last + 1), int(ends[last])
            self._held.append(rows)
            self._held_rows += rows.num_rows
            self._held_bytes += added
            if self._held_rows == self._row_group_rows or self._held_bytes >= _ROW_GROUP_TEXT_BYTES:
                self._write_row_group()
            batch = batch.slice(rows.num_rows)

    def _text_bytes(self, batch: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The bytes of each row's texts."""
        sizes = np.zeros(batch.num_rows, np.int64)
        for name in self._texts:
            sizes += np.asarray(pc.fill_null(pc.binary_length(batch.column(name)), pa.scalar(0, pa.int32())))
        for name in self._dictionaries:
            column = batch.column(name)
            if column.null_count < len(column):
                lengths = np.append(np.asarray(pc.binary_length(column.dictionary)), 0)
                nulls_last = column.indices.fill_null(len(lengths) - 1) if column.null_count else column.indices
                sizes += lengths.take(np.asarray(nulls_last))
        return sizes

    def _write_row_group(self) -> None:
        row_group = pa.Table.from_batches(self._held, self._schema)
        # In one piece, or the pieces would decide where a dictionary of long texts ends.
        for name in self._texts:
            row_group = self._with(row_group, name, row_group[name].combine_chunks())
        for name in self._dictionaries:
            texts = _in_order_of_use(row_group[name].unify_dictionaries().combine_chunks())
            row_group = self._with(row_group, name, _plain_where_large(texts))
        self._held, self._held_rows, self._held_bytes = [], 0, 0
        self._wait()
        self._written = self._thread.submit(self._writer.write_table, row_group, self._row_group_rows)

    def _with(self, row_group: Any, name: str, texts: Any) -> Any:
        return row_group.set_column(self._schema.get_field_index(name), self._schema.field(name), texts)

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()

    def finish(self, footer: dict[bytes, bytes]) -> None:
        """Write what is held back, and the footer."""
        if self._held_rows:
            self._write_row_group()
        self._wait()
        self._writer.add_key_value_metadata(footer)
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        self._writer.close()


def _in_order_of_use(texts: Any) -> Any:
    """The same texts with a dictionary that depends on them alone: each text once, in the order of its first row."""
    used = pc.unique(texts.indices).drop_null()
    if used.equals(pa.array(np.arange(len(texts.dictionary)), used.type)):
        return texts
    places = np.zeros(len(texts.dictionary), np.int32)
    places[np.asarray(used)] = np.arange(len(used))
    return pa.DictionaryArray.from_arrays(pa.array(places).take(texts.indices), texts.dictionary.take(used))


def _plain_where_large(texts: Any) -> Any:
    """The same texts, in a form that pyarrow does not write as a dictionary where that would be a large one.

    pyarrow writes a dictionary array's own dictionary, of any size; where a second chunk has another dictionary it
    writes plain values from there on.
    """
    if texts.dictionary.nbytes <= _DICTIONARY_BYTES:
        return texts
    first = texts.slice(0, 1)
    return pa.chunked_array([first.dictionary_decode().dictionary_encode(), texts.slice(1)])
