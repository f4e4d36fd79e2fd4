"""A client of BigQuery's Storage Read API whose calls end in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as api_errors
from google.api_core.retry import Retry, if_exception_type
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

if TYPE_CHECKING:
    from google.cloud.bigquery_storage_v1.types import ReadSession

# A stream whose connection was dropped silently then ends within a minute. google-cloud-bigquery sets the same options.
_KEEPALIVE = [("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 20_000)]
_STREAM_SECONDS = 3600


class ReadClient(BigQueryReadClient):
    """Google's client, which by itself goes on trying for a day.

    Args:
        timeout_seconds: How long a call that cannot reach the service is repeated.
        **options: The arguments of Google's client.
    """

    def __init__(self, *, timeout_seconds: float, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        unreachable = if_exception_type(api_errors.ServiceUnavailable)
        self._retry = Retry(unreachable, timeout=timeout_seconds)
        self._timeout_seconds = timeout_seconds

    def create_read_session(self, *arguments: Any, **options: Any) -> ReadSession:
        """Begin to read a table; google-cloud-bigquery asks for neither a retry nor a timeout."""
        limits = {"retry": self._retry, "timeout": self._timeout_seconds}
        return super().create_read_session(*arguments, **{**options, **limits})

    def read_rows(self, *arguments: Any, **options: Any) -> Any:
        """Read one stream; after a lost connection, Google's client goes on where it stopped."""
        limits = {"retry": self._retry, "timeout": _STREAM_SECONDS}
        return super().read_rows(*arguments, **{**options, **limits})  # type: ignore[no-untyped-call]


def open_read_client(credentials: Any, timeout_seconds: float) -> ReadClient:
    """Return a client whose channel notices a lost connection. None: application default credentials."""

    def open_channel(*arguments: Any, options: Any = (), **others: Any) -> Any:
        return BigQueryReadGrpcTransport.create_channel(*arguments, options=[*options, *_KEEPALIVE], **others)

    return ReadClient(
        timeout_seconds=timeout_seconds,
        credentials=credentials,
        transport=lambda **others: BigQueryReadGrpcTransport(channel=open_channel, **others),
    )
