"""The warehouse in a DuckDB file: names of file and schema, waits for other processes, and kills during a write."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import duckdb
import pytest

from taxi_assets.addresses import DuckDBAddress, parse_warehouse_address
from taxi_assets.errors import WarehouseBusyError, WarehouseConfigurationError, WarehouseTableMissingError
from taxi_assets.marts.mart import marts
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.storage.warehouse.base_warehouse import LoadedMonth
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse, connections
from taxi_assets.tlc.cleaning.report import NO_ROWS
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.contract.test_any_warehouse import ZONES, holds_exactly, replace_month
from taxi_assets_tests.pipeline_harness import Deployment
from taxi_assets_tests.table_rows import store_rows
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from multiprocessing.connection import Connection


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(folder=str(tmp_path / "lake"))


@pytest.fixture
def embedded(tmp_path: Path) -> DuckDBWarehouse:
    return DuckDBWarehouse(file=str(tmp_path / "new" / "warehouse.duckdb"), wait_seconds=60)


def test_reading_creates_no_file(embedded: DuckDBWarehouse) -> None:
    assert embedded.totals(GREEN, MONTH) == NO_ROWS
    assert embedded.loaded_month(GREEN, MONTH) is None
    with pytest.raises(WarehouseTableMissingError):
        embedded.read_frame("taxi_zones")
    assert not Path(embedded.file).parent.exists()


def test_a_load_leaves_only_the_database_file(embedded: DuckDBWarehouse, lake: LocalLake) -> None:
    replace_month(embedded, publish_generated_month(lake))
    assert list(Path(embedded.file).parent.iterdir()) == [Path(embedded.file)]


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        ("taxi.duckdb", "taxi"),  # DuckDB names a database after its file
        ("warehouse.duckdb", "temp"),  # a database that DuckDB itself has
        ("warehouse.duckdb", 'my schema"x'),
        ("ware'house \"[*].duckdb", "select"),
    ],
)
def test_file_and_schema_may_have_any_names(tmp_path: Path, lake: LocalLake, file: str, schema: str) -> None:
    trips = publish_generated_month(lake, rows=5)
    warehouse = DuckDBWarehouse(file=str(tmp_path / file), schema_name=schema)
    for _ in range(2):
        replace_month(warehouse, trips)
        store_rows(warehouse, "taxi_zones", ZONES, descriptions={"zone": "A name."})
    assert holds_exactly(warehouse, trips)
    assert len(warehouse.read_frame("taxi_zones")) == len(ZONES)


@pytest.mark.parametrize(
    "file",
    ["warehouse.duckdb", "taxi.2021.duckdb", ".hidden.db", "no_extension", "main.duckdb", "Temp.db", "memory.db"],
)
def test_other_clients_find_a_table_by_its_unquoted_name(tmp_path: Path, file: str) -> None:
    warehouse = DuckDBWarehouse(file=str(tmp_path / file))
    store_rows(warehouse, "taxi_zones", ZONES)
    with duckdb.connect(warehouse.file, read_only=True) as client:
        found = client.execute(f"SELECT count(*) FROM {warehouse.unquoted_name('taxi_zones')}").fetchall()
    assert found == [(len(ZONES),)]


def test_the_schema_name_is_not_case_sensitive(tmp_path: Path, lake: LocalLake) -> None:
    trips = publish_generated_month(lake, rows=5)
    lower, upper = (DuckDBWarehouse(file=str(tmp_path / "w.duckdb"), schema_name=name) for name in ("taxi", "TAXI"))
    replace_month(lower, trips)
    assert holds_exactly(upper, trips)
    replace_month(upper, trips)
    assert holds_exactly(lower, trips)


def test_the_uri_is_accepted_by_the_setting(embedded: DuckDBWarehouse) -> None:
    address = parse_warehouse_address(embedded.uri())
    assert address == DuckDBAddress(Path(embedded.file), embedded.schema_name)
    views = DuckDBWarehouse(file=embedded.file, trip_views=True)
    assert parse_warehouse_address(views.uri()) == DuckDBAddress(Path(embedded.file), "taxi", trip_views=True)


def test_the_lake_folder_may_have_any_name(embedded: DuckDBWarehouse, tmp_path: Path) -> None:
    names = ["env=prod", "st*r", "what?", "[1]", "{x,y}", "a b'c"]
    others = ["star", "whats", "1", "x"]  # what the names would match as glob patterns
    trips = {
        name: publish_generated_month(LocalLake(folder=str(tmp_path / name)), rows=7) for name in [*names, *others]
    }
    for number, name in enumerate(names):
        replace_month(embedded, trips[name])
        assert embedded.totals(GREEN, MONTH).rows == 7, f"{number}: {name}"


def hold(file: str, pipe: Connection) -> None:
    with duckdb.connect(file):
        pipe.send(os.getpid())
        pipe.recv()


def test_a_timeout_names_the_process_that_has_the_file_open(embedded: DuckDBWarehouse, lake: LocalLake) -> None:
    old, new = publish_generated_month(lake), publish_generated_month(lake, rows=5, layer="newer")
    replace_month(embedded, old)
    with child_process(hold, embedded.file) as other:
        pid = other.receive()
        started = time.monotonic()
        with pytest.raises(WarehouseBusyError) as error:
            replace_month(DuckDBWarehouse(file=embedded.file, wait_seconds=0.3), new)
        assert time.monotonic() - started >= 0.3
    assert f"(PID {pid}) for 0.3 seconds" in error.value.problem
    assert embedded.file in error.value.problem
    assert holds_exactly(embedded, old)


class LogListener(logging.Handler):
    """Sets an event when something is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.event = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()
        self.event.set()


