"""Tables in a DuckDB file: what they look like, how one is made, and how it follows the schema.

Does not belong here: how rows get in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taxi_assets.storage.warehouse.base_warehouse import column_type_error
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb

    from taxi_assets.tlc.schema import Column

TYPES: Mapping[ColumnType, str] = {
    ColumnType.INTEGER: "BIGINT",
    ColumnType.MONEY: "DECIMAL(12,2)",
    ColumnType.MILES: "DECIMAL(12,3)",
    ColumnType.DEGREES: "DOUBLE",
    ColumnType.TEXT: "VARCHAR",
    ColumnType.DATETIME: "TIMESTAMP",
    ColumnType.DATE: "DATE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.MONEY_SUM: "DECIMAL(18,2)",
    ColumnType.MILES_SUM: "DECIMAL(18,3)",
}


@dataclass(frozen=True)
class Table:
    """A table as it stands: who to ask, its full name, and type and comment of its columns by name."""

    connection: duckdb.DuckDBPyConnection
    name: str
    columns: Mapping[str, tuple[str, str | None]]


@dataclass(frozen=True)
class Schema:
    """A schema of the file that a connection has open."""

    connection: duckdb.DuckDBPyConnection
    name: str

    @property
    def qualified(self) -> str:
        """With the database's name: a schema may be called like the file, or `temp`."""
        ((database,),) = self.connection.execute("SELECT current_database()").fetchall()
        return f"{quote(database)}.{quote(self.name)}"

    def exists(self) -> bool:
        """Whether anybody has made it."""
        ((found,),) = self.connection.execute(
            "SELECT count(*) FROM duckdb_schemas() WHERE database_name = current_database() "
            "AND lower(schema_name) = lower(?)",
            [self.name],
        ).fetchall()
        return bool(found)

    def create(self) -> None:
        """Where it is missing."""
        self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self.qualified}")

    def table_name(self, name: str) -> str:
        """A table's full name."""
        return f"{self.qualified}.{quote(name)}"

    def table(self, name: str) -> Table:
        """A table; one without columns is not there."""
        columns = self.connection.execute(
            "SELECT column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal "
            "AND database_name = current_database() AND lower(schema_name) = lower(?) AND table_name = ?",
            [self.name, name],
        ).fetchall()
        return Table(self.connection, self.table_name(name), {c: (type_, about) for c, type_, about in columns})

    def prepare(self, name: str, columns: Sequence[Column], qualified_name: str) -> Table:
        """Make a table, or add what the schema gained; comments follow the schema. Within a transaction.

        Raises `WarehouseSchemaError`, which calls it `shown`, where a column has another type.
        """
        definitions = ", ".join(f"{quote(column.name)} {TYPES[column.type]}" for column in columns)
        self.connection.execute(f"CREATE TABLE IF NOT EXISTS {self.table_name(name)} ({definitions})")
        table = self.table(name)
        for column in columns:
            self._update_column(table, column, qualified_name)
        return self.table(name)

    def _update_column(self, table: Table, column: Column, qualified_name: str) -> None:
        type_, comment = table.columns.get(column.name, (None, None))
        if type_ is None:
            self.connection.execute(f"ALTER TABLE {table.name} ADD COLUMN {quote(column.name)} {TYPES[column.type]}")
        elif type_ != TYPES[column.type]:
            raise column_type_error(qualified_name, column.name, type_, TYPES[column.type])
        if comment != column.description_with_unit:
            self.connection.execute(
                f"COMMENT ON COLUMN {table.name}.{quote(column.name)} IS {literal(column.description_with_unit)}"
            )


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL: COMMENT takes no parameters."""
    return "'" + text.replace("'", "''") + "'"
