"""The contract of every warehouse for trips and unpartitioned tables: atomic replacement, exact values and schemas."""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from taxi_assets.errors import (
    ConcurrentUpdateError,
    LakeConflictError,
    LakeObjectMissingError,
    ReconciliationError,
    WarehouseSchemaError,
    WarehouseTableMissingError,
)
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.storage.warehouse.base_warehouse import LoadedMonth, Warehouse
from taxi_assets.tlc.cleaning.report import NO_ROWS
from taxi_assets.tlc.parquet_io import TripWriter
from taxi_assets.tlc.schema import ColumnType
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.table_rows import store_rows
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.tlc.month import Month
    from taxi_assets_tests.contract.stores import WarehouseBackend

NEXT_MONTH = MONTH.shift(1)
DTYPES = {
    ColumnType.INTEGER: "int64[pyarrow]",
    ColumnType.TEXT: "string[pyarrow]",
    ColumnType.BOOLEAN: "bool[pyarrow]",
    ColumnType.DATETIME: "timestamp[us][pyarrow]",
    ColumnType.DEGREES: "double[pyarrow]",
    ColumnType.MONEY: "decimal128(12, 2)[pyarrow]",
    ColumnType.MILES: "decimal128(12, 3)[pyarrow]",
    ColumnType.DATE: "date32[day][pyarrow]",
}
UTF8 = "Größe 🚕 \"x\" 'y' \\ NA"


@pytest.fixture
def warehouse(warehouse_backend: WarehouseBackend) -> Warehouse:
    return warehouse_backend.open()


@pytest.fixture
def lake(warehouse_backend: WarehouseBackend) -> Lake:
    return warehouse_backend.open_lake()


def replace_month(warehouse: Warehouse, trips: ParquetPartition, month: Month = MONTH) -> None:
    warehouse.replace_month(GREEN, month, trips, run_id=new_run_id())


def new_run_id() -> str:
    return uuid.uuid4().hex


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as dictionaries of Python values."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [
        {str(name): v.to_pydatetime() if isinstance(v, pd.Timestamp) else v for name, v in row.items()}
        for row in plain.to_dict("records")
    ]


def rows_of(trips: ParquetPartition) -> list[dict[str, Any]]:
    """Return the rows of a month in the lake, read with pyarrow only."""
    with trips.as_local_file() as path:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def holds_exactly(warehouse: Warehouse, trips: ParquetPartition, month: Month = MONTH) -> bool:
    """Return whether rows, totals and ledger of the month are exactly those of the trips."""
    return (
        records(warehouse.read_month(GREEN, month)) == rows_of(trips)
        and warehouse.totals(GREEN, month) == trips.report.clean
        and warehouse.loaded_month(GREEN, month) == LoadedMonth(trips.report.data_version, trips.report.clean)
    )


# --- replacing a month ------------------------------------------------------------------------------------------------


def test_a_loaded_month_is_read_back_row_for_row_also_by_another_client_and_after_a_second_load(
    warehouse_backend: WarehouseBackend, lake: Lake
) -> None:
    trips = publish_generated_month(lake, rows=300, dirty=7)
    assert trips.rows == 300
    warehouse = warehouse_backend.open()
    replace_month(warehouse, trips)
    assert holds_exactly(warehouse, trips)
    replace_month(warehouse, trips)
    assert holds_exactly(warehouse, trips)
    assert holds_exactly(warehouse_backend.open(), trips)


def test_a_month_can_shrink_or_become_empty_and_other_months_stay(warehouse: Warehouse, lake: Lake) -> None:
    other_months = {
        month: publish_generated_month(lake, month, rows=40, seed=month.number)
        for month in (MONTH.shift(-1), NEXT_MONTH)
    }
    for month, trips in other_months.items():
        replace_month(warehouse, trips, month)
    for rows in (100, 30, 0):
        new = publish_generated_month(lake, rows=rows, seed=rows)
        replace_month(warehouse, new)
        assert len(warehouse.read_month(GREEN, MONTH)) == rows
        assert holds_exactly(warehouse, new)
    assert all(holds_exactly(warehouse, trips, month) for month, trips in other_months.items())


def test_an_empty_month_keeps_its_columns_and_types(warehouse: Warehouse, lake: Lake) -> None:
    replace_month(warehouse, publish_generated_month(lake, rows=0))
    frame = warehouse.read_month(GREEN, MONTH)
    assert {name: str(type_) for name, type_ in frame.dtypes.items()} == {c.name: DTYPES[c.type] for c in GREEN.columns}
    assert warehouse.totals(GREEN, MONTH) == NO_ROWS


