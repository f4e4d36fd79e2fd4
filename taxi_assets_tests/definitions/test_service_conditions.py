"""When the marts are made by themselves: what they follow are months of services, whichever are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from taxi_assets.build import build_definitions
from taxi_assets.marts.mart import marts
from taxi_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = {f"marts/{name}" for name in marts()}
# The other marts count trips of services that record no payments, too.
OF_FHV = ALL - {"marts/payment_mix"}
ZONES = "reference/taxi_zones"


class Instance:
    """An instance to which materializations and checks are reported, and the ticks of the automation sensor."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.defs = build_definitions(Settings())
        self.cursor: dg.AssetDaemonCursor | None = None

    def materialized(self, asset: str, month: str | None, version: str) -> None:
        key = dg.AssetKey.from_user_string(asset)
        tags = {"dagster/data_version": version}
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=month, tags=tags))

    def loaded(self, service: str, month: str, version: str = "1") -> None:
        """The service's month is in the warehouse."""
        self.materialized(f"warehouse/{service}_trips", month, version)

    def failed_its_check(self, service: str, month: str) -> None:
        """What was loaded last for the month is not what it should be."""
        key = dg.AssetKey(["warehouse", f"{service}_trips"])
        (record,) = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(key, asset_partitions=[month]), limit=1
        ).records
        of = AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                key, "matches_clean", passed=False, blocking=True, partition=month, target_materialization_data=of
            )
        )

    def starts(self, job: str, month: str) -> dg.DagsterRun:
        """A run that has begun and goes on."""
        run = self.instance.create_run_for_job(
            self.defs.resolve_job_def(job),
            tags={"dagster/partition": month},
            asset_selection=frozenset(dg.AssetKey.from_user_string(mart) for mart in ALL),
        )
        self.instance.report_dagster_event(
            dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name=job), run_id=run.run_id
        )
        return run

    def tick(self) -> dict[str, set[str]]:
        """The months that are asked for, of marts and zones; an asset without months has the month ''."""
        result = dg.evaluate_automation_conditions(defs=self.defs, instance=self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        asked: dict[str, set[str]] = {}
        for asset in (*ALL, ZONES):
            for partition in result.get_requested_partitions(dg.AssetKey.from_user_string(asset)):
                asked.setdefault(asset, set()).add(partition or "")
        return asked


@pytest.fixture
def instance() -> Iterator[Instance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield Instance(ephemeral)


@pytest.fixture
def with_zones(instance: Instance) -> Instance:
    instance.materialized(ZONES, None, "1")
    instance.tick()
    return instance


def test_a_mart_is_made_as_soon_as_one_service_is_loaded(with_zones: Instance) -> None:
    with_zones.loaded("green", "2021-01")
    assert with_zones.tick() == {mart: {"2021-01"} for mart in ALL}
    assert with_zones.tick() == {}


def test_a_service_without_payments_makes_no_payment_mix(with_zones: Instance) -> None:
    with_zones.loaded("fhv", "2021-01")
    assert with_zones.tick() == {mart: {"2021-01"} for mart in OF_FHV}


def test_another_service_makes_the_month_anew_and_no_other(with_zones: Instance) -> None:
    for month in ("2021-01", "2021-02"):
        with_zones.loaded("green", month)
    with_zones.tick()
    for mart in ALL:
        for month in ("2021-01", "2021-02"):
            with_zones.materialized(mart, month, "1")
    assert with_zones.tick() == {}

    with_zones.loaded("yellow", "2021-02")

    assert with_zones.tick() == {mart: {"2021-02"} for mart in ALL}


def test_a_revised_old_month_makes_that_month_anew(with_zones: Instance) -> None:
    for month in ("2015-07", "2021-01"):
        with_zones.loaded("green", month)
    with_zones.tick()
    with_zones.loaded("green", "2015-07", "2")
    assert with_zones.tick() == {mart: {"2015-07"} for mart in ALL}


def test_a_service_that_is_loaded_right_after_the_mart_was_asked_for_is_not_lost(with_zones: Instance) -> None:
    with_zones.loaded("green", "2021-01")
    assert with_zones.tick() == {mart: {"2021-01"} for mart in ALL}
    with_zones.loaded("yellow", "2021-01")
    assert with_zones.tick() == {mart: {"2021-01"} for mart in ALL}
    assert with_zones.tick() == {}


def test_a_service_that_is_loaded_while_the_mart_is_being_made_is_not_lost(with_zones: Instance) -> None:
    with_zones.loaded("green", "2021-01")
    with_zones.tick()
    run = with_zones.starts("marts", "2021-01")
    with_zones.loaded("yellow", "2021-01")
    assert with_zones.tick() == {}
    for mart in ALL:
        with_zones.materialized(mart, "2021-01", "green alone")
    with_zones.instance.report_run_failed(run)  # how it ends does not matter here
    assert with_zones.tick() == {mart: {"2021-01"} for mart in ALL}
    assert with_zones.tick() == {}


def test_the_same_data_loaded_again_asks_for_nothing(with_zones: Instance) -> None:
    with_zones.loaded("green", "2021-01")
    with_zones.tick()
    for mart in ALL:
        with_zones.materialized(mart, "2021-01", "1")
    with_zones.loaded("green", "2021-01")
    assert with_zones.tick() == {}


def test_a_table_that_failed_its_check_is_not_followed_until_it_is_loaded_anew(with_zones: Instance) -> None:
    with_zones.loaded("green", "2021-01")
    with_zones.failed_its_check("green", "2021-01")
    assert with_zones.tick() == {}
    with_zones.loaded("green", "2021-01", "2")
    assert with_zones.tick() == {mart: {"2021-01"} for mart in ALL}


def test_the_zones_are_loaded_the_first_time_that_there_are_trips_and_marts_wait_for_them(instance: Instance) -> None:
    assert instance.tick() == {}
    instance.loaded("green", "2021-01")
    assert instance.tick() == {ZONES: {""}}
    instance.materialized(ZONES, None, "1")
    assert instance.tick() == {mart: {"2021-01"} for mart in ALL}
    instance.loaded("green", "2021-02")
    assert instance.tick() == {mart: {"2021-02"} for mart in ALL}


def test_revised_zones_make_no_month_anew(with_zones: Instance) -> None:
    with_zones.loaded("green", "2021-01")
    with_zones.tick()
    with_zones.materialized(ZONES, None, "2")
    assert with_zones.tick() == {}


def test_switched_on_over_loaded_months_nothing_is_asked_for(instance: Instance) -> None:
    instance.materialized(ZONES, None, "1")
    for month in ("2021-01", "2021-02"):
        instance.loaded("green", month)
    assert instance.tick() == {}
    assert instance.tick() == {}
