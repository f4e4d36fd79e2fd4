"""Marts on a Postgres server: their tables and views, and how a month is replaced.

A mart is a plain table. It is small, so one transaction deletes the month and inserts it again. Readers see the old
rows until the transaction ends, and no session waits for another. Partitions would only add locks.

The table and its views are created and updated under the advisory lock of the schema, the month is replaced under the
lock of that month. `marts/sql_rendering.py` renders the queries.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from psycopg2 import errors, sql

from taxi_assets.errors import MartDefinitionError, WarehouseSchemaError
from taxi_assets.storage.warehouse.base_warehouse import query_error
from taxi_assets.storage.warehouse.postgres.arrow_types import ARROW_BY_OID
from taxi_assets.storage.warehouse.postgres.locks import advisory_lock, advisory_lock_key, run_with_lock_retry
from taxi_assets.storage.warehouse.postgres.swap import month_lock_key
from taxi_assets.storage.warehouse.postgres.tables import (
    TYPES,
    column_definitions,
    describe_columns,
    find_table,
    prepare_schema,
    qualified_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from taxi_assets.errors import WarehouseTableMissingError
    from taxi_assets.marts.mart import Mart
    from taxi_assets.storage.warehouse.postgres.locks import LockTimeouts
    from taxi_assets.storage.warehouse.postgres.tables import Table
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

_MISSING_TABLE = re.compile(r'relation "(?:[^"]*\.)?(?P<name>[^".]+)" does not exist')
_UNIQUE_KEYS = """
    SELECT ARRAY(
        SELECT attname::text FROM unnest(indkey::smallint[]) WITH ORDINALITY AS key (attnum, place)
            JOIN pg_attribute AS a ON attrelid = indrelid AND a.attnum = key.attnum ORDER BY place
    ) FROM pg_index WHERE indrelid = %s AND indisunique