# --- values -----------------------------------------------------------------------------------------------------------


def test_values_are_read_back_equal_and_with_the_types_of_the_schema(warehouse: Warehouse, lake: Lake) -> None:
    free_text = [dataclasses.replace(c, codes={}) for c in GREEN.columns]
    trips = publish_generated_month(lake, rows=60, flag=UTF8, service=dataclasses.replace(GREEN, columns=free_text))
    replace_month(warehouse, trips)
    frame = warehouse.read_month(GREEN, MONTH)
    assert {name: str(type_) for name, type_ in frame.dtypes.items()} == {c.name: DTYPES[c.type] for c in GREEN.columns}
    assert records(frame) == rows_of(trips)
    third, fifth = records(frame)[2], records(frame)[4]  # the third row has nulls, the fifth is a reversal
    assert third["passenger_count"] is third["trip_type"] is third["congestion_surcharge"] is None
    assert third["store_and_fwd_flag"] == UTF8
    assert third["pickup_datetime"] == dt.datetime(2020, 10, 1, 0, 26)  # noqa: DTZ001  (wall-clock time)
    assert third["data_month"] == dt.date(2020, 10, 1)
    assert str(third["trip_distance"]) == "2.123"
    assert str(fifth["total_amount"]) == "-395.95"
    assert str(fifth["extra"]) == "0.50"
    assert fifth["is_reversal"] is True


def test_rows_are_read_in_the_order_of_the_published_file_whatever_their_order_in_the_lake(
    warehouse: Warehouse, lake: Lake
) -> None:
    trips = publish_generated_month(lake, rows=50)
    with lake.staging() as folder, TripWriter(folder / "backwards.parquet", GREEN.arrow_schema) as writer:
        backwards = pa.Table.from_pylist(rows_of(trips)[::-1], GREEN.arrow_schema)
        writer.write(backwards.to_batches()[0])
        writer.finish(trips.report.footer())
        lake.publish(folder / "backwards.parquet", trips.key, replaces=trips.version, run_id="a run")
    replace_month(warehouse, ParquetPartition.get(lake, trips.key.removesuffix(".parquet")))
    assert warehouse.read_month(GREEN, MONTH)["source_row"].tolist() == list(range(1, 51))


def test_columns_keep_the_case_of_their_names_and_have_the_latest_descriptions_with_units(
    warehouse_backend: WarehouseBackend, lake: Lake
) -> None:
    warehouse, trips = warehouse_backend.open(), publish_generated_month(lake)
    replace_month(warehouse, trips)
    assert dict(warehouse_backend.columns(GREEN.table)) == {c.name: c.description_with_unit for c in GREEN.columns}
    columns = [
        dataclasses.replace(c, description='the driver\'s, "said" so.') if c.name == "vendor_id" else c
        for c in GREEN.columns
    ]
    warehouse.replace_month(dataclasses.replace(GREEN, columns=columns), MONTH, trips, run_id=new_run_id())
    assert warehouse_backend.columns(GREEN.table)["vendor_id"] == 'the driver\'s, "said" so.'


# --- failures leave the old month, or nothing -------------------------------------------------------------------------


def with_wrong_report(trips: ParquetPartition, **totals_changes: int) -> ParquetPartition:
    """Return the same trips with wrong totals in their report."""
    totals = trips.report.clean.model_copy(update=totals_changes)
    report = trips.report.model_copy(update={"clean": totals, "data_version": "wrong"})
    return dataclasses.replace(trips, report=report)


def test_a_month_with_wrong_totals_never_becomes_visible(warehouse: Warehouse, lake: Lake) -> None:
    old = publish_generated_month(lake, rows=100)
    other_trips = publish_generated_month(lake, NEXT_MONTH, rows=50)
    replace_month(warehouse, old)
    replace_month(warehouse, other_trips, NEXT_MONTH)
    new = publish_generated_month(lake, rows=90, seed=1, layer="newer")
    actual = new.report.clean
    for change in ({"rows": actual.rows - 1}, {"cents": actual.cents + 1}, {"source_rows": actual.source_rows + 1}):
        wrong = with_wrong_report(new, **change)
        with pytest.raises(ReconciliationError) as error:
            replace_month(warehouse, wrong)
        table = warehouse.table_name("green_trips")
        assert str(error.value).startswith(f"green {MONTH}: loading {new.uri} into {table} produced {actual}")
        assert str(wrong.report.clean) in error.value.problem
        assert "Materialize" in error.value.remedy
        assert holds_exactly(warehouse, old)
    assert holds_exactly(warehouse, other_trips, NEXT_MONTH)
    replace_month(warehouse, new)
    assert holds_exactly(warehouse, new)


