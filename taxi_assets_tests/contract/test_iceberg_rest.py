"""Tables in a REST catalog: a server that does not answer is tried again, and no rows are lost or doubled."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from pyiceberg.catalog import load_catalog

from taxi_assets.errors import CatalogUnreachableError
from taxi_assets.storage.iceberg.iceberg_catalog import IcebergCatalog, translate_catalog_errors
from taxi_assets.storage.iceberg.iceberg_maintenance import clean_up
from taxi_assets.storage.iceberg.month_commit import month_entries
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.tlc.month import Month
from taxi_assets_tests.iceberg_tables import SOURCE, lake_content, publish_and_commit, pyiceberg_content, table_content
from taxi_assets_tests.rest_catalog import RestCatalog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JANUARY, FEBRUARY = Month(2021, 1), Month(2021, 2)


@pytest.fixture
def server() -> Iterator[RestCatalog]:
    with RestCatalog() as server:
        yield server


def catalog_of(server: RestCatalog, folder: Path) -> IcebergCatalog:
    return IcebergCatalog(lake=LocalLake(folder=str(folder / "lake")), address=server.address)


def test_months_are_committed_replaced_and_read_as_of_each_snapshot(server: RestCatalog, tmp_path: Path) -> None:
    catalog, expected = catalog_of(server, tmp_path), {}
    for number, (month, rows) in enumerate([(JANUARY, 50), (FEBRUARY, 20), (JANUARY, 40)]):
        committed = publish_and_commit(catalog, month, rows, seed=number)
        expected[committed.snapshot_id] = lake_content(catalog.lake, *[JANUARY, FEBRUARY][: 1 if number == 0 else 2])
    table = load_catalog("taxi", uri=server.address).load_table("taxi.green_trips")
    assert {snapshot_id: pyiceberg_content(table, snapshot_id) for snapshot_id in expected} == expected
    assert clean_up(catalog, SOURCE, 30) == (0, 0)


@pytest.mark.parametrize("has_effect", [False, True], ids=["before it takes effect", "after it took effect"])
def test_a_server_that_answers_503_once_is_a_transient_error_and_the_retry_completes(
    tmp_path: Path, *, has_effect: bool
) -> None:
    """A month is committed, and then replaced. Each of the requests of a commit fails in turn."""
    number, failures, failed = 0, 0, True
    while failed:
        failed = False
        with RestCatalog() as server:
            server.has_effect = has_effect
            catalog = catalog_of(server, tmp_path / str(number))
            for rows in (50, 40):
                server.fails_at = len(server.requests) + number
                try:
                    publish_and_commit(catalog, JANUARY, rows)
                except CatalogUnreachableError:
                    failures += 1
                    publish_and_commit(catalog, JANUARY, rows)
                failed |= len(server.requests) > server.fails_at
                server.fails_at = None
                assert table_content(catalog) == lake_content(catalog.lake, JANUARY)
                assert len(month_entries(catalog.open().load_table("taxi.green_trips"), JANUARY)) == 1
        number += 1
    assert failures >= 8


def test_a_catalog_at_an_address_where_nothing_listens_is_tried_again_later(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    catalog = IcebergCatalog(lake=LocalLake(folder=str(tmp_path / "lake")), address=f"http://127.0.0.1:{port}")
    with pytest.raises(CatalogUnreachableError, match=rf"The catalog http://127\.0\.0\.1:{port} cannot be opened"):
        publish_and_commit(catalog, JANUARY, 50)


def class_of(package: str, *names: str) -> type[Exception]:
    """Return a class as a client that is not installed here has it, with the names of its base classes."""
    found: type[Exception] = Exception
    for name in names:
        found = type(name, (found,), {"__module__": package})
    return found


@pytest.mark.parametrize(
    "error",
    [
        class_of("thrift.transport.TTransport", "TException", "TTransportException"),
        class_of("botocore.exceptions", "BotoCoreError", "ConnectionError", "EndpointConnectionError"),
        class_of("botocore.exceptions", "BotoCoreError", "HTTPClientError", "ReadTimeoutError"),
        class_of("google.api_core.exceptions", "GoogleAPICallError", "ServerError", "ServiceUnavailable"),
        class_of("google.auth.exceptions", "GoogleAuthError", "TransportError"),
        ConnectionResetError,
        TimeoutError,
    ],
)
def test_a_connection_error_of_each_client_is_transient(error: type[Exception]) -> None:
    with pytest.raises(CatalogUnreachableError), translate_catalog_errors("The table x cannot be read"):
        raise error("The server does not answer")
