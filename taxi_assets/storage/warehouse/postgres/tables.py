"""Tables of trips on a Postgres server: what they look like, how one is made, and how it follows the schema.

Does not belong here: how a month gets in; see `swap.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg2 import sql

from taxi_assets.errors import WarehouseBusyError, WarehouseSchemaError
from taxi_assets.storage.warehouse.base_warehouse import RECREATE_TABLE, column_type_error
from taxi_assets.storage.warehouse.postgres.locks import advisory_lock, key_of, run_with_lock_retry
from taxi_assets.tlc.cleaning.report import NO_ROWS, ControlTotals, to_cents
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from taxi_assets.storage.warehouse.postgres.locks import LockTimeouts
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

# As Postgres itself spells them.
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
_PARTITIONING = "LIST (data_month)"
# Rows lie nearly in the order of their pickups: a block index is as good as a tree there, and next to nothing in size.
_INDEXES = (("brin", "pickup_datetime"), ("btree", "pickup_location_id"))


@dataclass(frozen=True)
class Table:
    """A table as it stands: how it is partitioned, and type and comment of its columns by name."""

    oid: int
    schema: str
    name: str
    partitioning: str | None
    comment: str | None
    columns: Mapping[str, tuple[str, str | None]]

    @property
    def identifier(self) -> sql.Identifier:
        """Quoted, with its schema."""
        return sql.Identifier(self.schema, self.name)

    @property
    def qualified_name(self) -> str:
        """The same, for people."""
        return qualified_name(self.schema, self.name)


def qualified_name(*names: str) -> str:
    """Such as "taxi"."green_trips"."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def concurrent_change_error(table: str) -> WarehouseBusyError:
    """Somebody has got in between the statements of a load."""
    return WarehouseBusyError(
        f"{table} was changed or dropped while a month was loaded.", remedy="Run the month again."
    )


def find_table(connection: Any, schema: str, name: str) -> Table | None:
    """The table, where there is one."""
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


def totals(
    connection: Any, table: sql.Composable, columns: Collection[str], service: Service, month: Month
) -> ControlTotals:
    """Control figures of a month, counted in a table with these columns."""
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
    """Make the schema and the ledger of loaded months, where they are missing."""
    if find_table(connection, schema, LOADED_MONTHS) is not None:
        return
    # IF NOT EXISTS alone lets two that come at once fail, and asks for the right to make what is there.
    with advisory_lock(connection, f"the schema {schema}", key_of(schema)), connection, connection.cursor() as cursor:
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
    """Make the table, or add what the schema gained; comments follow the schema. Mostly there is nothing to do."""
    prepare_schema(connection, schema)
    table = find_table(connection, schema, service.table)
    if table is not None and _is_up_to_date(table, service):
        return table
    with advisory_lock(connection, f"the schema {schema}", key_of(schema)):
        table = find_table(connection, schema, service.table)  # as another load may have left it by now
        if table is None:
            with connection, connection.cursor() as cursor:
                _create_table(cursor, schema, service)
        elif not _is_up_to_date(table, service):
            _bring_up_to_date(connection, table, service, timeouts)
        table = find_table(connection, schema, service.table)
    if table is None:
        raise concurrent_change_error(qualified_name(schema, service.table))
    return table


def _is_up_to_date(table: Table, service: Service) -> bool:
    """Whether it has every column, described as the schema has it; raises where one is of another type."""
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


def _bring_up_to_date(connection: Any, table: Table, service: Service, timeouts: LockTimeouts) -> None:
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
    cursor.execute(sql.SQL("CREATE TABLE {} ({}) PARTITION BY LIST (data_month)").format(name, definitions(columns)))
    for method, column in _INDEXES:
        if column in columns:
            cursor.execute(
                sql.SQL("CREATE INDEX ON {} USING {} ({})").format(name, sql.SQL(method), sql.Identifier(column))
            )
    _describe(cursor, name, service, None, {})


def definitions(columns: Mapping[str, str]) -> sql.Composable:
    """Columns and their types, as `CREATE TABLE` takes them."""
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
    # The months' tables without waiting: readers of the whole queue behind us already.
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
    old: str | None,
    columns: Mapping[str, tuple[str, str | None]],
) -> None:
    """Comments, where they are not yet what the schema says."""
    if old != service.description:
        cursor.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(name, sql.Literal(service.description)))
    old_ones = {column: comment for column, (_, comment) in columns.items()}
    new_ones = {column.name: column.description_with_unit for column in service.columns}
    describe_columns(cursor, name, {c: text for c, text in new_ones.items() if old_ones.get(c) != text})


def describe_columns(cursor: Any, table: sql.Composable, descriptions: Mapping[str, str]) -> None:
    """Comments on columns."""
    for column, description in descriptions.items():
        cursor.execute(
            sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(table, sql.Identifier(column), sql.Literal(description))
        )
