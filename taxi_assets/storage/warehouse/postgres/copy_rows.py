"""Rows in the formats of `COPY`: binary for trips, and CSV for the tables that assets store.

The library pgpq encodes binary rows. Decimals are sent as their digits, times as microseconds, so values are exact.
Binary rows must have exactly the types of the table's columns. CSV also fits a table whose types a user has changed.
"""

from __future__ import annotations

import io
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pyarrow as pa
import pyarrow.csv
from psycopg2 import sql

from taxi_assets.tlc.parquet_io import open_parquet_stream

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

_BATCH_ROWS = 8192
_COPY_BYTES = 1 << 16
_BLOCK_BYTES = 32 << 20
"""A row must fit into a block of this size when it is read."""


def binary_rows(path: Path, columns: Sequence[str]) -> Generator[bytes]:
    """Yield these columns of a Parquet file in Postgres's binary format, a batch at a time."""
    from pgpq import ArrowToPostgresBinaryEncoder  # noqa: PLC0415  (needed only by loads)

    with open_parquet_stream(path) as file:
        encoder = ArrowToPostgresBinaryEncoder(pa.schema([file.schema_arrow.field(name) for name in columns]))
        yield encoder.write_header()
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[*columns], use_threads=False):
            yield encoder.write_batch(batch)
        yield encoder.finish()


def csv_rows(path: Path) -> Generator[bytes]:
    """Yield a Parquet file as CSV without a header, a batch at a time. A null is empty, and an empty text is quoted."""
    options = pyarrow.csv.WriteOptions(include_header=False)
    with open_parquet_stream(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            buffer = io.BytesIO()
            pyarrow.csv.write_csv(batch, buffer, options)
            yield buffer.getvalue()


def copy_rows(
    cursor: Any, table: sql.Composable, columns: Sequence[str], chunks: Generator[bytes], options: str
) -> None:
    """Send rows to a table, and close their source.

    Args:
        cursor: An open cursor.
        table: The name of the table.
        columns: The names of the columns, in the order of the rows.
        chunks: The rows in the format that the options name.
        options: The options of `COPY`, such as "FORMAT binary, FREEZE".

    Raises:
        Exception: Reading or encoding the rows failed. psycopg2 would replace the error with one of its own, which does
            not name the cause.
    """
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN ({})").format(table, names, sql.SQL(options))
    with closing(chunks):
        stream = _Stream(chunks)
        try:
            cursor.copy_expert(statement, stream, _COPY_BYTES)
        except psycopg2.Error:
            if stream.failure is None:
                raise
            raise stream.failure from None


class _Stream:
    """Chunks of bytes as a file, which psycopg2 reads. It keeps the error that the last chunk raised."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.failure: BaseException | None = None
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size` of them; an empty result marks the end."""
        try:
            if not self._rest:
                self._rest = memoryview(next(filter(None, self._chunks), b""))
        except BaseException as failure:
            self.failure = failure
            raise
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)


def read_csv(file: BinaryIO, schema: pa.Schema) -> pa.RecordBatchReader:
    """Return a reader of the CSV that Postgres writes, in which a null is empty and an empty text is quoted.

    Args:
        file: The CSV with a header, in UTF-8. It is closed after the last row.
        schema: The columns in the order of the CSV.
    """
    rows = pyarrow.csv.open_csv(
        file,
        # A null that is the only value of a row is an empty line.
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )

    def read() -> Iterator[pa.RecordBatch]:
        with file:
            yield from rows

    return pa.RecordBatchReader.from_batches(schema, read())
