"""The contract of every warehouse for marts: the same rows in every database, atomic replacement, schema changes."""

from __future__ import annotations

import dataclasses
import datetime as dt
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from taxi_assets.errors import (
    ConcurrentUpdateError,
    MartDefinitionError,
    WarehouseSchemaError,
    WarehouseTableMissingError,
)
from taxi_assets.marts.mart import marts, read_mart
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Column, ColumnType
from taxi_assets.tlc.services.fhv import FHV
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.services.yellow import YELLOW
from taxi_assets_tests.contract.mart_trips import ZONES, Trips, common, expected, publish_trips, trips_of
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.table_rows import store_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from taxi_assets.marts.mart import Mart
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse
    from taxi_assets.tlc.schema import Service
    from taxi_assets_tests.contract.stores import WarehouseBackend

MONTH, NEXT_MONTH = Month(2021, 1), Month(2021, 2)
TRIPS: dict[str, Trips] = {
    name: trips_of(service, MONTH, 300 + 100 * place) for place, (name, service) in enumerate(SERVICES.items())
}
FEWER = trips_of(GREEN, NEXT_MONTH, 150)
DTYPES = {
    ColumnType.INTEGER: "int64[pyarrow]",
    ColumnType.TEXT: "string[pyarrow]",
    ColumnType.DATE: "date32[day][pyarrow]",
    ColumnType.MONEY_SUM: "decimal128(38, 2)[pyarrow]",
    ColumnType.MILES_SUM: "decimal128(38, 3)[pyarrow]",
}
PLACES = {ColumnType.MONEY_SUM: 2, ColumnType.MILES_SUM: 3}


@pytest.fixture(scope="module")
def backend(shared_warehouse: WarehouseBackend) -> WarehouseBackend:
    """A warehouse with a month of all services and its marts; in the next month, green, and fhv without rows."""
    warehouse, lake = shared_warehouse.open(), shared_warehouse.open_lake()
    store_rows(warehouse, "taxi_zones", ZONES)
    for service in SERVICES.values():
        load(warehouse, lake, service, MONTH, TRIPS[service.name])
    load(warehouse, lake, GREEN, NEXT_MONTH, FEWER)
    load(warehouse, lake, FHV, NEXT_MONTH, [])
    for mart in marts().values():
        warehouse.replace_mart(mart, MONTH, mart.services, run_id="a run")
    return shared_warehouse


@cache
def all_trips() -> pd.DataFrame:
    """Return all trips of the month."""
    return common(TRIPS)


@pytest.fixture(scope="module")
def warehouse(backend: WarehouseBackend) -> Warehouse:
    return backend.open()


def load(warehouse: Warehouse, lake: Any, service: Service, month: Month, trips: Trips) -> None:
    warehouse.replace_month(service, month, publish_trips(lake, service, month, trips), run_id="a run")


