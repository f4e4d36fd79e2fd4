"""Trips as views over Parquet files, in a DuckDB file: the files, odd paths, tables of the same name, missing files.

`test_any_warehouse.py` tests everything that is the same for tables and views.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest

from taxi_assets.errors import (
    LakeConflictError,
    ReconciliationError,
    WarehouseConfigurationError,
    WarehouseSchemaError,
    WarehouseTableMissingError,
)
from taxi_assets.marts.mart import marts
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse, connections
from taxi_assets.tlc.cleaning.report import NO_ROWS
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.test_any_warehouse import NEXT_MONTH, holds_exactly, replace_month, with_wrong_report
from taxi_assets_tests.pipeline_harness import Deployment, failure_messages
from taxi_assets_tests.table_rows import store_rows
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(folder=str(tmp_path / "lake"))


@pytest.fixture
def warehouse(tmp_path: Path) -> DuckDBWarehouse:
    return DuckDBWarehouse(file=str(tmp_path / "new" / "warehouse.duckdb"), trip_views=True, wait_seconds=60)


def files(warehouse: DuckDBWarehouse) -> list[Path]:
    """Return all files and folders that belong to the trips of the warehouse, but not the folder of green trips."""
    folder = Path(f"{warehouse.file}.trips")
    return sorted(path for path in folder.rglob("*") if path != folder / "taxi.green_trips")


def as_tables(warehouse: DuckDBWarehouse) -> DuckDBWarehouse:
    return DuckDBWarehouse(file=warehouse.file, wait_seconds=60)


def run_sql(warehouse: DuckDBWarehouse, statement: str) -> list[tuple[Any, ...]]:
    """Run a statement as another client does."""
    with duckdb.connect(warehouse.file) as client:
        return client.execute(statement).fetchall()


def change_rows(lake: LocalLake, trips: ParquetPartition, change: Callable[[pa.Table], pa.Table]) -> ParquetPartition:
    """Replace the Parquet object by one with the same report and other rows."""
    with lake.staging() as folder, trips.as_local_file() as source:
        table = pyarrow.parquet.read_table(source)
        pyarrow.parquet.write_table(
            change(table).replace_schema_metadata(table.schema.metadata), folder / "new.parquet"
        )
        lake.publish(folder / "new.parquet", trips.key, replaces=trips.version, run_id="a run")
    return ParquetPartition.get(lake, trips.key.removesuffix(".parquet"))


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_load_links_the_file_in_the_lake_and_copies_no_rows(warehouse: DuckDBWarehouse, lake: LocalLake) -> None:
    trips = publish_generated_month(lake, rows=20_000)
    replace_month(warehouse, trips)
    (file,) = files(warehouse)
    assert file.samefile(Path(lake.folder, trips.key))
    assert file.name.startswith(f"{MONTH}-")
    assert sorted(Path(warehouse.file).parent.iterdir()) == [Path(warehouse.file), Path(f"{warehouse.file}.trips")]
    assert holds_exactly(warehouse, trips)


def test_a_load_copies_the_file_if_the_lake_is_on_another_file_system(
    warehouse: DuckDBWarehouse, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def refuse_between_file_systems(source: Any, target: Any, **options: Any) -> None:
        if ".trips" in str(target):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        link(source, target, **options)

    monkeypatch.setattr(os, "link", refuse_between_file_systems)
    trips = publish_generated_month(lake)
    replace_month(warehouse, trips)
    (file,) = files(warehouse)
    assert not file.samefile(Path(lake.folder, trips.key))
    lake.delete(trips.key)
    assert warehouse.totals(GREEN, MONTH) == trips.report.clean


def test_a_full_disk_is_an_error_in_one_line_and_leaves_the_old_month(
    warehouse: DuckDBWarehouse, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = publish_generated_month(lake)
    replace_month(warehouse, old)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("taxi_assets.storage.warehouse.duckdb.trip_views._link_or_copy", refuse)
    with pytest.raises(
        WarehouseConfigurationError, match=r"green_trips cannot be written to \(No space left on device\)"
    ):
        replace_month(warehouse, publish_generated_month(lake, rows=5, layer="newer"))
    assert holds_exactly(warehouse, old)
    assert len(files(warehouse)) == 1


def test_the_rows_change_with_the_load_and_not_with_the_lake(warehouse: DuckDBWarehouse, lake: LocalLake) -> None:
    old = publish_generated_month(lake)
    replace_month(warehouse, old)
    new = publish_generated_month(lake, rows=5, seed=1)
    assert new.key == old.key
    assert warehouse.totals(GREEN, MONTH) == old.report.clean
    lake.delete(new.key)
    assert warehouse.totals(GREEN, MONTH) == old.report.clean
    newest = publish_generated_month(lake, rows=6, seed=2)
    replace_month(warehouse, newest)
    assert holds_exactly(warehouse, newest)


def test_only_the_files_of_the_new_and_the_previous_version_are_kept(
    warehouse: DuckDBWarehouse, lake: LocalLake
) -> None:
    other = publish_generated_month(lake, NEXT_MONTH)
    replace_month(warehouse, other, NEXT_MONTH)
    versions = []
    for rows in (5, 6, 7, 8):
        trips = publish_generated_month(lake, rows=rows, seed=rows)
        replace_month(warehouse, trips)
        versions.append(Path(lake.folder, trips.key).stat().st_ino)
    kept = {file.stat().st_ino for file in files(warehouse) if file.name.startswith(str(MONTH))}
    assert kept == set(versions[-2:])
    assert holds_exactly(warehouse, other, NEXT_MONTH)


def test_a_failed_load_leaves_no_file_and_the_next_load_deletes_those_of_killed_processes(
    warehouse: DuckDBWarehouse, lake: LocalLake
) -> None:
    with pytest.raises(ReconciliationError):
        replace_month(warehouse, with_wrong_report(publish_generated_month(lake), rows=1))
    assert list(Path(warehouse.file).parent.glob("*")) == []
    older = publish_generated_month(lake, rows=5)
    newer = publish_generated_month(lake, rows=6, seed=1)
    replace_month(warehouse, newer)
    before = files(warehouse)
    with pytest.raises(LakeConflictError):
        replace_month(warehouse, older)
    with pytest.raises(ReconciliationError):
        replace_month(warehouse, with_wrong_report(newer, cents=1))
    assert files(warehouse) == before
    shutil.copy(before[0], before[0].with_name(f"{MONTH}-{'0' * 16}.parquet"))
    abandoned = before[0].parent / ".staging" / "of a killed process"
    abandoned.mkdir(parents=True)
    replace_month(warehouse, newer)
    assert files(warehouse) == before


def test_a_month_is_downloaded_and_verified_before_the_database_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"duckdb:///{tmp_path / 'warehouse.duckdb'}?trips=views"
    deployment = Deployment(tmp_path, "sample", warehouse_address=address)
    assert deployment.run("fhv", "2021-01").success
    was_open: list[bool] = []
    as_local_file, without_file = LocalLake.as_local_file, connections.connect_without_file

    def record_and_download(lake: LocalLake, key: str, version: str | None = None) -> AbstractContextManager[Path]:
        was_open.append(bool(connections._open_connections))  # noqa: SLF001  (there is no public way)
        return as_local_file(lake, key, version)

    def record_and_verify(path: str, wait_seconds: float) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        was_open.append(bool(connections._open_connections))  # noqa: SLF001
        return without_file(path, wait_seconds)

    monkeypatch.setattr(LocalLake, "as_local_file", record_and_download)
    monkeypatch.setattr("taxi_assets.storage.warehouse.duckdb.connect_without_file", record_and_verify)
    assert deployment.run("green", "2021-01").success
    assert len(was_open) > 1
    assert not any(was_open)


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "file", "schema"),
    [
        ("env=prod", "vendor_id=7.duckdb", "taxi"),  # no Hive partitions
        ("a b'c", "ware'house \"[*].duckdb", 'my schema"x/../y'),
        ("[1]{x,y}*", "wäre#house", "TAXI"),
    ],
)
def test_folder_file_and_schema_may_have_any_names(
    tmp_path: Path, lake: LocalLake, folder: str, file: str, schema: str
) -> None:
    for other in ("1x", "[1]x", "1"):  # what the names would match as glob patterns
        (tmp_path / other).mkdir()
    warehouse = DuckDBWarehouse(file=str(tmp_path / folder / file), schema_name=schema, trip_views=True)
    trips, next_trips = publish_generated_month(lake), publish_generated_month(lake, NEXT_MONTH, rows=5)
    for _ in range(2):
        replace_month(warehouse, trips)
        replace_month(warehouse, next_trips, NEXT_MONTH)
    assert holds_exactly(warehouse, trips)
    assert holds_exactly(warehouse, next_trips, NEXT_MONTH)
    quoted = schema.replace('"', '""')
    assert run_sql(warehouse, f'SELECT count(*) FROM "{quoted}".green_trips') == [(trips.rows + 5,)]


def test_two_schemas_of_a_file_do_not_share_files(tmp_path: Path, lake: LocalLake) -> None:
    trips = publish_generated_month(lake)
    one, other = (
        DuckDBWarehouse(file=str(tmp_path / "w.duckdb"), schema_name=name, trip_views=True) for name in ("one", "other")
    )
    replace_month(one, trips)
    for rows in (5, 6, 7):
        replace_month(other, publish_generated_month(lake, rows=rows, layer="newer"))
    assert holds_exactly(one, trips)


def test_a_symlink_and_its_target_share_the_files(warehouse: DuckDBWarehouse, lake: LocalLake, tmp_path: Path) -> None:
    trips, next_trips = publish_generated_month(lake), publish_generated_month(lake, NEXT_MONTH, rows=5)
    replace_month(warehouse, trips)
    (tmp_path / "link.duckdb").symlink_to(warehouse.file)
    replace_month(DuckDBWarehouse(file=str(tmp_path / "link.duckdb"), trip_views=True), next_trips, NEXT_MONTH)
    assert holds_exactly(warehouse, trips)
    assert holds_exactly(warehouse, next_trips, NEXT_MONTH)
    assert len(files(warehouse)) == 2


# --- contents ---------------------------------------------------------------------------------------------------------


def test_other_clients_see_the_view_with_its_comments(warehouse: DuckDBWarehouse, lake: LocalLake) -> None:
    replace_month(warehouse, publish_generated_month(lake, rows=30))
    query = "SELECT table_type, table_comment FROM information_schema.tables WHERE table_name = 'green_trips'"
    assert run_sql(warehouse, query) == [("VIEW", "Green taxi: clean trips.")]
    assert run_sql(warehouse, "SELECT count(*) FROM taxi.green_trips WHERE data_month = DATE '2020-10-01'") == [(30,)]


def test_a_file_with_another_column_type_is_rejected_and_nothing_changes(
    warehouse: DuckDBWarehouse, lake: LocalLake
) -> None:
    old = publish_generated_month(lake)
    replace_month(warehouse, old)
    before = files(warehouse)

    def as_text(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index("trip_type")
        return table.set_column(index, "trip_type", table["trip_type"].cast(pa.string()))

    wrong = change_rows(lake, publish_generated_month(lake, rows=5, layer="newer"), as_text)
    with pytest.raises(WarehouseSchemaError, match=r"Column trip_type of .*/newer/.* has type VARCHAR; .* BIGINT"):
        replace_month(warehouse, wrong)
    assert files(warehouse) == before
    assert holds_exactly(warehouse, old)


def test_a_file_with_rows_of_another_month_is_rejected(warehouse: DuckDBWarehouse, lake: LocalLake) -> None:
    def add_row_of_another_month(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index("data_month")
        row = table.slice(0, 1)
        return pa.concat_tables([table, row.set_column(index, "data_month", pa.array([NEXT_MONTH.start]))])

    wrong = change_rows(lake, publish_generated_month(lake), add_row_of_another_month)
    with pytest.raises(ReconciliationError):
        replace_month(warehouse, wrong)
    assert warehouse.loaded_month(GREEN, MONTH) is None


def test_marts_checks_and_reports_are_the_same_as_with_tables(tmp_path: Path) -> None:
    found = {}
    for trips in ("tables", "views"):
        address = f"duckdb:///{tmp_path / trips / 'warehouse.duckdb'}?trips={trips}"
        deployment = Deployment(tmp_path / trips, "sample", warehouse_address=address)
        for job in ("reference", "green", "fhv", "marts", "green_report", "quality"):
            result = deployment.run(job, None if job in {"reference", "quality"} else "2021-01")
            assert result.success, failure_messages(result)
        assert all(deployment.run_checks("green", "2021-01").values())
        with duckdb.connect(str(deployment.warehouse), read_only=True) as client:
            found[trips] = {name: client.execute(f"FROM taxi.{name} ORDER BY ALL").fetchall() for name in marts()}
            ((kind,),) = client.execute(
                "SELECT table_type FROM information_schema.tables WHERE table_name = 'green_trips'"
            ).fetchall()
        assert (kind == "VIEW") == (trips == "views")
    assert found["tables"] == found["views"]
    assert all(found["tables"].values())


def test_an_unchanged_month_is_not_loaded_again(tmp_path: Path) -> None:
    address = f"duckdb:///{tmp_path / 'warehouse.duckdb'}?trips=views"
    deployment = Deployment(tmp_path, "sample", warehouse_address=address)
    assert deployment.run("green", "2021-01").success
    before = (tmp_path / "warehouse.duckdb").read_bytes()
    assert deployment.run("green", "2021-01").success
    assert (tmp_path / "warehouse.duckdb").read_bytes() == before


# --- tables and views of the same name --------------------------------------------------------------------------------


def test_a_table_is_not_replaced_by_a_view_until_someone_drops_it(warehouse: DuckDBWarehouse, lake: LocalLake) -> None:
    old, other = publish_generated_month(lake), publish_generated_month(lake, NEXT_MONTH, rows=5)
    replace_month(as_tables(warehouse), old)
    replace_month(as_tables(warehouse), other, NEXT_MONTH)
    with pytest.raises(WarehouseConfigurationError) as error:
        replace_month(warehouse, publish_generated_month(lake, rows=5, layer="newer"))
    assert error.value.problem == '"taxi"."green_trips" is a table, but TAXI_WAREHOUSE ends with trips=views.'
    assert error.value.remedy.startswith("Rename or drop it, then load its months again; or remove trips=views")
    assert holds_exactly(warehouse, old)
    assert files(warehouse) == []
    run_sql(warehouse, "DROP TABLE taxi.green_trips")
    replace_month(warehouse, old)
    assert holds_exactly(warehouse, old)
    assert warehouse.loaded_month(GREEN, NEXT_MONTH) is None


def test_a_view_is_not_replaced_by_a_table_until_someone_drops_it(warehouse: DuckDBWarehouse, lake: LocalLake) -> None:
    old, other = publish_generated_month(lake), publish_generated_month(lake, NEXT_MONTH, rows=5)
    replace_month(warehouse, old)
    replace_month(warehouse, other, NEXT_MONTH)
    tables = as_tables(warehouse)
    with pytest.raises(
        WarehouseConfigurationError, match=r"is a view, but .* Add trips=views to TAXI_WAREHOUSE; or drop"
    ):
        replace_month(tables, old)
    assert holds_exactly(warehouse, old)
    run_sql(warehouse, "DROP VIEW taxi.green_trips")
    replace_month(tables, old)
    assert holds_exactly(tables, old)
    assert tables.loaded_month(GREEN, NEXT_MONTH) is None


def test_a_dropped_view_has_only_the_months_that_are_loaded_again(warehouse: DuckDBWarehouse, lake: LocalLake) -> None:
    trips, other = publish_generated_month(lake), publish_generated_month(lake, NEXT_MONTH, rows=5)
    replace_month(warehouse, trips)
    replace_month(warehouse, other, NEXT_MONTH)
    run_sql(warehouse, "DROP VIEW taxi.green_trips")
    assert warehouse.totals(GREEN, MONTH) == NO_ROWS
    replace_month(warehouse, trips)
    assert holds_exactly(warehouse, trips)
    assert warehouse.totals(GREEN, NEXT_MONTH) == NO_ROWS
    assert warehouse.loaded_month(GREEN, NEXT_MONTH) is None


def test_a_view_of_someone_else_is_not_replaced(warehouse: DuckDBWarehouse, lake: LocalLake) -> None:
    store_rows(warehouse, "numbers", pa.table({"number": [1]}).to_pandas())
    run_sql(warehouse, "CREATE VIEW taxi.green_trips AS SELECT * FROM taxi.numbers")
    with pytest.raises(WarehouseConfigurationError, match="is a view that the platform has not created"):
        replace_month(warehouse, publish_generated_month(lake))
    assert run_sql(warehouse, "FROM taxi.green_trips") == [(1,)]


# --- missing and moved files ------------------------------------------------------------------------------------------


def test_after_a_move_reading_is_an_error_until_one_month_is_loaded(
    warehouse: DuckDBWarehouse, lake: LocalLake, tmp_path: Path
) -> None:
    trips, other = publish_generated_month(lake), publish_generated_month(lake, NEXT_MONTH, rows=5)
    replace_month(warehouse, trips)
    replace_month(warehouse, other, NEXT_MONTH)
    shutil.move(Path(warehouse.file).parent, tmp_path / "moved")
    moved = DuckDBWarehouse(file=str(tmp_path / "moved" / "warehouse.duckdb"), trip_views=True)
    for read in (lambda: moved.read_month(GREEN, MONTH), lambda: moved.query_native("FROM green_trips")):
        with pytest.raises(WarehouseTableMissingError, match=r"cannot be read: .*2020-1\d-.*\.parquet"):
            read()
    assert moved.totals(GREEN, MONTH) == NO_ROWS
    replace_month(moved, trips)
    assert holds_exactly(moved, trips)
    assert holds_exactly(moved, other, NEXT_MONTH)


@pytest.fixture
def warnings() -> Any:
    class Listener(logging.Handler):
        def __init__(self) -> None:
            super().__init__(logging.WARNING)
            self.messages: list[str] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.messages.append(record.getMessage())

    listener, log = Listener(), dg.get_dagster_logger()
    log.addHandler(listener)
    yield listener.messages
    log.removeHandler(listener)


def test_a_month_whose_file_is_missing_or_damaged_is_no_longer_loaded_after_the_next_load(
    warehouse: DuckDBWarehouse, lake: LocalLake, warnings: list[str]
) -> None:
    trips, other = publish_generated_month(lake), publish_generated_month(lake, NEXT_MONTH, rows=5)
    replace_month(warehouse, trips)
    replace_month(warehouse, other, NEXT_MONTH)
    missing = next(file for file in files(warehouse) if file.name.startswith(str(NEXT_MONTH)))
    missing.unlink()
    missing.write_bytes(b"damaged")
    with pytest.raises(WarehouseTableMissingError, match="Materialize the warehouse asset of the file's month again"):
        warehouse.read_month(GREEN, MONTH)
    assert warehouse.totals(GREEN, NEXT_MONTH) == NO_ROWS
    missing.unlink()
    replace_month(warehouse, trips)
    assert warnings == [
        f'{missing} is missing. "taxi"."green_trips" no longer contains {NEXT_MONTH}: load that month again.'
    ]
    assert holds_exactly(warehouse, trips)
    assert warehouse.loaded_month(GREEN, NEXT_MONTH) is None
    replace_month(warehouse, other, NEXT_MONTH)
    assert holds_exactly(warehouse, other, NEXT_MONTH)


def test_a_damaged_file_is_replaced_by_the_next_load_of_its_month(warehouse: DuckDBWarehouse, lake: LocalLake) -> None:
    trips = publish_generated_month(lake)
    replace_month(warehouse, trips)
    (file,) = files(warehouse)
    file.unlink()
    file.write_bytes(b"damaged")
    replace_month(warehouse, trips)
    assert holds_exactly(warehouse, trips)


def test_the_ledger_of_an_earlier_version_is_kept(warehouse: DuckDBWarehouse, lake: LocalLake) -> None:
    tables = as_tables(warehouse)
    trips = publish_generated_month(lake)
    replace_month(tables, trips)
    run_sql(warehouse, "ALTER TABLE taxi.loaded_months DROP COLUMN file")
    other = publish_generated_month(lake, NEXT_MONTH, rows=5)
    replace_month(tables, other, NEXT_MONTH)
    assert holds_exactly(tables, trips)
    assert holds_exactly(tables, other, NEXT_MONTH)
