"""Create and alter tables in a DuckDB file, so that columns and descriptions match the schema.

Does not belong here: reading and writing rows.
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
    ColumnType.TEXTS: "VARCHAR[]",
    ColumnType.DATETIME: "TIMESTAMP",
    ColumnType.DATE: "DATE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.MONEY_SUM: "DECIMAL(18,2)",
    ColumnType.MILES_SUM: "DECIMAL(18,3)",
}


@dataclass(frozen=True)
class Table:
    """A table of the database, as it is when it is read from the catalog."""

    connection: duckdb.DuckDBPyConnection
    name: str
    """The quoted name with database and schema."""
    columns: Mapping[str, tuple[str, str | None]]
    """SQL type and comment of each column, by name. Empty if the table does not exist."""


@dataclass(frozen=True)
class Schema:
    """A schema in the current database of a connection. It need not exist."""

    connection: duckdb.DuckDBPyConnection
    name: str

    @property
    def qualified(self) -> str:
        """The quoted name with the database: a schema may have the name of the file, or of DuckDB's database `temp`."""
        ((database,),) = self.connection.execute("SELECT current_database()").fetchall()
        return f"{quote(database)}.{quote(self.name)}"

    def exists(self) -> bool:
        """Return whether the schema exists. DuckDB ignores the case of its name."""
        ((found,),) = self.connection.execute(
            "SELECT count(*) FROM duckdb_schemas() WHERE database_name = current_database() "
            "AND lower(schema_name) = lower(?)",
            [self.name],
        ).fetchall()
        return bool(found)

    def create(self) -> None:
        """Create the schema if it is missing."""
        self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self.qualified}")

    def table_name(self, name: str) -> str:
        """Return the quoted name of a table, with database and schema."""
        return f"{self.qualified}.{quote(name)}"

    def table(self, name: str) -> Table:
        """Return a table as the catalog describes it; without columns if it does not exist."""
        columns = self.connection.execute(
            "SELECT column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal "
            "AND database_name = current_database() AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)",
            [self.name, name],
        ).fetchall()
        return Table(self.connection, self.table_name(name), {c: (type_, comment) for c, type_, comment in columns})

    def is_view(self, name: str) -> bool:
        """Return whether there is a view of this name."""
        ((found,),) = self.connection.execute(
            "SELECT count(*) FROM duckdb_views() WHERE database_name = current_database() "
            "AND lower(schema_name) = lower(?) AND lower(view_name) = lower(?)",
            [self.name, name],
        ).fetchall()
        return bool(found)

    def prepare(self, name: str, columns: Sequence[Column], qualified_name: str) -> Table:
        """Create a table, or add missing columns to it, and update its comments, within the caller's transaction.

        Args:
            name: The table's name, without the schema.
            columns: The columns that the table must have. It may have others.
            qualified_name: The name of the table in error messages.

        Returns:
            The table as it is now.

        Raises:
            WarehouseSchemaError: A column's type differs from the one given.
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
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as an SQL literal, for statements such as COMMENT that take no parameters."""
    return "'" + text.replace("'", "''") + "'"
