"""A run that looked at what there is, and writes only after a newer one has: it is told so, and the newer one stays."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import pytest

from taxi_assets.assets.marts import mart_asset
from taxi_assets.assets.quality import quality_asset
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
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

MART = marts()["hour_of_week"]


def overtake(monkeypatch: pytest.MonkeyPatch, *others: Callable[[], object]) -> None:
    """Let other runs load trips, each once, after a mart's run has read which versions are loaded.

    In a DuckDB file that cannot happen, because the run holds the file. In the other engines it can.
    """
    versions, waiting = DuckDBWarehouse.versions, [*others]

    def overtaken(self: DuckDBWarehouse, services: Sequence[Service], month: Month) -> dict[str, str]:
        found = versions(self, services, month)
        if waiting:
            waiting.pop()()
        return found

    monkeypatch.setattr(DuckDBWarehouse, "session", lambda _: nullcontext())
    monkeypatch.setattr(DuckDBWarehouse, "versions", overtaken)


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


def test_a_mart_that_was_made_of_more_services_meanwhile_is_not_overwritten_and_another_try_makes_it_of_all(
    warehouse: DuckDBWarehouse, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
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
    overtake(monkeypatch, other_run)
    result = make(mart_asset(MART, "duckdb"), warehouse, lake, month=str(MONTH))
    assert services() == ["green", "yellow"]
    (failure,) = failures(result)
    assert "marts/hour_of_week 2020-10: another run has loaded yellow since" in failure
    assert "Materialize it once more. [OvertakenError]" in failure

    def another_run() -> None:
        load(GREEN, 100)

    again = dg.RetryPolicy(max_retries=1)
    overtake(monkeypatch, another_run)
    result = make(mart_asset(MART, "duckdb", again), warehouse, lake, month=str(MONTH))
    assert result.success, failures(result)
    assert services() == ["green", "yellow"]


def test_quality_of_fewer_months_does_not_overwrite_that_of_more(warehouse: DuckDBWarehouse, lake: LocalLake) -> None:
    quality = quality_asset("duckdb")

    def cleaned_by_other_run() -> None:
        published(lake, YELLOW, MONTH, trips_of(YELLOW, MONTH, 50))
        assert make(quality, warehouse, lake).success

    published_month(lake)
    result = make(quality, warehouse, lake, cleaned_by_other_run)
    (failure,) = failures(result)
    assert "quality/month_quality: another run has cleaned clean/yellow_trips/2020-10 since" in failure
    assert set(warehouse.read_frame("month_quality")["service"]) == {"green", "yellow"}

    result = make(quality, warehouse, lake, lambda: published_month(lake, rows=7))
    (failure,) = failures(result)
    assert "another run has cleaned clean/green_trips/2020-10 since" in failure
    old = warehouse.read_frame("month_quality")
    assert make(quality, warehouse, lake).success
    assert not pd.DataFrame.equals(warehouse.read_frame("month_quality"), old)
