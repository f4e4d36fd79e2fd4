"""The warehouse in a BigQuery dataset, on dagster-gcp's resource.

A month is one load job into its partition, from the lake's `gs://` object where that is one: no trip passes through
this process. What the month should be is counted beforehand, by a query on the very object. Which data a partition
holds stands in a table beside it, `green_trips_loads`, written after the trips: a crash in between shows as a month
that was loaded from other data, and the next run loads it anew.
"""

import datetime as dt
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from google.api_core import exceptions as api_errors
from google.cloud import bigquery
from pydantic import Field, PrivateAttr

from taxi_assets.errors import (
    ConservationError,
    WarehouseSchemaError,
    WarehouseTableMissingError,
    WarehouseUnreachableError,
    WarehouseUnusableError,
)
from taxi_assets.google_cloud import named_errors
from taxi_assets.google_resources import BigQueryClientResource
from taxi_assets.storage.bigquery_jobs import finished, job_id_of
from taxi_assets.storage.bigquery_tables import (
    LEDGER_SCHEMA,
    described,
    ledger_of,
    missing_columns,
    months_of,
    partition,
    partitioned_table,
    partitioning,
    schema_of,
)
from taxi_assets.storage.frames import to_frame
from taxi_assets.storage.shelves import ParquetMonth
from taxi_assets.storage.warehouse import LoadedMonth, Warehouse
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.report import NO_ROWS, Totals, to_cents, totals_of_parquet
from taxi_assets.tlc.schema import Service

_LABELS = {"managed-by": "taxi_assets"}


