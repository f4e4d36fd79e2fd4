"""Arrow arrays in working types (`ColumnType.working_type`), which columns have during cleaning."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def to_canonical(values: Any) -> Any:
    """Return an array of a working type in its canonical type (`ColumnType.arrow_type`), and other arrays unchanged."""
    if pa.types.is_decimal64(values.type):
        return values.cast(pa.decimal128(values.type.precision, values.type.scale))
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def drop_empty_bitmap(array: Any) -> Any:
    """Return the array without its validity bitmap if it has no nulls.

    Arrow's kernels are several times slower on arrays with a bitmap.
    """
    if pa.types.is_dictionary(array.type):
        return pa.DictionaryArray.from_arrays(drop_empty_bitmap(array.indices), array.dictionary)
    buffers = array.buffers()
    if array.null_count or buffers[0] is None or pa.types.is_nested(array.type):
        return array
    return pa.Array.from_buffers(array.type, len(array), [None, *buffers[1:]], 0, array.offset)


def dictionary_array(values: Any, indices: Any) -> Any:
    """Build a dictionary array whose dictionary has neither duplicates nor nulls.

    Args:
        values: The dictionary, which may have duplicates and nulls.
        indices: One index into `values` per row, or null.
    """
    distinct = values.dictionary_encode()
    if distinct.null_count or len(distinct.dictionary) < len(values):
        return pa.DictionaryArray.from_arrays(distinct.indices.take(indices), distinct.dictionary)
    return pa.DictionaryArray.from_arrays(indices, values)
