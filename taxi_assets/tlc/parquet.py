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

# Nearly sorted: stored as small differences. Dictionaries would overflow on them.
_DELTA_COLUMNS = ("pickup_datetime", "dropoff_datetime", "source_row")
# Only of what is sorted do least and greatest tell which row groups a query can pass over; finding them for the others
# takes an eighth of the time that writing takes.
_STATISTICS = (*_DELTA_COLUMNS, "pickup_date", "data_month")


def open_to_stream(source: Path | BinaryIO, *, texts_once: bool = False) -> Any:
    """A `pyarrow.parquet.ParquetFile` whose batches are read as they are asked for.

    By itself pyarrow reads all columns of all row groups ahead. `texts_once`: texts come as dictionaries, in which each
    stands once, however many rows of a few bytes say that they have it.
    """
    footer = pyarrow.parquet.read_metadata(source) if texts_once else None
    texts = text_columns(footer) if texts_once else []
    return pyarrow.parquet.ParquetFile(
        source, metadata=footer, read_dictionary=texts, pre_buffer=False, buffer_size=_COLUMN_BUFFER_BYTES
    )


def text_columns(footer: Any) -> list[str]:
    """The paths of the columns whose values may have any length."""
    columns = map(footer.schema.column, range(footer.num_columns))
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]


class TripWriter:
    """Writes batches of one schema as Parquet, in row groups of exactly so many rows, or fewer where texts are long.

    At most one is held back, and one written, in a thread, while the next one is filled.
    """

    def __init__(self, path: Path, schema: Any, row_group_rows: int = ROW_GROUP_ROWS) -> None:
        delta = [name for name in _DELTA_COLUMNS if name in schema.names]
        self._schema = schema
        self._texts = [field.name for field in schema if pa.types.is_string(field.type)]
        self._row_group_rows = row_group_rows
        self._writer = pyarrow.parquet.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[name for name in schema.names if name not in delta],
            column_encoding=dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
            store_decimal_as_integer=True,
            write_statistics=[name for name in _STATISTICS if name in schema.names],
        )
        self._held: list[Any] = []
        self._held_rows = self._held_bytes = 0
        self._thread = ThreadPoolExecutor(1, "write")
        self._written: Future[None] | None = None

    def write(self, batch: Any) -> None:
        """Add a record batch."""
        # Where a row group ends depends on its rows alone, however they arrive: so the same rows give the same bytes.
        ends = np.cumsum(self._text_bytes(batch))
        start = before = 0
        while start < batch.num_rows:
            full = int(np.searchsorted(ends, before + _ROW_GROUP_TEXT_BYTES - self._held_bytes)) + 1
            stop = min(full, start + self._row_group_rows - self._held_rows, batch.num_rows)
            self._held.append(batch.slice(start, stop - start))
            self._held_rows += stop - start
            self._held_bytes += int(ends[stop - 1]) - before
            start, before = stop, int(ends[stop - 1])
            if self._held_rows == self._row_group_rows or self._held_bytes >= _ROW_GROUP_TEXT_BYTES:
                self._write_row_group()

    def _text_bytes(self, batch: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Those of each row."""
        sizes = np.zeros(batch.num_rows, np.int64)
        for name in self._texts:
            sizes += np.asarray(pc.fill_null(pc.binary_length(batch.column(name)), pa.scalar(0, pa.int32())))
        return sizes

    def _write_row_group(self) -> None:
        row_group = pa.Table.from_batches(self._held, self._schema)
        for name in self._texts:  # in one piece, or the pieces would decide where a dictionary of long texts ends
            text = row_group[name].combine_chunks()
            row_group = row_group.set_column(self._schema.get_field_index(name), self._schema.field(name), text)
        self._held, self._held_rows, self._held_bytes = [], 0, 0
        self._wait()
        self._written = self._thread.submit(self._writer.write_table, row_group, self._row_group_rows)

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
