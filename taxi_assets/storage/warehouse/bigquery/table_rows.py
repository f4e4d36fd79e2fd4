"""Replace and read rows of a table in BigQuery.

A load job replaces a whole table. Partitions are replaced in two steps: a load job writes the rows to a staging table,
then one MERGE statement deletes the old rows and inserts the new ones. Every statement is atomic. Of two that delete
the same rows, BigQuery lets one fail, which is run again.

The ledger `stored_partitions` is written last. If the process is killed before that, the partition has its new rows,
and the next run replaces them again. Staging tables of killed processes expire after a day.
"""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import tenacity
from google.api_core import exceptions as api_errors
from google.cloud import bigquery

from taxi_assets.errors import WarehouseBusyError
from taxi_assets.storage.warehouse.bigquery.job_runner import (
    build_job_id,
    insert_query,
    run_job_idempotently,
    run_query,
)
from taxi_assets.storage.warehouse.bigquery.queries import cast_batch
from taxi_assets.storage.warehouse.bigquery.result_rows import download_batches, sort_batches
from taxi_assets.storage.warehouse.bigquery.table_creation import (
    create_or_update_table,
    find_table,
    remove_expiration,
    require_no_expiration,
)
from taxi_assets.storage.warehouse.bigquery.tables import LABELS
from taxi_assets.storage.warehouse.table_output import STORED_PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from taxi_assets.resources.google import BigQueryClientResource
    from taxi_assets.storage.partition_rows import Condition
    from taxi_assets.storage.warehouse.table_output import TableOutput

_LEDGER_SCHEMA = [
    bigquery.SchemaField("table_name", "STRING", description="The table, without its dataset."),
    bigquery.SchemaField("asset", "STRING", description="The key of the asset that stores the table."),
    bigquery.SchemaField("partition_key", "STRING", description="The partition; empty for a table without partitions."),
    bigquery.SchemaField("run_id", "STRING", description="The Dagster run that stored the partition last."),
    bigquery.SchemaField("stored_at", "TIMESTAMP", description="Time of that."),
    bigquery.SchemaField("has_table", "BOOLEAN", description="Whether the table existed then."),
]
_STAGING_EXPIRATION = dt.timedelta(days=1)
_NUMERIC_SCALE = 9
_MONTH, _DAY = dt.timedelta(days=28), dt.timedelta(days=1)
_CONFLICT = "concurrent update"
_CONFLICT_ATTEMPTS = 6
_MAX_CLUSTERING_COLUMNS = 4  # BigQuery's limit
_TYPES: Mapping[Any, str] = {
    pa.int64(): "INTEGER",
    pa.float64(): "FLOAT",
    pa.bool_(): "BOOLEAN",
    pa.string(): "STRING",
    pa.date32(): "DATE",
    pa.timestamp("us"): "DATETIME",
    pa.timestamp("us", "UTC"): "TIMESTAMP",
}
_ARROW_TYPES = {name: type_ for type_, name in _TYPES.items()}