def test_a_first_month_with_wrong_totals_leaves_nothing(warehouse: Warehouse, lake: Lake) -> None:
    with pytest.raises(ReconciliationError):
        replace_month(warehouse, with_wrong_report(publish_generated_month(lake), rows=1))
    assert warehouse.loaded_month(GREEN, MONTH) is None
    assert warehouse.totals(GREEN, MONTH) == NO_ROWS


def test_trips_of_another_month_are_rejected_and_that_month_stays(warehouse: Warehouse, lake: Lake) -> None:
    trips = publish_generated_month(lake)
    replace_month(warehouse, trips)
    with pytest.raises(ReconciliationError):
        replace_month(warehouse, trips, NEXT_MONTH)
    assert holds_exactly(warehouse, trips)
    assert warehouse.loaded_month(GREEN, NEXT_MONTH) is None


def test_the_error_for_a_deleted_lake_object_names_it_and_the_old_month_stays(warehouse: Warehouse, lake: Lake) -> None:
    old = publish_generated_month(lake)
    replace_month(warehouse, old)
    new = publish_generated_month(lake, rows=5, layer="newer")
    lake.delete(new.key)
    with pytest.raises(LakeObjectMissingError, match="newer/green_trips/2020-10"):
        replace_month(warehouse, new)
    assert holds_exactly(warehouse, old)


def test_a_failed_commit_leaves_the_old_month_and_its_ledger_entry(
    warehouse_backend: WarehouseBackend, lake: Lake
) -> None:
    old, new = publish_generated_month(lake), publish_generated_month(lake, rows=90, seed=1, layer="newer")
    replace_month(warehouse_backend.open(), old)
    with pytest.MonkeyPatch.context() as monkeypatch:
        warehouse_backend.break_commit(monkeypatch)
        with pytest.raises(warehouse_backend.load_error):
            replace_month(warehouse_backend.open(), new)
    assert holds_exactly(warehouse_backend.open(), old)
    replace_month(warehouse_backend.open(), new)
    assert holds_exactly(warehouse_backend.open(), new)


def test_an_older_load_does_not_overwrite_a_newer_one(warehouse: Warehouse, lake: Lake) -> None:
    for newer, older in ((30, 50), (30, 0), (0, 50)):
        earlier = publish_generated_month(lake, rows=older, seed=older)
        latest = publish_generated_month(lake, rows=newer, seed=newer + 1)
        replace_month(warehouse, latest)
        with pytest.raises(LakeConflictError, match=r"green_trips/2020-10"):
            replace_month(warehouse, earlier)
        assert holds_exactly(warehouse, latest)


# --- concurrent loads -------------------------------------------------------------------------------------------------


def load(
    open_warehouse: Callable[[], Warehouse], open_lake: Callable[[], Lake], month: Month, pipe: Connection
) -> None:
    trips = ParquetPartition.get(open_lake(), f"clean/green_trips/{month}")
    pipe.send("ready")
    pipe.recv()
    replace_month(open_warehouse(), trips, month)


@pytest.mark.parametrize("second", [MONTH, NEXT_MONTH], ids=["the same month", "two months"])
def test_two_processes_that_create_the_warehouse_and_load_it_concurrently_both_succeed(
    warehouse_backend: WarehouseBackend, lake: Lake, second: Month
) -> None:
    trips = {month: publish_generated_month(lake, month, rows=500) for month in (MONTH, second)}
    with (
        child_process(load, warehouse_backend.open, warehouse_backend.open_lake, MONTH) as one,
        child_process(load, warehouse_backend.open, warehouse_backend.open_lake, second) as other,
    ):
        assert [one.receive(), other.receive()] == ["ready", "ready"]
        one.send()
        other.send()
        assert [one.wait_for_exit(), other.wait_for_exit()] == [0, 0]
    assert all(holds_exactly(warehouse_backend.open(), trips[month], month) for month in trips)


def test_threads_that_load_and_read_concurrently_all_succeed(warehouse_backend: WarehouseBackend, lake: Lake) -> None:
    months = [MONTH, NEXT_MONTH]
    trips = {month: publish_generated_month(lake, month, rows=50) for month in months}
    failures: list[BaseException] = []

    def work(month: Month) -> None:
        try:
            warehouse = warehouse_backend.open()
            replace_month(warehouse, trips[month], month)
            assert holds_exactly(warehouse, trips[month], month)
            replace_month(warehouse, trips[month], month)
        except BaseException as error:  # noqa: BLE001  (every error must reach the test)
            failures.append(error)

    workers = [threading.Thread(target=work, args=(month,)) for month in months]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    assert all(holds_exactly(warehouse_backend.open(), trips[month], month) for month in months)


