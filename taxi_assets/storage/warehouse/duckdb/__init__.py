"""A warehouse in a DuckDB file: embedded, without a server. Trips are tables, or views over Parquet files.

While one process has the file open for writing, no other process can open it, not even for reading. Therefore
connections are short, reads open the file for reading only, and processes wait for each other (`file_lock.py`). The
kernel releases the locks of a killed process.
"""

from __future__ import annotations

import glob
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import duckdb
from pydantic import Field

from taxi_assets.errors import WarehouseTableMissingError
from taxi_assets.storage.duckdb_config import NO_EXTENSIONS
from taxi_assets.storage.pandas_types import to_frame
from taxi_assets.storage.warehouse.base_warehouse import Warehouse, noop, reconciliation_error
from taxi_assets.storage.warehouse.duckdb.connections import connect, connect_without_file, database_name
from taxi_assets.storage.warehouse.duckdb.load_ledger import LoadLedger
from taxi_assets.storage.warehouse.duckdb.marts import replace_mart, translate_query_errors, use_schema
from taxi_assets.storage.warehouse.duckdb.table_rows import read_rows, replace_rows, table_schema
from taxi_assets.storage.warehouse.duckdb.tables import TYPES, Schema, Table, quote
from taxi_assets.storage.warehouse.duckdb.trip_views import (
    TripView,
    read_file,
    require_table,
    staged_file,
    trips_folder,
)
from taxi_assets.storage.warehouse.table_output import STORED_PARTITIONS
from taxi_assets.tlc.cleaning.report import NO_ROWS, ControlTotals, to_cents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import pandas as pd
    import pyarrow as pa

    from taxi_assets.marts.mart import Mart
    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.storage.partition_rows import Condition
    from taxi_assets.storage.warehouse.base_warehouse import LoadedMonth
    from taxi_assets.storage.warehouse.table_output import TableOutput
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service


