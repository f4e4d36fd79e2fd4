"""The views over the lake's Parquet: they have the rows of the lake at any moment, and no run locks their file."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from taxi_assets.errors import LakeConflictError, LakeObjectDamagedError, LakeObjectMissingError
from taxi_assets.marts.mart import marts
from taxi_assets.reports.quality_metrics import quality_frame
from taxi_assets.storage.duckdb_views import publish_views
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake_tables import QUALITY, VIEWS_KEY, ZONES, LakeTable, lake_tables, mart_table
from taxi_assets.storage.pandas_types import to_frame
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.services.yellow import YELLOW
from taxi_assets_tests.contract.mart_trips import ZONES as ZONE_ROWS
from taxi_assets_tests.contract.mart_trips import publish_trips, trips_of
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.tlc.month import Month
    from taxi_assets_tests.contract.stores import LakeBackend

NEXT_MONTH = MONTH.shift(1)


@pytest.fixture
def lake(lake_backend: LakeBackend) -> Lake:
    return lake_backend.open()


class BucketFiles(MemoryFileSystem):  # type: ignore[misc]
    """Takes the place of DuckDB's extension for Cloud Storage, which cannot be installed here: a copy of the bucket."""

    protocol = "gs"
    store: ClassVar[dict[str, Any]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("gs:")))


def open_views(lake: Lake) -> duckdb.DuckDBPyConnection:
    """Open the file of views as a reader does."""
    with lake.as_local_file(VIEWS_KEY) as path:
        connection = duckdb.connect(path, read_only=True, config={"autoinstall_known_extensions": "false"})
    if lake.is_remote:
        files = BucketFiles()
        files.store.clear()
        for table in lake_tables():
            for key in list(lake.sizes_in(table.asset)) if table.is_monthly else [table.key()]:
                if lake.version(key) is not None:
                    with lake.open(key) as source, files.open(lake.uri(key), "wb") as copy:
                        copy.write(source.read())
        connection.register_filesystem(files)
    return connection


def query(lake: Lake, statement: str) -> list[tuple[Any, ...]]:
    with closing(open_views(lake)) as connection:
        return connection.sql(statement).fetchall()


def publish(table: LakeTable, lake: Lake, frame: pd.DataFrame, month: Month | None = None) -> None:
    rows = pa.Table.from_pandas(frame, schema=table.schema, preserve_index=False)
    table.publish(lake, rows, month=month, replaces=lake.version(table.key(month)), run_id="a run")


def test_duckdb_1_can_open_the_file(lake: Lake) -> None:
    """BI tools contain it; duckdb.org/docs/internals/storage has the format's number for each version."""
    publish_generated_month(lake)
    publish_views(lake, run_id="a run")
    with lake.open(VIEWS_KEY) as file:
        header = file.read(20)
    assert (header[8:12], int.from_bytes(header[12:20], "little")) == (b"DUCK", 64)


def test_every_table_in_the_lake_has_a_view_with_its_rows_columns_and_comments(lake: Lake) -> None:
    for service in SERVICES.values():
        publish_trips(lake, service, MONTH, trips_of(service, MONTH, 60))
    month = publish_generated_month(lake)
    publish(ZONES, lake, ZONE_ROWS)
    publish(QUALITY, lake, quality_frame([month.report]))
    for mart in marts().values():
        publish(mart_table(mart), lake, pd.DataFrame(columns=[c.name for c in mart.columns]), MONTH)
    for table in lake_tables():
        if table.asset.startswith("revisions/"):
            row = {column.name: None for column in table.columns} | {"data_month": MONTH.start, "change": "added"}
            publish(table, lake, pd.DataFrame([row]), MONTH)
    names = publish_views(lake, run_id="a run")
    assert {"green_trips", "green_trips_revisions"} <= {*names}
    with closing(open_views(lake)) as connection:
        for table in lake_tables():
            if table.name not in names:
                assert table.asset.startswith("quarantine/")  # of services without a cleaned file here
                continue
            found = connection.sql(f"SELECT * FROM taxi.{table.name}").to_arrow_table()
            assert found.schema.equals(table.schema), table.name
            key = table.key(MONTH if table.is_monthly else None)
            with lake.open(key) as file:
                stored = pa.parquet.read_table(file)
            pd.testing.assert_frame_equal(to_frame(found), to_frame(stored.cast(table.schema)), check_like=True)
            comments = connection.execute(
                "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = ?", [table.name]
            ).fetchall()
            assert dict(comments) == {column.name: column.description_with_unit for column in table.columns}
            (comment,) = connection.execute(
                "SELECT comment FROM duckdb_views() WHERE view_name = ?", [table.name]
            ).fetchall()
            assert comment == (table.description,)
        assert {view for mart in marts().values() for view in mart.views} <= set(names)
        connection.sql("SELECT * FROM taxi.zone_day_ratios").fetchall()


