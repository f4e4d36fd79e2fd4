"""The values of trips as integers, which numpy compares and sorts faster than Arrow's decimals and texts.

Two values of a column are equal if and only if their integers are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Array = Any  # of numpy
_WIDTHS = (pa.int8(), pa.int16(), pa.int32())


def to_integers(values: pa.Array) -> pa.Array:
    """Return integers instead of decimals, times, numbers and booleans. Text is returned as it is."""
    type_ = values.type
    if pa.types.is_string(type_):
        return values
    if pa.types.is_decimal(type_):
        # Money and miles have 12 digits, so they are in the lower half of the 128 bits. A cast would
        # take four times as long.
        validity, data = values.buffers()
        lower = np.frombuffer(data, "<i8")[::2].copy()
        return pa.Array.from_buffers(pa.int64(), len(values), [validity, pa.py_buffer(lower)], offset=values.offset)
    if pa.types.is_floating(type_):
        # Equal numbers have the same bytes: -0.0 becomes 0.0, and there is one NaN.
        positive_zero = pc.add(values, 0.0)
        return pc.if_else(pc.is_nan(positive_zero), float("nan"), positive_zero).view(pa.int64())
    if pa.types.is_timestamp(type_):
        return values.view(pa.int64())
    return values.cast(pa.int32() if pa.types.is_date32(type_) else pa.int64())


def from_integers(integers: pa.Array, type_: pa.DataType) -> pa.Array:
    """Return the values of a type, from what `to_integers` has returned for them."""
    if pa.types.is_string(type_):
        return integers
    if pa.types.is_decimal(type_):
        return integers.view(pa.decimal64(type_.precision, type_.scale)).cast(type_)
    if pa.types.is_floating(type_) or pa.types.is_timestamp(type_):
        return integers.view(type_)
    return integers.cast(pa.int32()).cast(type_) if pa.types.is_date32(type_) else integers.cast(type_)


def narrow(integers: pa.Array, at_least: pa.DataType) -> pa.Array:
    """Return the integers in the smallest type that can hold all of them, and those of another type.

    Text is returned as it is.
    """
    if pa.types.is_string(integers.type):
        return integers
    limits = pc.min_max(integers)
    low, high = limits["min"].as_py() or 0, limits["max"].as_py() or 0
    for type_ in _WIDTHS:
        limit = 1 << (type_.bit_width - 1)
        if -limit <= low and high < limit and type_.bit_width >= at_least.bit_width:
            return integers.cast(type_)
    return integers.cast(pa.int64())


@dataclass(frozen=True)
class Values:
    """The values of one column in some rows.

    Attributes:
        numbers: One integer per row; 0 if the value is null.
        nulls: Whether the value is null, one boolean per row; None if none is.
        texts: The texts of a column of text, of which `numbers` are indices; None for other columns.
    """

    numbers: Array
    nulls: Array | None
    texts: pa.Array | None = None

    @classmethod
    def of(cls, chunks: Sequence[pa.Array]) -> Values:
        """Return the values of arrays of integers of any width, or of text, one after the other."""
        texts = None
        # Converting few large arrays is faster than many small ones.
        chunks = [pa.concat_arrays(same_type) for _, same_type in groupby(chunks, attrgetter("type"))]
        if pa.types.is_string(chunks[0].type):
            encoded = chunks[0].dictionary_encode()
            texts, chunks = encoded.dictionary, [encoded.indices]
        null_count = sum(chunk.null_count for chunk in chunks)
        numbers = [(chunk.fill_null(0) if chunk.null_count else chunk).to_numpy() for chunk in chunks]
        nulls = [chunk.is_null().to_numpy(zero_copy_only=False) for chunk in chunks] if null_count else None
        return cls(np.concatenate(numbers), None if nulls is None else np.concatenate(nulls), texts)

    def take(self, rows: Array) -> Values:
        """Return the values of some rows, given by index. The index -1 gives null."""
        absent = rows < 0
        nulls = self.nulls[rows] | absent if self.nulls is not None else absent if absent.any() else None
        numbers = self.numbers[rows]
        if nulls is not None:
            numbers[nulls] = 0
        return Values(numbers, nulls, self.texts)

    def differ(self, other: Values) -> Array:
        """Return whether the values differ from others of the same column, row by row. Two nulls are equal."""
        different = self.numbers != other.numbers
        if self.nulls is None and other.nulls is None:
            return different
        return different | (self.null_mask() != other.null_mask())

    def differ_between(self, rows: Array, others: Array) -> Array:
        """Return whether the values differ between two rows, given by index, for each of several pairs of rows."""
        different = self.numbers[rows] != self.numbers[others]
        return different if self.nulls is None else different | (self.nulls[rows] != self.nulls[others])

    def null_mask(self) -> Array:
        """Return whether the value is null, one boolean per row."""
        return np.zeros(len(self.numbers), bool) if self.nulls is None else self.nulls

    def to_arrow(self, type_: pa.DataType) -> pa.Array:
        """Return an array of the column's type."""
        if self.texts is None:
            return from_integers(pa.array(self.numbers.astype(np.int64, copy=False), mask=self.nulls), type_)
        return self.texts.take(pa.array(self.numbers, mask=self.nulls))


@dataclass(frozen=True)
class TripRows:
    """Trips of both revisions: those of the older one, then those of the newer one, each in the order of its file.

    Attributes:
        columns: The values of each column.
        old_rows: The number of trips of the older revision.
    """

    columns: Mapping[str, Values]
    old_rows: int

    @classmethod
    def of(cls, old: Iterable[pa.RecordBatch], new: Iterable[pa.RecordBatch]) -> TripRows:
        """Return the rows of record batches, of which at least one has to exist."""
        older = [*old]
        batches = [*older, *new]
        columns = {name: Values.of([batch[name] for batch in batches]) for name in batches[0].schema.names}
        return cls(columns, sum(batch.num_rows for batch in older))


def as_text(values: Values, type_: pa.DataType) -> pa.DictionaryArray:
    """Return the values of a column of a type as text, as DuckDB shows them. Each distinct value is converted once."""
    if values.texts is not None:
        return pa.DictionaryArray.from_arrays(pa.array(values.numbers, mask=values.nulls), values.texts)
    encoded = values.to_arrow(pa.int64()).dictionary_encode()
    distinct = from_integers(encoded.dictionary, type_)
    if pa.types.is_floating(type_):
        texts = pa.array([repr(value) for value in distinct.to_pylist()], pa.string())
    elif pa.types.is_timestamp(type_):
        texts = pc.replace_substring_regex(distinct.cast(pa.string()), r"\.?0+$", "")
    else:
        texts = distinct.cast(pa.string())
    return pa.DictionaryArray.from_arrays(encoded.indices, texts)
