"""Reads from BigQuery: control totals of a month, and the rows of a table or partition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from google.api_core import exceptions as api_errors
from google.cloud import bigquery

from taxi_assets.errors import WarehouseSchemaError
from taxi_assets.storage.warehouse.bigquery.job_runner import run_query
from taxi_assets.storage.warehouse.bigquery.tables import LABELS
from taxi_assets.tlc.cleaning.report import ControlTotals, to_cents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.tlc.month import Month


def compute_totals(
    client: bigquery.Client,
    table: str,
    money: Sequence[str],
    month: Month,
    *,
    location: str,
) -> ControlTotals:
    """Compute a month's control totals in one query.

    Args:
        client: The client.
        table: The table, quoted in backticks.
        money: The names of the money columns to sum. Null counts as zero.
        month: Only rows with this `data_month` count.
        location: The location in which the query runs.
    """
    sums = " + ".join(f"COALESCE(SUM(`{name}`), 0)" for name in money) or "0"
    query = (
        f"SELECT COUNT(*) AS row_count, CAST({sums} AS NUMERIC) AS dollars, "  # noqa: S608  (identifiers are quoted constants)
        f"COALESCE(SUM(source_row), 0) AS source_rows FROM {table} WHERE data_month = @month"
    )
    config = bigquery.QueryJobConfig(
        query_parameters=[bigquery.ScalarQueryParameter("month", "DATE", month.start)], labels=LABELS
    )
    (row,) = run_query(client, query, config, location=location).result()
    return ControlTotals(rows=row.row_count, cents=to_cents(row.dollars), source_rows=row.source_rows)


def list_rows(
    client: bigquery.Client, table: str, fields: Sequence[bigquery.SchemaField], rows: int | None = None
) -> pa.Table:
    """Return rows of a table or partition without a query, which costs nothing.

    Args:
        client: The client.
        table: `project.dataset.table`, or `project.dataset.table$partition`.
        fields: The columns to return.
        rows: The number of rows, in no particular order; None returns all of them.

    Returns:
        An empty table, with columns of type null, if the table or partition does not exist.
    """
    listed = client.list_rows(bigquery.TableReference.from_string(table), selected_fields=fields, max_results=rows)
    try:
        return listed.to_arrow(create_bqstorage_client=False)
    except api_errors.NotFound:
        return pa.Table.from_pylist([], pa.schema([pa.field(field.name, pa.null()) for field in fields]))


def cast_batch(batch: pa.RecordBatch, schema: pa.Schema, table: str) -> pa.RecordBatch:
    """Return rows with the types of a schema.

    Args:
        batch: The rows, as BigQuery returned them.
        schema: The same columns in the same order.
        table: The table, as `project.dataset.table`, for an error message.

    Raises:
        WarehouseSchemaError: The values of a column do not have its type, such as arrays or numbers with too many
            decimals.
    """

    def cast(column: pa.Array, field: pa.Field) -> pa.Array:
        try:
            return column.cast(field.type)
        except pa.ArrowException as error:
            raise WarehouseSchemaError(
                f"Column {field.name} of `{table}` cannot be read: it has the type {column.type} ({error}).",
                remedy=f"Read a view instead that converts it, such as TO_JSON_STRING({field.name}).",
            ) from None

    return pa.RecordBatch.from_arrays(list(map(cast, batch.columns, schema)), schema=schema)