def test_a_session_keeps_its_snapshot_of_a_folder_and_a_new_one_sees_the_newer(tmp_path: Path) -> None:
    lake = LocalLake(folder=str(tmp_path / "lake"))
    publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, 60))
    publish_views(lake, run_id="a run")
    counts = "SELECT data_month, count(*) FROM taxi.green_trips GROUP BY ALL ORDER BY ALL"
    with closing(open_views(lake)) as connection:
        assert connection.sql(counts).fetchall() == [(MONTH.start, 60)]
        publish_trips(lake, GREEN, NEXT_MONTH, trips_of(GREEN, NEXT_MONTH, 5))
        publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, 61))
        publish_views(lake, run_id="another run")  # does not wait for the reader
        assert connection.sql(counts).fetchall() == [(MONTH.start, 60)]
    assert query(lake, counts) == [(MONTH.start, 61), (NEXT_MONTH.start, 5)]
    assert [path.name for path in (tmp_path / "lake").glob("views*")] == [VIEWS_KEY]  # no write-ahead log


def test_a_query_of_a_bucket_reads_the_current_objects(gcs_lake: LakeBackend) -> None:
    lake = gcs_lake.open()
    publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, 60))
    publish_views(lake, run_id="a run")
    publish_trips(lake, GREEN, NEXT_MONTH, trips_of(GREEN, NEXT_MONTH, 5))
    assert query(lake, "SELECT count(*) FROM taxi.green_trips") == [(65,)]


def test_a_column_that_only_some_months_have_is_null_in_the_others(lake: Lake) -> None:
    shorter = LakeTable("green_trips", "clean/green_trips", "", [c for c in GREEN.columns if c.name != "ehail_fee"])
    publish_trips(lake, GREEN, NEXT_MONTH, trips_of(GREEN, NEXT_MONTH, 5))
    with lake.open(f"clean/green_trips/{NEXT_MONTH}.parquet") as file:
        rows = pa.parquet.read_table(file).drop_columns("ehail_fee")
    shorter.publish(lake, rows, month=MONTH, replaces=None, run_id="an older release")
    publish_views(lake, run_id="a run")
    assert query(lake, "SELECT count(*), count(ehail_fee) FROM taxi.green_trips") == [(10, 0)]
    lake.delete(f"clean/green_trips/{NEXT_MONTH}.parquet")
    publish_views(lake, run_id="a run")
    assert query(lake, "SELECT typeof(ehail_fee), count(*) FROM taxi.green_trips GROUP BY 1") == [("DECIMAL(12,2)", 5)]


@pytest.mark.parametrize("content", [b"", b"<html>" * 100], ids=["empty", "text"])
def test_a_damaged_month_is_an_error_that_names_it_and_the_older_views_stay(lake: Lake, content: bytes) -> None:
    publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, 60))
    publish_views(lake, run_id="a run")
    written = lake.version(VIEWS_KEY)
    with lake.staging() as folder:
        (folder / "damaged").write_bytes(content)
        lake.publish(folder / "damaged", f"clean/green_trips/{NEXT_MONTH}.parquet", replaces=None, run_id="a user")
    with pytest.raises(
        LakeObjectDamagedError, match=rf"green_trips/{NEXT_MONTH}\.parquet.*Materialize clean/green_trips"
    ):
        publish_views(lake, run_id="another run")
    assert lake.version(VIEWS_KEY) == written


def test_a_copy_of_a_month_under_another_name_is_not_counted_twice(lake: Lake) -> None:
    publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, 60))
    for name in (f"{MONTH} (copy)", f"{MONTH}-old", "all"):
        with lake.staging() as folder, lake.open(f"clean/green_trips/{MONTH}.parquet") as file:
            (folder / "copy").write_bytes(file.read())
            lake.publish(folder / "copy", f"clean/green_trips/{name}.parquet", replaces=None, run_id="a user")
    publish_views(lake, run_id="a run")
    assert query(lake, "SELECT count(*) FROM taxi.green_trips") == [(60,)]