class DuckDBWarehouse(Warehouse):
    """Tables in one DuckDB file."""

    kind: ClassVar[str] = "duckdb"
    dialect: ClassVar[str] = "duckdb"

    file: str = Field(description="The database file. It is created on first use.")
    schema_name: str = Field(default="taxi", description="The schema that contains the tables.")
    trip_views: bool = Field(
        default=False,
        description="Whether trips are views over Parquet files next to the database file, instead of tables.",
    )
    wait_seconds: float = Field(
        default=300, description="How long to wait for another process that has the file open, in seconds."
    )

    def replace_month(self, service: Service, month: Month, trips: ParquetPartition, *, run_id: str) -> None:
        """Replace the month, verify it and record it in the ledger in one transaction; see `Warehouse`."""
        if self.trip_views:
            self._replace_file(service, month, trips, run_id)
            return
        with trips.as_local_file() as path, self._connect_to_write() as connection:
            table, ledger = self._prepare_tables(connection, service)
            connection.begin()
            connection.execute(f"DELETE FROM {table.name} WHERE data_month = ?", [month.start])
            # The path names one file: no glob pattern, and `a=b` in it is not a Hive partition.
            connection.execute(
                f"INSERT INTO {table.name} BY NAME SELECT * FROM read_parquet(?, hive_partitioning = false)",
                [glob.escape(str(path))],
            )
            found = _totals(table, service, month)
            if found != trips.report.clean:
                connection.rollback()
                raise reconciliation_error(service, month, trips, self.table_name(service.table), found)
            ledger.record(service, month, trips, run_id)
            # Another run may have written newer trips to the lake while this run waited for the file.
            trips.require_current()
            connection.commit()

    def loaded_month(self, service: Service, month: Month) -> LoadedMonth | None:
        """Return the month's row of the table `loaded_months`, which is written together with the trips."""
        if not Path(self.file).exists():
            return None
        with self._connect_to_read() as connection:
            return LoadLedger(Schema(connection, self.schema_name)).find(service, month)

    @contextmanager
    def session(self, *, writes: bool = False) -> Iterator[None]:
        """Open one connection for all calls: no other process can write to the file in the meantime.

        With `writes`, no other process can read it either. If the file does not exist, nothing is opened or locked.
        """
        if not Path(self.file).exists():
            yield
            return
        with self._connect_to_write() if writes else self._connect_to_read():
            yield

    def totals(self, service: Service, month: Month) -> ControlTotals:
        """Return the control totals of the month, counted by a query; `NO_ROWS` without a readable table."""
        with suppress(WarehouseTableMissingError), self._open_table(service.table) as table:
            if table is not None:
                return _totals(table, service, month)
        return NO_ROWS

    def read_month(self, service: Service, month: Month, *, rows: int | None = None) -> pd.DataFrame:
        """Return the month's trips, or the first `rows` of them, in the order of the published file."""
        with self._open_table(service.table) as table:
            if table is None:
                raise self.table_missing_error(service.table)
            columns = ", ".join(
                quote(column.name) if column.name in table.columns else f"NULL::{TYPES[column.type]} AS {column.name}"
                for column in service.columns
            )
            query = f"SELECT {columns} FROM {table.name} WHERE data_month = ? ORDER BY source_row LIMIT ?"
            return to_frame(table.connection.sql(query, params=[month.start, rows]).to_arrow_table())

    def replace_rows(self, output: TableOutput) -> None:
        """Replace the rows and update the ledger in one transaction; see `Warehouse`."""
        with self._connect_to_write() as connection:
            output.require_inputs_unchanged()  # no other process can change the file until the commit
            connection.begin()
            replace_rows(Schema(connection, self.schema_name), output, self.table_name(output.table))
            connection.commit()

    def table_schema(self, name: str) -> pa.Schema | None:
        """Return the columns of the table or view; None if it does not exist."""
        with self._open_table(name) as table:
            return None if table is None else table_schema(Schema(table.connection, self.schema_name), name)

    def stored_partitions(self, name: str) -> dict[str, bool] | None:
        """Return the partitions in the ledger; None if it does not list the table."""
        with self._open_table(STORED_PARTITIONS) as ledger:
            if ledger is None:
                return None
            query = f"SELECT partition_key, has_table FROM {ledger.name} WHERE table_name = ?"
            return dict(ledger.connection.execute(query, [name]).fetchall()) or None

    def read_rows(
        self,
        name: str,
        columns: Sequence[str],
        conditions: Sequence[Condition] = (),
        *,
        order_by: Sequence[str] = (),
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        """Run the query, and return a reader of its result; see `Warehouse`."""
        with self._open_table(name) as table:
            if table is None:
                raise self.table_missing_error(name)
            return read_rows(Schema(table.connection, self.schema_name), name, columns, conditions, order_by, limit)

    def replace_mart(
        self,
        mart: Mart,
        month: Month,
        services: Sequence[Service],
        *,
        run_id: str,  # noqa: ARG002  (a transaction needs no name)
        require_inputs_unchanged: Callable[[], None] = noop,
    ) -> int:
        """Replace the month and the views in one transaction; see `Warehouse`."""
        label = f"{mart.name} {month} cannot be computed"
        with self._connect_to_write() as connection, translate_query_errors(label, self.table_missing_error):
            require_inputs_unchanged()  # no other process can change the file until the commit
            connection.begin()
            schema = Schema(connection, self.schema_name)
            rows = replace_mart(schema, mart, month, services, self.table_name(mart.name))
            connection.commit()
        return rows

    def query_native(self, statement: str) -> pa.Table:
        """Run a query in DuckDB's SQL. Without a database file, run it on an empty database in memory."""
        database = self._connect_to_read() if Path(self.file).exists() else duckdb.connect(config={**NO_EXTENSIONS})
        with database as connection, translate_query_errors("The query was rejected", self.table_missing_error):
            use_schema(Schema(connection, self.schema_name))
            return connection.sql(statement).to_arrow_table()

    def relation(self, name: str) -> str:
        """Return the quoted name without the schema: DuckDB confuses a schema with a database of the same name.

        Queries run with the schema as the default.
        """
        return quote(name)

    def table_name(self, name: str) -> str:
        """Return a name such as "taxi"."green_trips"."""
        return f"{quote(self.schema_name)}.{quote(name)}"

    def unquoted_name(self, name: str) -> str:
        """Return a name such as warehouse.taxi.green_trips, with the name that DuckDB gives to the file."""
        return f"{database_name(self.file)}.{self.schema_name}.{name}"

    def uri(self) -> str:
        """Return the URL as TAXI_WAREHOUSE takes it."""
        return f"duckdb:///{self.file}?schema={self.schema_name}{'&trips=views' if self.trip_views else ''}"

    # --- tables ------------------------------------------------------------------------------------------------------

    def _prepare_tables(self, connection: duckdb.DuckDBPyConnection, service: Service) -> tuple[Table, LoadLedger]:
        """Create or alter the ledger and the table of trips, in a separate transaction."""
        schema = Schema(connection, self.schema_name)
        ledger, name = LoadLedger(schema), self.table_name(service.table)
        connection.begin()
        schema.create()
        ledger.create()
        require_table(schema, service, name)
        if not schema.table(service.table).columns:
            ledger.forget_all(service)
        table = schema.prepare(service.table, service.columns, name)
        connection.commit()
        return table, ledger

    def _replace_file(self, service: Service, month: Month, trips: ParquetPartition, run_id: str) -> None:
        """Replace the month's file in the view of the trips.

        The file is verified before the database is opened, which other processes wait for.
        """
        folder, name = trips_folder(self.file, self.schema_name, service), self.table_name(service.table)
        with trips.as_local_file() as path, ExitStack() as staging:
            staged = staging.enter_context(staged_file(folder, path))
            with connect_without_file(self.file, self.wait_seconds) as connection:
                found = _totals(read_file(connection, staged, service, trips.uri), service, month)
            if found != trips.report.clean or found.rows != trips.rows:
                raise reconciliation_error(service, month, trips, name, found)
            with self._connect_to_write() as connection:
                schema = Schema(connection, self.schema_name)
                ledger = LoadLedger(schema)
                view = TripView(schema, ledger, service, folder, name)
                connection.begin()
                schema.create()
                ledger.create()
                old = ledger.files(service).get(month.start)
                try:
                    new = view.replace_month(month, staged)
                    staging.close()  # before the commit: after a kill, the next run may have nothing to load
                    ledger.record(service, month, trips, run_id, file=new)
                    trips.require_current()
                except Exception:
                    connection.rollback()
                    view.delete_old_files(month, old)
                    raise
                connection.commit()
                view.delete_old_files(month, old, new)

    @contextmanager
    def _open_table(self, name: str) -> Iterator[Table | None]:
        """Open a connection to an existing table; yield None if the table or the file does not exist."""
        if not Path(self.file).exists():
            yield None
            return
        with self._connect_to_read() as connection:
            table = Schema(connection, self.schema_name).table(name)
            yield table if table.columns else None

    def _connect_to_read(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        return connect(self.file, self.wait_seconds, read_only=True)

    def _connect_to_write(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        return connect(self.file, self.wait_seconds)


def _totals(table: Table, service: Service, month: Month) -> ControlTotals:
    sums = [f"coalesce(sum({quote(name)}), 0)" for name in service.money_columns if name in table.columns]
    row = table.connection.execute(
        f"SELECT count(*), ({' + '.join(sums) or '0'})::DECIMAL(38,2), coalesce(sum(source_row), 0)::BIGINT "
        f"FROM {table.name} WHERE data_month = ?",
        [month.start],
    ).fetchone()
    return NO_ROWS if row is None else ControlTotals(rows=row[0], cents=to_cents(row[1]), source_rows=row[2])