class BigQueryWarehouse(Warehouse):
    """Tables in a BigQuery dataset, partitioned by `data_month`."""

    kind: ClassVar[str] = "bigquery"

    api: dg.ResourceDependency[BigQueryClientResource]
    project: str = Field(description="The project that holds the dataset, and pays for its jobs.")
    dataset: str = Field(description="The dataset that holds the tables; it is made on first use.")
    location: str | None = Field(default=None, description="Where the dataset is made, US by default.")

    _found_in: str | None = PrivateAttr(default=None)

    # --- months ------------------------------------------------------------------------------------------------------

    def replace_month(self, service: Service, month: Month, trips: ParquetMonth, *, run_id: str) -> None:
        """Count in the object, load it into the partition in one job, note what was loaded."""
        what = f"{service.name} {month} cannot be loaded into {self.table_name(service.table)}"
        with self.client(what) as client:
            self._prepare(client, service)
            # A load job names its object, but cannot name the generation: it must be the same before and after.
            trips.require_current()
            found = self._count_object(client, service, month, trips)
            if found != trips.report.clean:
                raise self._not_conserved(service, month, trips, found, "The month was left as it was.")
            destination = partition(self._table(service.table), month)
            if found.rows:
                self._load(client, service, month, trips, destination, run_id)
            else:
                client.delete_table(destination, not_found_ok=True)
            trips.require_current()
            self._note_loaded(client, service, month, trips, run_id)

    def loaded(self, service: Service, month: Month) -> LoadedMonth | None:
        """From the table of loads; reading it costs nothing."""
        with self.client(f"{service.name} {month} cannot be looked up") as client:
            notes = self._rows(client, partition(self._table(ledger_of(service)), month), LEDGER_SCHEMA)
        if not notes.num_rows:
            return None
        note = notes.to_pylist()[0]
        totals = Totals(rows=note["row_count"], cents=note["cents"], source_rows=note["source_rows"])
        return LoadedMonth(note["data_version"], totals)

    def totals(self, service: Service, month: Month) -> Totals:
        """One query of the partition; no table, no rows."""
        with self.client(f"{service.name} {month} cannot be counted") as client:
            table = self._find(client, service.table)
            if table is None:
                return NO_ROWS
            held = {field.name for field in table.schema}
            money = [name for name in service.money_columns if name in held]
            return self._count(client, self.table_name(service.table), money, month)

    def read_month(self, service: Service, month: Month, *, rows: int | None = None) -> pd.DataFrame:
        """By a query; a few rows come from the partition's beginning, which costs nothing."""
        with self.client(f"{service.name} {month} cannot be read") as client:
            table = self._find(client, service.table)
            if table is None:
                raise self._missing(service.table)
            held = {field.name for field in table.schema}
            fields = [field for field in schema_of(service) if field.name in held]
            if rows is not None:
                found = self._rows(client, partition(self._table(service.table), month), fields, rows)
            else:
                names = ", ".join(f"`{field.name}`" for field in fields)
                found = self._query(
                    client,
                    f"SELECT {names} FROM {self.table_name(service.table)} WHERE data_month = @month "
                    "ORDER BY source_row",
                    month,
                ).to_arrow(create_bqstorage_client=False)
        return to_frame(_in_schema(found, service.arrow_schema))

    # --- small tables ------------------------------------------------------------------------------------------------

    def replace_frame(self, name: str, frame: pd.DataFrame, descriptions: Mapping[str, str]) -> None:
        """In one load job."""
        with self.client(f"{name} cannot be written") as client:
            self._make_dataset(client)
            config = bigquery.LoadJobConfig(
                schema=described(frame, descriptions),
                source_format=bigquery.SourceFormat.PARQUET,
                write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
                labels=_LABELS,
            )
            with io.BytesIO() as parquet:
                pyarrow.parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), parquet)
                client.load_table_from_file(
                    parquet, self._table(name), rewind=True, job_config=config, location=self._place(client)
                ).result()

    def read_frame(self, name: str) -> pd.DataFrame:
        """Whole; reading a small table costs nothing."""
        with self.client(f"{name} cannot be read") as client:
            table = self._find(client, name)
            if table is None:
                raise self._missing(name)
            return to_frame(client.list_rows(table).to_arrow(create_bqstorage_client=False))

    # --- names -------------------------------------------------------------------------------------------------------

    def table_name(self, name: str) -> str:
        """Such as `project.dataset.green_trips`, in backticks, as queries take it."""
        return f"`{self._table(name)}`"

    def uri(self) -> str:
        """The address that TAXI_WAREHOUSE takes."""
        return f"bigquery://{self.project}/{self.dataset}"

    def _table(self, name: str) -> str:
        return f"{self.project}.{self.dataset}.{name}"

    # --- tables ------------------------------------------------------------------------------------------------------

    def _prepare(self, client: bigquery.Client, service: Service) -> None:
        """Make dataset and tables; add what the schema gained; descriptions follow the schema."""
        self._make_dataset(client)
        client.create_table(months_of(self._table(ledger_of(service)), LEDGER_SCHEMA, _LABELS), exists_ok=True)
        wanted = partitioned_table(self._table(service.table), service, _LABELS)
        table = client.create_table(wanted, exists_ok=True)
        types = {field.name: field.field_type for field in table.schema}
        for field in wanted.schema:
            if types.get(field.name, field.field_type) != field.field_type:
                raise WarehouseSchemaError(
                    f"{self.table_name(service.table)} has {field.name} as {types[field.name]}; "
                    f"the schema says {field.field_type}.",
                    remedy="Rename or drop the old table, then load its months again.",
                )
        schema = [*wanted.schema, *missing_columns(wanted.schema, table.schema)]
        changed = [
            name
            for name, differs in {
                "schema": {f.name: f for f in schema} != {f.name: f for f in table.schema},
                "description": table.description != wanted.description,
                "labels": table.labels != wanted.labels,
            }.items()
            if differs
        ]
        if changed:
            # New columns come last, where BigQuery puts them.
            order = [field.name for field in table.schema]
            by_name = {field.name: field for field in schema}
            table.schema = [by_name[name] for name in order] + [f for f in schema if f.name not in order]
            table.description, table.labels = wanted.description, wanted.labels
            client.update_table(table, changed)

    def _make_dataset(self, client: bigquery.Client) -> None:
        if self._place_or_none(client) is None:
            dataset = bigquery.Dataset(f"{self.project}.{self.dataset}")
            dataset.location, dataset.labels = self.location or "US", _LABELS
            client.create_dataset(dataset, exists_ok=True)

    def _place_or_none(self, client: bigquery.Client) -> str | None:
        """Where the dataset is; None where there is none yet."""
        if self._found_in is None:
            try:
                self._found_in = client.get_dataset(self.dataset).location
            except api_errors.NotFound:
                return None
            if self.location is not None and self._found_in.lower() != self.location.lower():
                found, self._found_in = self._found_in, None
                raise WarehouseUnusableError(
                    f"The dataset {self.project}.{self.dataset} is in {found}, TAXI_WAREHOUSE says {self.location}.",
                    remedy=f"Say location={found}, or use another dataset: one cannot be moved.",
                )
        return self._found_in

    def _place(self, client: bigquery.Client) -> str:
        return self._place_or_none(client) or self.location or "US"

    def _find(self, client: bigquery.Client, name: str) -> Any:
        try:
            return client.get_table(self._table(name))
        except api_errors.NotFound:
            return None

    # --- loading -----------------------------------------------------------------------------------------------------

    def _load(
        self,
        client: bigquery.Client,
        service: Service,
        month: Month,
        trips: ParquetMonth,
        destination: str,
        run_id: str,
    ) -> None:
        table = self._find(client, service.table)
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            schema=table.schema,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            **partitioning(service),
            labels={**_LABELS, "service": service.name, "month": str(month)},
        )
        where: dict[str, Any] = {"job_config": config, "location": self._place(client)}

        def start(job_id: str) -> Any:
            if trips.uri.startswith("gs://"):
                return client.load_table_from_uri(trips.uri, destination, job_id=job_id, **where)
            with trips.local() as path, path.open("rb") as file:
                return client.load_table_from_file(file, destination, job_id=job_id, size=trips.bytes, **where)

        job_id = job_id_of(run_id, destination, trips.report.data_version, trips.version)
        job = finished(client, start, job_id, location=self._place(client), log=dg.get_dagster_logger())
        if job.output_rows != trips.report.clean.rows:
            found = trips.report.clean.model_copy(update={"rows": job.output_rows})
            raise self._not_conserved(service, month, trips, found, f"The job {job.job_id} says so.")

    def _note_loaded(
        self, client: bigquery.Client, service: Service, month: Month, trips: ParquetMonth, run_id: str
    ) -> None:
        report = trips.report
        note = {
            "data_month": month.start.isoformat(),
            "data_version": report.data_version,
            "row_count": report.clean.rows,
            "cents": report.clean.cents,
            "source_rows": report.clean.source_rows,
            "loaded_at": dt.datetime.now(dt.UTC).isoformat(),
            "run_id": run_id,
        }
        config = bigquery.LoadJobConfig(
            schema=LEDGER_SCHEMA,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            time_partitioning=months_of(self._table(ledger_of(service)), LEDGER_SCHEMA, _LABELS).time_partitioning,
            labels=_LABELS,
        )
        destination = partition(self._table(ledger_of(service)), month)
        client.load_table_from_json([note], destination, job_config=config, location=self._place(client)).result()

    def _count_object(self, client: bigquery.Client, service: Service, month: Month, trips: ParquetMonth) -> Totals:
        """Control figures of the object: counted by BigQuery in Cloud Storage, or here where the lake is local."""
        if not trips.uri.startswith("gs://"):
            with trips.local() as path:
                return totals_of_parquet(path, service, month)
        external = bigquery.ExternalConfig(bigquery.SourceFormat.PARQUET)
        external.source_uris = [trips.uri]
        return self._count(client, "trips", service.money_columns, month, {"trips": external})

    def _count(
        self,
        client: bigquery.Client,
        table: str,
        money: list[str],
        month: Month,
        external: Mapping[str, bigquery.ExternalConfig] | None = None,
    ) -> Totals:
        sums = " + ".join(f"COALESCE(SUM(`{name}`), 0)" for name in money) or "0"
        query = (
            f"SELECT COUNT(*) AS row_count, CAST({sums} AS NUMERIC) AS dollars, "
            f"COALESCE(SUM(source_row), 0) AS source_rows FROM {table} WHERE data_month = @month"
        )
        (row,) = self._query(client, query, month, external)
        return Totals(rows=row.row_count, cents=to_cents(row.dollars), source_rows=row.source_rows)

    def _query(
        self,
        client: bigquery.Client,
        query: str,
        month: Month,
        external: Mapping[str, bigquery.ExternalConfig] | None = None,
    ) -> Any:
        config = bigquery.QueryJobConfig(
            query_parameters=[bigquery.ScalarQueryParameter("month", "DATE", month.start)], labels=_LABELS
        )
        if external is not None:
            config.table_definitions = dict(external)
        return client.query(query, job_config=config, location=self._place(client)).result()

    def _rows(self, client: bigquery.Client, table: str, fields: Any, rows: int | None = None) -> pa.Table:
        """Rows of a table or partition as they stand; none where it is not there."""
        listed = client.list_rows(bigquery.TableReference.from_string(table), selected_fields=fields, max_results=rows)
        try:
            return listed.to_arrow(create_bqstorage_client=False)
        except api_errors.NotFound:
            return pa.Table.from_pylist([], pa.schema([pa.field(field.name, pa.null()) for field in fields]))

    # --- errors ------------------------------------------------------------------------------------------------------

    @contextmanager
    def client(self, what: str) -> Iterator[bigquery.Client]:
        """A client whose errors are ours; `what` names what it is for, as in "green 2020-10 cannot be read"."""
        with (
            named_errors(
                what, unusable=WarehouseUnusableError, unreachable=WarehouseUnreachableError, remedy=self._remedy
            ),
            self.api.get_client() as client,
        ):
            yield client

    def _remedy(self, reason: str) -> str:
        """Which role allows what was refused."""
        reason = reason.lower()
        if "bigquery.datasets.create" in reason:
            return (
                f"Make the dataset (deploy/gcp does), or grant BigQuery User (roles/bigquery.user) on {self.project}."
            )
        if "bigquery.jobs.create" in reason:
            return f"Grant the account BigQuery Job User (roles/bigquery.jobUser) on the project {self.project}."
        if "storage.objects" in reason:
            return "Grant the account Storage Object Viewer (roles/storage.objectViewer) on the lake's bucket."
        if "bytes billed" in reason:
            return "Raise maximum_bytes_billed in TAXI_WAREHOUSE if the query is worth it."
        if "permission" in reason or "access denied" in reason:
            return f"Grant the account BigQuery Data Editor (roles/bigquery.dataEditor) on the dataset {self.dataset}."
        return "Is TAXI_WAREHOUSE right?"

    def _missing(self, name: str) -> WarehouseTableMissingError:
        return WarehouseTableMissingError(
            f"There is no table {self.table_name(name)}.", remedy="Materialize its asset first."
        )

    def _not_conserved(
        self, service: Service, month: Month, trips: ParquetMonth, found: Totals, note: str
    ) -> ConservationError:
        return ConservationError(
            f"{service.name} {month}: loading {trips.uri} into {self.table_name(service.table)} gave {found}, "
            f"expected {trips.report.clean}. {note}",
            remedy="Materialize the clean asset of this month again, then the warehouse.",
        )


def _in_schema(found: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns in order and type; null where the table does not have one yet."""
    columns = [
        found.column(field.name).cast(field.type)
        if field.name in found.column_names
        else pa.nulls(len(found), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