def test_a_client_that_wrote_to_the_file_and_was_killed_does_not_make_the_next_file_unreadable(tmp_path: Path) -> None:
    lake = LocalLake(folder=str(tmp_path))
    publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, 60))
    publish_views(lake, run_id="a run")
    write = "import duckdb, os; c = duckdb.connect(os.sys.argv[1]); c.execute('CREATE TABLE mine (a INT)'); os._exit(9)"
    subprocess.run([sys.executable, "-c", write, tmp_path / VIEWS_KEY], check=False)
    assert (tmp_path / f"{VIEWS_KEY}.wal").exists()
    publish_trips(lake, GREEN, NEXT_MONTH, trips_of(GREEN, NEXT_MONTH, 5))
    publish_views(lake, run_id="another run")
    with closing(duckdb.connect(tmp_path / VIEWS_KEY, read_only=True)) as connection:
        assert connection.sql("SELECT count(*) FROM taxi.green_trips").fetchall() == [(65,)]


def test_a_column_of_another_type_is_one_error_and_the_older_views_stay(lake: Lake) -> None:
    publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, 5))
    publish_views(lake, run_id="a run")
    with lake.open(f"clean/green_trips/{MONTH}.parquet") as file:
        rows = pa.parquet.read_table(file)
    place = rows.schema.get_field_index("total_amount")
    rows = rows.set_column(place, "total_amount", rows["total_amount"].cast(pa.float64()))
    with lake.staging() as folder:
        pa.parquet.write_table(rows, folder / "rows.parquet")
        lake.publish(folder / "rows.parquet", f"clean/green_trips/{NEXT_MONTH}.parquet", replaces=None, run_id="other")
    before = lake.version(VIEWS_KEY)
    message = r"Column total_amount has type DOUBLE in at least one file; the schema requires DECIMAL\(12,2\)\. Mater"
    with pytest.raises(LakeObjectDamagedError, match=message):
        publish_views(lake, run_id="a run")
    assert lake.version(VIEWS_KEY) == before


def test_a_table_that_is_not_in_the_lake_has_no_view(lake: Lake) -> None:
    publish_trips(lake, YELLOW, MONTH, trips_of(YELLOW, MONTH, 5))
    assert publish_views(lake, run_id="a run") == ["yellow_trips"]
    assert query(lake, "SELECT count(*) FROM taxi.yellow_trips") == [(5,)]


def test_an_empty_lake_is_one_error_and_no_file(lake: Lake) -> None:
    with pytest.raises(LakeObjectMissingError, match=r"views\.duckdb cannot be written: the lake has no table yet"):
        publish_views(lake, run_id="a run")
    assert lake.version(VIEWS_KEY) is None


def test_views_that_another_run_has_written_meanwhile_are_kept(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def tables_later() -> list[LakeTable]:
        monkeypatch.undo()
        publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, 5))
        publish_views(lake, run_id="a newer run")
        return [table for table in lake_tables() if table.name == "yellow_trips"]

    publish_trips(lake, YELLOW, MONTH, trips_of(YELLOW, MONTH, 5))
    monkeypatch.setattr("taxi_assets.storage.duckdb_views.lake_tables", tables_later)
    with pytest.raises(LakeConflictError):
        publish_views(lake, run_id="an older run")
    assert query(lake, "SELECT count(*) FROM taxi.green_trips") == [(5,)]


@pytest.mark.parametrize(
    "name", ["it's here", "a=b", "[x]", "what?*", "c#1", 'say "lake"', "data_month=2020-01-01", "Größe"]
)
def test_any_folder_name_works(tmp_path: Path, name: str) -> None:
    lake = LocalLake(folder=str(tmp_path / name / "lake"))
    publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, 60))
    publish_views(lake, run_id="a run")
    with closing(open_views(lake)) as connection:
        found = connection.sql("SELECT * FROM taxi.green_trips")
        assert found.columns == [column.name for column in GREEN.columns]
        assert len(found.fetchall()) == 60


def test_no_rows_are_stored_in_the_file(tmp_path: Path) -> None:
    lake = LocalLake(folder=str(tmp_path))
    publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, 2000))
    publish_views(lake, run_id="a run")
    with closing(duckdb.connect(tmp_path / VIEWS_KEY, read_only=True)) as connection:
        assert connection.sql("SELECT count(*) FROM duckdb_tables()").fetchall() == [(0,)]
        ((statement,),) = connection.sql("SELECT sql FROM duckdb_views() WHERE view_name = 'green_trips'").fetchall()
    assert re.search(r"read_parquet\('.*/snapshots/.*Z/clean/green_trips/[^*]*\.parquet'", statement)
