"""The warehouse on a Postgres server: a table of trips is partitioned by `data_month`, a month is a table of its own.

Belongs here: what is in the tables, and how a month gets in. A new month is built beside the old one, with its
indexes, and verified; then it takes the old one's place in one short transaction. Needs a connection of its own, or a
pooler that pools sessions: what keeps two loads apart are locks that last as long as the connection.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow.csv
from psycopg2 import errors, sql
from pydantic import Field

from taxi_assets.errors import WarehouseSchemaError
from taxi_assets.storage.pandas_types import to_frame
from taxi_assets.storage.warehouse.base_warehouse import LoadedMonth, Warehouse, noop
from taxi_assets.storage.warehouse.postgres.frames import from_rows, to_csv
from taxi_assets.storage.warehouse.postgres.locks import LockTimeouts, advisory_lock, key_of, run_with_lock_retry
from taxi_assets.storage.warehouse.postgres.marts import named_errors, replace_mart, rows_of
from taxi_assets.storage.warehouse.postgres.session import open_session, without_secrets
from taxi_assets.storage.warehouse.postgres.swap import drop_abandoned_tables, month_key, staged_table, swap_partition
from taxi_assets.storage.warehouse.postgres.tables import (
    LOADED_MONTHS,
    TYPES,
    definitions,
    describe_columns,
    find_table,
    prepare_schema,
    prepare_table,
    qualified_name,
    totals,
)
from taxi_assets.tlc.cleaning.report import NO_ROWS, ControlTotals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd
    import pyarrow as pa

    from taxi_assets.marts.mart import Mart
    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.storage.warehouse.postgres.tables import Table
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service


class PostgresWarehouse(Warehouse):
    """Tables in one schema of a database."""

    kind: ClassVar[str] = "postgres"
    dialect: ClassVar[str] = "postgres"

    url: str = Field(description="postgresql://user@host:port/database?sslmode=…, without a password.")
    schema_name: str = Field(default="taxi", description="The schema that holds the tables.")
    lock_timeout: float = Field(default=0.3, gt=0, description="Seconds that one try of a swap may hold up readers.")
    wait_seconds: float = Field(default=300, gt=0, description="How long to go on trying while others hold a table.")

    def replace_month(self, service: Service, month: Month, trips: ParquetPartition, *, run_id: str) -> None:
        """Build the month beside the old one, verify it, then swap the two in one short transaction."""
        label = f"{service.name} {month} in {self.table_name(service.table)}"
        with (
            trips.as_local_file() as path,
            self._connect() as connection,
            advisory_lock(connection, label, month_key(self.schema_name, service.table, month)),
        ):
            # While this load waited or built, a newer one may have published, and even loaded. From the second look
            # on it waits for us, and has the last word.
            trips.require_current()
            table = prepare_table(connection, self.schema_name, service, self._lock_timeouts)
            drop_abandoned_tables(connection, table, month, self._lock_timeouts)
            with staged_table(connection, table, service, month, trips, path):
                trips.require_current()
                swap_partition(connection, table, month, trips.report, run_id, self._lock_timeouts)

    def loaded_month(self, service: Service, month: Month) -> LoadedMonth | None:
        """From the table `loaded_months`, which is written in the same transaction as the swap."""
        with self._open_table(LOADED_MONTHS) as (connection, ledger), connection.cursor() as cursor:
            if ledger is None:
                return None
            cursor.execute(
                sql.SQL(
                    "SELECT data_version, row_count, cents, source_rows, run_id FROM {} "
                    "WHERE table_name = %s AND data_month = %s"
                ).format(ledger.identifier),
                [service.table, month.start],
            )
            row = cursor.fetchone()
        if row is None:
            return None
        return LoadedMonth(row[0], ControlTotals(rows=row[1], cents=row[2], source_rows=row[3]), row[4] or "")

    def totals(self, service: Service, month: Month) -> ControlTotals:
        """One query, of the month's partition alone; no table, no rows."""
        with self._open_table(service.table) as (connection, table):
            return NO_ROWS if table is None else totals(connection, table.identifier, table.columns, service, month)

    def read_month(self, service: Service, month: Month, *, rows: int | None = None) -> pd.DataFrame:
        """In the schema's column order; a column that the table does not have yet is null."""
        with self._open_table(service.table) as (connection, table), tempfile.TemporaryFile() as file:
            if table is None:
                raise self.missing_error(service.table)
            columns = [
                sql.Identifier(column.name)
                if column.name in table.columns
                else sql.SQL("NULL::{} AS {}").format(sql.SQL(TYPES[column.type]), sql.Identifier(column.name))
                for column in service.columns
            ]
            # The order costs a sort of the whole month.
            order = sql.SQL("ORDER BY source_row" if rows is None else "LIMIT {}").format(sql.Literal(rows))
            query = sql.SQL("COPY (SELECT {} FROM {} WHERE data_month = {} {}) TO STDOUT (FORMAT csv, HEADER)").format(
                sql.SQL(", ").join(columns), table.identifier, sql.Literal(month.start), order
            )
            with connection.cursor() as cursor:
                cursor.copy_expert(query, file)
            file.seek(0)
            return to_frame(_from_csv(file, service.arrow_schema))

    def replace_frame(
        self,
        name: str,
        frame: pd.DataFrame,
        descriptions: Mapping[str, str],
        *,
        require_inputs_unchanged: Callable[[], None] = noop,
    ) -> None:
        """In one transaction; a table that has these columns already keeps its place, and the views upon it."""
        table = sql.Identifier(self.schema_name, name)
        types, content = to_csv(frame, self.table_name(name))
        key = key_of(self.schema_name, name)
        with self._connect() as connection, advisory_lock(connection, self.table_name(name), key):
            require_inputs_unchanged()
            prepare_schema(connection, self.schema_name)
            old = find_table(connection, self.schema_name, name)

            def action(cursor: Any) -> None:
                if old is not None and {column: type_ for column, (type_, _) in old.columns.items()} == types:
                    cursor.execute(sql.SQL("DELETE FROM {}").format(table))
                else:
                    self._drop_frame(cursor, name)
                    cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(table, definitions(types)))
                content.seek(0)
                cursor.copy_expert(sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(table), content)
                describe_columns(cursor, table, descriptions)

            run_with_lock_retry(
                connection, self.table_name(name), [] if old is None else [old.oid], action, self._lock_timeouts
            )

    def read_frame(self, name: str) -> pd.DataFrame:
        """Whole."""
        with self._open_table(name) as (connection, table), connection.cursor() as cursor:
            if table is None:
                raise self.missing_error(name)
            names = sql.SQL(", ").join(map(sql.Identifier, table.columns))
            cursor.execute(sql.SQL("SELECT {} FROM {}").format(names, table.identifier))
            return from_rows(cursor.fetchall(), {column: type_ for column, (type_, _) in table.columns.items()})

    def replace_mart(
        self,
        mart: Mart,
        month: Month,
        services: Sequence[Service],
        *,
        run_id: str,  # noqa: ARG002  (one transaction needs no name)
        require_inputs_unchanged: Callable[[], None] = noop,
    ) -> int:
        """Table and views first, then the month in one transaction."""
        with self._connect() as connection, named_errors(f"{mart.name} {month} cannot be made", self.missing_error):
            return replace_mart(
                connection, self.schema_name, mart, month, services, self._lock_timeouts, require_inputs_unchanged
            )

    def query_native(self, statement: str) -> pa.Table:
        """All of them at once: answers are small."""
        with self._connect() as connection, named_errors("The query was refused", self.missing_error):
            return rows_of(connection, statement)

    def table_name(self, name: str) -> str:
        """Such as "taxi"."green_trips"."""
        return qualified_name(self.schema_name, name)

    def uri(self) -> str:
        """The address that TAXI_WAREHOUSE takes."""
        address = without_secrets(self.url)
        return f"{address}{'&' if '?' in address else '?'}schema={self.schema_name}"

    @property
    def _lock_timeouts(self) -> LockTimeouts:
        return LockTimeouts(self.lock_timeout, self.wait_seconds)

    @contextmanager
    def _connect(self) -> Iterator[Any]:
        with open_session(self.url, wait_seconds=self.wait_seconds) as connection:
            yield connection

    @contextmanager
    def _open_table(self, name: str) -> Iterator[tuple[Any, Table | None]]:
        """A table to read from; None where it is not there. Makes nothing."""
        with self._connect() as connection:
            yield connection, find_table(connection, self.schema_name, name)

    def _drop_frame(self, cursor: Any, name: str) -> None:
        try:
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(self.schema_name, name)))
        except errors.DependentObjectsStillExist as error:
            raise WarehouseSchemaError(
                f"{self.table_name(name)} gets other columns, but {error.diag.message_detail}.",
                remedy="Drop what depends on it, replace the table, and make the former anew.",
            ) from error


def _from_csv(file: Any, schema: Any) -> Any:
    """What Postgres writes as CSV, where a null is nothing and an empty text is quoted."""
    return pyarrow.csv.read_csv(
        file,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )
