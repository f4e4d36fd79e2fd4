"""A run that writes only after another run has changed what it read: it retries the step, and never writes old data."""

from __future__ import annotations

from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pandas as pd
import pytest

from taxi_assets.assets.marts import mart_asset
from taxi_assets.assets.quality import quality_asset
from taxi_assets.checks.marts import mart_checks
from taxi_assets.failures import OVERTAKEN_RETRIES
from taxi_assets.marts.mart import marts
from taxi_assets.storage.duckdb import DuckDBWarehouse
from taxi_assets.storage.io_managers import WarehouseIOManager
from taxi_assets.storage.local_lake import LocalLake
from taxi_assets.tlc.schemas.green import GREEN
from taxi_assets.tlc.schemas.yellow import YELLOW
from taxi_assets_tests.chain import failures
from taxi_assets_tests.contract.mart_trips import ZONES, published, trips_of
from taxi_assets_tests.trips import MONTH, published_month

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taxi_assets.storage.warehouse import Warehouse
    from taxi_assets.tlc.schema import Service

MART = marts()["hour_of_week"]


class Overtaken(dg.IOManager):
    """Other runs are faster, each once: they act when a run is about to write."""

    def __init__(self, warehouse: DuckDBWarehouse, *others: Callable[[], object]) -> None:
        self._manager, self._others = WarehouseIOManager(warehouse=warehouse), [*others]

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
    manager = Overtaken(warehouse, *others)
    resources = {"warehouse": warehouse, "lake": lake, "warehouse_tables": manager, "warehouse_frames": manager}
    return dg.materialize([asset], resources=resources, partition_key=month, raise_on_error=False)


def test_a_mart_that_another_run_made_of_more_services_is_not_overwritten_and_a_retry_makes_it_of_all(
    warehouse: DuckDBWarehouse, lake: LocalLake
) -> None:
    def load(service: Service, rows: int = 200) -> None:
        trips = published(lake, service, MONTH, trips_of(service, MONTH, rows))
        warehouse.replace_month(service, MONTH, trips, run_id="a run")

    def other_run() -> None:
        load(YELLOW)
        assert make(mart_asset(MART, "duckdb"), warehouse, lake, month=str(MONTH)).success

    def services() -> list[str]:
        return warehouse.ask(f"SELECT DISTINCT service FROM {MART.name} ORDER BY service")["service"].tolist()

    load(GREEN)
    result = make(mart_asset(MART, "duckdb"), warehouse, lake, other_run, month=str(MONTH))
    assert services() == ["green", "yellow"]
    assert result.success, failures(result)
    assert "marts/hour_of_week 2020-10: another run has loaded yellow since" in retried(result)


def test_a_step_that_is_overtaken_at_every_retry_fails_by_name(
    warehouse: DuckDBWarehouse, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxi_assets.failures._OVERTAKEN_DELAY_SECONDS", 0)

    def load(rows: int) -> None:
        warehouse.replace_month(
            GREEN, MONTH, published(lake, GREEN, MONTH, trips_of(GREEN, MONTH, rows)), run_id="a run"
        )

    load(100)
    others = [partial(load, rows) for rows in range(101, 102 + OVERTAKEN_RETRIES)]
    result = make(mart_asset(MART, "duckdb"), warehouse, lake, *others, month=str(MONTH))
    (failure,) = failures(result)
    assert "Materialize it once more. [OvertakenError]" in failure


def test_quality_of_fewer_months_does_not_overwrite_that_of_more_and_a_retry_reads_all(
    warehouse: DuckDBWarehouse, lake: LocalLake
) -> None:
    quality = quality_asset("duckdb")

    def cleaned_by_other_run() -> None:
        published(lake, YELLOW, MONTH, trips_of(YELLOW, MONTH, 50))
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


class ThenOvertaken(WarehouseIOManager):
    """Stores a mart; then another run loads trips before the mart is checked."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        super().handle_output(context, obj)
        load_green(self.warehouse, rows=100, run_id="a newer run")


def load_green(warehouse: Warehouse, *, rows: int, run_id: str) -> None:
    with TemporaryDirectory() as folder:
        trips = published(LocalLake(folder=folder), GREEN, MONTH, trips_of(GREEN, MONTH, rows))
        warehouse.replace_month(GREEN, MONTH, trips, run_id=run_id)


def check_mart(warehouse: DuckDBWarehouse, manager: dg.IOManager) -> tuple[bool, dict[str, dg.AssetCheckEvaluation]]:
    """Make the mart and check it; whether the run succeeded, and what the checks found."""
    job = dg.Definitions(
        [mart_asset(MART, "duckdb")],
        asset_checks=[mart_checks(MART)],
        resources={"warehouse": warehouse, "warehouse_tables": manager},
    ).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(partition_key=str(MONTH), raise_on_error=False)
    return result.success, {found.check_name: found for found in result.get_asset_check_evaluations()}


def test_a_mart_whose_trips_another_run_replaced_before_its_check_is_a_warning_that_names_the_run(
    warehouse: DuckDBWarehouse,
) -> None:
    load_green(warehouse, rows=200, run_id="an older run")
    succeeded, found = check_mart(warehouse, ThenOvertaken(warehouse=warehouse))
    assert succeeded
    assert found["key_is_unique"].passed
    assert not found["adds_up"].passed
    assert found["adds_up"].severity == dg.AssetCheckSeverity.WARN
    assert "those loaded now are of the runs a newer run" in (found["adds_up"].description or "")
    succeeded, found = check_mart(warehouse, WarehouseIOManager(warehouse=warehouse))
    assert succeeded
    assert found["adds_up"].passed


class Spoiled(WarehouseIOManager):
    """Stores a mart, and loses a row of it."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        super().handle_output(context, obj)
        assert isinstance(self.warehouse, DuckDBWarehouse)
        with duckdb.connect(self.warehouse.file) as connection:
            connection.execute(f"DELETE FROM taxi.{MART.name} WHERE rowid = (SELECT min(rowid) FROM taxi.{MART.name})")


def test_a_mart_that_does_not_add_up_is_an_error_where_no_other_run_has_replaced_its_trips(
    warehouse: DuckDBWarehouse,
) -> None:
    load_green(warehouse, rows=200, run_id="an older run")
    _, found = check_mart(warehouse, Spoiled(warehouse=warehouse))
    assert not found["adds_up"].passed
    assert found["adds_up"].severity == dg.AssetCheckSeverity.ERROR
