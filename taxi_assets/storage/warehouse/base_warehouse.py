"""The interface of a warehouse: a table of trips for each service, tables of marts, and unpartitioned tables.

Belongs here: the contract of every warehouse, and the errors that all warehouses raise.
Does not belong here: an implementation, which is a package such as `duckdb/`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import dagster as dg

from taxi_assets.errors import (
    ReconciliationError,
    WarehouseBusyError,
    WarehouseSchemaError,
    WarehouseTableMissingError,
)
from taxi_assets.storage.pandas_types import normalize_types, to_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import pandas as pd
    import pyarrow as pa

    from taxi_assets.marts.mart import Mart
    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.storage.partition_rows import Condition
    from taxi_assets.storage.warehouse.table_output import TableOutput
    from taxi_assets.tlc.cleaning.report import ControlTotals
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

POLL_SECONDS = 0.5
"""Pause between two reads of the ledger while another run is replacing a month."""

RECREATE_TABLE = "Rename or drop the old table, then load its months again."
"""The remedy for a table that cannot be altered to match the schema."""


def noop() -> None:
    """Do nothing: the default for `require_inputs_unchanged`."""


@dataclass(frozen=True)
class LoadedMonth:
    """The ledger's row for a month of trips: which data was loaded last.

    The ledger is a table of the warehouse with one row per loaded month: `loaded_months` in DuckDB and Postgres,
    `green_trips_loads` and so on in BigQuery.
    """

    data_version: str
    """The data version of the clean trips that were loaded."""
    totals: ControlTotals
    """Control totals of the loaded rows at the time of the load."""
    run_id: str = field(default="", compare=False)
    """The run that loaded the month; empty if the row does not record a run."""


class Warehouse(dg.ConfigurableResource, ABC):  # type: ignore[type-arg]  # Dagster's own pattern
    """Tables of trips, replaced by service and month; marts, replaced by month; and unpartitioned tables.

    To add a warehouse, implement this class in a new package, and run the tests `test_any_warehouse*.py`,
    `test_any_io_manager.py` and `test_dropped_tables.py` in `taxi_assets_tests/contract/` against it.

    - **Atomic.** Every replacement takes effect as a whole: a concurrent reader sees the old rows or the new ones. If
      it fails, or its process is killed, the old rows stay, or the month counts as not loaded.
    - **Ledger.** The warehouse records which data is loaded for each month (`loaded_month`). Trips and ledger may be
      written in two steps, if the month counts as not loaded in between.
    - **Idempotent.** Repeating a replacement produces the same rows, without duplicates.
    - **Concurrency.** Several threads and processes use the warehouse at once. If two runs write the same month, the
      run with the older data fails, and the newer data stays.
    - **Values.** Rows are returned as they were written:
        - Nulls stay null, and the text "NA" stays text.
        - Money and miles are exact `Decimal`s.
        - Integers are 64-bit and nullable.
        - Times are local wall-clock times without a zone.
    - **Reading creates nothing.** A warehouse, a table or a month that does not exist is not created by a read.
    - **Errors.** Every method raises `WarehouseConfigurationError` if the warehouse is missing or not accessible,
      `WarehouseUnreachableError` if it does not answer, and `WarehouseBusyError` if another process locks it for too
      long.
    """

    kind: ClassVar[str]
    """Short name of the database, shown in Dagster's UI, such as "duckdb"."""
    dialect: ClassVar[str]
    """sqlglot's name for the SQL dialect of the database."""
    replacement_wait_seconds: ClassVar[float] = 60
    """How long `wait_for_loaded_month` waits for a run that is replacing a month."""

    # --- trips -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def replace_month(self, service: Service, month: Month, trips: ParquetPartition, *, run_id: str) -> None:
        """Replace a month in the service's table with clean trips, and record the load in the ledger.

        Creates the table if it is missing, adds columns that are new in the schema (null in other months), and updates
        the descriptions of columns. The control totals are compared with the trips' report before the rows become
        visible. A warehouse that cannot count them before (BigQuery) compares the footer of the Parquet object before,
        and counts the loaded rows before it writes the ledger.

        Args:
            service: The service; its table is `service.table`.
            month: The month to replace. Other months are not changed.
            trips: The clean trips of the month, in a lake.
            run_id: ID of the Dagster run that loads the month, recorded in the ledger.

        Raises:
            ReconciliationError: The loaded rows do not have the control totals of the report.
            LakeConflictError: The trips are no longer the current version in the lake: another run has replaced them.
            LakeObjectMissingError: The trips have been deleted from the lake.
            WarehouseSchemaError: A column's type differs from the schema.
        """

    @abstractmethod
    def loaded_month(self, service: Service, month: Month) -> LoadedMonth | None:
        """Return the ledger's row for the month; None if nothing is loaded, or the rows were deleted (in BigQuery).

        It is also None while a run replaces the month in two steps (see `replacing_run_id`).
        """

    def replacing_run_id(self, service: Service, month: Month) -> str | None:  # noqa: ARG002  (for warehouses to override)
        """Return the ID of the run that has begun to replace the month and has not finished; None if there is none.

        Override it if trips and ledger are not written in one transaction, so that `loaded_month` is None in between.
        The run may have been killed: the warehouse alone cannot detect that.
        """
        return None

    def wait_for_loaded_month(self, service: Service, month: Month) -> LoadedMonth | None:
        """Return the same as `loaded_month`, but first wait for a run that is replacing the month.

        Raises:
            WarehouseBusyError: The run has not finished within `replacement_wait_seconds`.
        """
        deadline = time.monotonic() + self.replacement_wait_seconds
        while (loaded := self.loaded_month(service, month)) is None:
            run_id = self.replacing_run_id(service, month)
            if run_id is None:
                return self.loaded_month(service, month)  # the run may have finished between the two queries
            if time.monotonic() > deadline:
                raise WarehouseBusyError(
                    f"Run {run_id} is replacing {service.name} {month} in {self.table_name(service.table)}. It has "
                    f"not finished within {self.replacement_wait_seconds:g} seconds.",
                    remedy="Try again when that run has ended. If it was killed, materialize the month's warehouse "
                    "asset again.",
                )
            time.sleep(POLL_SECONDS)
        return loaded

    def loaded_versions(self, services: Sequence[Service], month: Month) -> dict[str, str]:
        """Return the loaded data versions of a month, by service name; services that are not loaded are left out.

        Raises:
            WarehouseBusyError: A run is replacing one of them; see `wait_for_loaded_month`.
        """
        found = {service.name: self.wait_for_loaded_month(service, month) for service in services}
        return {name: loaded.data_version for name, loaded in found.items() if loaded is not None}

    @abstractmethod
    def totals(self, service: Service, month: Month) -> ControlTotals:
        """Return the control totals of the month, counted in the table now; `NO_ROWS` if there is no table."""

    @abstractmethod
    def read_month(self, service: Service, month: Month, *, rows: int | None = None) -> pd.DataFrame:
        """Return the trips of a month, with the columns of the schema in its order.

        Args:
            service: The service; its table is `service.table`.
            month: The month to read. A month that is not loaded has no rows.
            rows: The maximum number of rows: those that are cheapest to read, in no particular order. By default, all
                rows in file order.

        Returns:
            The rows. A column of the schema that the table lacks is null.

        Raises:
            WarehouseTableMissingError: The service's table does not exist.
        """

    # --- tables of assets ------------------------------------------------------------------------------------------

    @abstractmethod
    def replace_rows(self, output: TableOutput) -> None:
        """Replace a table, or some of its partitions, with the rows of an asset, and record that in the ledger.

        Creates the table if it is missing, and adds columns that are new (null in other partitions). A table that is
        replaced as a whole loses the columns that the rows do not have. Two runs that replace the same partition take
        turns, so that the rows of one of them remain.

        Raises:
            AssetDefinitionError: The table belongs to another asset.
            WarehouseSchemaError: A column has another type in the table.
            ConcurrentUpdateError: The asset's inputs have changed; see `TableOutput.require_inputs_unchanged`.
        """

    @abstractmethod
    def stored_partitions(self, name: str) -> Mapping[str, bool] | None:
        """Return the stored partitions of a table, from the ledger of `replace_rows`.

        A partition without rows can be stored, too. The result is None for a table that something else has written,
        such as trips, a mart or a dbt model. A table without partitions has one, with the key `WHOLE_TABLE`.

        Returns:
            For each partition key, whether the table existed when the partition was stored. It did not if there was no
            column with a known type. If it did, and does not exist now, someone has dropped it, with its partitions.
        """

    @abstractmethod
    def table_schema(self, name: str) -> pa.Schema | None:
        """Return the columns of a table or view, with the Arrow types of `read_rows`; None if it does not exist."""

    @abstractmethod
    def read_rows(
        self,
        name: str,
        columns: Sequence[str],
        conditions: Sequence[Condition] = (),
        *,
        order_by: Sequence[str] = (),
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        """Run a query of one table or view, and return a reader of its rows.

        The reader does not block writers: it reads either a copy of the result, or a result that the server keeps.

        Args:
            name: The table's name, without its schema.
            columns: The columns to return, in this order. They exist.
            conditions: Conditions that hold for every row.
            order_by: The columns by which the rows are sorted; by default, in no particular order.
            limit: The maximum number of rows.

        Raises:
            WarehouseTableMissingError: The table does not exist.
        """

    def read_frame(self, name: str) -> pd.DataFrame:
        """Return all rows of a table.

        Raises:
            WarehouseTableMissingError: The table does not exist.
        """
        schema = self.table_schema(name)
        if schema is None:
            raise self.table_missing_error(name)
        return to_frame(self.read_rows(name, schema.names).read_all().cast(schema))

    # --- marts -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def replace_mart(
        self,
        mart: Mart,
        month: Month,
        services: Sequence[Service],
        *,
        run_id: str,
        require_inputs_unchanged: Callable[[], None] = noop,
    ) -> int:
        """Replace a month of a mart with the result of its query.

        Creates the table if it is missing, adds columns that are new (null in other months), updates descriptions, and
        recreates the mart's views.

        Args:
            mart: The definition of the mart.
            month: The month to replace. Other months are not changed.
            services: The services whose trips the query reads.
            run_id: ID of the Dagster run that replaces the month.
            require_inputs_unchanged: Raises `ConcurrentUpdateError` if the caller's inputs have changed since it read
                them. Called while this run holds the month's write lock, so that a run with older inputs cannot
                overwrite a newer result. A warehouse without such locks calls it before and after the write.

        Returns:
            The number of rows of the month.

        Raises:
            WarehouseSchemaError: A column's type differs from the mart, or a table lacks a column that the query reads.
            WarehouseTableMissingError: A table that the query reads does not exist.
        """

    # --- queries -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def query_native(self, statement: str) -> pa.Table:
        """Run a query in the SQL of this database; return its rows with the types of this database.

        Raises:
            WarehouseTableMissingError: A table that the query reads does not exist.
            WarehouseSchemaError: The query is not valid for the tables.
        """

    def read_native_frame(self, statement: str) -> pd.DataFrame:
        """Run a query in the SQL of this database; return its rows with the types that all warehouses share."""
        return to_frame(normalize_types(self.query_native(statement)))

    def session(self, *, writes: bool = False) -> AbstractContextManager[None]:  # noqa: ARG002  (for warehouses to override)
        """Open a session for several calls, which may share a connection. With `writes`, they may replace rows."""
        return nullcontext()

    def read_portable_frame(
        self, query: str, *, services: Sequence[Service] = (), months: Sequence[Month] = ()
    ) -> pd.DataFrame:
        """Run a query in the portable SQL of marts; rows and types are the same in every warehouse.

        Args:
            query: One SELECT statement; tables are named without a schema.
            services: The services whose trips the query reads as `all_trips`.
            months: The months of `all_trips`.

        Raises:
            MartDefinitionError: The query uses SQL that is not portable (see `marts/portable_sql.py`), or reads
                `all_trips` without services and months.
            WarehouseTableMissingError: A table that the query reads does not exist.
            WarehouseSchemaError: A table lacks a column that the query reads.
        """
        from taxi_assets.marts.sql_rendering import column_types, expand_all_trips, parse, render  # noqa: PLC0415  (0.2 s)

        parsed = parse(query, "query")
        statement = render(expand_all_trips(parsed, services, months), self.dialect, self.relation)
        return to_frame(normalize_types(self.query_native(statement), column_types(parsed)))

    # --- names -------------------------------------------------------------------------------------------------------

    def relation(self, name: str) -> str:
        """Return the quoted name by which `query_native` refers to a table."""
        return self.table_name(name)

    @abstractmethod
    def table_name(self, name: str) -> str:
        """Return the qualified name of a table, for messages and metadata. The table need not exist."""

    @abstractmethod
    def unquoted_name(self, name: str) -> str:
        """Return `database.schema.table` without quotes, by which other tools know a table. Nothing is opened."""

    def table_missing_error(self, name: str) -> WarehouseTableMissingError:
        """Build the error for a table that does not exist."""
        return WarehouseTableMissingError(
            f"The table {self.table_name(name)} does not exist in {self.uri()}.",
            remedy=f"Materialize the asset {name} first.",
        )

    @abstractmethod
    def uri(self) -> str:
        """Return the URL of the warehouse, without secrets."""


