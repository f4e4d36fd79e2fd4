"""The Postgres types of Arrow columns.

Belongs here: the types of tables that assets store, and of query results. The types of trips are in `tables.py`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping

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
