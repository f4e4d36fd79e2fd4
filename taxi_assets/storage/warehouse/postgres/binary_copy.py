"""The encoder for Postgres's binary COPY format: clean trips from a Parquet file, encoded column by column with numpy.

`COPY … FROM STDIN (FORMAT binary)` costs the server half as much as CSV: it splits no lines and parses no digits.
Values are exact: decimals are sent as their digits, times as microseconds. The format is documented in the PostgreSQL
manual, "COPY", section "Binary Format"; the layout of a numeric in the server's `numeric_recv`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from taxi_assets.tlc.parquet_io import open_parquet_stream
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from taxi_assets.tlc.schema import Column

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"

_READ_ROWS = 8192
_PART_ROWS = 2048  # fits into the processor's cache: three times faster than 16,384
_PART_BYTES = 4 << 20
_NULL = -1  # the length field of a null

# Postgres counts days and microseconds from 2000-01-01, Arrow from 1970-01-01.
_EPOCH_DAYS = 10_957
_EPOCH_MICROSECONDS = _EPOCH_DAYS * 86_400_000_000

# A decimal of at most twelve digits, three of them fractional: four base-10,000 digits, of which the last is the
# fraction. Postgres strips leading and trailing zeros.
_DECIMAL = np.dtype([("digits", ">i2"), ("weight", ">i2"), ("sign", ">u2"), ("scale", ">i2"), ("digit", ">i2", 4)])
_NEGATIVE = np.uint16(0x4000)
_SCALES = {ColumnType.MONEY: 2, ColumnType.MILES: 3}

_DTYPES: Mapping[ColumnType, np.dtype[Any]] = {
    ColumnType.INTEGER: np.dtype(">i8"),
    ColumnType.MONEY: _DECIMAL,
    ColumnType.MILES: _DECIMAL,
    ColumnType.DEGREES: np.dtype(">f8"),
    ColumnType.DATETIME: np.dtype(">i8"),
    ColumnType.DATE: np.dtype(">i4"),
    ColumnType.BOOLEAN: np.dtype("u1"),
}


class NulByteError(ValueError):
    """A text contains a NUL byte, which Postgres cannot store. The argument is the column's name."""


