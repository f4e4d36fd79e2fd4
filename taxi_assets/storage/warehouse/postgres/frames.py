"""Small tables, which are not of our schema: what pandas and Postgres have in common.

Belongs here: from a frame's columns to types and CSV, and back. How a table is replaced is `PostgresWarehouse`'s.
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

_TYPES: Mapping[str, Any] = {
    "bigint": pa.int64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "double precision": pa.float64(),
    "text": pa.string(),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "timestamp without time zone": pa.timestamp("us"),
}
TYPES_BY_OID: Mapping[int, Any] = {
    16: pa.bool_(),
    **dict.fromkeys((20, 21, 23), pa.int64()),
    **dict.fromkeys((19, 25, 1043), pa.string()),
    **dict.fromkeys((700, 701), pa.float64()),
    1082: pa.date32(),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", "UTC"),
}
"""By the numbers that pg_type has had since ever."""
_KINDS: Sequence[tuple[Callable[[Any], bool], str]] = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_date, "date"),
    (pa.types.is_floating, "double precision"),
    (pa.types.is_integer, "bigint"),
    (pa.types.is_large_string, "text"),
    (pa.types.is_null, "text"),
    (pa.types.is_string, "text"),
)
_REMEDY = "Make text, numbers, dates or times of it first."


def to_csv(frame: pd.DataFrame, table: str) -> tuple[dict[str, str], BytesIO]:
    """The types of its columns, by name, and its rows; raises `WarehouseSchemaError` for what no column can hold."""
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


def from_rows(rows: Sequence[Sequence[object]], types: Mapping[str, str]) -> pd.DataFrame:
    """Rows as psycopg2 gives them, in columns of these types."""
    columns = {
        name: pa.array([row[number] for row in rows], _TYPES.get(type_))
        for number, (name, type_) in enumerate(types.items())
    }
    return to_frame(pa.table(columns))


def _type_of(type_: Any) -> str | None:
    """What a column becomes; None where Postgres has nothing that it would come back from as it was."""
    if pa.types.is_dictionary(type_):  # pandas calls it a category
        return _type_of(type_.value_type)
    if pa.types.is_decimal(type_):
        return f"numeric({type_.precision},{type_.scale})"
    if pa.types.is_timestamp(type_):
        return f"timestamp {'without' if type_.tz is None else 'with'} time zone"
    return next((name for is_one, name in _KINDS if is_one(type_)), None)
