"""Large results of BigQuery: they come by the Storage Read API, and are sorted here."""

from __future__ import annotations

import datetime as dt
import socket
import time
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from taxi_assets.errors import WarehouseConfigurationError, WarehouseSchemaError, WarehouseUnreachableError
from taxi_assets.resources.google import BigQueryClientResource
from taxi_assets.storage.partition_rows import Condition
from taxi_assets.storage.warehouse.bigquery import result_rows
from taxi_assets.storage.warehouse.bigquery.queries import cast_batch
from taxi_assets.storage.warehouse.bigquery.result_rows import sort_batches
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.bigquery_fixtures import clients_wait_a_hundredth, lake, load, warehouse
from taxi_assets_tests.contract.stores.bigquery import DATASET, PROJECT
from taxi_assets_tests.google.bigquery_storage import BigQueryStorage
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.storage.lake.gcs_lake import GcsLake
    from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
    from taxi_assets_tests.google.bigquery import BigQuery
    from taxi_assets_tests.google.service_account import ServiceAccount

__all__ = ["clients_wait_a_hundredth", "lake", "warehouse"]

ROWS = 12_000
"""More than the double returns with the answer to a query."""


@pytest.fixture
def storage(bigquery: BigQuery, monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryStorage]:
    with BigQueryStorage(bigquery) as storage:
        use(storage, monkeypatch)
        yield storage


def use(storage: BigQueryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_rows, "_SMALL_RESULT_ROWS", 10_000)
    monkeypatch.setattr(BigQueryClientResource, "is_emulated", False)
    monkeypatch.setattr(BigQueryClientResource, "get_read_client", storage.read_client)


@pytest.fixture
def large_month(warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery) -> BigQueryWarehouse:
    """A warehouse with a month of 12,000 trips, stored in another order than that of their row numbers."""
    trips = publish_generated_month(lake)
    load(warehouse, trips)
    numbers = f"range({ROWS}, {trips.report.clean.rows}, -1) AS numbers(number)"
    bigquery.sql(
        f"INSERT INTO {DATASET}.green_trips SELECT trip.* REPLACE (number AS source_row) "
        f"FROM (FROM {DATASET}.green_trips WHERE source_row = 1) AS trip, {numbers}"
    )
    return warehouse


def source_rows(warehouse: BigQueryWarehouse) -> list[int]:
    of_month = [Condition("data_month", "=", MONTH.start)]
    reader = warehouse.read_rows("green_trips", ["source_row", "total_amount"], of_month, order_by=["source_row"])
    found: list[int] = reader.read_all()["source_row"].to_pylist()
    return found


def test_a_large_month_comes_by_the_storage_read_api_in_the_order_of_the_published_file(
    large_month: BigQueryWarehouse, storage: BigQueryStorage, bigquery: BigQuery
) -> None:
    bigquery.requests.clear()
    assert source_rows(large_month) == list(range(1, ROWS + 1))
    (session,) = storage.sessions
    assert session.parent == f"projects/{PROJECT}"
    (query,) = (job.settings["query"] for job in bigquery.jobs[-1:])
    assert "ORDER BY" not in query  # on one machine, BigQuery would run out of memory
    # Of the pages of JSON, only the first is downloaded, which comes with the answer to the query.
    assert not [request for request in bigquery.requests if "pageToken" in request.query]


def test_both_ways_return_the_same_month(large_month: BigQueryWarehouse, bigquery: BigQuery) -> None:
    by_rest = large_month.read_month(GREEN, MONTH)
    with BigQueryStorage(bigquery) as storage, pytest.MonkeyPatch.context() as monkeypatch:
        use(storage, monkeypatch)
        by_storage = large_month.read_month(GREEN, MONTH)
        assert storage.sessions
    assert len(by_rest) == ROWS
    assert by_storage.equals(by_rest)
    assert [*by_storage.dtypes] == [*by_rest.dtypes]


def test_a_small_month_needs_no_storage_read_api(
    warehouse: BigQueryWarehouse, lake: GcsLake, storage: BigQueryStorage
) -> None:
    trips = publish_generated_month(lake)
    load(warehouse, trips)
    assert source_rows(warehouse) == list(range(1, trips.report.clean.rows + 1))
    assert storage.sessions == []


