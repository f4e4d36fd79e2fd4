"""When the automation conditions request marts: when a month of any service changes."""

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
# Services without payments have trips in every mart but this one.
MARTS_WITH_FHV = ALL - {"marts/payment_mix"}
ZONES = "reference/taxi_zones"


class AutomationHarness:
    """An instance to which events are reported, and ticks of the sensor `automation_conditions`."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance, evaluated: dg.AssetSelection) -> None:
        self.instance = instance
        self.defs = defs
        self.evaluated = evaluated
        self.cursor: dg.AssetDaemonCursor | None = None

    def materialize(self, asset: str, month: str | None, version: str) -> None:
        key = dg.AssetKey.from_user_string(asset)
        tags = {"dagster/data_version": version}
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=month, tags=tags))

    def load(self, service: str, month: str, version: str = "1") -> None:
        """Report that a service's month was loaded into the warehouse."""
        self.materialize(f"warehouse/{service}_trips", month, version)

    def fail_check(self, service: str, month: str) -> None:
        """Report a failed blocking check of what was loaded last for the month."""
        key = dg.AssetKey(["warehouse", f"{service}_trips"])
        (record,) = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(key, asset_partitions=[month]), limit=1
        ).records
        target = AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                key, "matches_clean", passed=False, blocking=True, partition=month, target_materialization_data=target
            )
        )

    def start(self, job: str, month: str) -> dg.DagsterRun:
        """Report a run in progress."""
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
        """Evaluate the conditions once; return the requested months of marts and zones. Zones have the month ''."""
        result = dg.evaluate_automation_conditions(
            defs=self.defs, instance=self.instance, asset_selection=self.evaluated, cursor=self.cursor
        )
        self.cursor = result.cursor
        requested: dict[str, set[str]] = {}
        for asset in (*ALL, ZONES):
            for partition in result.get_requested_partitions(dg.AssetKey.from_user_string(asset)):
                requested.setdefault(asset, set()).add(partition or "")
        return requested


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_definitions(Settings())


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def harness(defs: dg.Definitions, instance: dg.DagsterInstance) -> AutomationHarness:
    """A harness that evaluates the conditions of all assets."""
    return AutomationHarness(defs, instance, dg.AssetSelection.all())


@pytest.fixture
def with_zones(defs: dg.Definitions, instance: dg.DagsterInstance) -> AutomationHarness:
    """A harness that evaluates the conditions of the marts and of the assets upstream of them."""
    harness = AutomationHarness(defs, instance, dg.AssetSelection.assets(*ALL).upstream())
    harness.materialize(ZONES, None, "1")
    harness.tick()
    return harness


def test_marts_are_requested_as_soon_as_one_service_is_loaded(with_zones: AutomationHarness) -> None:
    with_zones.load("green", "2021-01")
    assert with_zones.tick() == {mart: {"2021-01"} for mart in ALL}
    assert with_zones.tick() == {}


def test_a_service_without_payments_does_not_request_payment_mix(with_zones: AutomationHarness) -> None:
    with_zones.load("fhv", "2021-01")
    assert with_zones.tick() == {mart: {"2021-01"} for mart in MARTS_WITH_FHV}


def test_another_service_requests_its_month_again_and_no_other(with_zones: AutomationHarness) -> None:
    for month in ("2021-01", "2021-02"):
        with_zones.load("green", month)
    with_zones.tick()
    for mart in ALL:
        for month in ("2021-01", "2021-02"):
            with_zones.materialize(mart, month, "1")
    assert with_zones.tick() == {}

    with_zones.load("yellow", "2021-02")

    assert with_zones.tick() == {mart: {"2021-02"} for mart in ALL}


def test_a_revised_old_month_is_requested_again(with_zones: AutomationHarness) -> None:
    for month in ("2015-07", "2021-01"):
        with_zones.load("green", month)
    with_zones.tick()
    with_zones.load("green", "2015-07", "2")
    assert with_zones.tick() == {mart: {"2015-07"} for mart in ALL}


def test_a_service_loaded_right_after_the_request_causes_another_request(with_zones: AutomationHarness) -> None:
    with_zones.load("green", "2021-01")
    assert with_zones.tick() == {mart: {"2021-01"} for mart in ALL}
    with_zones.load("yellow", "2021-01")
    assert with_zones.tick() == {mart: {"2021-01"} for mart in ALL}
    assert with_zones.tick() == {}


def test_a_service_loaded_while_the_mart_is_in_progress_causes_another_request(with_zones: AutomationHarness) -> None:
    with_zones.load("green", "2021-01")
    with_zones.tick()
    run = with_zones.start("marts", "2021-01")
    with_zones.load("yellow", "2021-01")
    assert with_zones.tick() == {}
    for mart in ALL:
        with_zones.materialize(mart, "2021-01", "green alone")
    with_zones.instance.report_run_failed(run)  # how it ends does not matter here
    assert with_zones.tick() == {mart: {"2021-01"} for mart in ALL}
    assert with_zones.tick() == {}


def test_the_same_data_loaded_again_causes_no_request(with_zones: AutomationHarness) -> None:
    with_zones.load("green", "2021-01")
    with_zones.tick()
    for mart in ALL:
        with_zones.materialize(mart, "2021-01", "1")
    with_zones.load("green", "2021-01")
    assert with_zones.tick() == {}


def test_a_month_that_failed_its_check_requests_no_marts_until_it_is_loaded_again(
    with_zones: AutomationHarness,
) -> None:
    with_zones.load("green", "2021-01")
    with_zones.fail_check("green", "2021-01")
    assert with_zones.tick() == {}
    with_zones.load("green", "2021-01", "2")
    assert with_zones.tick() == {mart: {"2021-01"} for mart in ALL}


def test_the_zones_are_requested_with_the_first_trips_and_marts_wait_for_them(harness: AutomationHarness) -> None:
    assert harness.tick() == {}
    harness.load("green", "2021-01")
    assert harness.tick() == {ZONES: {""}}
    harness.materialize(ZONES, None, "1")
    assert harness.tick() == {mart: {"2021-01"} for mart in ALL}
    harness.load("green", "2021-02")
    assert harness.tick() == {mart: {"2021-02"} for mart in ALL}


def test_revised_zones_alone_request_no_month(with_zones: AutomationHarness) -> None:
    with_zones.load("green", "2021-01")
    with_zones.tick()
    with_zones.materialize(ZONES, None, "2")
    assert with_zones.tick() == {}


def test_months_loaded_before_the_first_tick_cause_no_request(harness: AutomationHarness) -> None:
    harness.materialize(ZONES, None, "1")
    for month in ("2021-01", "2021-02"):
        harness.load("green", month)
    assert harness.tick() == {}
    assert harness.tick() == {}
