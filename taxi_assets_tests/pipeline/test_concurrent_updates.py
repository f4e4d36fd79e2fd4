"""A run whose inputs another run has changed retries its step and never writes outdated data."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pandas as pd
import pytest
from pyarrow.parquet import read_table

from taxi_assets.assets.mart_tables import copy_to_lake, mart_asset, replace_mart
from taxi_assets.assets.quality import quality_asset
from taxi_assets.automation.step_failures import CONCURRENT_UPDATE_RETRIES
from taxi_assets.checks.mart_checks import evaluate_mart
from taxi_assets.io_managers.warehouse_table import WarehouseTableIOManager
from taxi_assets.marts.mart import marts
from taxi_assets.reports.quality_metrics import quality_frame
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake_tables import mart_table
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.yellow import YELLOW
from taxi_assets_tests.contract.mart_trips import ZONES, publish_trips, trips_of
from taxi_assets_tests.pipeline_harness import failure_messages
from taxi_assets_tests.table_rows import store_rows
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from taxi_assets.marts.mart import MartMonth
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse
    from taxi_assets.tlc.schema import Service

MART = marts()["hour_of_week"]


def run_before_mart_write(monkeypatch: pytest.MonkeyPatch, *others: Callable[[], object]) -> None:
    """Call each of `others` once, after a mart's run has read which versions are loaded and before it writes the mart.

    This cannot happen with DuckDB, because the run keeps the file locked. It can with the other warehouses.
    """
    waiting = [*others]

    def replace_later(warehouse: Warehouse, output: MartMonth, *, run_id: str) -> pa.Table:
        if waiting:
            waiting.pop()()
        return replace_mart(warehouse, output, run_id=run_id)

    monkeypatch.setattr(DuckDBWarehouse, "session", lambda _, **__: nullcontext())
    monkeypatch.setattr("taxi_assets.assets.mart_tables.replace_mart", replace_later)


class InterleavedIOManager(dg.IOManager):
    """Calls each of `others` once, before a run writes its frame."""

    def __init__(self, warehouse: DuckDBWarehouse, *others: Callable[[], object]) -> None:
        self._manager, self._others = WarehouseTableIOManager(warehouse=warehouse), [*others]

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        if self._others:
            self._others.pop()()
        self._manager.handle_output(context, obj)

    def load_input(self, context: dg.InputContext) -> None:
        raise NotImplementedError


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(folder=str(tmp_path / "lake"))


@pytest.fixture
def warehouse(tmp_path: Path) -> DuckDBWarehouse:
    warehouse = DuckDBWarehouse(file=str(tmp_path / "warehouse.duckdb"))
    store_rows(warehouse, "taxi_zones", ZONES)
    return warehouse


def retry_reason(result: dg.ExecuteInProcessResult) -> str:
    """Return the message of the error that caused the step's only retry."""
    (event,) = [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    error = event.step_retry_data.error
    assert error is not None
    assert error.cause is not None
    return error.cause.message


def materialize(
    asset: dg.AssetsDefinition,
    warehouse: DuckDBWarehouse,
    lake: LocalLake,
    *others: Callable[[], object],
    month: str | None = None,
) -> dg.ExecuteInProcessResult:
    resources = {
        "warehouse": warehouse,
        "lake": lake,
        "warehouse_table": InterleavedIOManager(warehouse, *others),
    }
    return dg.materialize([asset], resources=resources, partition_key=month, raise_on_error=False)


def test_a_mart_computed_from_more_services_by_another_run_is_kept_and_a_retry_uses_all_services(
    warehouse: DuckDBWarehouse, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(service: Service, rows: int = 200) -> None:
        trips = publish_trips(lake, service, MONTH, trips_of(service, MONTH, rows))
        warehouse.replace_month(service, MONTH, trips, run_id="a run")

    def other_run() -> None:
        load(YELLOW)
        assert materialize(mart_asset(MART), warehouse, lake, month=str(MONTH)).success

    def services() -> list[str]:
        return warehouse.read_portable_frame(f"SELECT DISTINCT service FROM {MART.name} ORDER BY service")[
            "service"
        ].tolist()

    load(GREEN)
    run_before_mart_write(monkeypatch, other_run)
    result = materialize(mart_asset(MART), warehouse, lake, month=str(MONTH))
    assert services() == ["green", "yellow"]
    assert result.success, failure_messages(result)
    assert "marts/hour_of_week 2020-10: another run has loaded yellow since" in retry_reason(result)


def test_a_step_whose_inputs_change_before_every_retry_fails_with_the_error_name(
    warehouse: DuckDBWarehouse, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxi_assets.automation.step_failures._CONCURRENT_UPDATE_DELAY_SECONDS", 0)

    def load(rows: int) -> None:
        warehouse.replace_month(
            GREEN, MONTH, publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, rows)), run_id="a run"
        )

    load(100)
    others = [partial(load, rows) for rows in range(101, 102 + CONCURRENT_UPDATE_RETRIES)]
    run_before_mart_write(monkeypatch, *others)
    result = materialize(mart_asset(MART), warehouse, lake, month=str(MONTH))
    (failure,) = failure_messages(result)
    assert "Materialize it again. [ConcurrentUpdateError]" in failure


def test_a_quality_table_with_more_rows_is_kept_and_a_retry_reads_all_rows(
    warehouse: DuckDBWarehouse, lake: LocalLake
) -> None:
    quality = quality_asset()

    def clean_in_other_run() -> None:
        publish_trips(lake, YELLOW, MONTH, trips_of(YELLOW, MONTH, 50))
        assert materialize(quality, warehouse, lake).success

    publish_generated_month(lake)
    result = materialize(quality, warehouse, lake, clean_in_other_run)
    assert result.success, failure_messages(result)
    assert "quality/month_quality: another run has cleaned clean/yellow_trips/2020-10 since" in retry_reason(result)
    assert set(warehouse.read_frame("month_quality")["service"]) == {"green", "yellow"}

    old = warehouse.read_frame("month_quality")
    result = materialize(quality, warehouse, lake, lambda: publish_generated_month(lake, rows=7))
    assert result.success, failure_messages(result)
    assert "another run has cleaned clean/green_trips/2020-10 since" in retry_reason(result)
    assert not pd.DataFrame.equals(warehouse.read_frame("month_quality"), old)


def load_green(warehouse: Warehouse, *, rows: int, run_id: str) -> None:
    with TemporaryDirectory() as folder:
        trips = publish_trips(LocalLake(folder=folder), GREEN, MONTH, trips_of(GREEN, MONTH, rows))
        warehouse.replace_month(GREEN, MONTH, trips, run_id=run_id)


def run_before_checks(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Call `act` once, after a run has computed a mart and before it evaluates the mart's checks."""
    waiting = [act]

    def evaluate_later(*arguments: Any, **keywords: Any) -> list[dg.AssetCheckResult]:
        if waiting:
            waiting.pop()()
        return evaluate_mart(*arguments, **keywords)

    monkeypatch.setattr(DuckDBWarehouse, "session", lambda _, **__: nullcontext())
    monkeypatch.setattr("taxi_assets.assets.mart_tables.evaluate_mart", evaluate_later)


def materialize_and_check(warehouse: DuckDBWarehouse) -> tuple[bool, dict[str, dg.AssetCheckEvaluation]]:
    """Compute and check the mart; return whether the run succeeded, and the results of the checks by name."""
    manager = WarehouseTableIOManager(warehouse=warehouse)
    result = dg.materialize(
        [mart_asset(MART)],
        resources={
            "warehouse": warehouse,
            "warehouse_table": manager,
            "lake": LocalLake(folder=str(Path(warehouse.file).with_name("lake"))),
        },
        partition_key=str(MONTH),
        raise_on_error=False,
    )
    return result.success, {found.check_name: found for found in result.get_asset_check_evaluations()}


def copied_trips(lake: LocalLake) -> int:
    return int(sum(read_table(lake.uri(mart_table(MART).key(MONTH)))["trips"].to_pylist()))


def stored_trips(warehouse: DuckDBWarehouse) -> int:
    return int(warehouse.read_portable_frame(f"SELECT SUM(trips) AS trips FROM {MART.name}")["trips"].iloc[0])


def test_the_lake_has_the_newer_copy_of_a_mart_if_another_run_copies_it_first(
    warehouse: DuckDBWarehouse, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_run() -> None:
        load_green(warehouse, rows=100, run_id="a newer run")
        assert materialize(mart_asset(MART), warehouse, lake, month=str(MONTH)).success

    def copy_later(*arguments: Any, **keywords: Any) -> None:
        if waiting:
            waiting.pop()()
        copy_to_lake(*arguments, **keywords)

    waiting = [other_run]
    load_green(warehouse, rows=200, run_id="an older run")
    monkeypatch.setattr("taxi_assets.assets.mart_tables.copy_to_lake", copy_later)
    assert materialize(mart_asset(MART), warehouse, lake, month=str(MONTH)).success
    assert not waiting
    assert copied_trips(lake) == stored_trips(warehouse) < 101


def test_the_lake_keeps_the_copy_of_newer_quality_rows(
    warehouse: DuckDBWarehouse, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_run() -> None:
        publish_trips(lake, YELLOW, MONTH, trips_of(YELLOW, MONTH, 100))
        assert materialize(quality_asset(), warehouse, lake).success

    def frame_later(reports: Any) -> pd.DataFrame:
        frame = quality_frame(reports)
        if waiting:
            waiting.pop()()
        return frame

    waiting = [other_run]
    publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, 200))
    monkeypatch.setattr("taxi_assets.assets.quality.quality_frame", frame_later)
    result = materialize(quality_asset(dg.RetryPolicy(max_retries=1)), warehouse, lake)
    assert result.success, failure_messages(result)
    assert "was replaced by another run" in retry_reason(result)
    copied = read_table(lake.uri("quality/month_quality.parquet"))
    assert set(copied["service"].to_pylist()) == {"green", "yellow"}


def test_the_check_warns_and_names_the_run_if_another_run_replaces_the_trips_before_the_check(
    warehouse: DuckDBWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_green(warehouse, rows=200, run_id="an older run")
    run_before_checks(monkeypatch, lambda: load_green(warehouse, rows=100, run_id="a newer run"))
    succeeded, found = materialize_and_check(warehouse)
    assert succeeded
    assert found["key_is_unique"].passed
    assert not found["totals_match_trips"].passed
    assert found["totals_match_trips"].severity == dg.AssetCheckSeverity.WARN
    assert "by the runs a newer run" in (found["totals_match_trips"].description or "")
    succeeded, found = materialize_and_check(warehouse)
    assert succeeded
    assert found["totals_match_trips"].passed


def test_totals_that_do_not_match_are_an_error_if_no_other_run_has_replaced_the_trips(
    warehouse: DuckDBWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete_one_row() -> None:
        with duckdb.connect(warehouse.file) as connection:
            connection.execute(f"DELETE FROM taxi.{MART.name} WHERE rowid = (SELECT min(rowid) FROM taxi.{MART.name})")

    load_green(warehouse, rows=200, run_id="an older run")
    run_before_checks(monkeypatch, delete_one_row)
    succeeded, found = materialize_and_check(warehouse)
    assert not succeeded
    assert not found["totals_match_trips"].passed
    assert found["totals_match_trips"].severity == dg.AssetCheckSeverity.ERROR


def test_duplicate_rows_of_a_mart_are_an_error_even_if_another_run_has_replaced_the_trips(
    warehouse: DuckDBWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def duplicate_rows() -> None:
        with duckdb.connect(warehouse.file) as connection:
            connection.execute(f"INSERT INTO taxi.{MART.name} SELECT * FROM taxi.{MART.name}")
        load_green(warehouse, rows=100, run_id="a newer run")

    load_green(warehouse, rows=200, run_id="an older run")
    run_before_checks(monkeypatch, duplicate_rows)
    succeeded, found = materialize_and_check(warehouse)
    assert not succeeded
    assert not found["key_is_unique"].passed
    assert found["key_is_unique"].severity == dg.AssetCheckSeverity.ERROR
