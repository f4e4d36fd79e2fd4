"""Replace and read rows of a table on a Postgres server.

Partitions are rows of one plain table. A transaction deletes the rows of a partition and inserts the new ones, under
the advisory lock of that partition, so that two runs of different partitions do not wait for each other.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from psycopg2 import errors, sql

from taxi_assets.errors import WarehouseSchemaError
from taxi_assets.storage.warehouse.postgres.arrow_types import arrow_type, sql_type
from taxi_assets.storage.warehouse.postgres.copy_rows import copy_rows, csv_rows, read_csv
from taxi_assets.storage.warehouse.postgres.locks import advisory_lock, advisory_lock_key, run_with_lock_retry
from taxi_assets.storage.warehouse.postgres.tables import (
    describe_columns,
    find_table,
    prepare_schema,
    qualified_name,
)
from taxi_assets.storage.warehouse.table_output import STORED_PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.storage.partition_rows import Condition
    from taxi_assets.storage.warehouse.postgres.locks import LockTimeouts
    from taxi_assets.storage.warehouse.postgres.tables import Table
    from taxi_assets.storage.warehouse.table_output import TableOutput


def replace_rows(connection: Any, schema: str, output: TableOutput, timeouts: LockTimeouts) -> None:
    """Replace a table, or partitions of it, and update the ledger, in one transaction.

    Args:
        connection: An open connection in autocommit mode.
        schema: The schema of the table.
        output: The new rows.
        timeouts: The limits for changing the table.

    Raises:
        WarehouseSchemaError: A column has another type, or another object depends on a column that has to be dropped.
        WarehouseBusyError: Another session held a partition's lock, or kept the table locked.
    """
    _prepare_ledger(connection, schema)
    with ExitStack() as locks:
        for key in sorted(output.keys):  # sorted, so that two runs of the same partitions do not block each other
            label = f"{qualified_name(schema, output.table)} {key}".strip()
            locks.enter_context(advisory_lock(connection, label, advisory_lock_key(schema, "rows", output.table, key)))
        output.require_inputs_unchanged()
        if output.partitions is None:
            _replace_table(connection, schema, output, timeouts)
        elif not _create_table_with_rows(connection, schema, output, timeouts):
            with connection, connection.cursor() as cursor:
                _replace_partitions(cursor, schema, output)


def table_schema(connection: Any, schema: str, name: str) -> pa.Schema | None:
    """Return the columns of a table or view with their Arrow types; None if it does not exist."""
    table = find_table(connection, schema, name)
    return None if table is None else _arrow_schema(table)


def stored_partitions(connection: Any, schema: str, name: str) -> dict[str, bool] | None:
    """Return a table's partitions in the ledger, and whether it existed then; None if it does not list the table."""
    if find_table(connection, schema, STORED_PARTITIONS) is None:
        return None
    with connection.cursor() as cursor:
        query = sql.SQL("SELECT partition_key, has_table FROM {} WHERE table_name = %s")
        cursor.execute(query.format(sql.Identifier(schema, STORED_PARTITIONS)), [name])
        return dict(cursor.fetchall()) or None


def read_rows(
    connection: Any,
    table: Table,
    columns: Sequence[str],
    conditions: Sequence[Condition],
    order_by: Sequence[str],
    limit: int | None,
) -> pa.RecordBatchReader:
    """Copy the rows of a query to a temporary file, and return a reader of the file.

    The connection can be closed while the rows are read. The temporary file is deleted with the reader.
    """
    schema = _arrow_schema(table)
    wanted = pa.schema([schema.field(name) for name in columns])
    query = sql.SQL("COPY (SELECT {} FROM {} WHERE {} {} LIMIT {}) TO STDOUT (FORMAT csv, HEADER)").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        table.identifier,
        _render_conditions(conditions),
        sql.SQL("ORDER BY {}").format(sql.SQL(", ").join(map(sql.Identifier, order_by))) if order_by else sql.SQL(""),
        sql.Literal(limit),
    )
    file = tempfile.TemporaryFile(prefix="taxi-assets-")  # noqa: SIM115  (the reader closes it)
    with connection.cursor() as cursor:
        cursor.execute("SET timezone TO 'UTC'")
        cursor.copy_expert(query, file)
    file.seek(0)
    return read_csv(file, wanted)


