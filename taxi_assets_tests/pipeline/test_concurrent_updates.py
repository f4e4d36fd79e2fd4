"""A run that writes only after another run has changed what it read: it retries the step, and never writes old data."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pandas as pd
import pytest

from taxi_assets.assets.mart_tables import mart_asset
from taxi_assets.assets.quality import quality_asset
from taxi_assets.automation.step_failures import CONCURRENT_UPDATE_RETRIES
from taxi_assets.checks.mart_checks import evaluate_mart
from taxi_assets.io_managers.warehouse_frames import WarehouseFrameIOManager
from taxi_assets.io_managers.warehouse_marts import ReplacedMart, WarehouseMartIOManager, replace_mart
from taxi_assets.marts.mart import marts
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.yellow import YELLOW
from taxi_assets_tests.contract.mart_trips import ZONES, publish_trips, trips_of
from taxi_assets_tests.pipeline_harness import failures
from taxi_assets_tests.trips import MONTH, published_month

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taxi_assets.marts.mart import MartMonth
    from taxi_assets.storage.warehouse.base_warehouse import Warehouse
    from taxi_assets.tlc.schema import Service

MART = marts()["hour_of_week"]


def overtake(monkeypatch: pytest.MonkeyPatch, *others: Callable[[], object]) -> None:
    """Let other runs load trips, each once, after a mart's run has read which versions are loaded.

    In a DuckDB file that cannot happen, because the run holds the file. In the other engines it can.
    """
    waiting = [*others]

    def overtaken(warehouse: Warehouse, made: MartMonth, *, run_id: str) -> ReplacedMart:
        if waiting:
            waiting.pop()()
        return replace_mart(warehouse, made, run_id=run_id)

    monkeypatch.setattr(DuckDBWarehouse, "session", lambda _: nullcontext())
    monkeypatch.setattr("taxi_assets.assets.mart_tables.replace_mart", overtaken)


class Overtaken(dg.IOManager):
    """Other runs are faster, each once: they act when a run is about to write."""

    def __init__(self, warehouse: DuckDBWarehouse, *others: Callable[[], object]) -> None:
        self._manager, self._others = WarehouseFrameIOManager(warehouse=warehouse), [*others]

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
    warehouse.replace_frame("taxi_zones", ZONES, {})
    return warehouse


def retried(result: dg.ExecuteInProcessResult) -> str:
    """Why the step was retried, the one time that it was."""
    (event,) = [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    error = event.step_retry_data.error
    assert error is not None
    assert error.cause is not None
    return error.cause.message


def make(
    asset: dg.AssetsDefinition,
    warehouse: DuckDBWarehouse,
    lake: LocalLake,
    *others: Callable[[], object],
    month: str | None = None,
) -> dg.ExecuteInProcessResult:
    resources = {
        "warehouse": warehouse,
        "lake": lake,
        "warehouse_marts": WarehouseMartIOManager(warehouse=warehouse),
        "warehouse_frames": Overtaken(warehouse, *others),
    }
    return dg.materialize([asset], resources=resources, partition_key=month, raise_on_error=False)


def test_a_mart_that_another_run_made_of_more_services_is_not_overwritten_and_a_retry_makes_it_of_all(
    warehouse: DuckDBWarehouse, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(service: Service, rows: int = 200) -> None:
        trips = publish_trips(lake, service, MONTH, trips_of(service, MONTH, rows))
        warehouse.replace_month(service, MONTH, trips, run_id="a run")

    def other_run() -> None:
        load(YELLOW)
        assert make(mart_asset(MART, "duckdb"), warehouse, lake, month=str(MONTH)).success

    def services() -> list[str]:
        return warehouse.read_portable_frame(f"SELECT DISTINCT service FROM {MART.name} ORDER BY service")[
            "service"
        ].tolist()

    load(GREEN)
    overtake(monkeypatch, other_run)
    result = make(mart_asset(MART, "duckdb"), warehouse, lake, month=str(MONTH))
    assert services() == ["green", "yellow"]
    assert result.success, failures(result)
    assert "marts/hour_of_week 2020-10: another run has loaded yellow since" in retried(result)


def test_a_step_that_is_overtaken_at_every_retry_fails_by_name(
    warehouse: DuckDBWarehouse, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxi_assets.automation.step_failures._CONCURRENT_UPDATE_DELAY_SECONDS", 0)

    def load(rows: int) -> None:
        warehouse.replace_month(
            GREEN, MONTH, publish_trips(lake, GREEN, MONTH, trips_of(GREEN, MONTH, rows)), run_id="a run"
        )

    load(100)
    others = [partial(load, rows) for rows in range(101, 102 + CONCURRENT_UPDATE_RETRIES)]
    overtake(monkeypatch, *others)
    result = make(mart_asset(MART, "duckdb"), warehouse, lake, month=str(MONTH))
    (failure,) = failures(result)
    assert "Materialize it once more. [ConcurrentUpdateError]" in failure


def test_quality_of_fewer_months_does_not_overwrite_that_of_more_and_a_retry_reads_all(
    warehouse: DuckDBWarehouse, lake: LocalLake
) -> None:
    quality = quality_asset("duckdb")

    def cleaned_by_other_run() -> None:
        publish_trips(lake, YELLOW, MONTH, trips_of(YELLOW, MONTH, 50))
        assert make(quality, warehouse, lake).success

    published_month(lake)
    result = make(quality, warehouse, lake, cleaned_by_other_run)
    assert result.success, failures(result)
    assert "quality/month_quality: another run has cleaned clean/yellow_trips/2020-10 since" in retried(result)
    assert set(warehouse.read_frame("month_quality")["service"]) == {"green", "yellow"}

    old = warehouse.read_frame("month_quality")
    result = make(quality, warehouse, lake, lambda: published_month(lake, rows=7))
    assert result.success, failures(result)
    assert "another run has cleaned clean/green_trips/2020-10 since" in retried(result)
    assert not pd.DataFrame.equals(warehouse.read_frame("month_quality"), old)


def load_green(warehouse: Warehouse, *, rows: int, run_id: str) -> None:
    with TemporaryDirectory() as folder:
        trips = publish_trips(LocalLake(folder=folder), GREEN, MONTH, trips_of(GREEN, MONTH, rows))
        warehouse.replace_month(GREEN, MONTH, trips, run_id=run_id)


def before_the_checks(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let something happen, once, after a run has made a mart and before it evaluates the mart's checks."""
    waiting = [act]

    def evaluate_later(*arguments: Any, **keywords: Any) -> list[dg.AssetCheckResult]:
        if waiting:
            waiting.pop()()
        return evaluate_mart(*arguments, **keywords)

    monkeypatch.setattr(DuckDBWarehouse, "session", lambda _: nullcontext())
    monkeypatch.setattr("taxi_assets.assets.mart_tables.evaluate_mart", evaluate_later)


