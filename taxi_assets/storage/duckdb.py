"""The warehouse in a DuckDB file: embedded, no server.

DuckDB lets one process at a time open a file for writing, and readers in other processes wait as well. Connections
here are short, and wait for their turn; DuckDB's own lock dies with its process, so nothing has to be cleaned up.
"""

from __future__ import annotations

import datetime as dt
import glob
import re
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg
import duckdb
import pyarrow as pa
import tenacity
from pydantic import Field

from taxi_assets.errors import (
    ConservationError,
    WarehouseBusyError,
    WarehouseSchemaError,
    WarehouseTableMissingError,
    WarehouseUnusableError,
)
from taxi_assets.storage.frames import to_frame
from taxi_assets.storage.staging import private_folder
from taxi_assets.storage.warehouse import LoadedMonth, Warehouse
from taxi_assets.tlc.report import NO_ROWS, Totals, to_cents
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

    from taxi_assets.storage.shelves import ParquetMonth
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

_TYPES: Mapping[ColumnType, str] = {
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

# Memory stays flat only with all three: loading 1 and 5 million rows then peaks at 324 and 329 MB, whatever the cores.
_CONFIG = {"memory_limit": "128MB", "threads": "2", "preserve_insertion_order": "false"}

_LOADED_MONTHS = "loaded_months"
_LOCKED = "Could not set lock on file"
_HOLDER = re.compile(r"lock is held in (?P<holder>.*?PID \d+\)?)")

# One connection at a time within this process; between processes the file's own lock decides.
_TURN = threading.RLock()


class DuckDBWarehouse(Warehouse):
    """Tables in one DuckDB file."""

    kind: ClassVar[str] = "duckdb"

    file: str = Field(description="The database file; it is made on first use.")
    schema_name: str = Field(default="taxi", description="The schema that holds the tables.")
    wait_seconds: float = Field(default=300, description="How long to wait while another process holds the file.")

    def replace_month(self, service: Service, month: Month, trips: ParquetMonth, *, run_id: str) -> None:
        """Delete and insert in one transaction, with the check before the commit."""
        with trips.local() as path, self._connect() as connection:
            table = self._prepare_table(connection, service)
            connection.begin()
            connection.execute(f"DELETE FROM {table.name} WHERE data_month = ?", [month.start])
            # The path is one file's: no pattern, and an `a=b` within it is no column.
            connection.execute(
                f"INSERT INTO {table.name} BY NAME SELECT * FROM read_parquet(?, hive_partitioning = false)",
                [glob.escape(str(path))],
            )
            found = _totals(table, service, month)
            if found != trips.report.clean:
                connection.rollback()
                raise ConservationError(
                    f"{service.name} {month}: loading {trips.uri} into {self.table_name(service.table)} gave {found}, "
                    f"expected {trips.report.clean}. The month was left as it was.",
                    remedy="Materialize the clean asset of this month again, then the warehouse.",
                )
            self._note_loaded(connection, service, month, trips, run_id)
            # A newer run may have been here while this one waited; it must have the last word.
            trips.require_current()
            connection.commit()

    def loaded(self, service: Service, month: Month) -> LoadedMonth | None:
        """From the table `loaded_months`, which is written in the same transaction as the trips."""
        with self._open_table(_LOADED_MONTHS) as ledger:
            if ledger is None:
                return None
            row = ledger.connection.execute(
                f"SELECT data_version, row_count, cents, source_rows FROM {ledger.name} "
                "WHERE table_name = ? AND data_month = ?",
                [service.table, month.start],
            ).fetchone()
        return None if row is None else LoadedMonth(row[0], Totals(rows=row[1], cents=row[2], source_rows=row[3]))

    def totals(self, service: Service, month: Month) -> Totals:
        """One query; no table, no rows."""
        with self._open_table(service.table) as table:
            return NO_ROWS if table is None else _totals(table, service, month)

    def read_month(self, service: Service, month: Month, *, rows: int | None = None) -> pd.DataFrame:
        """In the schema's column order; a column that the table does not have yet is null."""
        with self._open_table(service.table) as table:
            if table is None:
                raise self._missing(service.table)
            columns = ", ".join(
                _quote(column.name) if column.name in table.columns else f"NULL::{_TYPES[column.type]} AS {column.name}"
                for column in service.columns
            )
            query = f"SELECT {columns} FROM {table.name} WHERE data_month = ? ORDER BY source_row LIMIT ?"
            return to_frame(table.connection.sql(query, params=[month.start, rows]).to_arrow_table())

    def replace_frame(self, name: str, frame: pd.DataFrame, descriptions: Mapping[str, str]) -> None:
        """In one transaction."""
        with self._connect() as connection:
            connection.register("frame", pa.Table.from_pandas(frame, preserve_index=False))
            connection.begin()
            table = self._qualified(connection, name)
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self._qualified(connection)}")
            connection.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM frame")
            for column, description in descriptions.items():
                connection.execute(f"COMMENT ON COLUMN {table}.{_quote(column)} IS {_literal(description)}")
            connection.commit()
            connection.unregister("frame")

    def read_frame(self, name: str) -> pd.DataFrame:
        """Whole."""
        with self._open_table(name) as table:
            if table is None:
                raise self._missing(name)
            return to_frame(table.connection.sql(f"SELECT * FROM {table.name}").to_arrow_table())

    def table_name(self, name: str) -> str:
        """Such as "taxi"."green_trips"."""
        return f"{_quote(self.schema_name)}.{_quote(name)}"

    def uri(self) -> str:
        """The address that TAXI_WAREHOUSE takes."""
        return f"duckdb:///{self.file}?schema={self.schema_name}"

    # --- tables ------------------------------------------------------------------------------------------------------

    def _prepare_table(self, connection: duckdb.DuckDBPyConnection, service: Service) -> _Table:
        """Make the table, or add what the schema gained; comments follow the schema."""
        connection.begin()
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self._qualified(connection)}")
        columns = ", ".join(f"{_quote(column.name)} {_TYPES[column.type]}" for column in service.columns)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {self._qualified(connection, service.table)} ({columns})")
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self._qualified(connection, _LOADED_MONTHS)} (table_name VARCHAR, "
            "data_month DATE, data_version VARCHAR, row_count BIGINT, cents BIGINT, source_rows BIGINT, "
            "loaded_at TIMESTAMP, run_id VARCHAR)"
        )
        table = self._table(connection, service.table)
        for column in service.columns:
            type_, comment = table.columns.get(column.name, (None, None))
            if type_ is None:
                connection.execute(f"ALTER TABLE {table.name} ADD COLUMN {_quote(column.name)} {_TYPES[column.type]}")
            elif type_ != _TYPES[column.type]:
                connection.rollback()
                raise WarehouseSchemaError(
                    f"{self.table_name(service.table)} has {column.name} as {type_}; "
                    f"the schema says {_TYPES[column.type]}.",
                    remedy="Rename or drop the old table, then load its months again.",
                )
            if comment != column.described:
                connection.execute(
                    f"COMMENT ON COLUMN {table.name}.{_quote(column.name)} IS {_literal(column.described)}"
                )
        connection.commit()
        return self._table(connection, service.table)

    def _note_loaded(
        self, connection: duckdb.DuckDBPyConnection, service: Service, month: Month, trips: ParquetMonth, run_id: str
    ) -> None:
        ledger, report = self._qualified(connection, _LOADED_MONTHS), trips.report
        connection.execute(
            f"DELETE FROM {ledger} WHERE table_name = ? AND data_month = ?", [service.table, month.start]
        )
        connection.execute(
            f"INSERT INTO {ledger} VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                service.table,
                month.start,
                report.data_version,
                report.clean.rows,
                report.clean.cents,
                report.clean.source_rows,
                dt.datetime.now(dt.UTC).replace(tzinfo=None),
                run_id,
            ],
        )

    def _qualified(self, connection: duckdb.DuckDBPyConnection, *name: str) -> str:
        """The schema, or a table in it, with the database's name: a schema may be called like the file, or `temp`."""
        ((database,),) = connection.execute("SELECT current_database()").fetchall()
        return ".".join(map(_quote, (database, self.schema_name, *name)))

    def _table(self, connection: duckdb.DuckDBPyConnection, name: str) -> _Table:
        columns = connection.execute(
            "SELECT column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal "
            "AND database_name = current_database() AND lower(schema_name) = lower(?) AND table_name = ?",
            [self.schema_name, name],
        ).fetchall()
        return _Table(connection, self._qualified(connection, name), {c: (type_, about) for c, type_, about in columns})

    @contextmanager
    def _open_table(self, name: str) -> Iterator[_Table | None]:
        """A table to read from; None where it is not there. Makes nothing."""
        if not Path(self.file).exists():
            yield None
            return
        with self._connect() as connection:
            table = self._table(connection, name)
            yield table if table.columns else None

    def _missing(self, name: str) -> WarehouseTableMissingError:
        return WarehouseTableMissingError(
            f"There is no table {self.table_name(name)} in {self.file}.", remedy="Materialize its asset first."
        )

    # --- one connection at a time -------------------------------------------------------------------------------------

    @contextmanager
    def _connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with _TURN:
            file = Path(self.file)
            home = file.with_name(f".{file.name}.new")
            if not file.exists() or home.exists():  # the latter was left by a process that was killed
                _make(file, home)
            connection = self._wait_for_turn()
            try:
                yield connection
            finally:
                connection.close()

    def _wait_for_turn(self) -> duckdb.DuckDBPyConnection:
        log = dg.get_dagster_logger()

        def tell(state: tenacity.RetryCallState) -> None:
            if state.attempt_number == 1:
                log.info("waiting for %s, which is held by %s", self.file, _holder(state))

        def give_up(state: tenacity.RetryCallState) -> Any:
            raise WarehouseBusyError(
                f"{self.file} was held by {_holder(state)} for {self.wait_seconds:g} seconds.",
                remedy="Close the session that has it open, or end that process, and run the month again.",
            )

        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: _LOCKED in str(error)),
            wait=tenacity.wait_random(0.02, 0.3),
            stop=tenacity.stop_after_delay(self.wait_seconds),
            before_sleep=tell,
            retry_error_callback=give_up,
        )
        try:
            return waiting(duckdb.connect, self.file, config=dict(_CONFIG))
        except duckdb.Error as error:
            raise WarehouseUnusableError(
                f"{self.file} cannot be opened as a DuckDB database: {str(error).splitlines()[0]}",
                remedy="Move it away, or close what this process has open of it.",
            ) from error