def read_repeatedly(open_warehouse: Callable[[], Warehouse], pipe: Connection) -> None:
    """Read the month until a message arrives, and send each different result once."""
    warehouse = open_warehouse()
    seen: set[tuple[int, Decimal]] = set()
    while not pipe.poll():
        totals = warehouse.read_month(GREEN, MONTH)["total_amount"]
        found = (len(totals), sum(totals, Decimal(0)))
        if found not in seen:
            pipe.send(found)
        seen.add(found)


def test_a_reader_sees_the_old_or_the_new_month_during_replacements(
    warehouse_backend: WarehouseBackend, lake: Lake
) -> None:
    months = [publish_generated_month(lake, rows=rows, seed=rows, layer=f"of {rows} rows") for rows in (400, 300)]
    wanted = {(trips.rows, sum((row["total_amount"] for row in rows_of(trips)), Decimal(0))) for trips in months}
    warehouse = warehouse_backend.open()
    replace_month(warehouse, months[0])
    with child_process(read_repeatedly, warehouse_backend.open) as reader:
        seen = {reader.receive()}
        for turn in range(1, 200):
            replace_month(warehouse, months[turn % 2])
            while reader.pipe.poll():
                seen.add(reader.receive())
            if turn >= 4 and len(seen) > 1:
                break
        reader.send("end")
        assert reader.wait_for_exit() == 0
    assert seen == wanted


# --- schema changes ---------------------------------------------------------------------------------------------------

ADDED_COLUMNS = ("trip_type", "congestion_surcharge")
NARROW = dataclasses.replace(GREEN, columns=[c for c in GREEN.columns if c.name not in ADDED_COLUMNS])
RETYPED = dataclasses.replace(
    GREEN,
    columns=[dataclasses.replace(c, type=ColumnType.TEXT) if c.name == "trip_type" else c for c in GREEN.columns],
)


def test_a_column_added_to_the_schema_is_null_in_months_loaded_before(
    warehouse_backend: WarehouseBackend, lake: Lake
) -> None:
    warehouse = warehouse_backend.open()
    narrow = publish_generated_month(lake, rows=60, service=NARROW)
    warehouse.replace_month(NARROW, MONTH, narrow, run_id=new_run_id())
    wide = publish_generated_month(lake, NEXT_MONTH, rows=60)
    expected = [row | dict.fromkeys(ADDED_COLUMNS) for row in rows_of(narrow)]

    # The same before and after a month is loaded with the new schema.
    assert records(warehouse.read_month(GREEN, MONTH)) == expected
    assert warehouse.totals(GREEN, MONTH) == narrow.report.clean
    replace_month(warehouse, wide, NEXT_MONTH)
    assert records(warehouse.read_month(GREEN, MONTH)) == expected
    assert warehouse.totals(GREEN, MONTH) == narrow.report.clean
    assert holds_exactly(warehouse, wide, NEXT_MONTH)
    assert dict(warehouse_backend.columns(GREEN.table)) == {c.name: c.description_with_unit for c in GREEN.columns}


def test_a_column_removed_from_the_schema_is_null_in_months_loaded_since(warehouse: Warehouse, lake: Lake) -> None:
    wide = publish_generated_month(lake, rows=60)
    replace_month(warehouse, wide)
    narrow = publish_generated_month(lake, NEXT_MONTH, rows=60, service=NARROW)
    warehouse.replace_month(NARROW, NEXT_MONTH, narrow, run_id=new_run_id())
    assert holds_exactly(warehouse, wide)
    assert records(warehouse.read_month(NARROW, NEXT_MONTH)) == rows_of(narrow)
    assert warehouse.read_month(GREEN, NEXT_MONTH)[list(ADDED_COLUMNS)].isna().all(axis=None)


