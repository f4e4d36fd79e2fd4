"""Cloud Storage and BigQuery as Dagster resources, derived from those of dagster-gcp.

The resources of dagster-gcp pass a key through a temporary file and an environment variable of the process (BigQuery),
or cannot use one (Cloud Storage). These pass the credentials to the clients directly.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
import google.auth
from dagster_gcp import BigQueryResource, GCSResource
from google.auth.transport.requests import AuthorizedSession
from google.cloud import bigquery, storage
from pydantic import Field, PrivateAttr

from taxi_assets.google_auth import SCOPES, load_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

    from taxi_assets.resources.bigquery_read_client import ReadClient

_CREDENTIALS = Field(
    default=None,
    repr=False,
    description=(
        "The path of a service account's key file, or its content in base64. Unset: application default credentials."
    ),
)


class CloudStorageResource(GCSResource):
    """Cloud Storage, with one client for the lifetime of the resource."""

    credentials: str | None = _CREDENTIALS

    _client: Any = PrivateAttr(default=None)

    def get_client(self) -> storage.Client:
        """Return the client; the first call creates it."""
        if self._client is None:
            self._client = storage.Client(project=self.project, credentials=load_credentials(self.credentials))
            weakref.finalize(self, self._client.close)
        return self._client


class _TimeoutSession(AuthorizedSession):
    """A session whose requests all have a timeout.

    BigQuery's client sets none, so that a request on a dropped connection would never end. Cloud Storage's sets one.
    """

    def __init__(self, credentials: Any, timeout_seconds: float) -> None:
        super().__init__(credentials)  # type: ignore[no-untyped-call]  # google's
        self._timeout_seconds = timeout_seconds

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        seconds = options.get("timeout")
        options["timeout"] = self._timeout_seconds if seconds is None else min(seconds, self._timeout_seconds)
        return super().send(request, **options)


class BigQueryClientResource(BigQueryResource):
    """BigQuery, with a limit on the bytes that each query may read, and a timeout for each request."""

    credentials: str | None = _CREDENTIALS
    maximum_bytes_billed: int = Field(
        description="BigQuery rejects a query that would read more bytes, before it costs anything."
    )
    timeout_seconds: float = Field(
        default=300,
        description="How long to wait for BigQuery to accept a connection or to send or receive the next bytes. Then "
        "the request fails, and is retried. BigQuery itself ends a request after about two minutes.",
    )

    @contextmanager
    def get_client(self) -> Iterator[bigquery.Client]:
        """Yield a client, which is closed at the end of the block."""
        limit = bigquery.QueryJobConfig(maximum_bytes_billed=self.maximum_bytes_billed)
        credentials = load_credentials(self.credentials) or google.auth.default(scopes=SCOPES)[0]
        session = _TimeoutSession(credentials, self.timeout_seconds)
        session.configure_mtls_channel()  # type: ignore[no-untyped-call]  # google's
        with bigquery.Client(
            project=self.project,
            location=self.location,
            credentials=credentials,
            default_query_job_config=limit,
            _http=session,
        ) as client:
            yield client

    @property
    def is_emulated(self) -> bool:
        """Whether the client uses an emulator, which has the REST API only."""
        return bool(dg.EnvVar("BIGQUERY_EMULATOR_HOST").get_value())

    @contextmanager
    def get_read_client(self) -> Iterator[ReadClient]:
        """Yield a client of the Storage Read API, which is closed at the end of the block."""
        # Only large results need it, and it takes a tenth of a second.
        from taxi_assets.resources.bigquery_read_client import open_read_client  # noqa: PLC0415

        client: Any = open_read_client(load_credentials(self.credentials), self.timeout_seconds)
        with client:
            yield client