class BinaryCopyStream:
    """A readable stream of the rows of a Parquet file, for `copy_expert`. Close it after use.

    Attributes:
        failure: The error that encoding the rows raised, or None. psycopg2 replaces it with an error of its own that
            does not name the cause.
    """

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        self.failure: BaseException | None = None
        self._parts = _prefetch(_encode_file(path, columns))
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size` of them; an empty result marks the end."""
        try:
            if not self._rest:
                self._rest = memoryview(next(self._parts, b""))
        except BaseException as failure:
            self.failure = failure
            raise
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)

    def close(self) -> None:
        """Close the file."""
        self._parts.close()


def _prefetch(parts: Any) -> Any:
    """Yield the same parts; encode each in another thread while the previous one is sent to the server."""
    with closing(parts), ThreadPoolExecutor(max_workers=1) as executor:
        upcoming = executor.submit(next, parts, None)
        while (part := upcoming.result()) is not None:
            upcoming = executor.submit(next, parts, None)
            yield part


def _encode_file(path: Path, columns: Sequence[Column]) -> Iterator[bytes]:
    yield _HEADER
    with open_parquet_stream(path) as file:
        names = [column.name for column in columns]
        for batch in file.iter_batches(batch_size=_READ_ROWS, columns=names, use_threads=False):
            for start in range(0, batch.num_rows, _PART_ROWS):
                yield from _encode(batch.slice(start, _PART_ROWS), columns)
    yield _TRAILER


def _encode(batch: Any, columns: Sequence[Column]) -> Iterator[bytes]:
    """Encode a batch as bytes; encode it in halves if one long text would widen every row too much."""
    layout = np.dtype(
        [("columns", ">i2")]
        + [(column.name, [("length", ">i4"), ("value", _value_dtype(column, batch))]) for column in columns]
    )
    if batch.num_rows > 1 and batch.num_rows * layout.itemsize > _PART_BYTES:
        half = batch.num_rows // 2
        yield from _encode(batch.slice(0, half), columns)
        yield from _encode(batch.slice(half), columns)
    else:
        yield _encode_part(batch, columns, layout)


def _value_dtype(column: Column, batch: Any) -> np.dtype[Any]:
    """Return the layout of a column's values in this batch. All values are as wide as the widest."""
    array = batch.column(column.name)
    if array.null_count == len(array):
        return np.dtype(("u1", (0,)))
    if column.type is ColumnType.TEXT:
        return np.dtype(("u1", (int(_text_lengths(array).max()),)))
    return _DTYPES[column.type]


def _encode_part(batch: Any, columns: Sequence[Column], layout: np.dtype[Any]) -> bytes:
    """Fill a table of equally wide rows, then cut out the padding bytes of nulls and shorter texts."""
    table = np.empty(batch.num_rows, layout)
    table["columns"] = len(columns)
    offsets = {name: field[1] for name, field in (layout.fields or {}).items()}
    used = None
    for column in columns:
        cells = table[column.name]
        used_of_values = _fill(cells, column, batch.column(column.name))
        if used_of_values is not None:
            used = np.ones((len(table), layout.itemsize), bool) if used is None else used
            start, width = offsets[column.name] + cells["length"].itemsize, cells.dtype["value"].itemsize
            used[:, start : start + width] = used_of_values
    content = table.view(np.uint8)
    return bytes(content if used is None else content[used.ravel()])


def _fill(cells: Any, column: Column, array: Any) -> Any:
    """Write a column's lengths and values; return a mask of the values' bytes to send, or None to send all."""
    if array.null_count == len(array):
        cells["length"] = _NULL
        return None
    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    if column.type is ColumnType.TEXT:
        lengths = _text_lengths(array)
        used = lengths[:, None] > np.arange(cells["value"].shape[1])
        cells["value"][used] = _text_bytes(column, array)
    else:
        lengths = cells["value"].itemsize
        used = None if valid is None else valid[:, None]
        _fill_values(cells["value"], column.type, array)
    cells["length"] = lengths if valid is None else np.where(valid, lengths, _NULL)
    return used


def _fill_values(values: Any, type_: ColumnType, array: Any) -> None:
    """Write the values of a column that is not text; those of nulls are arbitrary, the caller cuts them out."""
    match type_:
        case ColumnType.MONEY | ColumnType.MILES:
            _fill_decimals(values, _SCALES[type_], array)
        case ColumnType.DATETIME:
            values[:] = _numbers(array, "<i8") - _EPOCH_MICROSECONDS
        case ColumnType.DATE:
            values[:] = _numbers(array, "<i4") - _EPOCH_DAYS
        case ColumnType.INTEGER:
            values[:] = _numbers(array, "<i8")
        case ColumnType.DEGREES:
            values[:] = _numbers(array, "<f8")
        case _:
            values[:] = array.fill_null(False).to_numpy(zero_copy_only=False)


def _fill_decimals(values: Any, scale: int, array: Any) -> None:
    # Arrow's decimals have 128 bits; twelve digits fit into the lower half.
    number = _numbers(array, "<i8", words=2)
    whole, fraction = np.divmod(np.abs(number), 10**scale)
    values["digits"], values["weight"], values["scale"] = 4, 2, scale
    values["sign"] = (number < 0) * _NEGATIVE
    digit = values["digit"]
    digit[:, 3] = fraction * 10 ** (4 - scale)
    rest, digit[:, 2] = np.divmod(whole, 10_000)
    digit[:, 0], digit[:, 1] = np.divmod(rest, 10_000)


def _numbers(array: Any, type_: str, words: int = 1) -> Any:
    """Return a view of an Arrow array's memory, nulls included: the first word of each value of `words` words."""
    first = array.offset * words
    return np.frombuffer(array.buffers()[1], type_)[first : first + len(array) * words : words]


def _text_offsets(array: Any) -> Any:
    return np.frombuffer(array.buffers()[1], "<i4")[array.offset : array.offset + len(array) + 1]


def _text_lengths(array: Any) -> Any:
    return np.diff(_text_offsets(array))


def _text_bytes(column: Column, array: Any) -> Any:
    """Return the UTF-8 bytes of all texts, concatenated; nulls have none."""
    offsets = _text_offsets(array)
    content = np.frombuffer(array.buffers()[2] or b"", "u1")[offsets[0] : offsets[-1]]
    if not content.all():
        raise NulByteError(column.name)
    return content