@dataclass(frozen=True)
class TableReplacement:
    """Replaces a table, or partitions of it, with the rows of an asset."""

    client: bigquery.Client
    output: TableOutput
    dataset: str
    """The dataset, as `project.dataset`. It exists."""
    location: str
    """The location of the dataset, where all jobs run."""

    def replace(self) -> None:
        """Run all steps; see the module."""
        output = self.output
        create_or_update_table(self.client, ledger_table(self._name(STORED_PARTITIONS)))
        recorded = self._recorded()
        found = find_table(self.client, self._table)
        if found is None:
            recorded = self._without_dropped(recorded)
        # A table with the label is this platform's. It is not in the ledger yet if a process was killed.
        is_foreign = found is not None and "managed-by" not in found.labels
        output.require_owned([(row.asset, row.partition_key) for row in recorded], is_foreign, f"`{self._table}`")
        existing = None if found is None else arrow_schema(found.schema)
        columns = output.table_columns(existing)
        if existing is not None:
            columns = pa.schema([*existing, *output.new_columns(existing, f"`{self._table}`")])
        # A table is partitioned by its columns when it is created, so it needs them.
        names = {name for partition in output.partitions or () for name in partition.columns}
        has_table = found is not None or names <= set(columns.names)
        if output.partitions is None:
            self._replace_table(output.table_columns(existing), found, is_recorded=bool(recorded))
        elif has_table:
            self._replace_partitions(columns, found)
        self._record(has_table=has_table)

    def _replace_table(self, columns: pa.Schema, found: bigquery.Table | None, *, is_recorded: bool) -> None:
        if found is not None and is_recorded:
            require_no_expiration(found)
        self.output.require_inputs_unchanged()
        self._load(self._table, columns, is_new=found is None)
        if not is_recorded:  # this run has created the table; or a killed one has, and may not have come to this step
            remove_expiration(self.client, self._table)
        self.output.require_inputs_unchanged()

    def _replace_partitions(self, columns: pa.Schema, found: bigquery.Table | None) -> None:
        with self._staging_table(columns) as staging:
            wanted = bigquery.Table(self._table, self._fields(columns))
            wanted.labels = dict(LABELS)
            if found is None:
                wanted.time_partitioning = self._time_partitioning(columns)
                wanted.clustering_fields = self._clustering(columns)
            else:
                wanted.time_partitioning, wanted.clustering_fields = found.time_partitioning, found.clustering_fields
                wanted.description = found.description
            create_or_update_table(self.client, wanted)
            self.output.require_inputs_unchanged()
            self._merge(columns, staging)

    @contextmanager
    def _staging_table(self, columns: pa.Schema) -> Iterator[str | None]:
        """Load the rows into a table that is deleted at the end; yield None if there are no rows."""
        if not self.output.rows:
            yield None
            return
        name = self._name(f"_staging_{self.output.table}_{uuid.uuid4().hex}")
        staging = bigquery.Table(name, self._fields(columns))
        staging.labels = dict(LABELS)
        staging.expires = dt.datetime.now(dt.UTC) + _STAGING_EXPIRATION
        self.client.create_table(staging, exists_ok=True)  # the answer to the first request may be lost
        try:
            self._load(name, columns)
            yield name
        finally:
            self.client.delete_table(name, not_found_ok=True)

    def _load(self, name: str, columns: pa.Schema, *, is_new: bool = False) -> None:
        loaded = [field for field in columns if field.name in self.output.schema.names]
        # The job creates a new table with the label: a killed process could not add it later. If the table exists, the
        # job must not set labels: BigQuery rejects a job whose labels differ from the table's.
        properties = {"destinationTableProperties": {"labels": dict(LABELS)}} if is_new else {}
        config = cast("bigquery.LoadJobConfig", bigquery.LoadJobConfig.from_api_repr({"load": properties}))
        config.schema = self._fields(loaded)
        config.source_format = bigquery.SourceFormat.PARQUET
        config.write_disposition = bigquery.WriteDisposition.WRITE_TRUNCATE
        config.labels = dict(LABELS)
        with self.output.file.open("rb") as file:

            def insert_job(job_id: str) -> Any:
                return self.client.load_table_from_file(
                    file, name, rewind=True, num_retries=0, job_id=job_id, job_config=config, location=self.location
                )

            self._run(name, insert_job)

    def _merge(self, columns: pa.Schema, staging: str | None) -> None:
        partitions = self.output.partitions or ()
        conditions, parameters = render_conditions(
            [partition.conditions(columns) for partition in partitions if set(partition.columns) <= set(columns.names)],
            "stored.",
        )
        if staging is None:
            if conditions:
                self._query(f"DELETE FROM `{self._table}` AS stored WHERE {conditions}", parameters)
            return
        names = [f"`{field.name}`" for field in columns if field.name in self.output.schema.names]
        statement = (
            f"MERGE `{self._table}` AS stored USING `{staging}` AS incoming ON FALSE "
            f"WHEN NOT MATCHED BY SOURCE AND ({conditions}) THEN DELETE "
            f"WHEN NOT MATCHED BY TARGET THEN INSERT ({', '.join(names)}) "
            f"VALUES ({', '.join(f'incoming.{name}' for name in names)})"
        )
        count = f"SELECT COUNT(*) FROM `{self._table}` AS stored WHERE {conditions}"
        for _ in range(_CONFLICT_ATTEMPTS):
            changed = self._query(statement, parameters).num_dml_affected_rows
            # BigQuery lets two MERGE statements that delete nothing succeed at once, so the first rows of a partition
            # could be there twice. The one that ends last finds both, and replaces them.
            has_deleted = changed not in {None, self.output.rows}
            if has_deleted or next(iter(self._query(count, parameters)))[0] == self.output.rows:
                return
        raise self._busy_error(self._table)

    # --- the ledger --------------------------------------------------------------------------------------------------

    def _recorded(self) -> list[Any]:
        """Return the assets of the table's partitions in the ledger, with the first key and the newest time."""
        query = (
            "SELECT asset, has_table, MIN(partition_key) AS partition_key, MAX(stored_at) AS newest FROM "
            f" `{self._name(STORED_PARTITIONS)}` "
            "WHERE table_name = @table GROUP BY asset, has_table"
        )
        return list(self._query(query, [bigquery.ScalarQueryParameter("table", "STRING", self.output.table)]))

    def _without_dropped(self, recorded: Sequence[Any]) -> list[Any]:
        """Delete the ledger's rows of a table that has been dropped; return the others.

        Args:
            recorded: Rows that were read before the table was found missing. Another run may have created it since.
        """
        dropped = [row for row in recorded if row.has_table]
        if dropped:
            self._query(
                f"DELETE FROM `{self._name(STORED_PARTITIONS)}` "
                "WHERE table_name = @table AND has_table AND stored_at <= @newest",
                [
                    bigquery.ScalarQueryParameter("table", "STRING", self.output.table),
                    bigquery.ScalarQueryParameter("newest", "TIMESTAMP", max(row.newest for row in dropped)),
                ],
            )
        return [row for row in recorded if not row.has_table]

    def _record(self, *, has_table: bool) -> None:
        values = {"table": self.output.table, "asset": self.output.asset, "run": self.output.run_id}
        # Partitions that a table had before it was replaced as a whole are gone.
        others = "WHEN NOT MATCHED BY SOURCE AND stored.table_name = @table THEN DELETE"
        self._query(
            f"MERGE `{self._name(STORED_PARTITIONS)}` AS stored USING (SELECT @table AS table_name, key AS "
            "partition_key FROM UNNEST(@keys) AS key) AS incoming "
            "ON stored.table_name = incoming.table_name AND stored.partition_key = incoming.partition_key "
            "WHEN MATCHED THEN UPDATE SET asset = @asset, run_id = @run, stored_at = CURRENT_TIMESTAMP(), "
            "has_table = @has_table "
            "WHEN NOT MATCHED THEN INSERT (table_name, asset, partition_key, run_id, stored_at, has_table) "
            "VALUES (incoming.table_name, @asset, incoming.partition_key, @run, CURRENT_TIMESTAMP(), @has_table) "
            f"{others if self.output.partitions is None else ''}",
            [
                bigquery.ScalarQueryParameter("has_table", "BOOL", has_table),
                *(bigquery.ScalarQueryParameter(name, "STRING", value) for name, value in values.items()),
                bigquery.ArrayQueryParameter("keys", "STRING", self.output.keys),
            ],
        )

    # --- jobs and names ----------------------------------------------------------------------------------------------

    def _query(self, statement: str, parameters: Sequence[Any]) -> Any:
        config = bigquery.QueryJobConfig(query_parameters=parameters, labels=dict(LABELS))

        return self._run(
            self._table,
            lambda job_id: insert_query(self.client, statement, config, job_id, location=self.location),
        ).result()

    def _run(self, destination: str, insert_job: Callable[[str], Any]) -> Any:
        """Run a job; run it again if it conflicted with a job of another run."""

        def attempt() -> Any:
            job_id = build_job_id(uuid.uuid4().hex, destination)
            return run_job_idempotently(self.client, insert_job, job_id, location=self.location)

        def give_up(state: tenacity.RetryCallState) -> Any:
            raise self._busy_error(destination) from (state.outcome.exception() if state.outcome else None)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, api_errors.GoogleAPICallError) and _CONFLICT in str(error)
            ),
            stop=tenacity.stop_after_attempt(_CONFLICT_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=20),
            retry_error_callback=give_up,
        )(attempt)

    @staticmethod
    def _busy_error(table: str) -> WarehouseBusyError:
        return WarehouseBusyError(
            f"`{table}` could not be written: other runs changed it during each of {_CONFLICT_ATTEMPTS} attempts.",
            remedy="Try again later.",
        )

    @property
    def _table(self) -> str:
        return self._name(self.output.table)

    def _name(self, table: str) -> str:
        return f"{self.dataset}.{table}"

    # --- layout ------------------------------------------------------------------------------------------------------

    def _fields(self, columns: Any) -> list[bigquery.SchemaField]:
        return [schema_field(field, self.output.descriptions.get(field.name, "")) for field in columns]

    def _time_partitioning(self, columns: pa.Schema) -> bigquery.TimePartitioning | None:
        """Return partitioning by the dimension of time, so that a statement reads only the partitions that it needs."""
        for dimension in itertools.chain.from_iterable(p.dimensions for p in self.output.partitions or ()):
            type_ = columns.field(dimension.column).type
            if dimension.window is not None and (pa.types.is_date(type_) or pa.types.is_timestamp(type_)):
                length = dimension.window.end - dimension.window.start
                unit = "MONTH" if length >= _MONTH else "DAY" if length >= _DAY else "HOUR"
                return bigquery.TimePartitioning(unit, field=dimension.column)
        return None

    def _clustering(self, columns: pa.Schema) -> list[str] | None:
        time = self._time_partitioning(columns)
        names = [column for partition in self.output.partitions or () for column in partition.columns]
        others = [name for name in dict.fromkeys(names) if time is None or name != time.field]
        return others[:_MAX_CLUSTERING_COLUMNS] or None