def test_a_load_waits_for_the_file_and_logs_which_process_has_it_open(
    embedded: DuckDBWarehouse, lake: LocalLake
) -> None:
    trips = publish_generated_month(lake)
    replace_month(embedded, publish_generated_month(lake, rows=5, layer="older"))
    log, listener = dg.get_dagster_logger(), LogListener()
    log.addHandler(listener)
    waiting = threading.Thread(target=replace_month, args=(embedded, trips))
    try:
        with child_process(hold, embedded.file) as other:
            pid = other.receive()
            waiting.start()
            assert listener.event.wait(600)
            assert f"(PID {pid})" in listener.text
            assert waiting.is_alive()
            other.send()
            waiting.join(600)
    finally:
        log.removeHandler(listener)
    assert holds_exactly(embedded, trips)


@pytest.mark.parametrize("content", [b"", b"no database" * 2000], ids=["empty", "garbage"])
def test_a_file_that_is_not_a_database_is_rejected_in_one_line_and_not_changed(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "warehouse.duckdb"
    file.write_bytes(content)
    with pytest.raises(WarehouseConfigurationError) as error:
        DuckDBWarehouse(file=str(file)).totals(GREEN, MONTH)
    assert str(file) in error.value.problem
    assert "\n" not in str(error.value)
    assert file.read_bytes() == content


def test_a_file_that_this_process_has_open_with_other_settings_is_rejected(embedded: DuckDBWarehouse) -> None:
    store_rows(embedded, "taxi_zones", ZONES)
    with (
        duckdb.connect(embedded.file, config={"memory_limit": "1GB"}),
        pytest.raises(WarehouseConfigurationError, match="already attached"),
    ):
        embedded.read_frame("taxi_zones")


def load_until_killed(file: str, lake_folder: str, limit: int, pipe: Connection) -> None:
    """Load the newer trips. The system kills this process when it writes a file beyond the limit, in bytes."""
    trips = ParquetPartition.get(LocalLake(folder=lake_folder), f"newer/green_trips/{MONTH}")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    replace_month(DuckDBWarehouse(file=file), trips)
    pipe.close()


def test_a_process_killed_during_a_write_leaves_the_old_or_the_new_month(
    embedded: DuckDBWarehouse, lake: LocalLake, tmp_path: Path
) -> None:
    old, new = publish_generated_month(lake, rows=300), publish_generated_month(lake, rows=1000, seed=1, layer="newer")
    replace_month(embedded, old)
    killed, length = 0, Path(embedded.file).stat().st_size
    for step, limit in enumerate((1000, length // 2, length)):
        copy = DuckDBWarehouse(file=str(tmp_path / f"{step}.duckdb"))
        shutil.copy(embedded.file, copy.file)
        with child_process(load_until_killed, copy.file, lake.folder, limit) as other:
            killed += other.wait_for_exit() == -signal.SIGXFSZ
        found = LoadedMonth(new.report.data_version, copy.totals(GREEN, MONTH))
        trips = new if copy.loaded_month(GREEN, MONTH) == found else old
        assert holds_exactly(copy, trips)
        replace_month(copy, new)
        assert copy.totals(GREEN, MONTH) == new.report.clean
    assert killed, "no process was killed: nothing was tested"


@pytest.mark.parametrize("limit", [0, 4096])
def test_a_process_killed_while_it_creates_the_file_leaves_no_file_and_the_next_load_cleans_up(
    embedded: DuckDBWarehouse, lake: LocalLake, limit: int
) -> None:
    trips = publish_generated_month(lake, layer="newer")
    with child_process(load_until_killed, embedded.file, lake.folder, limit) as other:
        assert other.wait_for_exit() == -signal.SIGXFSZ
    assert not Path(embedded.file).exists()
    replace_month(embedded, trips)
    assert embedded.totals(GREEN, MONTH) == trips.report.clean
    assert list(Path(embedded.file).parent.iterdir()) == [Path(embedded.file)]


# --- marts ------------------------------------------------------------------------------------------------------------


def test_marts_can_be_read_if_schema_and_file_have_the_same_name_and_after_the_file_is_renamed(tmp_path: Path) -> None:
    lake = LocalLake(folder=str(tmp_path / "lake"))
    warehouse = DuckDBWarehouse(file=str(tmp_path / "taxi.duckdb"))
    warehouse.replace_month(GREEN, MONTH, publish_generated_month(lake), run_id="a run")
    mart = marts()["payment_mix"]
    assert warehouse.replace_mart(mart, MONTH, [GREEN], run_id="a run") == 5
    query = "SELECT SUM(trips) AS trips, SUM(share_of_trips) AS whole FROM payment_mix_ratios"
    assert warehouse.read_portable_frame(query).to_dict("records") == [{"trips": 80, "whole": pytest.approx(1)}]
    (tmp_path / "taxi.duckdb").rename(tmp_path / "other.duckdb")
    renamed = DuckDBWarehouse(file=str(tmp_path / "other.duckdb"))
    assert renamed.read_portable_frame(query)["trips"].tolist() == [80]
    assert renamed.read_native_frame("SELECT trips FROM taxi.payment_mix_ratios")["trips"].sum() == 80


def test_the_description_of_a_mart_is_the_comment_of_its_table(tmp_path: Path) -> None:
    lake = LocalLake(folder=str(tmp_path / "lake"))
    warehouse = DuckDBWarehouse(file=str(tmp_path / "warehouse.duckdb"))
    warehouse.replace_month(GREEN, MONTH, publish_generated_month(lake), run_id="a run")
    mart = marts()["payment_mix"]
    warehouse.replace_mart(mart, MONTH, [GREEN], run_id="a run")
    with duckdb.connect(warehouse.file) as connection:
        query = "SELECT comment FROM duckdb_tables() WHERE table_name = 'payment_mix'"
        assert connection.execute(query).fetchall() == [(mart.description,)]


def test_a_month_is_downloaded_from_the_lake_before_the_database_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download may take minutes, during which other processes would wait."""
    deployment = Deployment(tmp_path, "sample")
    assert deployment.run("fhv", "2021-01").success
    was_open, as_local_file = [], LocalLake.as_local_file

    def record_and_download(lake: LocalLake, key: str, version: str | None = None) -> AbstractContextManager[Path]:
        was_open.append(bool(connections._open_connections))  # noqa: SLF001  (there is no public way)
        return as_local_file(lake, key, version)

    monkeypatch.setattr(LocalLake, "is_remote", True)
    monkeypatch.setattr(LocalLake, "as_local_file", record_and_download)
    assert deployment.run("green", "2021-01").success
    assert was_open
    assert not any(was_open)
