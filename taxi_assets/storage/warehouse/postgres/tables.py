"""Tables of trips on a Postgres server: their layout, their creation, and their updates when the schema changes.

`swap.py` loads the months.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg2 import sql

from taxi_assets.errors import WarehouseBusyError, WarehouseSchemaError
from taxi_assets.storage.warehouse.base_warehouse import RECREATE_TABLE, column_type_error
from taxi_assets.storage.warehouse.postgres.locks import advisory_lock, advisory_lock_key, run_with_lock_retry
from taxi_assets.tlc.cleaning.report import NO_ROWS, ControlTotals, to_cents
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from taxi_assets.storage.warehouse.postgres.locks import LockTimeouts
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

# Spelled as `format_type` returns them, so that they can be compared with the catalog.
TYPES: Mapping[ColumnType, str] = {
    ColumnType.INTEGER: "bigint",
    ColumnType.MONEY: "numeric(12,2)",
    ColumnType.MILES: "numeric(12,3)",
    ColumnType.DEGREES: "double precision",
    ColumnType.TEXT: "text",
    ColumnType.DATETIME: "timestamp without time zone",
    ColumnType.DATE: "date",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.MONEY_SUM: "numeric(18,2)",
    ColumnType.MILES_SUM: "numeric(18,3)",
}

LOADED_MONTHS = "loaded_months"
"""The ledger: a table with one row per loaded month, written in the transaction that swaps the month in."""
_PARTITIONING = "LIST (data_month)"
# Rows are stored nearly in pickup order, so a BRIN index is as selective as a B-tree and takes almost no space.
_INDEXES = (("brin", "pickup_datetime"), ("btree", "pickup_location_id"))


@dataclass(frozen=True)
class Table:
    """A table or view as the catalog describes it now."""

    oid: int
    schema: str
    name: str
    partitioning: str | None
    """The partition key as Postgres spells it, such as `LIST (data_month)`; None if not partitioned."""
    comment: str | None
    columns: Mapping[str, tuple[str, str | None]]
    """Type and comment of each column, by name, in the table's order."""

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted name with its schema, for statements."""
        return sql.Identifier(self.schema, self.name)

    @property
    def qualified_name(self) -> str:
        """The quoted name with its schema, for messages and metadata."""
        return qualified_name(self.schema, self.name)


def qualified_name(*names: str) -> str:
    """Return the names quoted and joined by dots, such as `"taxi"."green_trips"`."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def concurrent_change_error(table: str) -> WarehouseBusyError:
    """Return the error for a table that another session changed between two statements of a load."""
    return WarehouseBusyError(
        f"{table} was changed or dropped while a month was being loaded.", remedy="Run the month again."
    )


