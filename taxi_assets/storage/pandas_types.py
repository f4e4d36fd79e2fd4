"""Convert Arrow tables to pandas DataFrames with the same types in every warehouse, with and without nulls."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ARROW_TYPES: Mapping[str, Any] = {
    "BIGINT": pa.int64(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "DOUBLE": pa.float64(),
    "INT": pa.int64(),
    "TEXT": pa.string(),
    "TIMESTAMP": pa.timestamp("us"),
}
_MAXIMUM_PLACES = 3


@dataclass(frozen=True)
class StagedFrame:
    """The rows of an unpartitioned table that is not written yet, with a check that its inputs have not changed.

    Other runs may change the inputs between the time the frame is computed and the time it is written.
    """

    frame: pd.DataFrame
    require_inputs_unchanged: Callable[[], None]
    """Raises `ConcurrentUpdateError` if the inputs have changed. The warehouse calls it just before it writes."""


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Convert an Arrow table to a frame whose columns stay in Arrow memory (`pandas.ArrowDtype`).

    Integers, booleans, texts and decimals are exact and nullable, and no value becomes a Python object.
    """
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def normalize_types(table: pa.Table, types: Mapping[str, str] | None = None) -> pa.Table:
    """Cast the columns of a query's result to types that do not depend on the database.

    Databases differ: a sum of integers is a decimal in some, and BigQuery's decimals have nine places. A column is cast
    only if no value changes.

    Args:
        table: The result, with the types of the database.
        types: The SQL types that the columns should have, by column, such as "DECIMAL(18, 2)". Without one, integers
            become 64-bit, and decimals get as few places as their values need, but at least two.
    """
    columns = [
        _cast_column(table.column(place), (types or {}).get(name)) for place, name in enumerate(table.column_names)
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _cast_column(column: pa.ChunkedArray, sql_type: str | None) -> pa.ChunkedArray:
    """Return the column in the first type that can hold all its values."""
    declared = _arrow_type(sql_type)
    for type_ in _default_types(column.type) if declared is None else [declared, *_default_types(column.type)]:
        try:
            return column.cast(type_)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # the cast would change a value
            continue
    return column


def _default_types(type_: pa.DataType) -> list[pa.DataType]:
    if pa.types.is_integer(type_):
        return [pa.int64()]
    if pa.types.is_floating(type_):
        return [pa.float64()]
    if pa.types.is_decimal(type_) and type_.scale == 0:
        return [pa.int64()]
    if pa.types.is_decimal(type_) and type_.scale > _MAXIMUM_PLACES:
        return [pa.decimal128(38, scale) for scale in range(2, type_.scale + 1)]
    if pa.types.is_decimal(type_):
        return [pa.decimal128(38, type_.scale)]
    return []


def _arrow_type(sql_type: str | None) -> pa.DataType | None:
    decimal = re.fullmatch(r"DECIMAL\(\d+, (\d+)\)", sql_type or "")
    return _ARROW_TYPES.get(sql_type or "") if decimal is None else pa.decimal128(38, int(decimal[1]))