def ledger_table(name: str) -> bigquery.Table:
    """Return the definition of the ledger, named `project.dataset.table`."""
    table = bigquery.Table(name, _LEDGER_SCHEMA)
    table.clustering_fields = ["table_name"]
    table.labels = dict(LABELS)
    return table


def read_stored_partitions(client: bigquery.Client, ledger: str, table: str, location: str) -> dict[str, bool]:
    """Return a table's partitions in the ledger, which is named `project.dataset.table`; see `Warehouse`."""
    query = f"SELECT partition_key, has_table FROM `{ledger}` WHERE table_name = @table"
    config = bigquery.QueryJobConfig(
        query_parameters=[bigquery.ScalarQueryParameter("table", "STRING", table)], labels=dict(LABELS)
    )
    return {row.partition_key: row.has_table for row in run_query(client, query, config, location=location).result()}


def read_rows(
    client: bigquery.Client,
    table: str,
    columns: Sequence[str],
    conditions: Sequence[Condition],
    *,
    order_by: Sequence[str],
    limit: int | None,
    location: str,
    api: BigQueryClientResource,
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Run a query and return its columns and batches, which are downloaded as they are read."""
    where, parameters = render_conditions([conditions] if conditions else [])
    query = (
        f"SELECT {', '.join(f'`{name}`' for name in columns)} FROM `{table}`"
        + (f" WHERE {where}" if where else "")
        + (f" ORDER BY {', '.join(f'`{name}`' for name in order_by)}" if order_by and limit is not None else "")
        + (f" LIMIT {limit:d}" if limit is not None else "")
    )
    config = bigquery.QueryJobConfig(query_parameters=parameters, labels=dict(LABELS))
    job = run_query(client, query, config, location=location)
    schema = arrow_schema(job.result().schema)
    batches = (cast_batch(batch, schema, table) for batch in download_batches(job, api))
    return schema, batches if limit is not None or not order_by else sort_batches(batches, schema, order_by)


def render_conditions(alternatives: Sequence[Sequence[Condition]], prefix: str = "") -> tuple[str, list[Any]]:
    """Return a condition of GoogleSQL that holds if one of the alternatives holds, and its query parameters."""
    parameters: list[Any] = []
    texts = []
    for conditions in alternatives:
        parts = []
        for condition in conditions:
            name = f"value{len(parameters)}"
            parameters.append(bigquery.ScalarQueryParameter(name, _parameter_type(condition.value), condition.value))
            parts.append(f"{prefix}`{condition.column}` {condition.operator} @{name}")
        texts.append(f"({' AND '.join(parts)})")
    return " OR ".join(texts), parameters


def _parameter_type(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return "DATETIME" if value.tzinfo is None else "TIMESTAMP"
    return {bool: "BOOL", int: "INT64", str: "STRING", dt.date: "DATE"}[type(value)]


def schema_field(field: pa.Field, description: str = "") -> bigquery.SchemaField:
    """Return the column of a table; see `warehouse_schema` for the Arrow types."""
    # BigQuery leaves out an empty description. With one, the table would differ, and would be updated by every run.
    options: dict[str, Any] = {"description": description} if description else {}
    if not pa.types.is_decimal(field.type):
        return bigquery.SchemaField(field.name, _TYPES[field.type], **options)
    name = "NUMERIC" if field.type.scale <= _NUMERIC_SCALE else "BIGNUMERIC"
    options |= {"precision": field.type.precision, "scale": field.type.scale}
    return bigquery.SchemaField(field.name, name, **options)


def arrow_schema(fields: Sequence[bigquery.SchemaField]) -> pa.Schema:
    """Return the Arrow types of a table's columns. Types without a counterpart are read as text."""
    return pa.schema([pa.field(field.name, _arrow_type(field)) for field in fields])


def _arrow_type(field: bigquery.SchemaField) -> pa.DataType:
    if field.field_type in {"NUMERIC", "BIGNUMERIC"}:
        return pa.decimal128(38, _NUMERIC_SCALE) if field.precision is None else _declared_decimal(field)
    return _ARROW_TYPES.get(field.field_type, pa.string())


def _declared_decimal(field: bigquery.SchemaField) -> pa.DataType:
    return pa.decimal128(min(38, int(field.precision)), int(field.scale or 0))
