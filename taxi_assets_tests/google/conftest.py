"""BigQuery's double on loopback, for the official client: what tests of it share unless they set it up otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from taxi_assets_tests.google.bigquery import BigQuery
from taxi_assets_tests.google.bigquery_trips import Objects, client_of, make_table

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def objects() -> Iterator[Objects]:
    with Objects() as objects:
        yield objects


@pytest.fixture
def bigquery(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQuery]:
    with BigQuery(storage_endpoint=objects.endpoint) as bigquery:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery.endpoint)
        yield bigquery


@pytest.fixture
def client(bigquery: BigQuery) -> Iterator[Any]:
    client = client_of()
    yield client
    client.close()
    assert bigquery.requests


@pytest.fixture
def table(client: Any) -> Any:
    return make_table(client)
