"""pandas frames with the types that were meant: integers stay integers where values are missing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NULLABLE: Mapping[Any, Any] = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype(),
    pa.large_string(): pd.StringDtype(),
}

_ARROW: Mapping[str, Any] = {
    "BIGINT": pa.int64(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "DOUBLE": pa.float64(),
    "INT": pa.int64(),
    "TEXT": pa.string(),
    "TIMESTAMP": pa.timestamp("us"),
}
_MILES_PLACES = 3


@dataclass(frozen=True)
class StagedFrame:
    """A small table on its way to the warehouse, made of what others may change meanwhile."""

    frame: pd.DataFrame
    require_inputs_unchanged: Callable[[], None]
    """Raises where what it was made of is not so any more; to be called when it takes its table's place."""


def to_frame(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as a frame: nullable integers, booleans and strings; money as exact `Decimal`."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_NULLABLE.get)
    return frame


def normalize_types(table: pa.Table, types: Mapping[str, str] | None = None) -> pa.Table:
    """The rows of a query with the types of every engine: integers of 64 bits, exact decimals of at least two places.

    An engine's own types tell less: sums of integers are decimals here and there, and BigQuery's decimals have nine
    places. `types` are DuckDB's names of what is meant, by column.
    """
    columns = [
        _declared_type(table.column(place), (types or {}).get(name)) for place, name in enumerate(table.column_names)
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _declared_type(column: pa.ChunkedArray, meant: str | None) -> pa.ChunkedArray:
    known = _arrow_type(meant)
    for type_ in _is_inferred_type(column.type) if known is None else [known, *_is_inferred_type(column.type)]:
        try:
            return column.cast(type_)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # it would lose something
            continue
    return column


def _is_inferred_type(type_: pa.DataType) -> list[pa.DataType]:
    if pa.types.is_integer(type_):
        return [pa.int64()]
    if pa.types.is_floating(type_):
        return [pa.float64()]
    if pa.types.is_decimal(type_) and type_.scale == 0:
        return [pa.int64()]
    if pa.types.is_decimal(type_) and type_.scale > _MILES_PLACES:
        return [pa.decimal128(38, scale) for scale in range(2, type_.scale)]
    return []


def _arrow_type(name: str | None) -> pa.DataType | None:
    decimal = re.fullmatch(r"DECIMAL\(\d+, (\d+)\)", name or "")
    return _ARROW.get(name or "") if decimal is None else pa.decimal128(38, int(decimal[1]))
