"""The Postgres types of Arrow columns, and rows as CSV, in which `COPY` reads and writes them.

Belongs here: the types of tables that assets store, and of query results. The types of trips are in `tables.py`.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv

from taxi_assets.tlc.parquet_io import open_parquet_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

ARROW_BY_OID: Mapping[int, Any] = {
    16: pa.bool_(),
    **dict.fromkeys((20, 21, 23), pa.int64()),
    **dict.fromkeys((19, 25, 1043), pa.string()),
    **dict.fromkeys((700, 701), pa.float64()),
    1082: pa.date32(),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", "UTC"),
}
"""Arrow types by the oid of a Postgres type; `marts.py` converts the results of queries with it.

The oids of built-in types never change (`pg_type.dat`).
"""
_ARROW_BY_NAME: Mapping[str, Any] = {
    "bigint": pa.int64(),
    "integer": pa.int64(),
    "smallint": pa.int64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "double precision": pa.float64(),
    "real": pa.float64(),
    "text": pa.string(),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "timestamp without time zone": pa.timestamp("us"),
}
_SQL_BY_ARROW: Mapping[Any, str] = {
    pa.int64(): "bigint",
    pa.bool_(): "boolean",
    pa.date32(): "date",
    pa.float64(): "double precision",
    pa.string(): "text",
    pa.timestamp("us", "UTC"): "timestamp with time zone",
    pa.timestamp("us"): "timestamp without time zone",
}
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")
_CHUNK_ROWS = 8192
_BLOCK_BYTES = 32 << 20
"""A row must fit into a block of this size when it is read."""


def sql_type(type_: pa.DataType) -> str:
    """Return the Postgres type of a column, as `format_type` spells it; see `warehouse_schema` for the Arrow types."""
    if pa.types.is_decimal(type_):
        return f"numeric({type_.precision},{type_.scale})"
    return _SQL_BY_ARROW[type_]


def arrow_type(name: str) -> pa.DataType:
    """Return the Arrow type of a column, from the name of its Postgres type.

    Types without a counterpart, such as `json` or a numeric of any precision, are read as text.
    """
    numeric = _NUMERIC.fullmatch(name)
    if numeric is not None and int(numeric[1]) <= 38:
        return pa.decimal128(int(numeric[1]), int(numeric[2]))
    return _ARROW_BY_NAME.get(name, pa.string())


class CsvStream(io.RawIOBase):
    """The rows of a Parquet file as CSV without a header, converted while `COPY` reads them.

    A null is empty, and an empty text is quoted.
    """

    def __init__(self, path: Path) -> None:
        self._chunks = self._convert(path)
        self._chunk = memoryview(b"")

    @staticmethod
    def _convert(path: Path) -> Iterator[bytes]:
        options = pyarrow.csv.WriteOptions(include_header=False)
        with open_parquet_stream(path) as parquet:
            for batch in parquet.iter_batches(batch_size=_CHUNK_ROWS):
                buffer = io.BytesIO()
                pyarrow.csv.write_csv(batch, buffer, options)
                yield buffer.getvalue()

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes: at most `size`, and fewer at the end of a chunk; empty at the end of the rows."""
        if not self._chunk:
            self._chunk = memoryview(next(filter(None, self._chunks), b""))
        size = len(self._chunk) if size < 0 else size
        part, self._chunk = bytes(self._chunk[:size]), self._chunk[size:]
        return part


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
