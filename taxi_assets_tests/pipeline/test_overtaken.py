"""A run that writes only after another run has changed what it read: it retries the step, and never writes old data."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import pytest

from taxi_assets.assets.marts import mart_asset
from taxi_assets.assets.quality import quality_asset
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
