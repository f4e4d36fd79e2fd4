"""Conversion between pandas DataFrames and unpartitioned tables of Postgres.

This module only converts; `PostgresWarehouse.replace_frame` writes the table.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv

from taxi_assets.errors import WarehouseSchemaError
from taxi_assets.storage.pandas_types import to_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

_ARROW_BY_NAME: Mapping[str, Any] = {
    "bigint": pa.int64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "double precision": pa.float64(),
    "text": pa.string(),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "timestamp without time zone": pa.timestamp("us"),
}
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
_NAME_BY_ARROW_TEST: Sequence[tuple[Callable[[Any], bool], str]] = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_date, "date"),
    (pa.types.is_floating, "double precision"),
    (pa.types.is_integer, "bigint"),
    (pa.types.is_large_string, "text"),
    (pa.types.is_null, "text"),
    (pa.types.is_string, "text"),
)
_REMEDY = "Convert the column to text, numbers, dates or times first."


def frame_to_csv(frame: pd.DataFrame, table: str) -> tuple[dict[str, str], BytesIO]:
    """Convert a frame to Postgres types and CSV.

    Args:
        frame: The frame. Its index is dropped.
        table: The qualified name of the table, for errors.

    Returns:
        The Postgres type of each column, by name in the frame's order; and a buffer with the rows as CSV without
        a header, positioned at its end: seek to 0 before reading.

    Raises:
        WarehouseSchemaError: A column has a type that no Postgres column can hold, or values of several types.
    """
    try:
        rows = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise WarehouseSchemaError(f"{table} cannot hold this frame: {error.args[-1]}.", remedy=_REMEDY) from error
    types = {field.name: _type_of(field.type) for field in rows.schema}
    unknown = [name for name, type_ in types.items() if type_ is None]
    if unknown:
        raise WarehouseSchemaError(
            f"{table} cannot hold {', '.join(f'{name} ({rows.schema.field(name).type})' for name in unknown)}.",
            remedy=_REMEDY,
        )
    content = BytesIO()
    pyarrow.csv.write_csv(rows, content, pyarrow.csv.WriteOptions(include_header=False))
    return {name: type_ for name, type_ in types.items() if type_ is not None}, content


def frame_from_rows(rows: Sequence[Sequence[object]], types: Mapping[str, str]) -> pd.DataFrame:
    """Build a frame from rows as psycopg2 returns them.

    Args:
        rows: One sequence of values per row.
        types: The Postgres type of each column, by name, in the order of the values. For `numeric`, and for types that
            `frame_to_csv` never creates, Arrow infers the type from the values.
    """
    columns = {
        name: pa.array([row[number] for row in rows], _ARROW_BY_NAME.get(type_))
        for number, (name, type_) in enumerate(types.items())
    }
    return to_frame(pa.table(columns))


def _type_of(type_: Any) -> str | None:
    """Return the Postgres type of an Arrow column; None if no Postgres type can hold its values unchanged."""
    if pa.types.is_dictionary(type_):  # a pandas category
        return _type_of(type_.value_type)
    if pa.types.is_decimal(type_):
        return f"numeric({type_.precision},{type_.scale})"
    if pa.types.is_timestamp(type_):
        return f"timestamp {'without' if type_.tz is None else 'with'} time zone"
    return next((name for matches, name in _NAME_BY_ARROW_TEST if matches(type_)), None)