def test_the_error_for_a_changed_column_type_names_the_column_and_the_old_months_stay(
    warehouse_backend: WarehouseBackend, lake: Lake
) -> None:
    warehouse, old = warehouse_backend.open(), publish_generated_month(lake)
    replace_month(warehouse, old)
    columns = dict(warehouse_backend.columns(GREEN.table))
    retyped = publish_generated_month(lake, rows=5, service=RETYPED, layer="newer")
    with pytest.raises(WarehouseSchemaError) as error:
        warehouse.replace_month(RETYPED, MONTH, retyped, run_id=new_run_id())
    for part in (warehouse.table_name("green_trips"), "trip_type", *warehouse_backend.types):
        assert part in error.value.problem
    assert error.value.remedy
    assert holds_exactly(warehouse, old)
    assert dict(warehouse_backend.columns(GREEN.table)) == columns


# --- missing data -----------------------------------------------------------------------------------------------------


def test_a_month_that_was_never_loaded_is_empty_and_the_error_for_a_missing_table_names_it_and_the_remedy(
    warehouse: Warehouse, lake: Lake
) -> None:
    def require_missing(*names: str) -> None:
        for name in names:
            with pytest.raises(WarehouseTableMissingError) as error:
                warehouse.read_month(GREEN, MONTH) if name == GREEN.table else warehouse.read_frame(name)
            assert warehouse.table_name(name) in error.value.problem
            assert "Materialize" in error.value.remedy

    # Before the warehouse exists.
    assert warehouse.loaded_month(GREEN, MONTH) is None
    assert warehouse.totals(GREEN, MONTH) == NO_ROWS
    require_missing("green_trips", "other_zones")
    # When it has another table.
    store_rows(warehouse, "taxi_zones", ZONES)
    require_missing("green_trips", "other_zones")
    # When it has another month.
    replace_month(warehouse, publish_generated_month(lake))
    assert warehouse.loaded_month(GREEN, NEXT_MONTH) is None
    assert warehouse.totals(GREEN, NEXT_MONTH) == NO_ROWS
    assert warehouse.read_month(GREEN, NEXT_MONTH).empty


# --- unpartitioned tables ---------------------------------------------------------------------------------------------

TEXT = pd.ArrowDtype(pa.string())
ZONES = pd.DataFrame(
    {
        "location_id": pd.Series([1, 264, 265, None], dtype="int64[pyarrow]"),
        "Borough": pd.Series(["EWR", "NA", "N/A", None], dtype=TEXT),
        "zone": pd.Series(["Größe 🚕", "", "null", "o'clock"], dtype=TEXT),
    }
)


def test_a_frame_is_read_back_equal_and_can_be_replaced_by_one_with_other_columns(
    warehouse_backend: WarehouseBackend,
) -> None:
    """The texts NA and null are not null."""
    warehouse = warehouse_backend.open()
    store_rows(warehouse, "taxi_zones", ZONES, descriptions={"zone": "A name."})
    pd.testing.assert_frame_equal(warehouse.read_frame("taxi_zones"), ZONES)
    store_rows(warehouse, "taxi_zones", ZONES[["zone"]].head(2), descriptions={"zone": "The zone's name."})
    pd.testing.assert_frame_equal(warehouse.read_frame("taxi_zones"), ZONES[["zone"]].head(2))
    assert dict(warehouse_backend.columns("taxi_zones")) == {"zone": "The zone's name."}


def test_a_frame_whose_commit_fails_or_whose_inputs_have_changed_leaves_the_old_rows(
    warehouse_backend: WarehouseBackend,
) -> None:
    def fail() -> None:
        raise ConcurrentUpdateError("Another run has changed the inputs.", remedy="Try again.")

    store_rows(warehouse_backend.open(), "taxi_zones", ZONES)
    with pytest.raises(ConcurrentUpdateError):
        store_rows(warehouse_backend.open(), "taxi_zones", ZONES.head(1), require_inputs_unchanged=fail)
    pd.testing.assert_frame_equal(warehouse_backend.open().read_frame("taxi_zones"), ZONES)
    with pytest.MonkeyPatch.context() as monkeypatch:
        warehouse_backend.break_commit(monkeypatch)
        with pytest.raises(warehouse_backend.load_error):
            store_rows(warehouse_backend.open(), "taxi_zones", ZONES.head(1))
    pd.testing.assert_frame_equal(warehouse_backend.open().read_frame("taxi_zones"), ZONES)


def test_loading_trips_and_replacing_frames_do_not_affect_each_other(warehouse: Warehouse, lake: Lake) -> None:
    trips = publish_generated_month(lake)
    replace_month(warehouse, trips)
    store_rows(warehouse, "taxi_zones", ZONES)
    assert holds_exactly(warehouse, trips)
    replace_month(warehouse, trips)
    pd.testing.assert_frame_equal(warehouse.read_frame("taxi_zones"), ZONES)
