"""The Postgres warehouse beyond the common contract: partitions, schemas, tables changed by users, exact values."""

from __future__ import annotations

import datetime as dt
import re
import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest

from taxi_assets.errors import (
    AssetValueError,
    ReconciliationError,
    WarehouseConfigurationError,
    WarehouseSchemaError,
)
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.storage.warehouse.postgres import PostgresWarehouse
from taxi_assets.tlc.cleaning.report import compute_totals
from taxi_assets.tlc.parquet_io import TripWriter
from taxi_assets.tlc.schema import ColumnType
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.stores.postgres import (
    connect,
    during_copy,
    lake,
    run,
    tables,
    warehouse,
    with_short_wait,
)
from taxi_assets_tests.contract.test_any_warehouse import NARROW, NEXT_MONTH, ZONES, holds_exactly, replace_month
from taxi_assets_tests.table_rows import store_rows
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from taxi_assets.storage.lake.local_lake import LocalLake


__all__ = ["lake", "warehouse"]

PASSWORD = "a-secret-of-this-test"  # noqa: S105  (of a role in a test database)


# --- tables and partitions --------------------------------------------------------------------------------------------


def test_a_month_is_a_partition_that_was_complete_before_it_was_attached(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    for _ in range(2):
        replace_month(warehouse, publish_generated_month(lake))
    replace_month(warehouse, publish_generated_month(lake, NEXT_MONTH), NEXT_MONTH)
    assert tables(warehouse) == {"green_trips", "green_trips_2020_10", "green_trips_2020_11", "loaded_months"}
    ((bound, rule, not_null),) = run(
        warehouse.url,
        "SELECT pg_get_expr(relpartbound, oid), (SELECT pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = c.oid AND contype = 'c'), (SELECT attnotnull FROM pg_attribute WHERE attrelid = c.oid "
        "AND attname = 'data_month') FROM pg_class AS c WHERE oid = 'taxi.green_trips_2020_10'::regclass",
    )
    assert bound == "FOR VALUES IN ('2020-10-01')"
    assert rule == "CHECK ((data_month = '2020-10-01'::date))"
    assert not_null
    # Their names show that they were created before the swap: ATTACH creates missing ones under the final name.
    indexes = run(warehouse.url, "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'green_trips_2020_10'")
    assert len(indexes) == 2
    assert all("_staged_" in name for name, _ in indexes)
    assert {re.sub(".* USING ", "", definition) for _, definition in indexes} == {
        "brin (pickup_datetime)",
        "btree (pickup_location_id)",
    }


def test_a_query_for_a_month_reads_the_table_of_that_month_alone(warehouse: PostgresWarehouse, lake: LocalLake) -> None:
    for month in (MONTH, NEXT_MONTH):
        replace_month(warehouse, publish_generated_month(lake, month), month)
    query = "SELECT sum(total_amount) FROM taxi.green_trips WHERE data_month = DATE '2020-11-01'"
    plan = str(run(warehouse.url, f"EXPLAIN {query}"))
    assert "green_trips_2020_11" in plan
    assert "green_trips_2020_10" not in plan


def test_tables_have_comments(warehouse: PostgresWarehouse, lake: LocalLake) -> None:
    replace_month(warehouse, publish_generated_month(lake))
    assert run(warehouse.url, "SELECT obj_description('taxi.green_trips'::regclass)") == [(GREEN.description,)]


@pytest.mark.parametrize("schema", ['my schema"x', "select", "Größe"])
def test_any_schema_name_works(postgres_url: str, lake: LocalLake, schema: str) -> None:
    trips = publish_generated_month(lake, rows=5)
    warehouse = PostgresWarehouse(url=postgres_url, schema_name=schema)
    for _ in range(2):
        replace_month(warehouse, trips)
        store_rows(warehouse, "taxi_zones", ZONES, descriptions={"zone": "A name."})
    assert holds_exactly(warehouse, trips)
    assert len(warehouse.read_frame("taxi_zones")) == len(ZONES)


def test_other_clients_find_a_table_by_its_unquoted_name(warehouse: PostgresWarehouse) -> None:
    store_rows(warehouse, "taxi_zones", ZONES)
    rows = run(warehouse.url, f"SELECT count(*) FROM {warehouse.unquoted_name('taxi_zones')}")
    assert rows == [(len(ZONES),)]


def test_the_unquoted_name_has_the_database_of_the_url_and_opens_no_connection() -> None:
    names = {
        url: PostgresWarehouse(url=url, schema_name="nyc").unquoted_name("taxi_zones")
        for url in (
            "postgresql://taxi@no-such-host:5432/trips?sslmode=require",
            "postgres://no-such-host/my%2Ddata",
            "postgresql:///any?host=/no-such-folder&dbname=trips",
        )
    }
    assert [*names.values()] == ["trips.nyc.taxi_zones", "my-data.nyc.taxi_zones", "trips.nyc.taxi_zones"]


def test_the_uri_contains_no_secret_and_is_a_valid_setting() -> None:
    address = "postgresql://me@db.example:5433/rides"
    assert PostgresWarehouse(url=address).uri() == f"{address}?schema=taxi"
    with_tls = PostgresWarehouse(url=f"{address}?sslmode=verify-full", schema_name="other")
    assert with_tls.uri() == f"{address}?sslmode=verify-full&schema=other"
    for url in (
        f"postgresql://me:{PASSWORD}@db.example:5433/rides",
        f"postgresql://me:{PASSWORD}@x@db.example:5433/rides",
        f"{address}?password={PASSWORD}",
        f"{address}?sslmode=require&password={PASSWORD}&sslpassword={PASSWORD}",
        f"{address}?PASS%57ord={PASSWORD}&oauth_client_secret={PASSWORD}&sslmode=require",
        f"{address}?scram_client_key={PASSWORD}",
    ):
        assert PASSWORD not in PostgresWarehouse(url=url).uri()


# --- tables that a user has changed -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "ALTER pickup_datetime SET NOT NULL",
        "ADD PRIMARY KEY (data_month, source_row)",
        "ADD COLUMN \"a note, {} of %s\" text DEFAULT 'x' NOT NULL",
        "ADD COLUMN distance_km numeric GENERATED ALWAYS AS (trip_distance * 1.609) STORED",
        "ADD CONSTRAINT some_passengers CHECK (passenger_count > 0)",
        'ALTER store_and_fwd_flag TYPE text COLLATE "C"',
    ],
)
def test_new_months_follow_a_users_changes_of_the_whole_table(
    warehouse: PostgresWarehouse, lake: LocalLake, change: str
) -> None:
    trips = publish_generated_month(lake)
    replace_month(warehouse, trips)
    run(warehouse.url, f"ALTER TABLE taxi.green_trips {change}")
    for month in (MONTH, NEXT_MONTH):
        new = publish_generated_month(lake, month, rows=30, seed=1)
        replace_month(warehouse, new, month)
        assert holds_exactly(warehouse, new, month)