"""
_REMEDY = "Rename or drop the old table, then materialize its months again."
_DIGITS = 38
"""The precision of an Arrow decimal128."""


def replace_mart(
    connection: Any,
    schema: str,
    mart: Mart,
    month: Month,
    services: Sequence[Service],
    timeouts: LockTimeouts,
    require_inputs_unchanged: Callable[[], None],
) -> int:
    """Create or update a mart's table and views, then replace a month of it in one transaction.

    Args:
        connection: An open connection in autocommit mode.
        schema: The schema of the table, the views and the tables that the query reads.
        mart: Defines the query, the key and the views.
        month: The month to replace.
        services: The services whose trips the query reads.
        timeouts: The limits for changing the table or its views.
        require_inputs_unchanged: Called with the month's lock held, before the month is deleted. It raises if the
            inputs have changed.

    Returns:
        The number of rows of the month.

    Raises:
        MartDefinitionError: The rows are not unique by the mart's key.
        WarehouseSchemaError: The table is partitioned, has a column of another type, or cannot get its new key; or
            another object depends on a view that has to be dropped.
        WarehouseBusyError: Another session held the month's lock, or kept the table or a view locked.
    """
    from taxi_assets.marts.sql_rendering import mart_queries, month_query, render  # noqa: PLC0415  (a fifth of a second)

    def relation(name: str) -> str:
        return qualified_name(schema, name)

    views = {name: render(view, "postgres", relation) for name, view in mart_queries(mart)[1].items()}
    query = render(month_query(mart, month, services), "postgres", relation)
    prepare_schema(connection, schema)
    _prepare(connection, schema, mart, views, timeouts)
    table = sql.Identifier(schema, mart.name)
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in mart.columns)
    label = f"{mart.name} {month} in {relation(mart.name)}"
    with (
        advisory_lock(connection, label, month_lock_key(schema, mart.name, month)),
        connection,
        connection.cursor() as cursor,
    ):
        # With the lock held: a run that loads newer trips from now on waits for it, and rebuilds the mart afterwards.
        require_inputs_unchanged()
        cursor.execute(sql.SQL("DELETE FROM {} WHERE data_month = %s").format(table), [month.start])
        try:
            cursor.execute(sql.SQL("INSERT INTO {} ({}) {}").format(table, columns, sql.SQL(query)))
        except errors.UniqueViolation as error:
            raise MartDefinitionError(
                f"{label} is not unique by {', '.join(mart.key)}: {error.diag.message_detail}",
                remedy=f"Correct the key or the query in marts/sql/{mart.name}.sql.",
            ) from error
        rows: int = cursor.rowcount
    return rows


def query_arrow(connection: Any, statement: str) -> pa.Table:
    """Run a query and return its rows.

    Returns:
        One column per result column. The sum of integers, which Postgres computes as numeric, is a decimal with
        scale 0.
    """
    with connection.cursor() as cursor:
        cursor.execute(statement)
        rows = cursor.fetchall()
        columns = [
            pa.array([row[place] for row in rows], _type_of(column)) for place, column in enumerate(cursor.description)
        ]
        return pa.Table.from_arrays(columns, names=[column.name for column in cursor.description])


@contextmanager
def translate_query_errors(
    label: str, missing_table_error: Callable[[str], WarehouseTableMissingError]
) -> Iterator[None]:
    """Turn the server's errors about missing tables and columns into errors of this package.

    Args:
        label: What failed, as the start of a message: "od_flows 2020-10 cannot be computed".
        missing_table_error: Builds the error for a missing table from its name.

    Raises:
        WarehouseTableMissingError: A table of the query does not exist.
        WarehouseSchemaError: A column of the query does not exist.
    """
    try:
        yield
    except (errors.UndefinedTable, errors.UndefinedColumn) as error:
        message = error.diag.message_primary or ""
        found = _MISSING_TABLE.search(message)
        if found is not None:
            raise missing_table_error(found["name"]) from error
        raise query_error(label, message) from error


def _type_of(column: Any) -> pa.DataType | None:
    """Return the Arrow type of a result column; None lets Arrow infer it from the values."""
    type_ = ARROW_BY_OID.get(column.type_code)
    if type_ is None and column.scale is not None and column.scale <= (column.precision or 0) <= _DIGITS:
        return pa.decimal128(_DIGITS, column.scale)
    return type_


# --- table and views --------------------------------------------------------------------------------------------------


def _prepare(connection: Any, schema: str, mart: Mart, views: Mapping[str, str], timeouts: LockTimeouts) -> None:
    """Create or update the table and its views. Usually they are up to date, and this only reads the catalog."""
    if _is_up_to_date(connection, schema, mart, views):
        return
    with advisory_lock(connection, f"the schema {schema}", advisory_lock_key(schema)):
        if _is_up_to_date(connection, schema, mart, views):  # again: another process may have updated them
            return
        found = [find_table(connection, schema, name) for name in (mart.name, *views)]

        def action(cursor: Any) -> None:
            _update_table(cursor, schema, mart, found[0], _read_keys(connection, found[0]))
            for name, query in views.items():
                _replace_view(cursor, schema, name, mart, query)

        label = f"{qualified_name(schema, mart.name)} (to update it or its views to marts/sql/{mart.name}.sql)"
        run_with_lock_retry(connection, label, [table.oid for table in found if table is not None], action, timeouts)


def _is_up_to_date(connection: Any, schema: str, mart: Mart, views: Mapping[str, str]) -> bool:
    table = find_table(connection, schema, mart.name)
    if table is None:
        return False
    _require_types(table, mart)
    descriptions = {name: comment for name, (_, comment) in table.columns.items()}
    return (
        table.comment == mart.description
        and all(descriptions.get(column.name) == column.description_with_unit for column in mart.columns)
        and [*mart.key] in _read_keys(connection, table)
        and all(
            (view := find_table(connection, schema, name)) is not None and view.comment == _view_comment(mart, query)
            for name, query in views.items()
        )
    )


def _require_types(table: Table, mart: Mart) -> None:
    if table.partitioning is not None:
        raise WarehouseSchemaError(
            f"{table.qualified_name} is partitioned, but a mart must be a plain table.", remedy=_REMEDY
        )
    for column in mart.columns:
        type_ = table.columns.get(column.name, (None,))[0]
        if type_ not in {None, TYPES[column.type]}:
            raise WarehouseSchemaError(
                f"The column {column.name} of {table.qualified_name} is {type_}; the mart needs {TYPES[column.type]}.",
                remedy=_REMEDY,
            )


def _update_table(cursor: Any, schema: str, mart: Mart, table: Table | None, keys: Sequence[Sequence[str]]) -> None:
    name = sql.Identifier(schema, mart.name)
    wanted = {column.name: TYPES[column.type] for column in mart.columns}
    if table is None:
        cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(name, column_definitions(wanted)))
    for column, type_ in wanted.items():
        if table is not None and column not in table.columns:
            cursor.execute(
                sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(name, sql.Identifier(column), sql.SQL(type_))
            )
    if [*mart.key] not in keys:
        _create_unique_key(cursor, schema, mart, is_new=table is None)
    cursor.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(name, sql.Literal(mart.description)))
    describe_columns(cursor, name, {column.name: column.description_with_unit for column in mart.columns})


def _create_unique_key(cursor: Any, schema: str, mart: Mart, *, is_new: bool) -> None:
    """Create a primary key if the table is new and no column of the key can be null; otherwise a unique index."""
    from taxi_assets.marts.sql_rendering import is_never_null  # noqa: PLC0415  (a fifth of a second)

    table, name = sql.Identifier(schema, mart.name), f"{mart.name}_key"
    columns = sql.SQL(", ").join(map(sql.Identifier, mart.key))
    cursor.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(table, sql.Identifier(name)))
    cursor.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier(schema, name)))
    statement = "CREATE UNIQUE INDEX {name} ON {table} ({columns}) NULLS NOT DISTINCT"
    if is_new and all(is_never_null(mart, column) for column in mart.key):
        statement = "ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY ({columns})"
    try:
        cursor.execute(sql.SQL(statement).format(name=sql.Identifier(name), table=table, columns=columns))
    except errors.UniqueViolation as error:
        raise WarehouseSchemaError(
            f"{qualified_name(schema, mart.name)} is not unique by its new key, {', '.join(mart.key)}: "
            f"{error.diag.message_detail}",
            remedy=_REMEDY,
        ) from error


def _read_keys(connection: Any, table: Table | None) -> list[list[str]]:
    """Return the column names of each unique index."""
    with connection.cursor() as cursor:
        cursor.execute(_UNIQUE_KEYS, [table and table.oid])
        return [key for (key,) in cursor.fetchall()]


def _replace_view(cursor: Any, schema: str, name: str, mart: Mart, query: str) -> None:
    """Replace a view in place if its new columns allow that; otherwise drop and create it."""
    view = sql.Identifier(schema, name)
    cursor.execute("SAVEPOINT view")
    try:
        cursor.execute(sql.SQL("CREATE OR REPLACE VIEW {} AS {}").format(view, sql.SQL(query)))
    except errors.InvalidTableDefinition:
        cursor.execute("ROLLBACK TO SAVEPOINT view")
        try:
            cursor.execute(sql.SQL("DROP VIEW {}").format(view))
        except errors.DependentObjectsStillExist as error:
            raise WarehouseSchemaError(
                f"The columns of {qualified_name(schema, name)} have changed, but {error.diag.message_detail}.",
                remedy="Drop the objects that depend on it, materialize the mart, and create them again.",
            ) from error
        cursor.execute(sql.SQL("CREATE VIEW {} AS {}").format(view, sql.SQL(query)))
    cursor.execute(sql.SQL("COMMENT ON VIEW {} IS {}").format(view, sql.Literal(_view_comment(mart, query))))


def _view_comment(mart: Mart, query: str) -> str:
    """Return a comment with a digest of the query. The server rewrites the query, so its text cannot be compared."""
    digest = hashlib.sha256(repr((query, mart.columns)).encode()).hexdigest()[:12]
    return f"View of the mart {mart.name}; definition {digest} in marts/sql/{mart.name}.sql."
