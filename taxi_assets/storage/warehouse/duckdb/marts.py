"""Replace a month of a mart in a DuckDB file, and translate the errors of its queries.

Belongs here: the statements within the transaction. Does not belong here: the transaction itself (`__init__.py`).
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

_MISSING_TABLE_PATTERN = re.compile(r"Table with name \"?(?:[^ ]*\.)?(?P<name>[^ .\"]+)\"? does not exist")


def replace_mart(schema: Schema, mart: Mart, month: Month, services: Sequence[Service], qualified_name: str) -> int:
    """Replace the rows of a month and recreate the mart's views, within the caller's transaction.

    Args:
        schema: The schema that contains the mart's table.
        mart: The definition of the mart.
        month: The month to replace.
        services: The services whose trips the query reads.
        qualified_name: The name of the table in error messages.

    Returns:
        The number of rows of the month.
    """
    from taxi_assets.marts.sql_rendering import mart_queries, month_query, render  # noqa: PLC0415  (0.2 s)

    connection = schema.connection
    schema.create()
    use_schema(schema)
    table = schema.prepare(mart.name, mart.columns, qualified_name)
    connection.execute(f"COMMENT ON TABLE {table.name} IS {literal(mart.description)}")
    connection.execute(f"DELETE FROM {table.name} WHERE data_month = ?", [month.start])
    query = render(month_query(mart, month, services), "duckdb", quote)
    rows = connection.execute(f"INSERT INTO {table.name} BY NAME {query}").fetchone()
    for name, view in mart_queries(mart)[1].items():
        connection.execute(f"CREATE OR REPLACE VIEW {schema.table_name(name)} AS {render(view, 'duckdb', quote)}")
    return 0 if rows is None else int(rows[0])


def use_schema(schema: Schema) -> None:
    """Make the schema, if it exists, the default of the connection.

    Views then refer to tables without the name of the database file, so that the file can be renamed.
    """
    if schema.exists():
        schema.connection.execute(f"USE {schema.qualified}")


@contextmanager
def translate_query_errors(label: str, missing: Callable[[str], WarehouseTableMissingError]) -> Iterator[None]:
    """Translate DuckDB's errors about a query into errors of this package.

    Args:
        label: The operation that failed, such as "zone_day 2021-01 cannot be computed".
        missing: Builds the error for a table, given its name without the schema.

    Raises:
        WarehouseTableMissingError: The query reads a table that does not exist.
        WarehouseSchemaError: DuckDB rejects the query for another reason.
    """
    try:
        yield
    except duckdb.CatalogException as error:
        found = _MISSING_TABLE_PATTERN.search(str(error))
        raise (_query_error(label, error) if found is None else missing(found["name"])) from error
    except (duckdb.BinderException, duckdb.ParserException, duckdb.ConversionException) as error:
        raise _query_error(label, error) from error


def _query_error(label: str, error: duckdb.Error) -> WarehouseSchemaError:
    message = str(error).split("\n", 1)[0].rstrip(".")
    return query_error(label, message)