def make_and_check(warehouse: DuckDBWarehouse) -> tuple[bool, dict[str, dg.AssetCheckEvaluation]]:
    """Make the mart and check it; return whether the run succeeded, and the results of the checks by name."""
    manager = WarehouseMartIOManager(warehouse=warehouse)
    result = dg.materialize(
        [mart_asset(MART, "duckdb")],
        resources={"warehouse": warehouse, "warehouse_marts": manager},
        partition_key=str(MONTH),
        raise_on_error=False,
    )
    return result.success, {found.check_name: found for found in result.get_asset_check_evaluations()}


def test_a_mart_whose_trips_another_run_replaced_before_its_check_is_a_warning_that_names_the_run(
    warehouse: DuckDBWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_green(warehouse, rows=200, run_id="an older run")
    before_the_checks(monkeypatch, lambda: load_green(warehouse, rows=100, run_id="a newer run"))
    succeeded, found = make_and_check(warehouse)
    assert succeeded
    assert found["key_is_unique"].passed
    assert not found["totals_match_trips"].passed
    assert found["totals_match_trips"].severity == dg.AssetCheckSeverity.WARN
    assert "those loaded now are of the runs a newer run" in (found["totals_match_trips"].description or "")
    succeeded, found = make_and_check(warehouse)
    assert succeeded
    assert found["totals_match_trips"].passed


def test_a_mart_that_does_not_add_up_is_an_error_where_no_other_run_has_replaced_its_trips(
    warehouse: DuckDBWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_a_row() -> None:
        with duckdb.connect(warehouse.file) as connection:
            connection.execute(f"DELETE FROM taxi.{MART.name} WHERE rowid = (SELECT min(rowid) FROM taxi.{MART.name})")

    load_green(warehouse, rows=200, run_id="an older run")
    before_the_checks(monkeypatch, lose_a_row)
    succeeded, found = make_and_check(warehouse)
    assert not succeeded
    assert not found["totals_match_trips"].passed
    assert found["totals_match_trips"].severity == dg.AssetCheckSeverity.ERROR


def test_doubled_rows_of_a_mart_are_an_error_even_if_another_run_has_replaced_its_trips(
    warehouse: DuckDBWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def double_the_rows() -> None:
        with duckdb.connect(warehouse.file) as connection:
            connection.execute(f"INSERT INTO taxi.{MART.name} SELECT * FROM taxi.{MART.name}")
        load_green(warehouse, rows=100, run_id="a newer run")

    load_green(warehouse, rows=200, run_id="an older run")
    before_the_checks(monkeypatch, double_the_rows)
    succeeded, found = make_and_check(warehouse)
    assert not succeeded
    assert not found["key_is_unique"].passed
    assert found["key_is_unique"].severity == dg.AssetCheckSeverity.ERROR
