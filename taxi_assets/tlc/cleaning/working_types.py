"""Arrays of working types, which columns have while a month is cleaned (`ColumnType.working`)."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def to_canonical(values: Any) -> Any:
    """Convert an array of a working type to the canonical one (`ColumnType.arrow`)."""
    if pa.types.is_decimal64(values.type):
        return values.cast(pa.decimal128(values.type.precision, values.type.scale))
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def drop_empty_bitmap(array: Any) -> Any:
    """Drop a validity bitmap that marks no null: Arrow's kernels are several times slower on arrays that have one."""
    if pa.types.is_dictionary(array.type):
        return pa.DictionaryArray.from_arrays(drop_empty_bitmap(array.indices), array.dictionary)
    buffers = array.buffers()
    if array.null_count or buffers[0] is None or pa.types.is_nested(array.type):
        return array
    return pa.Array.from_buffers(array.type, len(array), [None, *buffers[1:]], 0, array.offset)


def dictionary_array(values: Any, indices: Any) -> Any:
    """Build a dictionary array; `values` may hold equal values and nulls, the result's dictionary holds neither."""
    distinct = values.dictionary_encode()
    if distinct.null_count or len(distinct.dictionary) < len(values):
        return pa.DictionaryArray.from_arrays(distinct.indices.take(indices), distinct.dictionary)
    return pa.DictionaryArray.from_arrays(indices, values)