def rows_of(warehouse: Warehouse, mart: Mart, month: Month | None = None) -> pd.DataFrame:
    """Return the mart's rows of one month, or of all, ordered by key."""
    columns = ", ".join(column.name for column in mart.columns)
    where = "" if month is None else f"WHERE data_month = CAST('{month.start}' AS DATE)"
    return warehouse.read_portable_frame(f"SELECT {columns} FROM {mart.name} {where} ORDER BY {', '.join(mart.key)}")


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as Python values, with money in cents and miles in thousandths, as `mart_trips.expected` has them."""

    def plain_value(name: str, value: Any) -> Any:
        if value is None or value is pd.NA:
            return None
        if not isinstance(value, Decimal):
            return value
        # BigQuery's client omits trailing zeros.
        units = value.scaleb(3 if name in {"miles", "longest"} else 2)
        assert units == int(units)
        return int(units)

    return [
        {str(name): plain_value(str(name), value) for name, value in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]


def by_key(rows: list[dict[str, Any]], mart: Mart) -> dict[tuple[Any, ...], dict[str, Any]]:
    found = {tuple(row[name] for name in mart.key): row for row in rows}
    assert len(found) == len(rows)  # the key is unique
    return found


# --- contents ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", marts())
def test_a_mart_equals_the_same_computation_in_pandas(warehouse: Warehouse, name: str) -> None:
    mart = marts()[name]
    wanted = expected(name, all_trips(), [column.name for column in mart.columns], mart.key)
    found = by_key(plain(rows_of(warehouse, mart)), mart)
    assert found == by_key(plain(wanted), mart)
    assert len(found) > 5


@pytest.mark.parametrize("name", marts())
def test_a_mart_is_read_with_the_same_types_from_every_database(warehouse: Warehouse, name: str) -> None:
    mart = marts()[name]
    kinds = {column.name: DTYPES[column.type] for column in mart.columns}
    for month in (MONTH, NEXT_MONTH):  # the mart has no rows of the latter
        frame = rows_of(warehouse, mart, month)
        assert {column: str(type_) for column, type_ in frame.dtypes.items()} == kinds
        assert bool(len(frame)) == (month == MONTH)
    frame = warehouse.read_native_frame(f"SELECT * FROM {warehouse.relation(name)}")
    assert {column: str(type_) for column, type_ in frame.dtypes.items()} == kinds
    for column in mart.columns:
        values = [value for value in frame[column.name] if value is not None and value is not pd.NA]
        if column.type in PLACES:
            assert {value.as_tuple().exponent for value in values} == {-PLACES[column.type]}
        if column.type is ColumnType.DATE:
            assert {type(value) for value in values} == {dt.date}


def test_all_marts_have_the_same_totals(warehouse: Warehouse) -> None:
    wanted = [{"trips": int(all_trips()["trips"].sum()), "revenue": int(all_trips()["revenue"].sum())}]
    for name in ("zone_day", "od_flows", "market_share", "hour_of_week"):
        frame = warehouse.read_portable_frame(f"SELECT SUM(trips) AS trips, SUM(revenue) AS revenue FROM {name}")
        assert plain(frame) == wanted


def test_a_service_without_money_has_null_money_and_its_trips_are_counted(warehouse: Warehouse) -> None:
    frame = warehouse.read_portable_frame(
        "SELECT trips, seconds, fare, tips, revenue, miles FROM od_flows WHERE service = 'fhv'"
    )
    assert frame["trips"].sum() == len(TRIPS["fhv"])
    assert frame[["fare", "tips", "revenue", "miles"]].isna().all(axis=None)
    assert frame["seconds"].notna().all()


def test_trips_outside_known_zones_have_a_borough_and_a_zone(warehouse: Warehouse) -> None:
    frame = warehouse.read_portable_frame(
        "SELECT pickup_location_id, pickup_borough, pickup_zone, SUM(trips) AS trips FROM zone_day "
        "WHERE pickup_location_id > 263 GROUP BY pickup_location_id, pickup_borough, pickup_zone "
        "ORDER BY pickup_location_id"
    )
    places = [trip.get("pickup_location_id") for rows in TRIPS.values() for trip in rows if not trip.get("is_reversal")]
    assert plain(frame) == [
        {
            "pickup_location_id": 264,
            "pickup_borough": "Unknown",
            "pickup_zone": "Unknown",
            "trips": places.count(264) + places.count(None),
        },
        {
            "pickup_location_id": 265,
            "pickup_borough": "Outside of NYC",
            "pickup_zone": "Outside of NYC",
            "trips": places.count(265),
        },
        {"pickup_location_id": 999, "pickup_borough": "Unknown", "pickup_zone": "Unknown", "trips": places.count(999)},
    ]


def test_ratios_in_views_are_null_if_the_divisor_is_zero(warehouse: Warehouse) -> None:
    view = warehouse.read_portable_frame(
        "SELECT * FROM zone_day_ratios ORDER BY data_month, service, pickup_date, pickup_location_id"
    )
    mart = rows_of(warehouse, marts()["zone_day"])
    assert (view["trips"] == mart["trips"]).all()
    wanted = [
        float(r) / t if t and not pd.isna(r) else None for r, t in zip(mart["revenue"], mart["trips"], strict=True)
    ]
    found = [None if pd.isna(value) else value for value in view["revenue_per_trip"]]
    assert found == pytest.approx(wanted, nan_ok=True)
    assert str(view["revenue_per_trip"].dtype) == "double[pyarrow]"
    assert 0 in mart["trips"].tolist()  # a group of reversals only


@pytest.mark.parametrize(
    ("view", "share", "keys"),
    [
        ("market_share_ratios", "share_of_trips", ["pickup_date", "pickup_borough"]),
        ("od_flows_ratios", "share_of_pickups", ["service", "pickup_borough"]),
        ("payment_mix_ratios", "share_of_trips", ["service"]),
    ],
)
def test_shares_add_up_to_one(warehouse: Warehouse, view: str, share: str, keys: list[str]) -> None:
    sums = warehouse.read_portable_frame(f"SELECT * FROM {view}").groupby(keys)[[share, "trips"]].sum()
    assert sums.loc[sums["trips"] > 0, share].tolist() == pytest.approx([1.0] * int((sums["trips"] > 0).sum()))


def test_trips_per_hour_are_divided_by_the_number_of_days_with_that_weekday(warehouse: Warehouse) -> None:
    frame = warehouse.read_portable_frame(
        "SELECT trips, trips_within_month AS within, days, trips_per_hour FROM hour_of_week_ratios "
        "WHERE service = 'yellow'"
    )
    assert set(frame["days"]) <= {4, 5}  # January 2021 has four or five days of each weekday
    assert frame["trips_per_hour"].tolist() == pytest.approx((frame["within"] / frame["days"]).tolist())
    assert frame["within"].sum() < frame["trips"].sum()  # the file also has trips of adjacent months


# --- queries ----------------------------------------------------------------------------------------------------------


def test_a_query_on_all_trips_has_the_same_result_in_every_database(warehouse: Warehouse) -> None:
    frame = warehouse.read_portable_frame(
        "SELECT service, COUNT(*) AS n, SUM(trips) AS trips, SUM(revenue) AS revenue, MAX(miles) AS longest, "
        "MIN(pickup_date) AS first_day, CAST(SUM(tips) AS DOUBLE) / NULLIF(SUM(fare), 0) AS tips_per_fare "
        "FROM all_trips WHERE EXTRACT(MONTH FROM pickup_date) IN (1, 2) GROUP BY service ORDER BY service",
        services=[GREEN, FHV],
        months=[MONTH, NEXT_MONTH],
    )
    assert [str(type_) for type_ in frame.dtypes] == [
        "string[pyarrow]",
        "int64[pyarrow]",
        "int64[pyarrow]",
        "decimal128(38, 2)[pyarrow]",
        "decimal128(38, 3)[pyarrow]",
        "date32[day][pyarrow]",
        "double[pyarrow]",
    ]
    rows = common({"green": TRIPS["green"] + FEWER, "fhv": TRIPS["fhv"]})
    rows = rows[[day.month in {1, 2} for day in rows["pickup_date"]]]
    for found, (service, expected_rows) in zip(plain(frame), rows.groupby("service"), strict=True):
        assert found["service"] == service
        assert (found["n"], found["trips"]) == (len(expected_rows), int(expected_rows["trips"].sum()))
        assert found["first_day"] == min(expected_rows["pickup_date"])
        if service == "fhv":
            assert pd.isna(found["revenue"])
            assert pd.isna(found["longest"])
            assert pd.isna(found["tips_per_fare"])
        else:
            assert (found["revenue"], found["longest"]) == (
                int(expected_rows["revenue"].sum()),
                int(expected_rows["miles"].max()),
            )
            assert found["tips_per_fare"] == pytest.approx(expected_rows["tips"].sum() / expected_rows["fare"].sum())


def test_sql_that_databases_spell_differently_has_the_same_result(warehouse: Warehouse) -> None:
    frame = warehouse.read_portable_frame(
        "WITH fares AS (SELECT fare FROM all_trips WHERE fare > 0) "
        "SELECT COUNT(*) AS n, SUM(CASE WHEN fare < 10 THEN 1 ELSE 0 END) AS cheap, CAST(7 AS DOUBLE) / 2 AS half, "
        "-MAX(fare) AS dearest, COUNT(DISTINCT fare) > 3 AS varied, NULLIF(COUNT(*), 0) AS same FROM fares "
        "UNION ALL SELECT 0 AS n, NULL AS cheap, NULL AS half, NULL AS dearest, FALSE AS varied, NULL AS same "
        "FROM taxi_zones WHERE location_id = 1 ORDER BY n DESC",
        services=[GREEN],
        months=[MONTH],
    )
    fares = [trip["fare_amount"] for trip in TRIPS["green"] if trip["fare_amount"] > 0]
    assert [str(type_) for type_ in frame.dtypes] == [
        "int64[pyarrow]",
        "int64[pyarrow]",
        "double[pyarrow]",
        "decimal128(38, 2)[pyarrow]",
        "bool[pyarrow]",
        "int64[pyarrow]",
    ]
    first, second = plain(frame)
    assert first == {
        "n": len(fares),
        "cheap": sum(fare < 10 for fare in fares),
        "half": 3.5,
        "dearest": -int(max(fares).scaleb(2)),
        "varied": True,
        "same": len(fares),
    }
    assert (second["n"], second["cheap"], second["dearest"], second["varied"]) == (0, None, None, False)


def test_sql_that_is_not_portable_is_rejected_before_it_runs(warehouse: Warehouse) -> None:
    with pytest.raises(MartDefinitionError, match="MEDIAN"):
        warehouse.read_portable_frame("SELECT MEDIAN(trips) AS m FROM zone_day")
    with pytest.raises(MartDefinitionError, match="no services and months are given"):
        warehouse.read_portable_frame("SELECT COUNT(*) AS n FROM all_trips", services=[GREEN])


def test_the_error_for_a_missing_table_or_column_names_it(warehouse: Warehouse) -> None:
    with pytest.raises(WarehouseTableMissingError) as error:
        warehouse.read_portable_frame("SELECT COUNT(*) AS n FROM boroughs")
    assert warehouse.table_name("boroughs") in error.value.problem
    assert "Materialize" in error.value.remedy
    assert "boroughs" in error.value.remedy
    with pytest.raises(WarehouseSchemaError, match="boroughs"):
        warehouse.read_portable_frame("SELECT boroughs FROM taxi_zones")


def test_a_query_does_not_create_a_warehouse_that_does_not_exist(
    warehouse_backend: WarehouseBackend,
) -> None:
    for _ in range(2):
        with pytest.raises(WarehouseTableMissingError):
            warehouse_backend.open().read_portable_frame("SELECT * FROM zone_day")


# --- replacing a month ------------------------------------------------------------------------------------------------

_SQL = """/*
description: {description}
key: [data_month, service]
measures: [{measures}]
*/
SELECT data_month, service, {sums} FROM all_trips GROUP BY data_month, service;
CREATE VIEW {name}_ratios AS SELECT data_month, service, trips, CAST(revenue AS DOUBLE) / NULLIF(trips, 0) AS {ratio}
FROM {name}
"""


def small(name: str, *measures: str, ratio: str = "mean", description: str = "It's small.") -> Mart:
    """Return a mart with one row for each service and month."""
    wanted = measures or ("trips", "revenue")
    sums = ", ".join(f"SUM({measure}) AS {measure}" for measure in wanted)
    text = _SQL.format(name=name, measures=", ".join(wanted), sums=sums, ratio=ratio, description=description)
    return read_mart(name, text)


def replace_mart(warehouse: Warehouse, mart: Mart, month: Month, *services: Service) -> int:
    return warehouse.replace_mart(mart, month, services, run_id="a run")


def trips_in(warehouse: Warehouse, mart: Mart) -> dict[tuple[str, str], int]:
    rows = rows_of(warehouse, mart)
    return {(str(row["data_month"])[:7], row["service"]): int(row["trips"]) for row in rows.to_dict("records")}


def count_of(trips: Trips) -> int:
    return sum(not trip.get("is_reversal") for trip in trips)


def test_a_month_is_replaced_and_other_months_stay(warehouse: Warehouse) -> None:
    mart = small("mart_replaced")
    assert replace_mart(warehouse, mart, NEXT_MONTH, GREEN, FHV) == 1  # fhv has no trips in this month
    assert replace_mart(warehouse, mart, MONTH, YELLOW, GREEN) == 2
    both = {("2021-01", name): count_of(TRIPS[name]) for name in ("yellow", "green")}
    other = {("2021-02", "green"): count_of(FEWER)}
    assert trips_in(warehouse, mart) == both | other
    assert replace_mart(warehouse, mart, MONTH, YELLOW, GREEN) == 2
    assert trips_in(warehouse, mart) == both | other
    assert replace_mart(warehouse, mart, MONTH, GREEN) == 1
    assert trips_in(warehouse, mart) == {("2021-01", "green"): count_of(TRIPS["green"])} | other
    assert replace_mart(warehouse, mart, NEXT_MONTH, FHV) == 0
    assert trips_in(warehouse, mart) == {("2021-01", "green"): count_of(TRIPS["green"])}


def test_a_failed_replacement_leaves_the_old_month(backend: WarehouseBackend) -> None:
    warehouse, mart = backend.open(), small("mart_failing")
    replace_mart(warehouse, mart, MONTH, GREEN)
    old = trips_in(warehouse, mart)
    lost = dataclasses.replace(GREEN, name="lost")
    with pytest.raises(WarehouseTableMissingError) as error:
        replace_mart(warehouse, mart, MONTH, GREEN, lost)
    assert warehouse.table_name("lost_trips") in error.value.problem
    assert "lost_trips" in error.value.remedy
    assert trips_in(warehouse, mart) == old
    with pytest.MonkeyPatch.context() as monkeypatch:
        backend.break_mart(monkeypatch)
        with pytest.raises(backend.load_error):
            replace_mart(backend.open(), mart, MONTH, GREEN, YELLOW)
    assert trips_in(warehouse, mart) == old
    assert replace_mart(warehouse, mart, MONTH, GREEN, YELLOW) == 2


def fail() -> None:
    raise ConcurrentUpdateError("Another run has changed the inputs.", remedy="Try again.")


def test_a_run_whose_inputs_have_changed_leaves_the_old_month(warehouse: Warehouse) -> None:
    mart = small("mart_conflict")
    replace_mart(warehouse, mart, MONTH, GREEN, YELLOW)
    old = trips_in(warehouse, mart)
    with pytest.raises(ConcurrentUpdateError):
        warehouse.replace_mart(mart, MONTH, [GREEN], run_id="a run", require_inputs_unchanged=fail)
    assert trips_in(warehouse, mart) == old
    calls: list[str] = []
    warehouse.replace_mart(mart, MONTH, [GREEN], run_id="a run", require_inputs_unchanged=lambda: calls.append("call"))
    assert calls
    assert len(trips_in(warehouse, mart)) == 1


def test_a_failed_first_month_leaves_no_rows(warehouse: Warehouse) -> None:
    mart = small("mart_first")
    with pytest.raises(WarehouseTableMissingError):
        replace_mart(warehouse, mart, MONTH, dataclasses.replace(GREEN, name="lost"))
    assert replace_mart(warehouse, mart, MONTH, GREEN) == 1
    assert len(trips_in(warehouse, mart)) == 1


# --- changes of a mart ------------------------------------------------------------------------------------------------


def test_column_comments_are_the_descriptions_of_the_mart(backend: WarehouseBackend) -> None:
    warehouse, mart = backend.open(), small("mart_described")
    replace_mart(warehouse, mart, MONTH, GREEN)
    assert dict(backend.columns(mart.name)) == {column.name: column.description_with_unit for column in mart.columns}
    columns = tuple(dataclasses.replace(c, description='the driver\'s, "said" so.') for c in mart.columns)
    replace_mart(warehouse, dataclasses.replace(mart, columns=columns), MONTH, GREEN)
    assert dict(backend.columns(mart.name)) == {column.name: column.description_with_unit for column in columns}


def test_a_column_added_to_a_mart_is_null_in_months_computed_before(backend: WarehouseBackend) -> None:
    warehouse, old = backend.open(), small("mart_wide")
    new = small("mart_wide", "miles", "trips", "tips", "revenue")
    for month in (MONTH, NEXT_MONTH):
        replace_mart(warehouse, old, month, GREEN)
    replace_mart(warehouse, new, MONTH, GREEN)
    first, second = plain(rows_of(warehouse, new))
    miles = common({"green": TRIPS["green"]})["miles"].sum()
    assert (first["miles"], first["trips"]) == (int(miles), count_of(TRIPS["green"]))
    assert (second["miles"], second["tips"], second["trips"]) == (None, None, count_of(FEWER))
    assert backend.columns(old.name)["miles"] == "Distance of the trips. [miles]"
    replace_mart(warehouse, old, MONTH, GREEN)  # a removed column is null in months computed since
    assert [row["miles"] for row in plain(rows_of(warehouse, new))] == [None, None]


def test_the_error_for_a_changed_column_type_names_the_column_and_the_old_months_stay(
    backend: WarehouseBackend,
) -> None:
    warehouse, mart = backend.open(), small("mart_typed")
    replace_mart(warehouse, mart, MONTH, GREEN)
    old = trips_in(warehouse, mart)
    columns = tuple(dataclasses.replace(c, type=ColumnType.TEXT) if c.name == "trips" else c for c in mart.columns)
    with pytest.raises(WarehouseSchemaError) as error:
        replace_mart(warehouse, dataclasses.replace(mart, columns=columns), MONTH, GREEN)
    for part in (warehouse.table_name(mart.name), "trips", *backend.types):
        assert part in error.value.problem
    assert trips_in(warehouse, mart) == old


def test_a_changed_view_is_recreated(warehouse: Warehouse) -> None:
    query = "SELECT * FROM mart_viewed_ratios"
    mart = small("mart_viewed")
    for ratio in ("mean", "average", "average"):
        replace_mart(warehouse, small("mart_viewed", ratio=ratio), MONTH, GREEN)
        assert list(warehouse.read_portable_frame(query)) == ["data_month", "service", "trips", ratio]
    swapped = mart.sql.replace("CAST(revenue AS DOUBLE) / NULLIF(trips, 0) AS mean", "revenue")
    replace_mart(warehouse, dataclasses.replace(mart, sql=swapped), MONTH, GREEN)
    assert list(warehouse.read_portable_frame(query)) == ["data_month", "service", "trips", "revenue"]


def test_a_column_added_to_the_key_applies_to_old_months(warehouse: Warehouse) -> None:
    old = small("mart_keyed")
    replace_mart(warehouse, old, MONTH, GREEN)
    extended = dataclasses.replace(
        old,
        columns=(*old.columns[:2], Column("pickup_hour", ColumnType.INTEGER, "The hour."), *old.columns[2:]),
        key=(*old.key, "pickup_hour"),
        sql=old.sql.replace("service, SUM", "service, pickup_hour, SUM").replace(
            "GROUP BY data_month, service", "GROUP BY data_month, service, pickup_hour"
        ),
    )
    if message := _clustering_error(warehouse):
        with pytest.raises(WarehouseSchemaError, match=message):
            replace_mart(warehouse, extended, NEXT_MONTH, GREEN)
        return
    assert replace_mart(warehouse, extended, NEXT_MONTH, GREEN) > 1
    assert count_of(FEWER) + count_of(TRIPS["green"]) == rows_of(warehouse, extended)["trips"].sum()


def _clustering_error(warehouse: Warehouse) -> str:
    """Return the error of a database that cannot change the key of a table; empty if it can."""
    return "clustered by" if warehouse.dialect == "bigquery" else ""


# --- concurrent runs --------------------------------------------------------------------------------------------------


def replace_when_told(open_warehouse: Callable[[], Warehouse], name: str, month: Month, pipe: Connection) -> None:
    warehouse, mart = open_warehouse(), small(name)
    pipe.send("ready")
    pipe.recv()
    replace_mart(warehouse, mart, month, GREEN)


@pytest.mark.parametrize("exists", [False, True], ids=["new table", "existing months"])
def test_two_processes_that_replace_two_months_concurrently_both_succeed(
    backend: WarehouseBackend, exists: bool
) -> None:
    mart = small(f"mart_twice_{exists}".lower())
    if exists:
        for month in (MONTH, NEXT_MONTH):
            replace_mart(backend.open(), mart, month, GREEN)
    with (
        child_process(replace_when_told, backend.open, mart.name, MONTH) as one,
        child_process(replace_when_told, backend.open, mart.name, NEXT_MONTH) as other,
    ):
        assert [one.receive(), other.receive()] == ["ready", "ready"]
        one.send()
        other.send()
        assert [one.wait_for_exit(), other.wait_for_exit()] == [0, 0]
    counts = {("2021-01", "green"): count_of(TRIPS["green"]), ("2021-02", "green"): count_of(FEWER)}
    assert trips_in(backend.open(), mart) == counts
