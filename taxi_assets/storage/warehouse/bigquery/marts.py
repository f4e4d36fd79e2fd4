"""Marts in BigQuery: a month is a query job into its partition, which it replaces whole at its end.

Belongs here: what tables and views of marts look like, the job, and what its errors are called. Does not belong here:
what the query of a month is.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as api_errors
from google.cloud import bigquery

from taxi_assets.errors import WarehouseSchemaError, WarehouseTableMissingError
from taxi_assets.storage.warehouse.base_warehouse import query_error
from taxi_assets.storage.warehouse.bigquery.job_runner import build_job_id, run_job_idempotently
from taxi_assets.storage.warehouse.bigquery.tables import LABELS, TYPES, monthly_partitioning, partition_name
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Sequence

    from taxi_assets.marts.mart import Mart
    from taxi_assets.tlc.month import Month

_CLUSTERS = 4
"""As many columns as a table can be clustered by."""
_CANNOT_CLUSTER = {ColumnType.DEGREES}
_MISSING = re.compile(r"Not found: (?P<kind>Table|Dataset) (?:[^ ]*[:.])?(?P<name>[^ :.]+)")
# Where the API's name of a type is none in SQL.
_IN_SQL = {"FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "INTEGER": "INT64"}


def mart_table(name: str, mart: Mart) -> bigquery.Table:
    """The table of a mart: a partition a month, clustered by the rest of its key."""
    schema = [bigquery.SchemaField(c.name, TYPES[c.type], description=c.description_with_unit) for c in mart.columns]
    table = bigquery.Table(name, schema)
    table.time_partitioning = monthly_partitioning()
    table.clustering_fields = _clustering(mart)
    table.labels = {**LABELS, "mart": mart.name}
    table.description = mart.description
    return table


def replace_mart_month(
    client: bigquery.Client,
    mart: Mart,
    month: Month,
    query: str,
    table: str,
    *,
    location: str,
    run_id: str,
    log: logging.Logger,
) -> int:
    """Run the query of a month into its partition; the number of rows."""
    destination = partition_name(table, month)
    config = bigquery.QueryJobConfig(
        destination=destination,
        write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
        create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        time_partitioning=monthly_partitioning(),
        clustering_fields=_clustering(mart),
        labels={**LABELS, "mart": mart.name, "month": str(month)},
    )
    statement = _in_order(query, mart, client.get_table(table).schema)

    def start(job_id: str) -> Any:
        return client.query(statement, job_config=config, job_id=job_id, location=location, job_retry=None)

    # Trips may have changed since an earlier attempt of this run: what it has finished is made again.
    job_id = build_job_id(run_id, destination, mart.version, statement)
    rows = run_job_idempotently(client, start, job_id, location=location, log=log, can_reuse_finished_job=lambda: False)
    return int(rows.total_rows)


def replace_view(client: bigquery.Client, name: str, mart: Mart, query: str) -> None:
    """Make a view, or give it this query and description."""
    view = bigquery.Table(name)
    view.view_query = query
    view.description = f"Upon {mart.name}: {mart.description}"
    view.labels = {**LABELS, "mart": mart.name}
    found = client.create_table(view, exists_ok=True)
    if found.table_type != "VIEW":
        raise WarehouseSchemaError(
            f"`{name}` is a table; marts/sql/{mart.name}.sql makes a view of that name.",
            remedy="Rename or drop the table, then materialize the mart again.",
        )
    if (found.view_query, found.description) != (view.view_query, view.description):
        # Whatever its etag is: who is here at the same time writes the same.
        client.update_table(view, ["view_query", "description", "labels"])


@contextmanager
def translate_query_errors(label: str, missing: Callable[[str], WarehouseTableMissingError]) -> Iterator[None]:
    """Names what BigQuery says of tables and columns that a query does not find."""
    try:
        yield
    except api_errors.NotFound as error:
        found = _MISSING.search(str(error))
        if found is None:
            raise
        if found["kind"] == "Dataset":
            raise WarehouseTableMissingError(
                f"{label}: there is no dataset {found['name']}.", remedy="Materialize what it reads first."
            ) from error
        raise missing(found["name"]) from error
    except api_errors.BadRequest as error:
        message = re.search(r"Unrecognized name: [^\s;]+|Name \S+ not found inside \S+", str(error))
        if message is None:
            raise
        raise query_error(label, message[0]) from error


def _clustering(mart: Mart) -> list[str]:
    types = {column.name: column.type for column in mart.columns}
    return [name for name in mart.key if name != "data_month" and types[name] not in _CANNOT_CLUSTER][:_CLUSTERS]


def _in_order(query: str, mart: Mart, fields: Sequence[bigquery.SchemaField]) -> str:
    """The query with the table's columns: new ones come last there, and those that the mart has lost are null."""
    own = {column.name for column in mart.columns}
    columns = [
        f"`{field.name}`"
        if field.name in own
        else f"CAST(NULL AS {_IN_SQL.get(field.field_type, field.field_type)}) AS `{field.name}`"
        for field in fields
    ]
    return f"SELECT {', '.join(columns)} FROM ({query}) AS month"  # noqa: S608  (of our own names)
