"""The warehouse in a BigQuery dataset, on dagster-gcp's resource.

A month is one load job into its partition. If the lake is in Cloud Storage, BigQuery reads the object itself, and no
trip passes through this process. A ledger per service, such as `green_trips_loads`, says what data each partition
holds. `loading.py` keeps the two in line.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, ClassVar

import dagster as dg
import pandas as pd
import pyarrow as pa
from google.api_core import exceptions as api_errors
from google.cloud import bigquery
from pydantic import Field, PrivateAttr

from taxi_assets.errors import (
    WarehouseConfigurationError,
    WarehouseUnreachableError,
)
from taxi_assets.google_auth import READ_BUCKET, WRITE_OBJECTS, translate_google_errors
from taxi_assets.marts.mart import Mart
from taxi_assets.resources.google import BigQueryClientResource
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.storage.pandas_types import to_frame
from taxi_assets.storage.partition_rows import Condition
from taxi_assets.storage.query_dataset import in_schema
from taxi_assets.storage.warehouse.base_warehouse import LoadedMonth, Warehouse, noop
from taxi_assets.storage.warehouse.bigquery.job_runner import run_query
from taxi_assets.storage.warehouse.bigquery.loading import MonthLoad
from taxi_assets.storage.warehouse.bigquery.marts import (
    mart_table,
    replace_mart_month,
    replace_view,
    translate_query_errors,
)
from taxi_assets.storage.warehouse.bigquery.queries import compute_totals, list_rows
from taxi_assets.storage.warehouse.bigquery.result_rows import download_batches
from taxi_assets.storage.warehouse.bigquery.table_creation import create_or_update_table, find_table
from taxi_assets.storage.warehouse.bigquery.table_rows import (
    TableReplacement,
    arrow_schema,
    read_rows,
    read_stored_partitions,
)
from taxi_assets.storage.warehouse.bigquery.tables import (
    LABELS,
    LEDGER_SCHEMA,
    ledger_name,
    ledger_table,
    partition_name,
    schema_from_service,
    trips_table,
)
from taxi_assets.storage.warehouse.table_output import STORED_PARTITIONS, TableOutput
from taxi_assets.tlc.cleaning.report import NO_ROWS, ControlTotals
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service


class BigQueryWarehouse(Warehouse):
    """A warehouse in a BigQuery dataset, whose tables of trips are partitioned by `data_month`."""

    kind: ClassVar[str] = "bigquery"
    dialect: ClassVar[str] = "bigquery"

    api: dg.ResourceDependency[BigQueryClientResource]
    project: str = Field(description="The Google Cloud project of the dataset. It pays for the jobs.")
    dataset: str = Field(description="The dataset that contains the tables. It is created on first use.")
    location: str | None = Field(default=None, description="The location in which the dataset is created. Default: US.")

    _dataset_location: str | None = PrivateAttr(default=None)

    # --- months ------------------------------------------------------------------------------------------------------

    def replace_month(self, service: Service, month: Month, trips: ParquetPartition, *, run_id: str) -> None:
        """Create or update the tables, then load the month in one job.

        `MonthLoad` lists the steps, and what a crash at each of them leaves behind.
        """
        label = f"{service.name} {month} cannot be loaded into {self.table_name(service.table)}"
        with self.client(label) as client:
            self._prepare(client, service)
            MonthLoad(
                client=client,
                service=service,
                month=month,
                trips=trips,
                table=self._table(service.table),
                ledger=self._table(ledger_name(service)),
                location=self._location(client),
                run_id=run_id,
                translate_errors=lambda: self._translate_errors(label),
                log=dg.get_dagster_logger(),
            ).replace()

    def loaded_month(self, service: Service, month: Month) -> LoadedMonth | None:
        """Return the month's ledger row, without a query.

        None if there is no valid row, or if the month has rows according to it, but its partition has none: someone
        has deleted it, or it has expired.
        """
        row = self._ledger_row(service, month)
        if row is None or None in row.values():  # invalidated, or written before the ledger had all its columns
            return None
        if row["row_count"] and not self._has_rows(service, month):
            return None
        totals = ControlTotals(rows=row["row_count"], cents=row["cents"], source_rows=row["source_rows"])
        return LoadedMonth(row["data_version"], totals, row["run_id"])

    def replacing_run_id(self, service: Service, month: Month) -> str | None:
        """Return the run that has invalidated the month's ledger row and has not written a new one since."""
        row = self._ledger_row(service, month)
        return None if row is None or row["data_version"] is not None else row["run_id"]

    def _ledger_row(self, service: Service, month: Month) -> dict[str, Any] | None:
        with self.client(f"The ledger row of {service.name} {month} cannot be read") as client:
            ledger = self._find(client, ledger_name(service))
            if ledger is None or not {field.name for field in LEDGER_SCHEMA} <= {field.name for field in ledger.schema}:
                return None
            name = partition_name(self._table(ledger_name(service)), month)
            rows = list_rows(client, name, LEDGER_SCHEMA).to_pylist()
        return rows[0] if rows else None

    def _has_rows(self, service: Service, month: Month) -> bool:
        with self.client(f"{service.name} {month} cannot be read") as client:
            name = partition_name(self._table(service.table), month)
            return bool(list_rows(client, name, LEDGER_SCHEMA[:1], 1).num_rows)

    def totals(self, service: Service, month: Month) -> ControlTotals:
        """Compute the month's control totals by one query of its partition; all zero if there is no table."""
        with self.client(f"{service.name} {month} cannot be counted") as client:
            table = self._find(client, service.table)
            if table is None:
                return NO_ROWS
            existing = {field.name for field in table.schema}
            money = [name for name in service.money_columns if name in existing]
            return compute_totals(client, self.table_name(service.table), money, month, location=self._location(client))

    def read_month(self, service: Service, month: Month, *, rows: int | None = None) -> pd.DataFrame:
        """Return the month by a query, or a few rows of its partition without one, which costs nothing.

        Columns that the table does not have yet are null.
        """
        with self.client(f"{service.name} {month} cannot be read") as client:
            table = self._find(client, service.table)
            if table is None:
                raise self.table_missing_error(service.table)
            existing = {field.name for field in table.schema}
            fields = [field for field in schema_from_service(service) if field.name in existing]
            if rows is not None:
                found = list_rows(client, partition_name(self._table(service.table), month), fields, rows)
        if rows is None:
            names = [field.name for field in fields]
            of_month = [Condition("data_month", "=", month.start)]
            found = self.read_rows(service.table, names, of_month, order_by=["source_row"]).read_all()
        return to_frame(in_schema(found, service.arrow_schema))

    # --- tables of assets --------------------------------------------------------------------------------------------

    def replace_rows(self, output: TableOutput) -> None:
        """Replace the rows, then update the ledger.

        `require_inputs_unchanged` is called before a table is replaced, and again afterwards: BigQuery has no lock that
        keeps the jobs of two runs apart.
        """
        with self.client(f"{output.table} cannot be written") as client:
            self._create_dataset(client)
            TableReplacement(
                client=client,
                output=output,
                dataset=f"{self.project}.{self.dataset}",
                location=self._location(client),
            ).replace()

    def stored_partitions(self, name: str) -> dict[str, bool] | None:
        """Return the partitions in the ledger; None if it does not list the table."""
        with self.client(f"The stored partitions of {name} cannot be read") as client:
            if self._find(client, STORED_PARTITIONS) is None:
                return None
            ledger = self._table(STORED_PARTITIONS)
            return read_stored_partitions(client, ledger, name, self._location(client)) or None

    def table_schema(self, name: str) -> pa.Schema | None:
        """Return the columns of the table or view; None if it does not exist."""
        with self.client(f"{name} cannot be read") as client:
            table = self._find(client, name)
            return None if table is None else arrow_schema(table.schema)

    def read_rows(
        self,
        name: str,
        columns: Sequence[str],
        conditions: Sequence[Condition] = (),
        *,
        order_by: Sequence[str] = (),
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        """Run the query, and return a reader that downloads its result; see `Warehouse`."""
        label = f"{name} cannot be read"
        stack = ExitStack()
        with ExitStack() as opening:
            client = opening.enter_context(self.client(label))
            opening.enter_context(translate_query_errors(label, self.table_missing_error))
            schema, batches = read_rows(
                client,
                self._table(name),
                columns,
                conditions,
                order_by=order_by,
                limit=limit,
                location=self._location(client),
                api=self.api,
            )
            stack = opening.pop_all()

        def read() -> Iterator[pa.RecordBatch]:
            with stack:
                yield from batches

        return pa.RecordBatchReader.from_batches(schema, read())

    # --- marts and queries -------------------------------------------------------------------------------------------

    def replace_mart(
        self,
        mart: Mart,
        month: Month,
        services: Sequence[Service],
        *,
        run_id: str,
        require_inputs_unchanged: Callable[[], None] = noop,
    ) -> int:
        """Replace the month in one query job, then create or update the views.

        `require_inputs_unchanged` is called before and after the job: BigQuery has no lock that keeps the jobs of two
        runs apart.
        """
        from taxi_assets.marts.sql_rendering import mart_queries, month_query, render  # noqa: PLC0415  (a fifth of a second)

        label = f"{mart.name} {month} cannot be computed"
        query = render(month_query(mart, month, services), self.dialect, self.relation)
        views = {name: render(view, self.dialect, self.relation) for name, view in mart_queries(mart)[1].items()}
        table = self._table(mart.name)
        with self.client(label) as client, translate_query_errors(label, self.table_missing_error):
            self._create_dataset(client)
            create_or_update_table(client, mart_table(table, mart))
            location = self._location(client)
            require_inputs_unchanged()
            rows = replace_mart_month(client, mart, month, query, table, location=location, run_id=run_id)
            for name, view in views.items():
                replace_view(client, self._table(name), mart, view)
            # This job may have overwritten the result of a newer one that finished before it.
            require_inputs_unchanged()
        return rows

    def query_native(self, statement: str) -> pa.Table:
        """Run a query, which may bill at most `maximum_bytes_billed` of the client, and return its rows."""
        label = "The query was rejected"
        with self.client(label) as client, translate_query_errors(label, self.table_missing_error):
            config = bigquery.QueryJobConfig(labels=LABELS)
            job = run_query(client, statement, config, location=self._location(client))
            return pa.Table.from_batches(download_batches(job, self.api))

    # --- names -------------------------------------------------------------------------------------------------------

    def table_name(self, name: str) -> str:
        """Return the qualified name in backticks, as queries take it: `project.dataset.green_trips`."""
        return f"`{self._table(name)}`"

    def unquoted_name(self, name: str) -> str:
        """Return a name such as project.dataset.green_trips."""
        return self._table(name)

    def uri(self) -> str:
        """Return the URL as TAXI_WAREHOUSE takes it, without its options."""
        return f"bigquery://{self.project}/{self.dataset}"

    def _table(self, name: str) -> str:
        return f"{self.project}.{self.dataset}.{name}"

    # --- tables ------------------------------------------------------------------------------------------------------

    def _prepare(self, client: bigquery.Client, service: Service) -> None:
        """Create the dataset and the tables, or add the columns and update the descriptions of the schema."""
        self._create_dataset(client)
        create_or_update_table(client, ledger_table(self._table(ledger_name(service))))
        create_or_update_table(client, trips_table(self._table(service.table), service))

    def _create_dataset(self, client: bigquery.Client) -> None:
        if self._location_or_none(client) is None:
            dataset = bigquery.Dataset(f"{self.project}.{self.dataset}")
            dataset.location, dataset.labels = self.location or "US", dict(LABELS)
            client.create_dataset(dataset, exists_ok=True)

    def _location_or_none(self, client: bigquery.Client) -> str | None:
        """Return the location of the dataset; None if it does not exist yet."""
        if self._dataset_location is None:
            try:
                self._dataset_location = client.get_dataset(self.dataset).location
            except api_errors.NotFound:
                return None
            if self.location is not None and self._dataset_location.lower() != self.location.lower():
                found, self._dataset_location = self._dataset_location, None
                raise WarehouseConfigurationError(
                    f"The dataset {self.project}.{self.dataset} is in {found}, but TAXI_WAREHOUSE has the location "
                    f"{self.location}.",
                    remedy=f"Set location={found}, or use another dataset: a dataset cannot be moved.",
                )
        return self._dataset_location

    def _location(self, client: bigquery.Client) -> str:
        return self._location_or_none(client) or self.location or "US"

    def _find(self, client: bigquery.Client, name: str) -> Any:
        return find_table(client, self._table(name))

    # --- errors ------------------------------------------------------------------------------------------------------

    @contextmanager
    def client(self, label: str) -> Iterator[bigquery.Client]:
        """Yield a client. Google's errors inside the block become errors of this package.

        Args:
            label: What failed, as the start of a message: "green 2020-10 cannot be read".

        Raises:
            WarehouseConfigurationError: The error stays until a setting, a permission or the credentials change.
            WarehouseUnreachableError: The error may be transient.
        """
        with self._translate_errors(label), self.api.get_client() as client:
            yield client

    def _translate_errors(self, label: str) -> AbstractContextManager[None]:
        return translate_google_errors(
            label, permanent=WarehouseConfigurationError, transient=WarehouseUnreachableError, remedy=self._remedy
        )

    def _remedy(self, message: str) -> str:
        """Return the remedy for an error of BigQuery, such as the role that grants a missing permission."""
        editor = f"Grant the account BigQuery Data Editor (roles/bigquery.dataEditor) on the dataset {self.dataset}."
        remedies = {
            "bigquery.datasets.create": "Create the dataset (deploy/gcp does), or grant BigQuery User "
            f"(roles/bigquery.user) on {self.project}.",
            "bigquery.jobs.create": "Grant the account BigQuery Job User (roles/bigquery.jobUser) on the project "
            f"{self.project}.",
            "storage.buckets.get": f"Grant the account {READ_BUCKET} on the lake's bucket.",
            "storage.objects": f"Grant the account {WRITE_OBJECTS} on the lake's bucket.",
            "different locations": "Create the dataset in the location of the bucket, or the bucket in that of the "
            "dataset (docs/google-cloud.md).",
            "bytes billed": "Raise maximum_bytes_billed in TAXI_WAREHOUSE if the query is worth it.",
            "billing has not been enabled": "Link a billing account to the project: without one, BigQuery deletes "
            "everything after 60 days, and changes no rows by statements.",
            "was canceled": "Materialize the asset again.",
            "permission": editor,
            "access denied": editor,
        }
        return next((remedy for part, remedy in remedies.items() if part in message.lower()), "Check TAXI_WAREHOUSE.")
