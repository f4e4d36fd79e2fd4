"""Cloud Storage and BigQuery as Dagster resources, on those of dagster-gcp.

They differ in how they get a key: dagster-gcp's take it by way of a temporary file and an environment variable for the
whole process (BigQuery), or not at all (Storage). Here credentials are handed to the clients.
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
    description="A service account's key file, or its content in base64; none: application default credentials.",
)


class CloudStorageResource(GCSResource):
    """Cloud Storage: one client for as long as the resource lives."""

    credentials: str | None = _CREDENTIALS

    _client: Any = PrivateAttr(default=None)

    def get_client(self) -> storage.Client:
        """The client."""
        if self._client is None:
            self._client = storage.Client(project=self.project, credentials=load_credentials(self.credentials))
            weakref.finalize(self, self._client.close)
        return self._client


class BigQueryClientResource(BigQueryResource):
    """BigQuery, with a limit on what a query may cost."""

    credentials: str | None = _CREDENTIALS
    maximum_bytes_billed: int = Field(description="A query that would read more is refused before it costs anything.")

    @contextmanager
    def get_client(self) -> Iterator[bigquery.Client]:
        """A client, closed afterwards."""
        limit = bigquery.QueryJobConfig(maximum_bytes_billed=self.maximum_bytes_billed)
        with bigquery.Client(
            project=self.project,
            location=self.location,
            credentials=load_credentials(self.credentials),
            default_query_job_config=limit,
        ) as client:
            yield client