def reconciliation_error(
    service: Service,
    month: Month,
    trips: ParquetPartition,
    table: str,
    found: ControlTotals,
    note: str = "The month is unchanged.",
) -> ReconciliationError:
    """Build the error for a load whose rows do not have the control totals of the cleaning report.

    Args:
        service: The service of the trips.
        month: The month that was loaded.
        trips: The trips that were loaded.
        table: The qualified name of the table.
        found: The control totals that were counted.
        note: A sentence about the state of the table.
    """
    return ReconciliationError(
        f"{service.name} {month}: loading {trips.uri} into {table} produced {found}; the cleaning report has "
        f"{trips.report.clean}. {note}",
        remedy="Materialize the clean asset of this month again, then its warehouse asset.",
    )


def column_type_error(table: str, column: str, found: str, wanted: str) -> WarehouseSchemaError:
    """Build the error for a column whose type differs from the schema."""
    return WarehouseSchemaError(
        f"Column {column} of {table} has type {found}; the schema requires {wanted}.", remedy=RECREATE_TABLE
    )


def query_error(label: str, message: str) -> WarehouseSchemaError:
    """Build the error for a query that the database rejects.

    Args:
        label: The operation that failed, such as "zone_day 2021-01 cannot be computed".
        message: The database's error message, without a period.
    """
    return WarehouseSchemaError(
        f"{label}: {message}.",
        remedy="Load a month into the table first if it lacks a new column of the schema.",
    )
