"""Reads from BigQuery: queries about one month, control totals, and the rows of a table or partition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from google.api_core import exceptions as api_errors
from google.cloud import bigquery

from taxi_assets.storage.warehouse.bigquery.tables import LABELS
from taxi_assets.tlc.cleaning.report import ControlTotals, to_cents

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.month import Month


def run_query(
    client: bigquery.Client,
    query: str,
    month: Month,
    *,
    location: str,
    external: Mapping[str, bigquery.ExternalConfig] | None = None,
) -> Any:
    """Run a query about a month and return its rows.

    Args:
        client: The client.
        query: GoogleSQL, in which the parameter `@month` is the first day of the month.
        month: The month.
        location: The location in which the query runs.
        external: Files that the query reads as tables, by the name of the table.

    Returns:
        A `RowIterator` of the client.
    """
    config = bigquery.QueryJobConfig(
        query_parameters=[bigquery.ScalarQueryParameter("month", "DATE", month.start)], labels=LABELS
    )
    if external is not None:
        config.table_definitions = dict(external)
    return client.query(query, job_config=config, location=location).result()


def compute_totals(
    client: bigquery.Client,
    table: str,
    money: Sequence[str],
    month: Month,
    *,
    location: str,
    external: Mapping[str, bigquery.ExternalConfig] | None = None,
) -> ControlTotals:
    """Compute a month's control totals in one query.

    Args:
        client: The client.
        table: The table in the query's own syntax: quoted in backticks, or a name in `external`.
        money: The names of the money columns to sum. Null counts as zero.
        month: Only rows with this `data_month` count.
        location: The location in which the query runs.
        external: See `run_query`.
    """
    sums = " + ".join(f"COALESCE(SUM(`{name}`), 0)" for name in money) or "0"
    query = (
        f"SELECT COUNT(*) AS row_count, CAST({sums} AS NUMERIC) AS dollars, "  # noqa: S608  (identifiers are quoted constants)
        f"COALESCE(SUM(source_row), 0) AS source_rows FROM {table} WHERE data_month = @month"
    )
    (row,) = run_query(client, query, month, location=location, external=external)
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
