"""A month of a mart on its way into its table in a DuckDB file.

Belongs here: what happens within the one transaction, and the names of its errors.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb

from taxi_assets.storage.warehouse.base_warehouse import query_error
from taxi_assets.storage.warehouse.duckdb.tables import literal, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taxi_assets.errors import WarehouseSchemaError, WarehouseTableMissingError
    from taxi_assets.marts.mart import Mart
    from taxi_assets.storage.warehouse.duckdb.tables import Schema
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

_MISSING = re.compile(r"Table with name \"?(?:[^ ]*\.)?(?P<name>[^ .\"]+)\"? does not exist")


def replace_mart(schema: Schema, mart: Mart, month: Month, services: Sequence[Service], qualified_name: str) -> int:
    """Delete and insert, and make the views anew, within the transaction; the number of rows."""
    from taxi_assets.marts.sql_rendering import mart_queries, month_query, render  # noqa: PLC0415  (a fifth of a second)

    connection = schema.connection
    schema.create()
    enter(schema)
    table = schema.prepare(mart.name, mart.columns, qualified_name)
    connection.execute(f"COMMENT ON TABLE {table.name} IS {literal(mart.description)}")
    connection.execute(f"DELETE FROM {table.name} WHERE data_month = ?", [month.start])
    query = render(month_query(mart, month, services), "duckdb", quote)
    rows = connection.execute(f"INSERT INTO {table.name} BY NAME {query}").fetchone()
    for name, view in mart_queries(mart)[1].items():
        connection.execute(f"CREATE OR REPLACE VIEW {schema.table_name(name)} AS {render(view, 'duckdb', quote)}")
    return 0 if rows is None else int(rows[0])


def enter(schema: Schema) -> None:
    """From now on, names without a schema are looked for here. So views do not name the file, which may be renamed."""
    if schema.exists():
        schema.connection.execute(f"USE {schema.qualified}")


@contextmanager
def named_errors(label: str, missing: Callable[[str], WarehouseTableMissingError]) -> Iterator[None]:
    """Names what the engine says of a query."""
    try:
        yield
    except duckdb.CatalogException as error:
        found = _MISSING.search(str(error))
        raise (_query_error(label, error) if found is None else missing(found["name"])) from error
    except (duckdb.BinderException, duckdb.ParserException, duckdb.ConversionException) as error:
        raise _query_error(label, error) from error


def _query_error(label: str, error: duckdb.Error) -> WarehouseSchemaError:
    message = str(error).split("\n", 1)[0].rstrip(".")
    return query_error(label, message)
