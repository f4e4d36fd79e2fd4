"""Test data of the BigQuery double's own tests: a small table of trips, its files, and a server for the files."""

from __future__ import annotations

import datetime as dt
import io
import json
import threading
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery as google

PROJECT = "taxi-project"
TABLE = f"{PROJECT}.trips.yellow"
JANUARY, FEBRUARY = dt.date(2021, 1, 1), dt.date(2021, 2, 1)

SCHEMA = [
    google.SchemaField("data_month", "DATE", "REQUIRED", description="The month of the file."),
    google.SchemaField("pickup_datetime", "DATETIME", description="Local time."),
    google.SchemaField("Fare_Amount", "NUMERIC"),
    google.SchemaField("passengers", "INT64"),
    google.SchemaField("note", "STRING"),
]
BY_MONTH = google.TimePartitioning("MONTH", field="data_month")
CLUSTERING = ["pickup_datetime"]


class ObjectServer:
    """A minimal double of Cloud Storage that serves objects for `alt=media`, and the location of the bucket.

    It follows the JSON API reference of objects.get and buckets.get. A status in `contents` instead of bytes is
    answered as that error; its key for the bucket is "".
    """

    def __init__(self) -> None:
        self.contents: dict[str, bytes | int] = {}
        self.location = "EU"

    def __enter__(self) -> Self:
        double, contents = self, self.contents

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (as the base class names it)
                pass

            def do_GET(self) -> None:
                target = urlsplit(self.path)
                bucket = json.dumps({"location": double.location}).encode()
                _, is_object, key = target.path.partition("/o/")
                found = contents.get(unquote(key), 404) if is_object else contents.get("", bucket)
                self.send_response(found if isinstance(found, int) else 200)
                self.end_headers()
                self.wfile.write(b"" if isinstance(found, int) else found)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def client_of(location: str | None = "EU") -> Any:
    """Return the official client, without credentials."""
    return google.Client(project=PROJECT, credentials=AnonymousCredentials(), location=location)  # type: ignore[no-untyped-call]  # google's


def make_table(client: Any, location: str = "EU", schema: list[Any] | None = None) -> Any:
    """Create the dataset and the table, as the product does."""
    dataset = google.Dataset(f"{PROJECT}.trips")
    dataset.location = location
    client.create_dataset(dataset)
    table = google.Table(TABLE, SCHEMA if schema is None else schema)
    table.time_partitioning = BY_MONTH
    table.clustering_fields = CLUSTERING
    table.labels = {"service": "yellow"}
    table.description = "Yellow trips."
    return client.create_table(table)


def trips(month: dt.date = JANUARY, fares: tuple[str, ...] = ("1.50", "-2.00"), **columns: Any) -> bytes:
    """Return a Parquet file of trips. `columns` adds or replaces columns; None removes one."""
    count = len(fares)
    data = {
        "data_month": pa.array([month] * count, pa.date32()),
        "pickup_datetime": pa.array([dt.datetime(2021, 1, 5, 7, 8, 9)] * count, pa.timestamp("us")),  # noqa: DTZ001
        "Fare_Amount": pa.array([Decimal(fare) for fare in fares], pa.decimal128(12, 2)),
        "passengers": pa.array(range(count), pa.int32()),
        "note": pa.array(["Zoë", None, *["x"] * count][:count], pa.string()),
    }
    chosen = {name: column for name, column in (data | columns).items() if column is not None}
    file = io.BytesIO()
    pq.write_table(pa.table(chosen), file)
    return file.getvalue()


def load_config(**options: Any) -> Any:
    """Return the job configuration with which the product loads a month; None removes an option."""
    defaults = {
        "source_format": "PARQUET",
        "write_disposition": "WRITE_TRUNCATE",
        "schema": SCHEMA,
        "time_partitioning": BY_MONTH,
        "clustering_fields": CLUSTERING,
    }
    return google.LoadJobConfig(**{name: one for name, one in (defaults | options).items() if one is not None})
