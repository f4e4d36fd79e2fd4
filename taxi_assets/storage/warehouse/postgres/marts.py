"""Marts on a Postgres server: their tables and views, and how a month gets in.

A mart is a plain table. It is small, so a month is deleted and inserted in one transaction: readers see the old rows
until its end, and nobody waits for anybody. Partitions would only add locks to that.

Belongs here: the table's structure under one advisory lock, as others may change it at the same time; then the month,
under a lock of its own. Does not belong here: what the query of a month is.
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
from taxi_assets.storage.warehouse.postgres.frames import TYPES_BY_OID
from taxi_assets.storage.warehouse.postgres.locks import advisory_lock, key_of, run_with_lock_retry
from taxi_assets.storage.warehouse.postgres.swap import month_key
from taxi_assets.storage.warehouse.postgres.tables import (
    TYPES,
    definitions,
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

_MISSING = re.compile(r'relation "(?:[^"]*\.)?(?P<name>[^".]+)" does not exist')
_UNIQUE = """
    SELECT ARRAY(
        SELECT attname::text FROM unnest(indkey::smallint[]) WITH ORDINALITY AS key (attnum, place)
            JOIN pg_attribute AS a ON attrelid = indrelid AND a.attnum = key.attnum ORDER BY place
    ) FROM pg_index WHERE indrelid = %s AND indisunique
"""
_REMEDY = "Rename or drop the old table, then materialize its months again."


def replace_mart(
    connection: Any,
    schema: str,
    mart: Mart,
    month: Month,
    services: Sequence[Service],
    timeouts: LockTimeouts,
    require_inputs_unchanged: Callable[[], None],
) -> int:
    """Make table and views as the mart says, then the month, in one transaction; the number of its rows."""
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
        advisory_lock(connection, label, month_key(schema, mart.name, month)),
        connection,
        connection.cursor() as cursor,
    ):
        # Whoever loads a month from now on makes the mart after us: their run waits for this lock.
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


def rows_of(connection: Any, statement: str) -> pa.Table:
    """The rows of a query; a sum of whole numbers comes as a decimal without places."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        rows = cursor.fetchall()
        columns = [
            pa.array([row[place] for row in rows], _type_of(column)) for place, column in enumerate(cursor.description)
        ]
        return pa.Table.from_arrays(columns, names=[column.name for column in cursor.description])


@contextmanager
def named_errors(label: str, missing: Callable[[str], WarehouseTableMissingError]) -> Iterator[None]:
    """Names what the server says of tables and columns that a query does not find."""
    try:
        yield
    except (errors.UndefinedTable, errors.UndefinedColumn) as error:
        message = error.diag.message_primary or ""
        found = _MISSING.search(message)
        if found is not None:
            raise missing(found["name"]) from error
        raise query_error(label, message) from error


def _type_of(column: Any) -> pa.DataType | None:
    """None: as its values are."""
    type_ = TYPES_BY_OID.get(column.type_code)
    if type_ is None and column.scale is not None and column.scale <= (column.precision or 0) <= _DIGITS:
        return pa.decimal128(_DIGITS, column.scale)
    return type_


_DIGITS = 38


# --- table and views --------------------------------------------------------------------------------------------------


def _prepare(connection: Any, schema: str, mart: Mart, views: Mapping[str, str], timeouts: LockTimeouts) -> None:
    """Mostly there is nothing to do."""
    if _is_up_to_date(connection, schema, mart, views):
        return
    with advisory_lock(connection, f"the schema {schema}", key_of(schema)):
        if _is_up_to_date(connection, schema, mart, views):  # another process may have been here
            return
        found = [find_table(connection, schema, name) for name in (mart.name, *views)]

        def action(cursor: Any) -> None:
            _update_table(cursor, schema, mart, found[0], _keys(connection, found[0]))
            for name, query in views.items():
                _create_view(cursor, schema, name, mart, query)

        label = f"{qualified_name(schema, mart.name)} (to make it, or its views, as marts/sql/{mart.name}.sql says)"
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
        and [*mart.key] in _keys(connection, table)
        and all(
            (view := find_table(connection, schema, name)) is not None and view.comment == _view_comment(mart, query)
            for name, query in views.items()
        )
    )


def _require_types(table: Table, mart: Mart) -> None:
    if table.partitioning is not None:
        raise WarehouseSchemaError(f"{table.qualified_name} is partitioned; a mart is a plain table.", remedy=_REMEDY)
    for column in mart.columns:
        type_ = table.columns.get(column.name, (None,))[0]
        if type_ not in {None, TYPES[column.type]}:
            raise WarehouseSchemaError(
                f"{table.qualified_name} has {column.name} as {type_}; the mart says {TYPES[column.type]}.",
                remedy=_REMEDY,
            )


def _update_table(cursor: Any, schema: str, mart: Mart, table: Table | None, keys: Sequence[Sequence[str]]) -> None:
    name = sql.Identifier(schema, mart.name)
    wanted = {column.name: TYPES[column.type] for column in mart.columns}
    if table is None:
        cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(name, definitions(wanted)))
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
    """A primary key where no column of it can be null; a unique index otherwise, and where the key has changed."""
    from taxi_assets.marts.sql_rendering import never_null  # noqa: PLC0415  (a fifth of a second)

    table, name = sql.Identifier(schema, mart.name), f"{mart.name}_key"
    columns = sql.SQL(", ").join(map(sql.Identifier, mart.key))
    cursor.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(table, sql.Identifier(name)))
    cursor.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier(schema, name)))
    make = "CREATE UNIQUE INDEX {name} ON {table} ({columns}) NULLS NOT DISTINCT"
    if is_new and all(never_null(mart, column) for column in mart.key):
        make = "ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY ({columns})"
    try:
        cursor.execute(sql.SQL(make).format(name=sql.Identifier(name), table=table, columns=columns))
    except errors.UniqueViolation as error:
        raise WarehouseSchemaError(
            f"{qualified_name(schema, mart.name)} is not unique by its new key, {', '.join(mart.key)}: "
            f"{error.diag.message_detail}",
            remedy=_REMEDY,
        ) from error


def _keys(connection: Any, table: Table | None) -> list[list[str]]:
    """What it is unique by."""
    with connection.cursor() as cursor:
        cursor.execute(_UNIQUE, [table and table.oid])
        return [key for (key,) in cursor.fetchall()]


def _create_view(cursor: Any, schema: str, name: str, mart: Mart, query: str) -> None:
    """Replaced in place where its columns allow that; made anew otherwise."""
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
                f"{qualified_name(schema, name)} gets other columns, but {error.diag.message_detail}.",
                remedy="Drop what depends on it, materialize the mart, and make the former anew.",
            ) from error
        cursor.execute(sql.SQL("CREATE VIEW {} AS {}").format(view, sql.SQL(query)))
    cursor.execute(sql.SQL("COMMENT ON VIEW {} IS {}").format(view, sql.Literal(_view_comment(mart, query))))


def _view_comment(mart: Mart, query: str) -> str:
    """By which a view is known to be of this text: the server keeps it in words of its own."""
    digest = hashlib.sha256(repr((query, mart.columns)).encode()).hexdigest()[:12]
    return f"Upon {mart.name}; definition {digest} of marts/sql/{mart.name}.sql."