@dataclass(frozen=True)
class _Table:
    """A table as it stands: who to ask, its full name, and type and comment of its columns by name."""

    connection: duckdb.DuckDBPyConnection
    name: str
    columns: Mapping[str, tuple[str, str | None]]


def _totals(table: _Table, service: Service, month: Month) -> Totals:
    sums = [f"coalesce(sum({_quote(name)}), 0)" for name in service.money_columns if name in table.columns]
    row = table.connection.execute(
        f"SELECT count(*), ({' + '.join(sums) or '0'})::DECIMAL(38,2), coalesce(sum(source_row), 0)::BIGINT "
        f"FROM {table.name} WHERE data_month = ?",
        [month.start],
    ).fetchone()
    return NO_ROWS if row is None else Totals(rows=row[0], cents=to_cents(row[1]), source_rows=row[2])


def _make(file: Path, home: Path) -> None:
    """An empty database, whole from the start: one whose making was cut short would be refused ever after."""
    with private_folder(home) as folder:
        if not file.exists():
            new = folder / "new.duckdb"
            duckdb.connect(new).close()
            # Another process may have been faster; where there are no links, DuckDB makes the file in place.
            with suppress(OSError):
                file.hardlink_to(new)
    with suppress(OSError):  # another process is making one too
        home.rmdir()


def _holder(state: tenacity.RetryCallState) -> str:
    match = _HOLDER.search(str(state.outcome.exception())) if state.outcome else None
    return match["holder"] if match else "another process"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    # COMMENT takes no parameters.
    return "'" + text.replace("'", "''") + "'"
