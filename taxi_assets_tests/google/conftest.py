"""Fixtures of the tests of the BigQuery double: the double on loopback, and the official client for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from taxi_assets_tests.google.bigquery import BigQuery
from taxi_assets_tests.google.bigquery_trips import ObjectServer, client_of, make_table

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def objects() -> Iterator[ObjectServer]:
    with ObjectServer() as objects:
        yield objects


@pytest.fixture
def bigquery(objects: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQuery]:
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
