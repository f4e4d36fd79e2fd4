"""Marts on a Postgres server: their keys, views that others depend on, and who is held up by whom."""

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
from taxi_assets_tests.trips import MONTH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets.marts.mart import Mart
    from taxi_assets_tests.contract.stores.postgres import Server

MART = marts()["od_flows"]


@pytest.fixture(scope="module")
def warehouse(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresWarehouse]:
    """With a month of green, and the zones; a test has marts of its own."""
    with database(postgres_server) as url:
        warehouse = PostgresWarehouse(url=url, wait_seconds=30)
        lake = LocalLake(folder=str(tmp_path_factory.mktemp("lake")))
        trips = publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, 200))
        warehouse.replace_month(GREEN, MONTH, trips, run_id="a run")
        warehouse.replace_frame("taxi_zones", ZONES, {})
        yield warehouse


def named(name: str, mart: Mart = MART) -> Mart:
    """The mart under another name, and its view."""
    return dataclasses.replace(mart, name=name, sql=mart.sql.replace(mart.name, name))


def make(warehouse: PostgresWarehouse, mart: Mart) -> int:
    return warehouse.replace_mart(mart, MONTH, [GREEN], run_id="a run")


def test_what_is_loaded_is_looked_at_again_where_no_other_run_can_write_the_month(warehouse: PostgresWarehouse) -> None:
    asked: list[str] = []

    def look() -> None:
        hasty = PostgresWarehouse(url=warehouse.url, wait_seconds=0.2)
        with pytest.raises(WarehouseBusyError):
            make(hasty, MART)
        with pytest.raises(WarehouseBusyError):
            hasty.replace_frame("month_quality", ZONES, {})
        asked.append("looked")

    def make_meanwhile() -> None:
        warehouse.replace_mart(MART, MONTH, [GREEN], run_id="a run", require_inputs_unchanged=look)

    make(warehouse, MART)
    warehouse.replace_frame("month_quality", ZONES, {}, require_inputs_unchanged=make_meanwhile)
    assert asked == ["looked"]


def keys(warehouse: PostgresWarehouse, name: str) -> list[tuple[Any, ...]]:
    return run(
        warehouse.url,
        "SELECT pg_get_indexdef(indexrelid), indisprimary, indnullsnotdistinct FROM pg_index "
        f"WHERE indrelid = 'taxi.{name}'::regclass",
    )


def test_a_mart_has_its_key_as_primary_key_where_none_of_it_can_be_null(warehouse: PostgresWarehouse) -> None:
    make(warehouse, MART)
    ((definition, is_primary, nulls_not_distinct),) = keys(warehouse, "od_flows")
    assert "od_flows_key" in definition
    assert definition.endswith("(data_month, service, pickup_borough, dropoff_borough)")
    assert (is_primary, nulls_not_distinct) == (True, False)


def test_a_key_that_can_be_null_is_unique_all_the_same(warehouse: PostgresWarehouse) -> None:
    make(warehouse, marts()["zone_day"])
    ((definition, is_primary, nulls_not_distinct),) = keys(warehouse, "zone_day")
    assert "(data_month, service, pickup_date, pickup_location_id)" in definition
    assert (is_primary, nulls_not_distinct) == (False, True)


def test_a_mart_that_is_not_unique_by_its_key_is_refused_by_name(warehouse: PostgresWarehouse) -> None:
    text = "/*\ndescription: By day.\nkey: [data_month, service]\nmeasures: [trips]\n*/\n"
    sql = "SELECT data_month, service, SUM(trips) AS trips FROM all_trips GROUP BY data_month, service, pickup_date"
    with pytest.raises(MartDefinitionError, match=r"by_day 2020-10 .* is not unique by data_month, service") as error:
        make(warehouse, read_mart("by_day", text + sql))
    assert "marts/sql/by_day.sql" in error.value.remedy
    assert run(warehouse.url, "SELECT count(*) FROM taxi.by_day") == [(0,)]


def test_a_key_that_old_months_do_not_have_is_refused(warehouse: PostgresWarehouse) -> None:
    mart = named("flows")
    make(warehouse, mart)
    rows = run(warehouse.url, "SELECT * FROM taxi.flows ORDER BY pickup_borough, dropoff_borough")
    with pytest.raises(WarehouseSchemaError, match="not unique by its new key, data_month, service"):
        make(warehouse, dataclasses.replace(mart, key=("data_month", "service")))
    assert run(warehouse.url, "SELECT * FROM taxi.flows ORDER BY pickup_borough, dropoff_borough") == rows
    assert len(keys(warehouse, "flows")) == 1


def test_a_view_that_somebody_depends_on_is_not_dropped(warehouse: PostgresWarehouse) -> None:
    mart = named("owned")
    make(warehouse, mart)
    run(warehouse.url, "CREATE VIEW report AS SELECT trips, share_of_pickups FROM taxi.owned_ratios")
    wider = mart.sql.replace("AS revenue_per_trip", "AS revenue_per_trip, CAST(tips AS DOUBLE) AS tips")
    make(warehouse, dataclasses.replace(mart, sql=wider))  # more columns at the end disturb nobody
    assert run(warehouse.url, "SELECT tips FROM taxi.owned_ratios LIMIT 1")
    other = mart.sql.replace("AS share_of_pickups", "AS share")
    with pytest.raises(WarehouseSchemaError, match=r"owned_ratios.*view report depends on") as error:
        make(warehouse, dataclasses.replace(mart, sql=other))
    assert "Drop the objects that depend on it" in error.value.remedy
    assert run(warehouse.url, "SELECT count(*) FROM report")[0][0] > 0


def test_what_is_as_it_should_be_is_not_made_again(warehouse: PostgresWarehouse) -> None:
    def versions() -> list[tuple[Any, ...]]:
        return run(
            warehouse.url,
            "SELECT c.oid, c.xmin::text, r.xmin::text FROM pg_class AS c LEFT JOIN pg_rewrite AS r ON ev_class = c.oid "
            "WHERE relname IN ('still', 'still_ratios', 'still_key') ORDER BY relname",
        )

    mart = named("still")
    make(warehouse, mart)
    before = versions()
    assert len(before) == 3
    make(warehouse, mart)
    assert versions() == before


def test_a_reader_does_not_hold_up_a_month_and_is_not_held_up(warehouse: PostgresWarehouse) -> None:
    mart = named("read")
    rows = make(warehouse, mart)
    with connect(warehouse.url) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM taxi.read_ratios")
        assert make(with_short_wait(warehouse), mart) == rows
        cursor.execute("SELECT count(*), count(DISTINCT xmin::text) FROM taxi.read")
        assert cursor.fetchone() == (rows, 1)


def test_a_reader_that_holds_up_new_columns_is_named(warehouse: PostgresWarehouse) -> None:
    mart = named("held")
    make(warehouse, mart)
    text = mart.sql.replace("AS share_of_pickups", "AS share")
    with connect(warehouse.url, application_name="slow_report") as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT count(*) FROM taxi.held_ratios")
        with pytest.raises(WarehouseBusyError, match="slow_report"):
            make(with_short_wait(warehouse, 0.5), dataclasses.replace(mart, sql=text))
    make(warehouse, dataclasses.replace(mart, sql=text))
    assert run(warehouse.url, "SELECT share FROM taxi.held_ratios LIMIT 1")
