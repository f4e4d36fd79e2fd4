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

import pyarrow.csv
from psycopg2 import errors, sql
from psycopg2.extensions import parse_dsn
from pydantic import Field

from taxi_assets.errors import WarehouseSchemaError
from taxi_assets.storage.pandas_types import to_frame
from taxi_assets.storage.warehouse.base_warehouse import LoadedMonth, Warehouse, noop
from taxi_assets.storage.warehouse.postgres.frames import frame_from_rows, frame_to_csv
from taxi_assets.storage.warehouse.postgres.locks import (
    LockTimeouts,
    advisory_lock,
    advisory_lock_key,
    run_with_lock_retry,
)
from taxi_assets.storage.warehouse.postgres.marts import query_arrow, replace_mart, translate_query_errors
from taxi_assets.storage.warehouse.postgres.session import open_session, without_secrets
from taxi_assets.storage.warehouse.postgres.swap import (
    drop_abandoned_tables,
    month_lock_key,
    staging_table,
    swap_partition,
)
from taxi_assets.storage.warehouse.postgres.tables import (
    LOADED_MONTHS,
    TYPES,
    column_definitions,
    compute_totals,
    describe_columns,
    find_table,
    prepare_schema,
    prepare_table,
    qualified_name,
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
            with staging_table(connection, table, service, month, trips, path):
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
            return to_frame(_from_csv(file, service.arrow_schema))

    def replace_frame(
        self,
        name: str,
        frame: pd.DataFrame,
        descriptions: Mapping[str, str],
        *,
        require_inputs_unchanged: Callable[[], None] = noop,
    ) -> None:
        """Replace a table with a frame in one transaction.

        A table that already has these columns is emptied and filled, so views that depend on it stay. Otherwise it is
        dropped and created.

        Args:
            name: The name of the table.
            frame: The new rows, without the index.
            descriptions: Comments by column name.
            require_inputs_unchanged: Called with the table's lock held. It raises if the inputs have changed.

        Raises:
            WarehouseSchemaError: Postgres cannot store a column, or another object depends on the old columns.
            WarehouseBusyError: Another session kept the table locked.
        """
        table = sql.Identifier(self.schema_name, name)
        types, content = frame_to_csv(frame, self.table_name(name))
        key = advisory_lock_key(self.schema_name, name)
        with self._connect() as connection, advisory_lock(connection, self.table_name(name), key):
            require_inputs_unchanged()
            prepare_schema(connection, self.schema_name)
            old = find_table(connection, self.schema_name, name)

            def write(cursor: Any) -> None:
                if old is not None and {column: type_ for column, (type_, _) in old.columns.items()} == types:
                    cursor.execute(sql.SQL("DELETE FROM {}").format(table))
                else:
                    self._drop_frame(cursor, name)
                    cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(table, column_definitions(types)))
                content.seek(0)
                cursor.copy_expert(sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(table), content)
                describe_columns(cursor, table, descriptions)

            run_with_lock_retry(
                connection, self.table_name(name), [] if old is None else [old.oid], write, self._lock_timeouts
            )

    def read_frame(self, name: str) -> pd.DataFrame:
        """Return all rows of a table."""
        with self._open_table(name) as (connection, table), connection.cursor() as cursor:
            if table is None:
                raise self.table_missing_error(name)
            names = sql.SQL(", ").join(map(sql.Identifier, table.columns))
            cursor.execute(sql.SQL("SELECT {} FROM {}").format(names, table.identifier))
            return frame_from_rows(cursor.fetchall(), {column: type_ for column, (type_, _) in table.columns.items()})

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

    def _drop_frame(self, cursor: Any, name: str) -> None:
        try:
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(self.schema_name, name)))
        except errors.DependentObjectsStillExist as error:
            raise WarehouseSchemaError(
                f"The columns of {self.table_name(name)} have changed, but {error.diag.message_detail}.",
                remedy="Drop the objects that depend on it, replace the table, and create them again.",
            ) from error


def _from_csv(file: Any, schema: Any) -> Any:
    """Read the CSV that Postgres writes, in which a null is empty and an empty text is quoted."""
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
