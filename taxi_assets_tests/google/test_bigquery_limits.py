"""Default expirations, rate limits and requests without an answer in the BigQuery double."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest, Forbidden, TooManyRequests
from google.cloud import bigquery as google
from requests.exceptions import ReadTimeout

from taxi_assets_tests.google.bigquery import Fault
from taxi_assets_tests.google.bigquery_trips import BY_MONTH, JANUARY, PROJECT, SCHEMA, TABLE
from taxi_assets_tests.google.load_jobs import Load, load, objects

if TYPE_CHECKING:
    from taxi_assets_tests.google.bigquery import BigQuery

__all__ = ["load", "objects"]

DAY = 24 * 3600 * 1000


def create(client: Any, *, partitioned: bool, expiration_ms: int | None = None) -> Any:
    table = google.Table(TABLE, SCHEMA)
    if partitioned:
        table.time_partitioning = google.TimePartitioning("MONTH", field="data_month", expiration_ms=expiration_ms)
    return client.create_table(table)


@pytest.mark.parametrize(("tables", "partitions"), [(30, None), (None, 60), (30, 60)])
@pytest.mark.parametrize("partitioned", [False, True])
def test_a_new_table_has_one_default_expiration_of_its_dataset(
    client: Any, tables: int | None, partitions: int | None, partitioned: bool
) -> None:
    dataset = google.Dataset(f"{PROJECT}.trips")
    dataset.default_table_expiration_ms = tables and tables * DAY
    dataset.default_partition_expiration_ms = partitions and partitions * DAY
    client.create_dataset(dataset)
    table = create(client, partitioned=partitioned)
    of_partitions = partitioned and partitions is not None
    assert (table.expires is not None) == (tables is not None and not of_partitions)
    if partitioned:
        assert table.time_partitioning.expiration_ms == (60 * DAY if of_partitions else None)


def test_an_expiration_given_explicitly_wins_and_a_null_removes_it(client: Any) -> None:
    dataset = google.Dataset(f"{PROJECT}.trips")
    dataset.default_partition_expiration_ms = 60 * DAY
    client.create_dataset(dataset)
    with pytest.raises(BadRequest, match="must be positive"):
        create(client, partitioned=True, expiration_ms=0)
    table = create(client, partitioned=True, expiration_ms=DAY)
    assert table.time_partitioning.expiration_ms == DAY
    partitioning = table.time_partitioning
    partitioning.expiration_ms = None
    table.time_partitioning = partitioning
    assert client.update_table(table, ["time_partitioning"]).time_partitioning.expiration_ms is None


@pytest.mark.usefixtures("table")
def test_an_expired_partition_is_deleted(client: Any, load: Load, bigquery: BigQuery) -> None:
    load().result()
    assert len(bigquery.rows("trips.yellow")) == 2
    table = client.get_table(TABLE)
    age = dt.datetime.now(dt.UTC).date() - JANUARY
    for days, rows in ((age.days + 1, 2), (age.days - 1, 0)):
        table.time_partitioning = google.TimePartitioning(BY_MONTH.type_, BY_MONTH.field, days * DAY)
        table = client.update_table(table, ["time_partitioning"])
        assert len(bigquery.rows("trips.yellow")) == rows


def test_updates_of_a_table_are_limited_in_ten_seconds(client: Any, table: Any, load: Load, bigquery: BigQuery) -> None:
    now = [0.0]
    bigquery.limit_updates(2, lambda: now[0])
    load().result()
    now[0] = 9
    table.description = "Other."
    table = client.update_table(client.get_table(TABLE), ["description"])
    with pytest.raises(Forbidden, match="too many table update operations"):
        client.update_table(table, ["description"], retry=None)
    with pytest.raises(TooManyRequests, match="too many table update operations"):
        load().result()
    now[0] = 10
    load().result()


def test_a_request_without_an_answer_takes_effect_if_the_fault_says_so(client: Any, bigquery: BigQuery) -> None:
    for after in (False, True):
        bigquery.script(Fault(hang=True, after=after), method="POST")
        with pytest.raises(ReadTimeout):
            client.create_dataset(f"{PROJECT}.after_{after}", retry=None, timeout=0.2)
    assert list(bigquery.catalog.datasets) == ["after_True"]