def _arrow_schema(table: Table) -> pa.Schema:
    return pa.schema([pa.field(column, arrow_type(type_)) for column, (type_, _) in table.columns.items()])


def _render_conditions(conditions: Sequence[Condition]) -> sql.Composable:
    parts = [
        sql.SQL("{} {} {}").format(
            sql.Identifier(condition.column), sql.SQL(condition.operator), sql.Literal(condition.value)
        )
        for condition in conditions
    ]
    return sql.SQL(" AND ").join(parts) if parts else sql.SQL("true")


# --- the ledger -------------------------------------------------------------------------------------------------------


def _prepare_ledger(connection: Any, schema: str) -> None:
    """Create the schema and the ledger if they do not exist."""
    prepare_schema(connection, schema)
    if find_table(connection, schema, STORED_PARTITIONS) is not None:
        return
    with (
        advisory_lock(connection, f"the schema {schema}", advisory_lock_key(schema)),
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} (table_name text, asset text NOT NULL, partition_key text, "
                "run_id text NOT NULL, stored_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(), "
                "has_table boolean NOT NULL, PRIMARY KEY (table_name, partition_key))"
            ).format(sql.Identifier(schema, STORED_PARTITIONS))
        )


def _require_owned(cursor: Any, schema: str, output: TableOutput, table: Table | None) -> None:
    ledger = sql.Identifier(schema, STORED_PARTITIONS)
    if table is None:  # it has been dropped, with its partitions
        cursor.execute(sql.SQL("DELETE FROM {} WHERE table_name = %s AND has_table").format(ledger), [output.table])
    query = sql.SQL("SELECT asset, partition_key FROM {} WHERE table_name = %s").format(ledger)
    cursor.execute(query, [output.table])
    output.require_owned(cursor.fetchall(), table is not None, qualified_name(schema, output.table))


def _record(cursor: Any, schema: str, output: TableOutput, *, has_table: bool) -> None:
    if output.partitions is None:  # partitions that the table had before are gone
        ledger = sql.Identifier(schema, STORED_PARTITIONS)
        cursor.execute(sql.SQL("DELETE FROM {} WHERE table_name = %s").format(ledger), [output.table])
    for key in output.keys:
        cursor.execute(
            sql.SQL(
                "INSERT INTO {} (table_name, asset, partition_key, run_id, has_table) VALUES (%s, %s, %s, %s, %s) "
                "ON CONFLICT (table_name, partition_key) DO UPDATE SET asset = excluded.asset, "
                "run_id = excluded.run_id, stored_at = excluded.stored_at, has_table = excluded.has_table"
            ).format(sql.Identifier(schema, STORED_PARTITIONS)),
            [output.table, output.asset, key, output.run_id, has_table],
        )


# --- partitions -------------------------------------------------------------------------------------------------------


def _create_table_with_rows(connection: Any, schema: str, output: TableOutput, timeouts: LockTimeouts) -> bool:
    """Create the table together with its first rows, or add columns to it.

    Returns:
        Whether the table has been created. If not, its rows have not been changed.
    """
    with advisory_lock(connection, f"the schema {schema}", advisory_lock_key(schema)):
        table = find_table(connection, schema, output.table)
        with connection.cursor() as cursor:
            _require_owned(cursor, schema, output, table)
        if table is None:
            # In one transaction, because a table that is not in the ledger belongs to no asset.
            with connection, connection.cursor() as cursor:
                _create_table(cursor, sql.Identifier(schema, output.table), output.table_columns(None), output)
                _replace_partitions(cursor, schema, output)
            return True
        _add_columns(connection, table, output, timeouts)
    return False


