"""Cloud Storage and BigQuery as Dagster resources, derived from those of dagster-gcp.

The resources of dagster-gcp pass a key through a temporary file and an environment variable of the process (BigQuery),
or cannot use one (Cloud Storage). These pass the credentials to the clients directly.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dagster_gcp import BigQueryResource, GCSResource
from google.cloud import bigquery, storage
from pydantic import Field, PrivateAttr

from taxi_assets.google_auth import load_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class BigQueryClientResource(BigQueryResource):
    """BigQuery, with a limit on the bytes that each query may read."""

    credentials: str | None = _CREDENTIALS
    maximum_bytes_billed: int = Field(
        description="BigQuery rejects a query that would read more bytes, before it costs anything."
    )

    @contextmanager
    def get_client(self) -> Iterator[bigquery.Client]:
        """Yield a client, which is closed at the end of the block."""
        limit = bigquery.QueryJobConfig(maximum_bytes_billed=self.maximum_bytes_billed)
        with bigquery.Client(
            project=self.project,
            location=self.location,
            credentials=load_credentials(self.credentials),
            default_query_job_config=limit,
        ) as client:
            yield client