def test_indexes_that_a_user_has_added_are_built_before_the_month_is_attached(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    replace_month(warehouse, publish_generated_month(lake))
    added = {
        "btree (dropoff_datetime, ((fare_amount + tip_amount))) WHERE (total_amount > (0)::numeric)",
        "btree (data_month, source_row)",
        "btree (data_month, source_row) INCLUDE (pickup_datetime)",
    }
    run(
        warehouse.url,
        'CREATE INDEX "of USING it" ON taxi.green_trips (dropoff_datetime, (fare_amount + tip_amount)) '
        "WHERE total_amount > 0",
        "ALTER TABLE taxi.green_trips ADD PRIMARY KEY (data_month, source_row)",
        "CREATE UNIQUE INDEX ON taxi.green_trips (data_month, source_row) INCLUDE (pickup_datetime)",
    )
    replace_month(warehouse, publish_generated_month(lake, NEXT_MONTH), NEXT_MONTH)
    indexes = run(warehouse.url, "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'green_trips_2020_11'")
    assert len(indexes) == 5
    assert all("_staged_" in name for name, _ in indexes)  # those that ATTACH creates have the final name
    assert added <= {re.sub(".* USING ", "", definition) for _, definition in indexes}


def test_a_row_that_violates_a_users_constraint_keeps_the_old_month_and_names_the_constraint(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    old = publish_generated_month(lake)
    replace_month(warehouse, old)
    run(warehouse.url, "ALTER TABLE taxi.green_trips ADD CONSTRAINT not_stored CHECK (store_and_fwd_flag = 'N')")
    with pytest.raises(WarehouseConfigurationError, match='"not_stored"') as error:
        replace_month(warehouse, publish_generated_month(lake, flag="Y", layer="newer"))
    assert "Drop that constraint" in error.value.remedy
    assert holds_exactly(warehouse, old)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE taxi.green_trips RENAME TO old_trips",
        "ALTER TABLE taxi.green_trips DETACH PARTITION taxi.green_trips_2020_10",
    ],
    ids=["parent table renamed", "month detached"],
)
def test_a_month_gets_another_name_if_a_foreign_table_has_its_name(
    warehouse: PostgresWarehouse, lake: LocalLake, change: str
) -> None:
    replace_month(warehouse, publish_generated_month(lake))
    run(warehouse.url, change)
    for rows in (30, 20):
        new = publish_generated_month(lake, rows=rows, seed=rows)
        replace_month(warehouse, new)
        assert holds_exactly(warehouse, new)
        assert {"green_trips_2020_10", "green_trips_2020_10_2"} <= tables(warehouse)
    assert "green_trips_2020_10_3" not in tables(warehouse)
    assert run(warehouse.url, "SELECT count(*) FROM taxi.green_trips_2020_10") == [(100,)]


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_time_with_an_offset_stays_the_same_instant(warehouse: PostgresWarehouse) -> None:
    times = pd.DatetimeIndex(["2020-01-01 01:02:03.000004+02:00", "2020-07-01 00:00:00+02:00"])
    store_rows(warehouse, "times", pd.DataFrame({"at": times}))
    assert run(warehouse.url, "SELECT \"at\" AT TIME ZONE 'UTC' FROM taxi.times ORDER BY 1 LIMIT 1") == [
        (dt.datetime(2019, 12, 31, 23, 2, 3, 4),)  # noqa: DTZ001  (as Postgres shows it)
    ]
    assert warehouse.read_frame("times")["at"].tolist() == times.tolist()