def _add_columns(connection: Any, table: Table, output: TableOutput, timeouts: LockTimeouts) -> None:
    new = output.new_columns(_arrow_schema(table), table.qualified_name)
    if not new.names:
        return

    def action(cursor: Any) -> None:
        for field in new:
            cursor.execute(sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(table.identifier, _definitions([field])))

    run_with_lock_retry(connection, f"{table.qualified_name} (to add columns)", [table.oid], action, timeouts)


def _create_table(cursor: Any, name: sql.Composable, columns: pa.Schema, output: TableOutput) -> None:
    if not columns.names:
        return  # a partition without rows, in a table whose types are unknown
    cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(name, _definitions(columns)))
    partition_columns = [column for partition in output.partitions or () for column in partition.columns]
    indexed = [column for column in dict.fromkeys(partition_columns) if column in columns.names]
    if indexed:
        cursor.execute(
            sql.SQL("CREATE INDEX ON {} ({})").format(name, sql.SQL(", ").join(map(sql.Identifier, indexed)))
        )


def _replace_partitions(cursor: Any, schema: str, output: TableOutput) -> None:
    table = find_table(cursor.connection, schema, output.table)
    if table is not None:
        columns = _arrow_schema(table)
        for partition in output.partitions or ():
            if set(partition.columns) <= set(columns.names):
                cursor.execute(
                    sql.SQL("DELETE FROM {} WHERE {}").format(
                        table.identifier, _render_conditions(partition.conditions(columns))
                    )
                )
        _insert(cursor, table.identifier, output)
        old = {column: comment for column, (_, comment) in table.columns.items()}
        new = {column: text for column, text in output.descriptions.items() if column in old and old[column] != text}
        describe_columns(cursor, table.identifier, new)
    _record(cursor, schema, output, has_table=table is not None)


def _insert(cursor: Any, table: sql.Composable, output: TableOutput, *, freeze: bool = False) -> None:
    columns = [field.name for field in output.schema if not pa.types.is_null(field.type)]
    if output.rows and columns:
        options = "FORMAT csv, FREEZE" if freeze else "FORMAT csv"
        copy_rows(cursor, table, columns, csv_rows(output.file), options)


def _definitions(fields: Any) -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(sql_type(field.type))) for field in fields
    )


# --- the whole table --------------------------------------------------------------------------------------------------


def _replace_table(connection: Any, schema: str, output: TableOutput, timeouts: LockTimeouts) -> None:
    """Replace all rows.

    A table that already has these columns is emptied and filled, so views that depend on it stay. Otherwise it is
    dropped and created.
    """
    name = sql.Identifier(schema, output.table)
    old = find_table(connection, schema, output.table)
    existing = None if old is None else _arrow_schema(old)
    if old is not None and existing is not None:
        output.new_columns(existing, old.qualified_name)
    columns = output.table_columns(existing)
    types = {field.name: sql_type(field.type) for field in columns}

    def write(cursor: Any) -> None:
        _require_owned(cursor, schema, output, old)
        is_kept = old is not None and {column: type_ for column, (type_, _) in old.columns.items()} == types
        if is_kept:
            cursor.execute(sql.SQL("DELETE FROM {}").format(name))
        else:
            _drop_table(cursor, schema, output.table)
            cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(name, _definitions(columns)))
        # A reader that waits for the old table gets the new one with an older snapshot, which hides rows that are not
        # frozen.
        _insert(cursor, name, output, freeze=not is_kept)
        described = {column: text for column, text in output.descriptions.items() if column in types}
        describe_columns(cursor, name, described)
        _record(cursor, schema, output, has_table=True)

    run_with_lock_retry(
        connection, qualified_name(schema, output.table), [] if old is None else [old.oid], write, timeouts
    )


def _drop_table(cursor: Any, schema: str, name: str) -> None:
    try:
        cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(schema, name)))
    except errors.DependentObjectsStillExist as error:
        raise WarehouseSchemaError(
            f"The columns of {qualified_name(schema, name)} have changed, but {error.diag.message_detail}.",
            remedy="Drop the objects that depend on it, replace the table, and create them again.",
        ) from error
