"""A test double of the Storage Read API: the gRPC service `BigQueryRead` on loopback, for the tables of the double.

    with BigQueryStorage(bigquery) as storage:
        monkeypatch.setattr(BigQueryClientResource, "get_read_client", storage.read_client)

It follows the RPC reference of `google.cloud.bigquery.storage.v1`, and the page "Use the BigQuery Storage Read API to
read table data":

- `CreateReadSession` reads tables and the results of queries, but no views. It requires `bigquery.readsessions.create`.
- Rows have Arrow's format, with the types of the page "Arrow schema details". They are spread over up to
  `max_stream_count` streams, in no order across them. A session with one stream keeps the order of a query's result.
- `ReadRows` begins at an offset, so that a client can go on after a connection was lost.

Only the real service can show its number of streams, its message sizes, throttling, and when sessions expire.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

from taxi_assets.resources.bigquery_read_client import ReadClient
from taxi_assets_tests.google.bigquery_values import GoogleError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets_tests.google.bigquery import BigQuery
    from taxi_assets_tests.google.bigquery_tables import Table

_SERVICE = "google.cloud.bigquery.storage.v1.BigQueryRead"
_ROWS_PER_MESSAGE = 1_000


class BigQueryStorage:
    """The test double: serves the tables of `bigquery` during its `with` block.

    Args:
        bigquery: The double whose tables are read.
        broken_messages: After how many messages of each stream the connection is lost, once.
        stops: Whether the connection is lost for good then.
    """

    def __init__(self, bigquery: BigQuery, *, broken_messages: int | None = None, stops: bool = False) -> None:
        self._stops = stops
        self.sessions: list[Any] = []
        self.timeout_seconds = 60.0
        self._bigquery = bigquery
        self._broken_messages = broken_messages
        self._streams: dict[str, list[pa.RecordBatch]] = {}
        self._schemas: dict[str, types.ArrowSchema] = {}
        self._interrupted: set[str] = set()
        self._failure: str | None = None

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(max_workers=8))
        handlers = {
            "CreateReadSession": grpc.unary_unary_rpc_method_handler(
                self._create_read_session,
                request_deserializer=types.CreateReadSessionRequest.deserialize,
                response_serializer=types.ReadSession.serialize,
            ),
            "ReadRows": grpc.unary_stream_rpc_method_handler(
                self._read_rows,
                request_deserializer=types.ReadRowsRequest.deserialize,
                response_serializer=types.ReadRowsResponse.serialize,
            ),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()

    @contextmanager
    def read_client(self, *_: object) -> Iterator[ReadClient]:
        """Yield the client of the platform, connected to this double without encryption."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            yield ReadClient(timeout_seconds=self.timeout_seconds, transport=BigQueryReadGrpcTransport(channel=channel))

    def fail(self, message: str) -> None:
        """Refuse every session with this message."""
        self._failure = message

    # The service

    def _create_read_session(self, request: types.CreateReadSessionRequest, context: grpc.ServicerContext) -> Any:
        if self._failure is not None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, self._failure)
        session = request.read_session
        _, _project, _, dataset, _, name = session.table.split("/")
        with self._bigquery.catalog.lock:
            try:
                self._bigquery.permissions.demand("bigquery.readsessions.create")
                table = self._bigquery.catalog.get(dataset, name)
            except GoogleError as error:
                code = grpc.StatusCode.PERMISSION_DENIED if error.status == 403 else grpc.StatusCode.NOT_FOUND
                context.abort(code, error.body["error"]["message"])
            if "view" in table.resource:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "request failed: only tables and results can be read")
            rows = self._rows(table, list(session.read_options.selected_fields))
        self.sessions.append(request)
        number = len(self.sessions)
        session.name = f"{request.parent}/locations/us/sessions/{number}"
        session.arrow_schema.serialized_schema = rows.schema.serialize().to_pybytes()
        batches = rows.to_batches(max_chunksize=_ROWS_PER_MESSAGE)
        for place in range(request.max_stream_count or 3):
            stream = f"{session.name}/streams/{place}"
            self._schemas[stream] = session.arrow_schema
            self._streams[stream] = batches[place :: request.max_stream_count or 3]
            session.streams.append(types.ReadStream(name=stream))
        return session

    def _read_rows(self, request: types.ReadRowsRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        passed, schema = 0, self._schemas[request.read_stream]
        for number, batch in enumerate(self._streams[request.read_stream]):
            if number == self._broken_messages and (self._stops or request.read_stream not in self._interrupted):
                self._interrupted.add(request.read_stream)
                context.abort(grpc.StatusCode.UNAVAILABLE, "The connection was lost.")
            start = max(0, min(batch.num_rows, request.offset - passed))
            passed += batch.num_rows
            if start < batch.num_rows:
                rows = batch.slice(start)
                yield types.ReadRowsResponse(
                    arrow_schema=schema,
                    arrow_record_batch=types.ArrowRecordBatch(serialized_record_batch=rows.serialize().to_pybytes()),
                    row_count=rows.num_rows,
                )
                schema = types.ArrowSchema()  # only the first response has it

    def _rows(self, table: Table, names: list[str]) -> pa.Table:
        columns = ", ".join(f'"{name}"' for name in names) or "*"
        found: pa.Table = self._bigquery.catalog.duckdb.sql(f"SELECT {columns} FROM {table.sql}").to_arrow_table()
        decimal = pa.decimal128(38, 9)
        types_ = [decimal if pa.types.is_decimal(field.type) else field.type for field in found.schema]
        return found.cast(pa.schema(list(zip(found.column_names, types_, strict=True))))