def test_a_lost_connection_continues_where_it_stopped(
    large_month: BigQueryWarehouse, bigquery: BigQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BigQueryStorage(bigquery, broken_messages=7) as storage:
        use(storage, monkeypatch)
        assert source_rows(large_month) == list(range(1, ROWS + 1))


def test_a_connection_that_is_lost_for_good_is_a_transient_error_within_the_timeout(
    large_month: BigQueryWarehouse, bigquery: BigQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BigQueryStorage(bigquery, broken_messages=3, stops=True) as storage:
        use(storage, monkeypatch)
        with pytest.raises(WarehouseUnreachableError, match=r"^green_trips cannot.*The connection was lost\."):
            source_rows(large_month)
    with pytest.raises(WarehouseUnreachableError, match=r"^green_trips cannot be read: "):
        source_rows(large_month)  # nothing listens any more


def test_a_server_that_does_not_answer_is_a_transient_error(
    large_month: BigQueryWarehouse, bigquery: BigQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BigQueryStorage(bigquery) as storage, socket.create_server(("127.0.0.1", 0)) as silent:
        storage.port, storage.timeout_seconds = silent.getsockname()[1], 1
        use(storage, monkeypatch)
        with pytest.raises(WarehouseUnreachableError, match=r"^green_trips cannot be read: "):
            source_rows(large_month)


def test_without_the_permission_rows_come_as_json_and_a_warning_names_the_role(
    large_month: BigQueryWarehouse, storage: BigQueryStorage, bigquery: BigQuery, caplog: pytest.LogCaptureFixture
) -> None:
    bigquery.forbid("bigquery.readsessions.create")
    assert source_rows(large_month) == list(range(1, ROWS + 1))
    assert storage.sessions == []
    assert "Grant the account BigQuery Read Session User (roles/bigquery.readSessionUser)" in caplog.text


def test_a_failed_download_is_one_error(
    large_month: BigQueryWarehouse, bigquery: BigQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BigQueryStorage(bigquery) as storage:
        use(storage, monkeypatch)
        storage.fail("The project is suspended.")
        with pytest.raises(
            WarehouseConfigurationError, match=r"^green_trips cannot be read: 400 The project is suspended\."
        ):
            source_rows(large_month)


def test_the_read_client_uses_the_credentials_of_the_resource(
    service_account: ServiceAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    api = BigQueryClientResource(project=PROJECT, credentials=service_account.base64, maximum_bytes_billed=1)
    with api.get_read_client() as client:
        assert client.transport.host == "bigquerystorage.googleapis.com:443"
        email = "taxi@taxi-project.iam.gserviceaccount.com"
        assert getattr(client.transport._credentials, "service_account_email", None) == email  # noqa: SLF001
    assert not api.is_emulated


def test_an_emulator_has_no_storage_read_api(large_month: BigQueryWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_rows, "_SMALL_RESULT_ROWS", 10_000)
    monkeypatch.setattr(BigQueryClientResource, "get_read_client", None)  # calling it would fail
    assert source_rows(large_month) == list(range(1, ROWS + 1))


def test_rows_are_sorted_by_all_columns_with_null_first() -> None:
    schema = pa.schema({"zone": pa.string(), "trips": pa.int64(), "fare": pa.decimal128(38, 9)})
    rows = pa.table({"zone": ["b", None, "a", "a"], "trips": [1, 2, 3, 1], "fare": [1, 2, None, 4]}).cast(schema)
    found = pa.Table.from_batches(sort_batches(rows.to_batches(max_chunksize=1), schema, ["zone", "trips"]))
    assert found.to_pydict()["zone"] == [None, "a", "a", "b"]
    assert found.to_pydict()["trips"] == [2, 1, 3, 1]
    assert found.schema == schema


def test_points_in_time_stay_in_utc_on_a_machine_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    schema = pa.schema({"id": pa.int64(), "seen": pa.timestamp("us", "UTC")})
    rows = pa.table({"id": [2, 1], "seen": [dt.datetime(2021, 1, day, tzinfo=dt.UTC) for day in (2, 1)]}, schema)
    try:
        found = pa.Table.from_batches(sort_batches(rows.to_batches(), schema, ["id"]), schema)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found == rows.take([1, 0])


def test_no_rows_stay_no_rows() -> None:
    schema = pa.schema({"zone": pa.string()})
    assert sum(batch.num_rows for batch in sort_batches([], schema, ["zone"])) == 0


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (pa.array([Decimal("0.12345678901")]), pa.decimal128(38, 9)),
        (pa.array([[1, 2]]), pa.string()),
    ],
    ids=["BIGNUMERIC with 11 decimals", "ARRAY"],
)
def test_a_column_that_cannot_be_read_is_named(values: pa.Array, type_: pa.DataType) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), values], names=["id", "odd"])
    with pytest.raises(WarehouseSchemaError, match=r"Column odd of `p\.d\.t` cannot be read: .* Read a view"):
        cast_batch(batch, pa.schema([("id", pa.int64()), ("odd", type_)]), "p.d.t")
