"""When quality over time, which is made of all months of all services, is asked for; and when a report is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from taxi_assets.addresses import DuckDBAddress, FolderAddress
from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUALITY = "quality/month_quality"
ZONES = "reference/taxi_zones"
REPORTS = "reports/green_trips"
CLEAN, WAREHOUSE, REPORT = (dg.AssetKey([layer, "green_trips"]) for layer in ("clean", "warehouse", "reports"))


class Story:
    """An instance in which things are told to have happened, and the ticks of the automation sensor."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.defs = build_definitions(
            Settings(lake=FolderAddress(folder=home / "lake"), warehouse=DuckDBAddress(file=home / "w.duckdb"))
        )
        self.cursor: dg.AssetDaemonCursor | None = None

    def made(self, key: dg.AssetKey, month: str | None, data: str) -> None:
        """The asset was materialized, with this data."""
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(key, partition=month, tags={DATA_VERSION_TAG: data})
        )

    def failed_its_check(self, key: dg.AssetKey, month: str) -> None:
        """What was materialized last for the month is not what it should be."""
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

    def start(self, month: str) -> dg.DagsterRun:
        """A run is going through the month's chain."""
        job = self.defs.resolve_job_def("green")
        keys = frozenset(job.asset_layer.selected_asset_keys)
        run = self.instance.create_run_for_job(job, tags={"dagster/partition": month}, asset_selection=keys)
        self.instance.report_dagster_event(
            dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name=job.name), run_id=run.run_id
        )
        return run

    def tick(self, *wanted: str) -> set[str]:
        """What is asked for, of these assets."""
        result = dg.evaluate_automation_conditions(defs=self.defs, instance=self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        asked = set()
        for name in wanted:
            key = dg.AssetKey.from_user_string(name)
            asked |= {f"{name} {partition}" for partition in result.get_requested_partitions(key) if partition}
            asked |= {name} if result.get_num_requested(key) and name not in " ".join(asked) else set()
        return asked


@pytest.fixture
def scenario(tmp_path: Path) -> Iterator[Story]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Story(tmp_path, instance)


def test_switched_on_over_loaded_months_it_asks_for_nothing(scenario: Story) -> None:
    scenario.made(CLEAN, "2023-01", "a")
    assert scenario.tick(QUALITY) == set()
    assert scenario.tick(QUALITY) == set()


def test_one_run_for_all_months_that_changed_and_no_other_until_one_does_again(scenario: Story) -> None:
    scenario.tick()
    for month in ("2023-01", "2023-02"):
        scenario.made(CLEAN, month, "a")
    scenario.made(dg.AssetKey(["clean", "fhv_trips"]), "2019-01", "a")
    assert scenario.tick(QUALITY) == {QUALITY}
    assert scenario.tick(QUALITY) == set()

    scenario.made(dg.AssetKey(["quality", "month_quality"]), None, "q")
    assert scenario.tick(QUALITY) == set()

    scenario.made(CLEAN, "2023-01", "a")  # cleaned again, with the same result
    assert scenario.tick(QUALITY) == set()

    scenario.made(CLEAN, "2023-01", "b")
    assert scenario.tick(QUALITY) == {QUALITY}


def test_while_months_are_being_made_it_waits_and_then_asks_once(scenario: Story) -> None:
    scenario.tick()
    scenario.made(CLEAN, "2023-01", "a")
    run = scenario.start("2023-02")
    assert scenario.tick(QUALITY) == set()
    assert scenario.tick(QUALITY) == set()

    scenario.made(CLEAN, "2023-02", "a")
    scenario.instance.report_run_failed(run)
    assert scenario.tick(QUALITY) == {QUALITY}
    assert scenario.tick(QUALITY) == set()


@pytest.fixture
def with_zones(scenario: Story) -> Story:
    scenario.made(dg.AssetKey.from_user_string(ZONES), None, "z")
    scenario.tick()
    return scenario


def loaded(scenario: Story, month: str, data: str = "a") -> None:
    """A run has gone through the month's chain."""
    for key in (CLEAN, WAREHOUSE):
        scenario.made(key, month, data)


def drawn(scenario: Story) -> list[str]:
    """The reports that are asked for, and made at once."""
    months = sorted(asked.removeprefix(f"{REPORTS} ") for asked in scenario.tick(REPORTS))
    for month in months:
        scenario.made(REPORT, month, f"made after tick {id(scenario.cursor)}")
    return months


def test_a_report_follows_the_warehouse_and_not_the_clean_trips_before_it(with_zones: Story) -> None:
    loaded(with_zones, "2023-01")
    assert drawn(with_zones) == ["2023-01"]
    with_zones.made(CLEAN, "2023-01", "b")
    assert drawn(with_zones) == []

    with_zones.made(WAREHOUSE, "2023-01", "b")
    assert drawn(with_zones) == ["2023-01"]
    assert drawn(with_zones) == []


def test_on_a_fresh_instance_the_first_report_waits_for_the_taxi_zones(scenario: Story) -> None:
    scenario.tick()
    loaded(scenario, "2023-02")
    assert scenario.tick(REPORTS, ZONES) == {ZONES}
    assert drawn(scenario) == []

    scenario.made(dg.AssetKey.from_user_string(ZONES), None, "z")
    assert drawn(scenario) == ["2023-02"]
    assert drawn(scenario) == []


def test_revised_zones_alone_make_no_report_anew(with_zones: Story) -> None:
    loaded(with_zones, "2023-02")
    assert drawn(with_zones) == ["2023-02"]
    with_zones.made(dg.AssetKey.from_user_string(ZONES), None, "revised")
    assert drawn(with_zones) == []


def test_the_month_before_puts_a_report_right_and_no_later_one(with_zones: Story) -> None:
    for month in ("2023-02", "2023-03", "2024-01"):
        loaded(with_zones, month)
    assert drawn(with_zones) == ["2023-02", "2023-03", "2024-01"]  # none waits for the month before it

    loaded(with_zones, "2023-01")
    assert drawn(with_zones) == ["2023-01", "2023-02"]
    assert drawn(with_zones) == []

    loaded(with_zones, "2023-01")  # with the same result
    assert drawn(with_zones) == []


def test_a_month_that_is_not_there_gets_no_report_for_the_sake_of_the_one_before(with_zones: Story) -> None:
    loaded(with_zones, "2023-01")
    assert drawn(with_zones) == ["2023-01"]
    assert drawn(with_zones) == []
    loaded(with_zones, "2023-02")
    assert drawn(with_zones) == ["2023-02"]


def test_the_first_month_of_a_service_has_a_report(with_zones: Story) -> None:
    loaded(with_zones, "2013-08")
    assert drawn(with_zones) == ["2013-08"]


def test_a_report_waits_while_the_month_before_is_being_loaded(with_zones: Story) -> None:
    run = with_zones.start("2023-01")
    loaded(with_zones, "2023-02")
    assert drawn(with_zones) == []

    loaded(with_zones, "2023-01")
    with_zones.instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, job_name=run.job_name), run_id=run.run_id
    )
    assert drawn(with_zones) == ["2023-01", "2023-02"]
    assert drawn(with_zones) == []


def test_a_table_that_failed_its_check_is_neither_reported_nor_compared_with(with_zones: Story) -> None:
    for month in ("2023-01", "2023-02", "2023-03"):
        loaded(with_zones, month)
    with_zones.failed_its_check(WAREHOUSE, "2023-01")
    assert drawn(with_zones) == ["2023-03"]

    loaded(with_zones, "2023-01", "repaired")
    assert drawn(with_zones) == ["2023-01", "2023-02"]


@pytest.mark.parametrize(("newest_first", "most"), [(False, 1), (True, 2)])
def test_of_a_backfill_each_report_is_made_twice_at_most(with_zones: Story, newest_first: bool, most: int) -> None:
    months = sorted((f"2022-{number:02d}" for number in range(1, 6)), reverse=newest_first)
    made: Counter[str] = Counter()
    for month in months:
        loaded(with_zones, month)
        made.update(drawn(with_zones))
    made.update(drawn(with_zones))
    assert made.keys() == set(months)
    assert max(made.values()) == most
