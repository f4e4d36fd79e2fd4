"""Fixtures of the double's tests of jobs and loads: load jobs of an existing object, inserted as the product does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud.bigquery.retry import DEFAULT_RETRY

from taxi_assets_tests.google.bigquery_trips import TABLE, load_config, trips

if TYPE_CHECKING:
    from taxi_assets_tests.google.bigquery_trips import ObjectServer

Load = Callable[..., Any]

URI = "gs://lake/clean/yellow 2021-01.parquet"
KEY = "clean/yellow 2021-01.parquet"
SOON = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.02)


@pytest.fixture
def objects(objects: ObjectServer) -> ObjectServer:
    objects.contents[KEY] = trips()
    return objects


@pytest.fixture
def load(client: Any) -> Load:
    """Return a function that inserts a load job of the object."""

    def insert(destination: str = f"{TABLE}$202101", *, job_id: str | None = None, **options: Any) -> Any:
        config = load_config(**options)
        return client.load_table_from_uri(URI, destination, job_config=config, job_id=job_id, retry=SOON)

    return insert