def test_a_categorical_column_is_stored_as_its_values(warehouse: PostgresWarehouse) -> None:
    store_rows(warehouse, "kinds", pd.DataFrame({"kind": pd.Categorical(["b", "a", "b"])}))
    assert warehouse.read_frame("kinds")["kind"].tolist() == ["b", "a", "b"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1], [2]], r"cannot store the columns odd \(list<.*int64>\)"),
        ([b"x", b"y"], r"cannot store the columns odd \(binary\)"),
        ([1, "x"], "cannot be stored: .* column odd"),
    ],
    ids=["lists", "bytes", "a mixture"],
)
def test_an_unsupported_column_is_named_and_the_old_frame_stays(
    warehouse: PostgresWarehouse, values: list[Any], message: str
) -> None:
    store_rows(warehouse, "taxi_zones", ZONES)
    with pytest.raises(AssetValueError, match=message):
        store_rows(warehouse, "taxi_zones", pd.DataFrame({"fine": [1, 2], "odd": values}))
    assert len(warehouse.read_frame("taxi_zones")) == len(ZONES)


def test_a_view_that_depends_on_changed_columns_of_a_frame_is_named(warehouse: PostgresWarehouse) -> None:
    store_rows(warehouse, "taxi_zones", ZONES)
    run(warehouse.url, "CREATE VIEW public.my_view AS SELECT * FROM taxi.taxi_zones")
    with pytest.raises(WarehouseSchemaError, match="view my_view depends on table") as error:
        store_rows(warehouse, "taxi_zones", ZONES[["zone"]])
    assert "Drop the objects that depend on it" in error.value.remedy
    store_rows(warehouse, "taxi_zones", ZONES)
    assert run(warehouse.url, "SELECT count(*) FROM my_view") == [(len(ZONES),)]


# --- values -----------------------------------------------------------------------------------------------------------


def published_rows(lake: LocalLake, rows: list[dict[str, Any]]) -> ParquetPartition:
    """Publish a month of these rows; columns that are not given are null."""
    model = publish_generated_month(lake, layer="model", rows=len(rows))
    same = {"data_month": MONTH.start, "is_reversal": False}
    full = [same | {"source_row": number} | row for number, row in enumerate(rows, 1)]
    batch = pa.RecordBatch.from_pylist(full, GREEN.arrow_schema)
    totals = compute_totals(batch, GREEN.money_columns)
    report = model.report.model_copy(update={"clean": totals})
    with lake.staging() as folder, TripWriter(folder / "rows.parquet", GREEN.arrow_schema) as writer:
        writer.write(batch)
        writer.finish(report.footer())
        lake.publish(
            folder / "rows.parquet", "clean/rows.parquet", replaces=lake.version("clean/rows.parquet"), run_id="a"
        )
    return ParquetPartition.get(lake, "clean/rows")


