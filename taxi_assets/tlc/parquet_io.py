"""Write and stream Parquet files. Identical rows always produce identical bytes."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

ROW_GROUP_ROWS = 131_072
"""Rows per row group of clean trips."""

QUARANTINE_ROW_GROUP_ROWS = 8_192
"""Rows per row group of quarantine: fewer, because rows include their original text and are buffered in memory."""

# A row group ends early when its text reaches this size. Real row groups have at most a fifth of it.
_ROW_GROUP_TEXT_BYTES = 32 << 20
# The read buffer of each column. A published row group may contain millions of rows.
_COLUMN_BUFFER_BYTES = 1 << 18
# The size at which pyarrow stops adding to a dictionary that it builds, and writes further values as PLAIN.
_DICTIONARY_BYTES = 1 << 20

# Values are nearly unique, so a dictionary would only add bytes. The encoding is PLAIN, not DELTA_BINARY_PACKED: Spark
# before 3.3, Synapse and StarRocks cannot read DELTA_BINARY_PACKED, and Google does not document whether BigQuery does.
_DISTINCT_COLUMNS = ("pickup_datetime", "dropoff_datetime", "source_row")
# Minimum and maximum let a query skip row groups only where a column is roughly sorted. Computing them for the other
# columns would add about an eighth to the writing time.
STATISTICS_COLUMNS = (*_DISTINCT_COLUMNS, "pickup_date", "data_month")
"""The columns of trips with a minimum and a maximum per row group."""


def open_parquet_stream(source: Path | BinaryIO, *, text_as_dictionary: bool = False) -> Any:
    """Open a Parquet file so that each batch is read only when it is requested.

    By default, pyarrow reads all columns of all row groups ahead.

    Args:
        source: A path, or a file that is open for reading bytes.
        text_as_dictionary: Whether to read text columns as dictionary arrays. Each distinct text is then held in memory
            once, even if a small file repeats a long text in millions of rows.

    Returns:
        A `pyarrow.parquet.ParquetFile`, to be closed by the caller.
    """
    footer = pyarrow.parquet.read_metadata(source) if text_as_dictionary else None
    dictionary_columns = variable_length_columns(footer) if text_as_dictionary else []
    return pyarrow.parquet.ParquetFile(
        source, metadata=footer, read_dictionary=dictionary_columns, pre_buffer=False, buffer_size=_COLUMN_BUFFER_BYTES
    )


def read_footer(file: BinaryIO) -> Any | None:
    """Return the Parquet metadata of a file that is open for reading bytes; None if it is damaged or not Parquet."""
    try:
        return pyarrow.parquet.read_metadata(file)
    except (pa.ArrowException, OSError, ValueError):  # pyarrow raises any of these
        return None


def is_readable(path: Path) -> bool:
    """Return whether all rows of a Parquet file can be read."""
    try:
        with open_parquet_stream(path) as file:
            deque(file.iter_batches(), maxlen=0)
    except (pa.ArrowException, OSError, ValueError):  # pyarrow raises any of these
        return False
    return True


def variable_length_columns(footer: Any) -> list[str]:
    """Return the paths of the columns whose values have no fixed length, from a file's Parquet metadata."""
    columns = map(footer.schema.column, range(footer.num_columns))
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]


