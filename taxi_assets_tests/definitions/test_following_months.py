"""When quality over time, which is made of all months of all services, is asked for; and when a report is."""

from __future__ import annotations

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
CLEAN, WAREHOUSE, REPORT = (dg.AssetKey([shelf, "green_trips"]) for shelf in ("clean", "warehouse", "reports"))


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

    def checked(self, key: dg.AssetKey, month: str) -> None:
        """What was materialized last for the month has passed its blocking check."""
        (record,) = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(key, asset_partitions=[month]), limit=1
        ).records
        of = AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                key, "equals_clean", passed=True, blocking=True, partition=month, target_materialization_data=of
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
def story(tmp_path: Path) -> Iterator[Story]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Story(tmp_path, instance)


def test_switched_on_over_loaded_months_it_asks_for_nothing(story: Story) -> None:
    story.made(CLEAN, "2023-01", "a")
    assert story.tick(QUALITY) == set()
    assert story.tick(QUALITY) == set()


def test_one_run_for_all_months_that_changed_and_no_other_until_one_does_again(story: Story) -> None:
    story.tick()
    for month in ("2023-01", "2023-02"):
        story.made(CLEAN, month, "a")
    story.made(dg.AssetKey(["clean", "fhv_trips"]), "2019-01", "a")
    assert story.tick(QUALITY) == {QUALITY}
    assert story.tick(QUALITY) == set()

    story.made(dg.AssetKey(["quality", "month_quality"]), None, "q")
    assert story.tick(QUALITY) == set()

    story.made(CLEAN, "2023-01", "a")  # cleaned again, with the same result
    assert story.tick(QUALITY) == set()

    story.made(CLEAN, "2023-01", "b")
    assert story.tick(QUALITY) == {QUALITY}


def test_while_months_are_being_made_it_waits_and_then_asks_once(story: Story) -> None:
    story.tick()
    story.made(CLEAN, "2023-01", "a")
    run = story.start("2023-02")
    assert story.tick(QUALITY) == set()
    assert story.tick(QUALITY) == set()

    story.made(CLEAN, "2023-02", "a")
    story.instance.report_run_failed(run)
    assert story.tick(QUALITY) == {QUALITY}
    assert story.tick(QUALITY) == set()


def test_a_report_follows_the_warehouse_and_not_the_clean_trips_before_it(story: Story) -> None:
    name = REPORT.to_user_string()
    for key in (CLEAN, WAREHOUSE, REPORT):
        story.made(key, "2023-01", "a")
    story.tick()
    story.made(CLEAN, "2023-01", "b")
    assert story.tick(name) == set()

    story.made(WAREHOUSE, "2023-01", "b")
    story.checked(WAREHOUSE, "2023-01")
    assert story.tick(name) == {f"{name} 2023-01"}
    story.made(REPORT, "2023-01", "b")
    assert story.tick(name) == set()
