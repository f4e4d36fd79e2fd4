"""Downloads the rows of query results, and sorts them.

A small result comes as JSON with the answer to the query. A large one is downloaded by the Storage Read API, in Arrow's
format: JSON takes many times the CPU time. BigQuery sorts a result on one machine, and fails with "Resources exceeded"
if it is very large. So rows are sorted here.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
from google.api_core import exceptions as api_errors

from taxi_assets.google_auth import describe_google_error
from taxi_assets.storage.duckdb_config import NO_EXTENSIONS
from taxi_assets.storage.lake.staging import temporary_folder
from taxi_assets.storage.warehouse.bigquery.job_runner import wait_for_job

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from taxi_assets.resources.google import BigQueryClientResource

_SMALL_RESULT_ROWS = 50_000
_STREAMS = 2
_SORT_MEMORY = "512MB"
_BATCH_ROWS = 100_000


def download_batches(job: Any, api: BigQueryClientResource) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query, in the order that its SQL asks for.

    Without the permission for the Storage Read API, a large result comes as JSON, too, and a warning says so.

    Args:
        job: The query job.
        api: Opens the client of the Storage Read API.

    Yields:
        Batches of up to several MB; at least one.

    Raises:
        google.api_core.exceptions.GoogleAPICallError: The query failed, or its rows cannot be downloaded.
    """
    wait_for_job(job)
    rows = job.result()
    if (rows.total_rows or 0) > _SMALL_RESULT_ROWS and not api.is_emulated:
        with api.get_read_client() as reader:
            batches = rows.to_arrow_iterable(bqstorage_client=reader, max_stream_count=_STREAMS)
            try:
                first = next(batches)
            except api_errors.PermissionDenied as error:
                dg.get_dagster_logger().warning(
                    "The rows are downloaded as JSON, which is slow: %s. Grant the account BigQuery Read Session User "
                    "(roles/bigquery.readSessionUser) on the project %s.",
                    describe_google_error(error),
                    api.project,
                )
                rows = job.result()
            else:
                yield first
                yield from batches
                return
    yield from rows.to_arrow_iterable()


def sort_batches(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Sort rows in less than 1 GB of memory; the rest is in a temporary folder until the last batch is read.

    Args:
        batches: The rows.
        schema: Their columns.
        names: The columns to sort by; null comes first, as in BigQuery.

    Yields:
        Batches of up to 100,000 rows.
    """
    import duckdb  # noqa: PLC0415  (definitions load without it)

    order = ", ".join(f'"{name}" NULLS FIRST' for name in names)
    with (
        temporary_folder() as folder,
        duckdb.connect(folder / "rows.duckdb", config={**NO_EXTENSIONS, "memory_limit": _SORT_MEMORY}) as connection,
    ):
        connection.register("incoming", schema.empty_table())
        connection.execute("CREATE TABLE stored AS FROM incoming")
        for chunk in _chunks(batches, schema):
            connection.register("incoming", chunk)
            connection.execute("INSERT INTO stored FROM incoming")
        for batch in connection.sql(f"FROM stored ORDER BY {order}").to_arrow_reader(_BATCH_ROWS):
            yield batch.cast(schema)  # DuckDB returns points in time in the time zone of the machine


def _chunks(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    for batch in itertools.chain(batches, [None]):
        if batch is not None:
            waiting.append(batch)
        if waiting and (batch is None or sum(one.num_rows for one in waiting) >= _BATCH_ROWS):
            yield pa.Table.from_batches(waiting, schema)
            waiting = []