class TripWriter:
    """A writer of record batches to a Parquet file.

    Every row group except the last has `row_group_rows` rows, or fewer if its text reaches 32 MiB. A thread writes one
    row group while the next one is filled. Dictionaries and decimal64 of a working schema are written as strings and
    decimals.

    Use it as a context manager and call `finish`; without `finish`, the file has no footer metadata.

    Args:
        path: The file to write.
        schema: The schema of the batches: canonical or working types.
        row_group_rows: The number of rows per row group.
        distinct_columns: The columns whose values are nearly unique.
    """

    def __init__(
        self,
        path: Path,
        schema: Any,
        row_group_rows: int = ROW_GROUP_ROWS,
        distinct_columns: Sequence[str] = _DISTINCT_COLUMNS,
    ) -> None:
        self._schema = schema
        self._text_columns = [field.name for field in schema if pa.types.is_string(field.type)]
        self._dictionary_columns = [field.name for field in schema if pa.types.is_dictionary(field.type)]
        self._row_group_rows = row_group_rows
        self._writer = pyarrow.parquet.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[name for name in schema.names if name not in distinct_columns],
            store_decimal_as_integer=True,
            max_rows_per_page=ROW_GROUP_ROWS,  # the default of 20,000 makes files 10% larger
            store_schema=False,  # otherwise readers would get the working types
            write_statistics=[name for name in schema.names if name in {*STATISTICS_COLUMNS, *distinct_columns}],
        )
        self._buffered: list[Any] = []
        self._buffered_rows = self._buffered_bytes = 0
        self._executor = ThreadPoolExecutor(1, "write")
        self._pending_write: Future[None] | None = None

    def write(self, batch: Any) -> None:
        """Add a record batch of any size."""
        # Row group boundaries depend on rows, never on batches, so that identical rows produce identical bytes.
        while batch.num_rows:
            rows = batch.slice(0, self._row_group_rows - self._buffered_rows)
            row_bytes = self._text_bytes(rows)
            added = int(row_bytes.sum())
            if self._buffered_bytes + added >= _ROW_GROUP_TEXT_BYTES:
                ends = np.cumsum(row_bytes)
                last = int(np.searchsorted(ends, _ROW_GROUP_TEXT_BYTES - self._buffered_bytes))
                rows, added = rows.slice(0, last + 1), int(ends[last])
            self._buffered.append(rows)
            self._buffered_rows += rows.num_rows
            self._buffered_bytes += added
            if self._buffered_rows == self._row_group_rows or self._buffered_bytes >= _ROW_GROUP_TEXT_BYTES:
                self._write_row_group()
            batch = batch.slice(rows.num_rows)

    def _text_bytes(self, batch: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the total bytes of text in each row."""
        sizes = np.zeros(batch.num_rows, np.int64)
        for name in self._text_columns:
            sizes += np.asarray(pc.fill_null(pc.binary_length(batch.column(name)), pa.scalar(0, pa.int32())))
        for name in self._dictionary_columns:
            column = batch.column(name)
            if column.null_count < len(column):
                lengths = np.append(np.asarray(pc.binary_length(column.dictionary)), 0)
                nulls_last = column.indices.fill_null(len(lengths) - 1) if column.null_count else column.indices
                sizes += lengths.take(np.asarray(nulls_last))
        return sizes

    def _write_row_group(self) -> None:
        row_group = pa.Table.from_batches(self._buffered, self._schema)
        # Combine the chunks. Otherwise chunk boundaries would determine where a dictionary of long texts ends.
        for name in self._text_columns:
            row_group = self._replace_column(row_group, name, row_group[name].combine_chunks())
        for name in self._dictionary_columns:
            texts = _reorder_by_first_use(row_group[name].unify_dictionaries().combine_chunks())
            row_group = self._replace_column(row_group, name, _disable_large_dictionary(texts))
        self._buffered, self._buffered_rows, self._buffered_bytes = [], 0, 0
        self._wait_for_write()
        self._pending_write = self._executor.submit(self._writer.write_table, row_group, self._row_group_rows)

    def _replace_column(self, row_group: Any, name: str, texts: Any) -> Any:
        return row_group.set_column(self._schema.get_field_index(name), self._schema.field(name), texts)

    def _wait_for_write(self) -> None:
        if self._pending_write is not None:
            self._pending_write.result()

    def finish(self, footer: dict[bytes, bytes]) -> None:
        """Write the buffered rows and the footer.

        Args:
            footer: Key-value metadata to store in the footer.
        """
        if self._buffered_rows:
            self._write_row_group()
        self._wait_for_write()
        self._writer.add_key_value_metadata(footer)
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        self._writer.close()


def _reorder_by_first_use(texts: Any) -> Any:
    """Return the same texts, with a dictionary that lists each used text once, in the order of first use."""
    used = pc.unique(texts.indices).drop_null()
    if used.equals(pa.array(np.arange(len(texts.dictionary)), used.type)):
        return texts
    new_codes = np.zeros(len(texts.dictionary), np.int32)
    new_codes[np.asarray(used)] = np.arange(len(used))
    return pa.DictionaryArray.from_arrays(pa.array(new_codes).take(texts.indices), texts.dictionary.take(used))


def _disable_large_dictionary(texts: Any) -> Any:
    """Return the same texts in chunks that pyarrow writes as PLAIN if their dictionary is large.

    pyarrow writes the dictionary of a dictionary array regardless of size. When the next chunk has a different
    dictionary, pyarrow writes PLAIN values from there on. So the first row is a separate chunk whose
    dictionary contains only that row's text.
    """
    if texts.dictionary.nbytes <= _DICTIONARY_BYTES:
        return texts
    first = texts.slice(0, 1)
    return pa.chunked_array([first.dictionary_decode().dictionary_encode(), texts.slice(1)])