def find_table(connection: Any, schema: str, name: str) -> Table | None:
    """Return the table or view of this name, or None if there is none."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.oid, pg_get_partkeydef(c.oid), obj_description(c.oid, 'pg_class') FROM pg_class AS c "
            "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE nspname = %s AND relname = %s",
            [schema, name],
        )
        found = cursor.fetchone()
        if found is None:
            return None
        cursor.execute(
            "SELECT attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum) FROM pg_attribute "
            "WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [found[0]],
        )
        columns = {column: (type_, comment) for column, type_, comment in cursor.fetchall()}
    return Table(found[0], schema, name, found[1], found[2], columns)


def compute_totals(
    connection: Any, table: sql.Composable, columns: Collection[str], service: Service, month: Month
) -> ControlTotals:
    """Compute a month's control totals in one query.

    Args:
        connection: An open connection. It may be in a transaction.
        table: The table to query.
        columns: The names of the table's columns. A money column that is not among them counts as zero.
        service: Defines the money columns.
        month: Only rows with this `data_month` count.
    """
    sums = [sql.SQL("coalesce(sum({}), 0)").format(sql.Identifier(c)) for c in service.money_columns if c in columns]
    query = sql.SQL(
        "SELECT count(*), ({})::numeric(38,2), coalesce(sum(source_row), 0)::bigint FROM {} WHERE data_month = %s"
    ).format(sql.SQL(" + ").join(sums or [sql.SQL("0")]), table)
    with connection.cursor() as cursor:
        cursor.execute(query, [month.start])
        row = cursor.fetchone()
    return NO_ROWS if row is None else ControlTotals(rows=row[0], cents=to_cents(row[1]), source_rows=row[2])


# --- the table as a whole ---------------------------------------------------------------------------------------------


def prepare_schema(connection: Any, schema: str) -> None:
    """Create the schema and the ledger of loaded months if they do not exist."""
    if find_table(connection, schema, LOADED_MONTHS) is not None:
        return
    # CREATE SCHEMA IF NOT EXISTS is not enough: it can fail if two sessions run it at once, and it needs the CREATE
    # privilege even if the schema exists.
    with (
        advisory_lock(connection, f"the schema {schema}", advisory_lock_key(schema)),
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT FROM pg_namespace WHERE nspname = %s", [schema])
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        cursor.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} (table_name text, data_month date, data_version text NOT NULL, "
                "row_count bigint NOT NULL, cents bigint NOT NULL, source_rows bigint NOT NULL, "
                "loaded_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(), run_id text NOT NULL, "
                "PRIMARY KEY (table_name, data_month))"
            ).format(sql.Identifier(schema, LOADED_MONTHS))
        )


def prepare_table(connection: Any, schema: str, service: Service, timeouts: LockTimeouts) -> Table:
    """Create the table of a service, or add the columns and update the comments that its schema has gained.

    Usually the table is up to date, and this only reads the catalog.

    Returns:
        The table as it is afterwards.

    Raises:
        WarehouseSchemaError: The table is not partitioned by `data_month`, or a column has another type.
        WarehouseBusyError: Another session kept the table locked, or dropped it.
    """
    prepare_schema(connection, schema)
    table = find_table(connection, schema, service.table)
    if table is not None and _is_up_to_date(table, service):
        return table
    with advisory_lock(connection, f"the schema {schema}", advisory_lock_key(schema)):
        table = find_table(connection, schema, service.table)  # again: another load may have created or updated it
        if table is None:
            with connection, connection.cursor() as cursor:
                _create_table(cursor, schema, service)
        elif not _is_up_to_date(table, service):
            _update_table(connection, table, service, timeouts)
        table = find_table(connection, schema, service.table)
    if table is None:
        raise concurrent_change_error(qualified_name(schema, service.table))
    return table


def _is_up_to_date(table: Table, service: Service) -> bool:
    """Return whether the table has every column and comment of the schema; raise if its layout or a type differs."""
    if table.partitioning != _PARTITIONING:
        raise WarehouseSchemaError(
            f"{table.qualified_name} is not partitioned by {_PARTITIONING}.", remedy=RECREATE_TABLE
        )
    for column in service.columns:
        type_ = table.columns.get(column.name, (None,))[0]
        if type_ not in {None, TYPES[column.type]}:
            raise column_type_error(table.qualified_name, column.name, type_, TYPES[column.type])
    return table.comment == service.description and all(
        column.name in table.columns and table.columns[column.name][1] == column.description_with_unit
        for column in service.columns
    )


def _update_table(connection: Any, table: Table, service: Service, timeouts: LockTimeouts) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relid::oid FROM pg_partition_tree(%s)", [table.oid])
        tables = [oid for (oid,) in cursor.fetchall()]

    def action(cursor: Any) -> None:
        _add_columns(cursor, table, service)
        _describe(cursor, table.identifier, service, table.comment, table.columns)

    run_with_lock_retry(connection, f"{table.qualified_name} (to add or describe columns)", tables, action, timeouts)


def _create_table(cursor: Any, schema: str, service: Service) -> None:
    name = sql.Identifier(schema, service.table)
    columns = {column.name: TYPES[column.type] for column in service.columns}
    cursor.execute(
        sql.SQL("CREATE TABLE {} ({}) PARTITION BY LIST (data_month)").format(name, column_definitions(columns))
    )
    for method, column in _INDEXES:
        if column in columns:
            cursor.execute(
                sql.SQL("CREATE INDEX ON {} USING {} ({})").format(name, sql.SQL(method), sql.Identifier(column))
            )
    _describe(cursor, name, service, None, {})


def column_definitions(columns: Mapping[str, str]) -> sql.Composable:
    """Return the column list of a `CREATE TABLE` statement, from types by name. `data_month` is `NOT NULL`."""
    return sql.SQL(", ").join(
        sql.SQL("{} {}{}").format(
            sql.Identifier(name), sql.SQL(type_), sql.SQL(" NOT NULL" if name == "data_month" else "")
        )
        for name, type_ in columns.items()
    )


def _add_columns(cursor: Any, table: Table, service: Service) -> None:
    new = [column for column in service.columns if column.name not in table.columns]
    if not new:
        return
    # NOWAIT for the months' tables: readers of the parent table already queue behind the first lock.
    cursor.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(table.identifier))
    cursor.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT").format(table.identifier))
    for column in new:
        cursor.execute(
            sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
                table.identifier, sql.Identifier(column.name), sql.SQL(TYPES[column.type])
            )
        )


def _describe(
    cursor: Any,
    name: sql.Composable,
    service: Service,
    old_comment: str | None,
    old_columns: Mapping[str, tuple[str, str | None]],
) -> None:
    """Update the comments that differ from the schema."""
    if old_comment != service.description:
        cursor.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(name, sql.Literal(service.description)))
    old = {column: comment for column, (_, comment) in old_columns.items()}
    new = {column.name: column.description_with_unit for column in service.columns}
    describe_columns(cursor, name, {column: text for column, text in new.items() if old.get(column) != text})


def describe_columns(cursor: Any, table: sql.Composable, descriptions: Mapping[str, str]) -> None:
    """Set the comments of columns, given by name."""
    for column, description in descriptions.items():
        cursor.execute(
            sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(table, sql.Identifier(column), sql.Literal(description))
        )
