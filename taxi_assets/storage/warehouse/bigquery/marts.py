"""Marts in BigQuery: one query job per month, which replaces the month's partition as a whole when it ends.

`marts/sql_rendering.py` renders the queries.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from google.api_core import exceptions as api_errors
from google.cloud import bigquery

from taxi_assets.errors import WarehouseTableMissingError
from taxi_assets.storage.warehouse.base_warehouse import query_error
from taxi_assets.storage.warehouse.bigquery.job_runner import build_job_id, insert_query, run_job_idempotently
from taxi_assets.storage.warehouse.bigquery.table_creation import create_or_update_view
from taxi_assets.storage.warehouse.bigquery.tables import LABELS, SQL_NAMES, TYPES, monthly_partitioning, partition_name
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taxi_assets.marts.mart import Mart
    from taxi_assets.tlc.month import Month

_MAX_CLUSTERING_COLUMNS = 4  # BigQuery's limit
_NOT_CLUSTERABLE = {ColumnType.DEGREES}
_MISSING = re.compile(r"Not found: (?P<kind>Table|Dataset) (?:[^ ]*[:.])?(?P<name>[^ :.]+)")


def mart_table(name: str, mart: Mart) -> bigquery.Table:
    """Return the definition of a mart's table: partitioned by month, clustered by the other columns of its key.

    Args:
        name: The table's name, as `project.dataset.table`.
        mart: Defines the columns, the key and the description.
    """
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
) -> int:
    """Run the query of a month with the month's partition as destination.

    Args:
        client: The client.
        mart: Defines the columns and the key.
        month: The month to replace.
        query: The rendered query of the month.
        table: The mart's table, as `project.dataset.table`. It exists.
        location: The location of the dataset.
        run_id: The Dagster run, for the job id.

    Returns:
        The number of rows of the month.
    """
    destination = partition_name(table, month)
    config = bigquery.QueryJobConfig(
        destination=destination,
        write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
        create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        time_partitioning=monthly_partitioning(),
        clustering_fields=_clustering(mart),
        labels={**LABELS, "mart": mart.name, "month": str(month)},
    )
    statement = _with_table_columns(query, mart, client.get_table(table).schema)

    # Trips may have changed since an earlier attempt of this run, so its finished job is not reused.
    job = run_job_idempotently(
        client,
        lambda job_id: insert_query(client, statement, config, job_id, location=location),
        build_job_id(run_id, destination, mart.version, statement),
        location=location,
        can_reuse_finished_job=lambda: False,
    )
    return int(job.result().total_rows)


def replace_view(client: bigquery.Client, name: str, mart: Mart, query: str) -> None:
    """Create a view, or update it if its query or description differs.

    Args:
        client: The client.
        name: The view's name, as `project.dataset.view`.
        mart: The mart that defines the view.
        query: The rendered query of the view.

    Raises:
        WarehouseSchemaError: A table has the name of the view.
    """
    view = bigquery.Table(name)
    view.view_query = query
    view.description = f"View of the mart {mart.name}: {mart.description}"
    view.labels = {**LABELS, "mart": mart.name}
    create_or_update_view(client, view, f"marts/sql/{mart.name}.sql")


@contextmanager
def translate_query_errors(
    label: str, missing_table_error: Callable[[str], WarehouseTableMissingError]
) -> Iterator[None]:
    """Turn BigQuery's errors about missing datasets, tables and columns into errors of this package.

    Args:
        label: What failed, as the start of a message: "od_flows 2020-10 cannot be computed".
        missing_table_error: Builds the error for a missing table from its name.

    Raises:
        WarehouseTableMissingError: A table of the query, or its dataset, does not exist.
        WarehouseSchemaError: A column of the query does not exist.
    """
    try:
        yield
    except api_errors.NotFound as error:
        found = _MISSING.search(str(error))
        if found is None:
            raise
        if found["kind"] == "Dataset":
            raise WarehouseTableMissingError(
                f"{label}: there is no dataset {found['name']}.", remedy="Materialize the assets that it reads first."
            ) from error
        raise missing_table_error(found["name"]) from error
    except api_errors.BadRequest as error:
        message = re.search(r"Unrecognized name: [^\s;]+|Name \S+ not found inside \S+", str(error))
        if message is None:
            raise
        raise query_error(label, message[0]) from error


def _clustering(mart: Mart) -> list[str]:
    types = {column.name: column.type for column in mart.columns}
    columns = [name for name in mart.key if name != "data_month" and types[name] not in _NOT_CLUSTERABLE]
    return columns[:_MAX_CLUSTERING_COLUMNS]


def _with_table_columns(query: str, mart: Mart, fields: Sequence[bigquery.SchemaField]) -> str:
    """Return the query with the columns of the table, in its order; columns that the mart no longer has are null."""
    own = {column.name for column in mart.columns}
    columns = [
        f"`{field.name}`"
        if field.name in own
        else f"CAST(NULL AS {SQL_NAMES.get(field.field_type, field.field_type)}) AS `{field.name}`"
        for field in fields
    ]
    return f"SELECT {', '.join(columns)} FROM ({query}) AS month"  # noqa: S608  (identifiers are quoted constants)
