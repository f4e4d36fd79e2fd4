"""The warehouse on a Postgres server.

A table of trips is partitioned by `data_month`: every month is a table of its own. A load builds and verifies a new
table for the month, then swaps it in within one short transaction (`swap.py`).

Advisory locks keep two loads of a month apart. They last as long as the session, so a connection pooler between this
package and the server must pool sessions, not transactions.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from psycopg2 import sql
from psycopg2.extensions import parse_dsn
from pydantic import Field

from taxi_assets.storage.pandas_types import to_frame
from taxi_assets.storage.warehouse.base_warehouse import LoadedMonth, Warehouse, noop
from taxi_assets.storage.warehouse.postgres.copy_rows import read_csv
from taxi_assets.storage.warehouse.postgres.locks import (
    LockTimeouts,
    advisory_lock,
)
from taxi_assets.storage.warehouse.postgres.marts import query_arrow, replace_mart, translate_query_errors
from taxi_assets.storage.warehouse.postgres.session import open_session, without_secrets
from taxi_assets.storage.warehouse.postgres.swap import (
    drop_abandoned_tables,
    month_lock_key,
    staging_table,
    swap_partition,
)
from taxi_assets.storage.warehouse.postgres.table_rows import (
    read_rows,
    replace_rows,
    stored_partitions,
    table_schema,
)
from taxi_assets.storage.warehouse.postgres.tables import (
    LOADED_MONTHS,
    TYPES,
    compute_totals,
    find_table,
    prepare_table,
    qualified_name,
)
from taxi_assets.tlc.cleaning.report import NO_ROWS, ControlTotals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd
    import pyarrow as pa

    from taxi_assets.marts.mart import Mart
    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.storage.partition_rows import Condition
    from taxi_assets.storage.warehouse.postgres.tables import Table
    from taxi_assets.storage.warehouse.table_output import TableOutput
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service


class PostgresWarehouse(Warehouse):
    """A warehouse in one schema of a Postgres database."""

    kind: ClassVar[str] = "postgres"
    dialect: ClassVar[str] = "postgres"

    url: str = Field(
        description="The URL of the database, without a password: postgresql://user@host:port/database?sslmode=…"
    )
    schema_name: str = Field(default="taxi", description="The schema that contains the tables.")
    lock_timeout: float = Field(
        default=0.3,
        gt=0,
        description="Seconds that one attempt to swap a partition waits for a lock. Readers queue behind it meanwhile.",
    )
    wait_seconds: float = Field(
        default=300, gt=0, description="Seconds to keep trying while other sessions have a table locked."
    )

    def replace_month(self, service: Service, month: Month, trips: ParquetPartition, *, run_id: str) -> None:
        """Build and verify a new table for the month, then swap it with the old one in one short transaction.

        Holds the month's advisory lock throughout. `swap_partition` lists the other locks and the effect of crashes.
        """
        label = f"{service.name} {month} in {self.table_name(service.table)}"
        with (
            trips.as_local_file() as path,
            self._connect() as connection,
            advisory_lock(connection, label, month_lock_key(self.schema_name, service.table, month)),
        ):
            # Checked twice: while this load waited for the lock, or built the table, another run may have written newer
            # trips to the lake. A run that writes them after the second check waits for the lock, and then replaces the
            # month.
            trips.require_current()
            table = prepare_table(connection, self.schema_name, service, self._lock_timeouts)
            drop_abandoned_tables(connection, table, month, self._lock_timeouts)
            with staging_table(connection, table, service, month, trips, path, self._lock_timeouts):
                trips.require_current()
                swap_partition(connection, table, month, trips.report, run_id, self._lock_timeouts)

    def loaded_month(self, service: Service, month: Month) -> LoadedMonth | None:
        """Return the month's row of the ledger `loaded_months`, which the transaction of the swap writes."""
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
        """Compute the month's control totals in one query of its partition; all zero if there is no table."""
        with self._open_table(service.table) as (connection, table):
            return (
                NO_ROWS
                if table is None
                else compute_totals(connection, table.identifier, table.columns, service, month)
            )

    def read_month(self, service: Service, month: Month, *, rows: int | None = None) -> pd.DataFrame:
        """Return the month in the column order of the schema; columns that the table does not have yet are null."""
        with self._open_table(service.table) as (connection, table), tempfile.TemporaryFile() as file:
            if table is None:
                raise self.table_missing_error(service.table)
            columns = [
                sql.Identifier(column.name)
                if column.name in table.columns
                else sql.SQL("NULL::{} AS {}").format(sql.SQL(TYPES[column.type]), sql.Identifier(column.name))
                for column in service.columns
            ]
            # Ordering sorts the whole month, so a few rows come in any order.
            order = sql.SQL("ORDER BY source_row" if rows is None else "LIMIT {}").format(sql.Literal(rows))
            query = sql.SQL("COPY (SELECT {} FROM {} WHERE data_month = {} {}) TO STDOUT (FORMAT csv, HEADER)").format(
                sql.SQL(", ").join(columns), table.identifier, sql.Literal(month.start), order
            )
            with connection.cursor() as cursor:
                cursor.copy_expert(query, file)
            file.seek(0)
            return to_frame(read_csv(file, service.arrow_schema).read_all())

    def replace_rows(self, output: TableOutput) -> None:
        """Replace the rows and update the ledger in one transaction; see `Warehouse`."""
        with self._connect() as connection:
            replace_rows(connection, self.schema_name, output, self._lock_timeouts)

    def table_schema(self, name: str) -> pa.Schema | None:
        """Return the columns of the table or view; None if it does not exist."""
        with self._connect() as connection:
            return table_schema(connection, self.schema_name, name)

    def stored_partitions(self, name: str) -> dict[str, bool] | None:
        """Return the partitions in the ledger; None if it does not list the table."""
        with self._connect() as connection:
            return stored_partitions(connection, self.schema_name, name)

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
        with self._open_table(name) as (connection, table):
            if table is None:
                raise self.table_missing_error(name)
            return read_rows(connection, table, columns, conditions, order_by, limit)

    def replace_mart(
        self,
        mart: Mart,
        month: Month,
        services: Sequence[Service],
        *,
        run_id: str,  # noqa: ARG002  (only engines that name their jobs need it)
        require_inputs_unchanged: Callable[[], None] = noop,
    ) -> int:
        """Create or update the mart's table and views, then replace the month in one transaction."""
        label = f"{mart.name} {month} cannot be computed"
        with self._connect() as connection, translate_query_errors(label, self.table_missing_error):
            return replace_mart(
                connection, self.schema_name, mart, month, services, self._lock_timeouts, require_inputs_unchanged
            )

    def query_native(self, statement: str) -> pa.Table:
        """Run a query and fetch all its rows at once. Results are expected to be small."""
        with self._connect() as connection, translate_query_errors("The query was rejected", self.table_missing_error):
            return query_arrow(connection, statement)

    def table_name(self, name: str) -> str:
        """Return the quoted name with its schema, such as `"taxi"."green_trips"`."""
        return qualified_name(self.schema_name, name)

    def unquoted_name(self, name: str) -> str:
        """Return a name such as database.taxi.green_trips."""
        return f"{parse_dsn(self.url)['dbname']}.{self.schema_name}.{name}"

    def uri(self) -> str:
        """Return the URL as TAXI_WAREHOUSE takes it, without secrets."""
        url = without_secrets(self.url)
        return f"{url}{'&' if '?' in url else '?'}schema={self.schema_name}"

    @property
    def _lock_timeouts(self) -> LockTimeouts:
        return LockTimeouts(self.lock_timeout, self.wait_seconds)

    @contextmanager
    def _connect(self) -> Iterator[Any]:
        with open_session(self.url, wait_seconds=self.wait_seconds) as connection:
            yield connection

    @contextmanager
    def _open_table(self, name: str) -> Iterator[tuple[Any, Table | None]]:
        """Open a connection; yield it with the table of this name, or None if there is none. Create nothing."""
        with self._connect() as connection:
            yield connection, find_table(connection, self.schema_name, name)
