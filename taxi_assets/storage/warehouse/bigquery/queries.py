"""What is read from BigQuery: queries about a month, and rows as they stand.

Belongs here: how to ask. Does not belong here: what is asked for, and what its errors mean to whoever asked.
"""

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
    """The rows of a query, in which `@month` is the month's first day; `external`: files that it names as tables."""
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
    """Control figures of a month."""
    sums = " + ".join(f"COALESCE(SUM(`{name}`), 0)" for name in money) or "0"
    query = (
        f"SELECT COUNT(*) AS row_count, CAST({sums} AS NUMERIC) AS dollars, "  # noqa: S608  (of our own names)
        f"COALESCE(SUM(source_row), 0) AS source_rows FROM {table} WHERE data_month = @month"
    )
    (row,) = run_query(client, query, month, location=location, external=external)
    return ControlTotals(rows=row.row_count, cents=to_cents(row.dollars), source_rows=row.source_rows)


def read_rows(
    client: bigquery.Client, table: str, fields: Sequence[bigquery.SchemaField], rows: int | None = None
) -> pa.Table:
    """Rows of a table or partition as they stand, which costs nothing; none where it is not there."""
    listed = client.list_rows(bigquery.TableReference.from_string(table), selected_fields=fields, max_results=rows)
    try:
        return listed.to_arrow(create_bqstorage_client=False)
    except api_errors.NotFound:
        return pa.Table.from_pylist([], pa.schema([pa.field(field.name, pa.null()) for field in fields]))
