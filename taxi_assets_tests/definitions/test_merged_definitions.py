"""The platform's definitions and your own, merged: nothing is lost, and an asset is loaded by its key in the UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.build import TaxiDefinitions, build_definitions, merge_definitions
from taxi_assets.settings import Settings
from taxi_assets_tests.definitions.component_project import names

if TYPE_CHECKING:
    from pathlib import Path

WAREHOUSE = dg.AssetKey(["warehouse", "green_trips"])
MINE = dg.AssetKey(["mine", "green_trips"])
ON_MY_DISK = "my_io_manager"


@dg.asset(key=MINE, deps=[WAREHOUSE], io_manager_key=ON_MY_DISK)
def my_asset() -> str:
    return "a value"


@pytest.fixture
def taxi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TaxiDefinitions:
    monkeypatch.chdir(tmp_path)
    return build_definitions(Settings())


@pytest.fixture
def mine(tmp_path: Path) -> dg.Definitions:
    my_io_manager = dg.FilesystemIOManager(base_dir=str(tmp_path / "mine"))
    job = dg.define_asset_job("mine", selection=[my_asset])
    schedule = dg.ScheduleDefinition(name="mine_daily", job=job, cron_schedule="@daily")
    return dg.Definitions(assets=[my_asset], jobs=[job], schedules=[schedule], resources={ON_MY_DISK: my_io_manager})


def test_merged_definitions_contain_everything_of_both(taxi: TaxiDefinitions, mine: dg.Definitions) -> None:
    merged = merge_definitions(taxi, mine)
    of_taxi, of_mine = names(taxi), names(mine)
    assert names(merged) == {kind: of_taxi[kind] | of_mine[kind] for kind in of_taxi}
    assert merged.executor is taxi.executor
    assert merged.resolve_asset_graph().get(MINE).parent_keys == {WAREHOUSE}


def test_merged_definitions_load_an_asset_by_its_key_in_the_ui(taxi: TaxiDefinitions, mine: dg.Definitions) -> None:
    merged = merge_definitions(taxi, mine)
    with dg.DagsterInstance.ephemeral() as instance:
        assert merged.resolve_job_def("mine").execute_in_process(instance=instance).success
        assert merged.load_asset_value("mine/green_trips", instance=instance) == "a value"


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        (dg.Definitions(resources={"lake": "my lake"}), "different resources with same key 'lake'"),
        (dg.Definitions(executor=dg.multiprocess_executor), "both have an executor"),
    ],
)
def test_a_resource_key_or_an_executor_that_both_define_is_an_error(
    taxi: TaxiDefinitions, mine: dg.Definitions, message: str
) -> None:
    with pytest.raises(dg.DagsterInvariantViolationError, match=message):
        merge_definitions(taxi, mine)


def test_plain_merged_definitions_load_an_asset_by_the_parts_of_its_key(
    taxi: TaxiDefinitions, mine: dg.Definitions
) -> None:
    merged = dg.Definitions.merge(taxi, mine)
    with dg.DagsterInstance.ephemeral() as instance:
        assert merged.resolve_job_def("mine").execute_in_process(instance=instance).success
        assert merged.load_asset_value(["mine", "green_trips"], instance=instance) == "a value"