EXTREMES: dict[ColumnType, list[Any]] = {
    ColumnType.INTEGER: [None, 0, -1, 2**63 - 1, -(2**63)],
    ColumnType.MONEY: [None, *map(Decimal, ("0.00", "-0.01", "9999999999.99", "-9999999999.99", "10000.00", "0.10"))],
    ColumnType.MILES: [None, *map(Decimal, ("0.000", "-0.001", "999999999.999", "10000.010", "9999.999"))],
    ColumnType.DEGREES: [None, 0.0, -73.98765432109876, 1e-300, float("inf"), 0.1 + 0.2],
    ColumnType.TEXT: [None, "", " ", "NULL", "\\N", "\\.", 'a\tb\nc\r"d",', "Größe 🚕", "x" * 9000],
    ColumnType.DATETIME: [
        None,
        *map(dt.datetime.fromisoformat, ("1970-01-01", "1999-12-31 23:59:59.999999", "2262-01-01")),
    ],
    ColumnType.DATE: [None, *map(dt.date.fromisoformat, ("1970-01-01", "2000-01-01", "0001-01-01", "9999-12-31"))],
    ColumnType.BOOLEAN: [None, True, False],
}


FREE_COLUMNS = [column for column in GREEN.columns if column.name not in {"data_month", "source_row"}]


def test_every_value_is_read_back_unchanged(warehouse: PostgresWarehouse, lake: LocalLake) -> None:
    rows: list[dict[str, Any]] = [
        {
            column.name: EXTREMES[column.type][(number + turn) % len(EXTREMES[column.type])]
            for turn, column in enumerate(FREE_COLUMNS)
        }
        for number in range(3000)
    ]
    trips = published_rows(lake, rows)
    replace_month(warehouse, trips)
    assert holds_exactly(warehouse, trips)


@pytest.mark.parametrize("number", [0, 1], ids=["all null", "none null"])
def test_columns_of_only_nulls_and_columns_without_nulls_are_read_back(
    warehouse: PostgresWarehouse, lake: LocalLake, number: int
) -> None:
    row = {column.name: EXTREMES[column.type][number] for column in FREE_COLUMNS}
    trips = published_rows(lake, [row, row])
    replace_month(warehouse, trips)
    assert holds_exactly(warehouse, trips)


def test_a_column_with_a_nul_byte_is_named_and_the_old_month_stays(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    old = publish_generated_month(lake)
    replace_month(warehouse, old)
    with pytest.raises(ReconciliationError, match=r"such as NUL: .* 0x00 \(column store_and_fwd_flag\)"):
        replace_month(warehouse, published_rows(lake, [{"store_and_fwd_flag": "N"}, {"store_and_fwd_flag": "a\0b"}]))
    assert holds_exactly(warehouse, old)


def test_a_rejected_month_is_reported_even_if_another_session_reads_its_staging_table(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    old = publish_generated_month(lake)
    replace_month(warehouse, old)
    rejected = published_rows(lake, [{"store_and_fwd_flag": "N"}] * 3000 + [{"store_and_fwd_flag": "a\0b"}])
    with connect(warehouse.url) as dump, dump.cursor() as cursor:
        lock = "BEGIN; LOCK TABLE taxi.green_trips_2020_10_staged IN ACCESS SHARE MODE"
        waiting = threading.Thread(target=cursor.execute, args=[lock])

        def start_dump(_pid: int) -> None:
            waiting.start()
            query = f"SELECT 1 FROM pg_locks WHERE pid = {dump.info.backend_pid} AND NOT granted"
            ends = time.monotonic() + 30
            while not run(warehouse.url, query):
                assert time.monotonic() < ends

        with during_copy(start_dump), pytest.raises(ReconciliationError, match="column store_and_fwd_flag"):
            replace_month(with_short_wait(warehouse), rejected)
        waiting.join()
        assert holds_exactly(warehouse, old)
    replace_month(warehouse, old)
    assert tables(warehouse) == {"green_trips", "green_trips_2020_10", "loaded_months"}


def test_trips_with_another_schema_are_rejected_and_the_old_month_stays(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    old = publish_generated_month(lake)
    replace_month(warehouse, old)
    with pytest.raises(WarehouseSchemaError, match=r"another schema.*: congestion_surcharge, trip_type"):
        warehouse.replace_month(NARROW, MONTH, publish_generated_month(lake, layer="wide"), run_id="a run")
    assert holds_exactly(warehouse, old)


def test_display_settings_of_the_database_do_not_change_values(warehouse: PostgresWarehouse, lake: LocalLake) -> None:
    ((database,),) = run(warehouse.url, "SELECT current_database()")
    for setting in ("DateStyle = 'German, DMY'", "extra_float_digits = 0", "TimeZone = 'Asia/Tokyo'"):
        run(warehouse.url, f"ALTER DATABASE {database} SET {setting}")
    trips = published_rows(lake, [{"pickup_longitude": 0.1 + 0.2, "pickup_datetime": dt.datetime(2020, 10, 3, 4)}])  # noqa: DTZ001  (wall-clock time)
    replace_month(warehouse, trips)
    assert holds_exactly(warehouse, trips)
