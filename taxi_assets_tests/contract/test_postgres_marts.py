"""Marts on a Postgres server: their keys, views with dependents, and locks."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from taxi_assets.errors import MartDefinitionError, WarehouseBusyError, WarehouseSchemaError
from taxi_assets.marts.mart import marts, read_mart
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.warehouse.postgres import PostgresWarehouse
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.mart_trips import ZONES, publish_trips, trips_of
from taxi_assets_tests.contract.stores.postgres import connect, database, run, with_short_wait
from taxi_assets_tests.table_rows import store_rows
from taxi_assets_tests.trips import MONTH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.marts.mart import Mart
    from taxi_assets_tests.contract.stores.postgres import Server

MART = marts()["od_flows"]


@pytest.fixture(scope="module")
def warehouse(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresWarehouse]:
    """Open a warehouse with a month of green and the zones, shared by the tests; each test uses its own marts."""
    with database(postgres_server) as url:
        warehouse = PostgresWarehouse(url=url, wait_seconds=30)
        lake = LocalLake(folder=str(tmp_path_factory.mktemp("lake")))
        trips = publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, 200))
        warehouse.replace_month(GREEN, MONTH, trips, run_id="a run")
        store_rows(warehouse, "taxi_zones", ZONES)
        yield warehouse


def named(name: str, mart: Mart = MART) -> Mart:
    """Return the mart and its view under another name."""
    return dataclasses.replace(mart, name=name, sql=mart.sql.replace(mart.name, name))


def compute(warehouse: PostgresWarehouse, mart: Mart) -> int:
    return warehouse.replace_mart(mart, MONTH, [GREEN], run_id="a run")


def test_the_inputs_are_checked_again_while_the_mart_is_locked(warehouse: PostgresWarehouse) -> None:
    calls: list[str] = []

    def check_that_both_are_locked() -> None:
        other = with_short_wait(warehouse, 0.2)
        with pytest.raises(WarehouseBusyError):
            compute(other, MART)
        with pytest.raises(WarehouseBusyError):
            store_rows(other, "month_quality", ZONES)
        calls.append("checked")

    def replace_mart() -> None:
        warehouse.replace_mart(
            MART, MONTH, [GREEN], run_id="a run", require_inputs_unchanged=check_that_both_are_locked
        )

    compute(warehouse, MART)
    store_rows(warehouse, "month_quality", ZONES, require_inputs_unchanged=replace_mart)
    assert calls == ["checked"]


def keys(warehouse: PostgresWarehouse, name: str) -> list[tuple[Any, ...]]:
    return run(
        warehouse.url,
        "SELECT pg_get_indexdef(indexrelid), indisprimary, indnullsnotdistinct FROM pg_index "
        f"WHERE indrelid = 'taxi.{name}'::regclass",
    )


def test_a_marts_key_is_its_primary_key_if_no_column_of_it_can_be_null(warehouse: PostgresWarehouse) -> None:
    compute(warehouse, MART)
    ((definition, is_primary, nulls_not_distinct),) = keys(warehouse, "od_flows")
    assert "od_flows_key" in definition
    assert definition.endswith("(data_month, service, pickup_borough, dropoff_borough)")
    assert (is_primary, nulls_not_distinct) == (True, False)


def test_a_key_with_nullable_columns_is_unique_too(warehouse: PostgresWarehouse) -> None:
    compute(warehouse, marts()["zone_day"])
    ((definition, is_primary, nulls_not_distinct),) = keys(warehouse, "zone_day")
    assert "(data_month, service, pickup_date, pickup_location_id)" in definition
    assert (is_primary, nulls_not_distinct) == (False, True)


def test_a_mart_that_is_not_unique_by_its_key_is_rejected(warehouse: PostgresWarehouse) -> None:
    text = "/*\ndescription: By day.\nkey: [data_month, service]\nmeasures: [trips]\n*/\n"
    sql = "SELECT data_month, service, SUM(trips) AS trips FROM all_trips GROUP BY data_month, service, pickup_date"
    with pytest.raises(MartDefinitionError, match=r"by_day 2020-10 .* is not unique by data_month, service") as error:
        compute(warehouse, read_mart("by_day", text + sql))
    assert "marts/sql/by_day.sql" in error.value.remedy
    assert run(warehouse.url, "SELECT count(*) FROM taxi.by_day") == [(0,)]


def test_a_new_key_that_old_months_violate_is_rejected(warehouse: PostgresWarehouse) -> None:
    mart = named("flows")
    compute(warehouse, mart)
    rows = run(warehouse.url, "SELECT * FROM taxi.flows ORDER BY pickup_borough, dropoff_borough")
    with pytest.raises(WarehouseSchemaError, match="not unique by its new key, data_month, service"):
        compute(warehouse, dataclasses.replace(mart, key=("data_month", "service")))
    assert run(warehouse.url, "SELECT * FROM taxi.flows ORDER BY pickup_borough, dropoff_borough") == rows
    assert len(keys(warehouse, "flows")) == 1


def test_a_view_with_dependents_is_not_dropped(warehouse: PostgresWarehouse) -> None:
    mart = named("owned")
    compute(warehouse, mart)
    run(warehouse.url, "CREATE VIEW report AS SELECT trips, share_of_pickups FROM taxi.owned_ratios")
    wider = mart.sql.replace("AS revenue_per_trip", "AS revenue_per_trip, CAST(tips AS DOUBLE) AS tips")
    compute(warehouse, dataclasses.replace(mart, sql=wider))  # columns added at the end do not affect dependents
    assert run(warehouse.url, "SELECT tips FROM taxi.owned_ratios LIMIT 1")
    other = mart.sql.replace("AS share_of_pickups", "AS share")
    with pytest.raises(WarehouseSchemaError, match=r"owned_ratios.*view report depends on") as error:
        compute(warehouse, dataclasses.replace(mart, sql=other))
    assert "Drop the objects that depend on it" in error.value.remedy
    assert run(warehouse.url, "SELECT count(*) FROM report")[0][0] > 0


def test_an_up_to_date_mart_is_not_recreated(warehouse: PostgresWarehouse) -> None:
    def versions() -> list[tuple[Any, ...]]:
        return run(
            warehouse.url,
            "SELECT c.oid, c.xmin::text, r.xmin::text FROM pg_class AS c LEFT JOIN pg_rewrite AS r ON ev_class = c.oid "
            "WHERE relname IN ('still', 'still_ratios', 'still_key') ORDER BY relname",
        )

    mart = named("still")
    compute(warehouse, mart)
    before = versions()
    assert len(before) == 3
    compute(warehouse, mart)
    assert versions() == before


def test_a_reader_and_a_replacement_of_the_month_do_not_block_each_other(warehouse: PostgresWarehouse) -> None:
    mart = named("read")
    rows = compute(warehouse, mart)
    with connect(warehouse.url) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM taxi.read_ratios")
        assert compute(with_short_wait(warehouse), mart) == rows
        cursor.execute("SELECT count(*), count(DISTINCT xmin::text) FROM taxi.read")
        assert cursor.fetchone() == (rows, 1)


def test_a_reader_that_blocks_new_columns_is_named(warehouse: PostgresWarehouse) -> None:
    mart = named("held")
    compute(warehouse, mart)
    text = mart.sql.replace("AS share_of_pickups", "AS share")
    with connect(warehouse.url, application_name="slow_report") as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT count(*) FROM taxi.held_ratios")
        with pytest.raises(WarehouseBusyError, match="slow_report"):
            compute(with_short_wait(warehouse, 0.5), dataclasses.replace(mart, sql=text))
    compute(warehouse, dataclasses.replace(mart, sql=text))
    assert run(warehouse.url, "SELECT share FROM taxi.held_ratios LIMIT 1")
