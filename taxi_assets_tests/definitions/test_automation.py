"""What is asked for, and what is not, after a month upstream was materialized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.addresses import DuckDBAddress, FolderAddress
from taxi_assets.automation.sensors.publication_sensor import publication_sensor
from taxi_assets.build import build_definitions
from taxi_assets.cli.worker_pool import _loaded, _run_month
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.settings import Settings
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.pipeline_harness import checks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MONTH = "2013-09"
CHAIN = ("raw", "clean", "quarantine", "warehouse")
HEADER = "VendorID,lpep_pickup_datetime,Lpep_dropoff_datetime,Store_and_fwd_flag,RateCodeID,Passenger_count,"
HEADER += "Trip_distance,Fare_amount,Extra,MTA_tax,Tip_amount,Tolls_amount,Total_amount,Payment_type"
ROW = "2,2013-09-0{day} 08:14:37,2013-09-0{day} 09:09:06,N,1,1,2.5,21.25,0,0,0,0,21.25,2"


class Story:
    """A folder that publishes one month, an instance, and the ticks of the automation sensor."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.file = home / "published" / f"green_tripdata_{MONTH}.csv"
        self.file.parent.mkdir()
        self.publish(rows=3)
        self.instance = instance
        self.defs = build_definitions(
            Settings(
                lake=FolderAddress(folder=home / "lake"),
                warehouse=DuckDBAddress(file=home / "warehouse.duckdb"),
                source=str(self.file.parent),
            )
        )
        self.warehouse = home / "warehouse.duckdb"
        self.cursor: dg.AssetDaemonCursor | None = None

    def publish(self, *, rows: int) -> None:
        lines = [HEADER, *(ROW.format(day=day + 1) for day in range(rows))]
        self.file.write_text("\n".join(lines) + "\n")

    def materialize(self, *layers: str) -> None:
        result = self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            partition_key=MONTH,
            asset_selection=[dg.AssetKey([layer, "green_trips"]) for layer in layers],
        )
        assert result.success

    def run_requested(self) -> dg.ExecuteInProcessResult:
        """The run that the publication sensor asks for, executed as the daemon would."""
        with dg.build_sensor_context(
            instance=self.instance,
            definitions=self.defs,
            resources={"publisher": PublisherResource(source=str(self.file.parent))},
        ) as context:
            (request,) = publication_sensor(GREEN).evaluate_tick(context).run_requests or []
        assert request.asset_selection is not None
        return self.defs.resolve_job_def("green").execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            asset_selection=list(request.asset_selection),
            run_config=request.run_config,
            tags=dict(request.tags),
            raise_on_error=False,
        )

    def tick(self) -> set[str]:
        result = dg.evaluate_automation_conditions(defs=self.defs, instance=self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        asked = set()
        for key in (dg.AssetKey([layer, "green_trips"]) for layer in CHAIN):
            partitions = result.get_requested_partitions(key)
            asked |= {f"{key.to_user_string()} {partition}" for partition in partitions}
        return asked


@pytest.fixture
def scenario(tmp_path: Path) -> Iterator[Story]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Story(tmp_path, instance)


def test_switched_on_over_loaded_months_it_asks_for_nothing(scenario: Story) -> None:
    scenario.materialize(*CHAIN)
    assert scenario.tick() == set()
    assert scenario.tick() == set()


def test_a_run_of_the_whole_chain_asks_for_nothing_more(scenario: Story) -> None:
    scenario.tick()
    scenario.materialize(*CHAIN)
    assert scenario.tick() == set()


def test_the_same_bytes_published_again_ask_for_nothing(scenario: Story) -> None:
    scenario.materialize(*CHAIN)
    scenario.tick()
    scenario.publish(rows=3)  # a new modification time, and so a new ETag
    scenario.materialize("raw")
    assert scenario.tick() == set()


def test_other_bytes_ask_for_the_same_month_downstream(scenario: Story) -> None:
    scenario.materialize(*CHAIN)
    scenario.tick()
    scenario.publish(rows=4)
    scenario.materialize("raw")
    assert scenario.tick() == {f"clean/green_trips {MONTH}", f"quarantine/green_trips {MONTH}"}

    scenario.materialize("clean", "quarantine")
    assert scenario.tick() == {f"warehouse/green_trips {MONTH}"}

    scenario.materialize("warehouse")
    assert scenario.tick() == set()


def test_a_run_that_was_killed_holds_its_month_only_until_it_is_ended(scenario: Story) -> None:
    scenario.materialize(*CHAIN)
    scenario.tick()
    scenario.publish(rows=4)
    scenario.materialize("raw")
    halves = frozenset(dg.AssetKey([layer, "green_trips"]) for layer in ("clean", "quarantine"))
    job = scenario.defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=halves)
    run = scenario.instance.create_run_for_job(job, tags={"dagster/partition": MONTH}, asset_selection=halves)
    scenario.instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name=job.name), run_id=run.run_id
    )
    assert scenario.tick() == set()
    assert scenario.tick() == set()
    scenario.instance.report_run_failed(run)
    assert scenario.tick() == {f"clean/green_trips {MONTH}", f"quarantine/green_trips {MONTH}"}


def test_a_requested_run_that_fails_before_the_warehouse_asks_for_nothing_more(scenario: Story) -> None:
    scenario.materialize(*CHAIN)
    scenario.tick()
    scenario.publish(rows=4)
    scenario.warehouse.write_bytes(b"no database" * 1000)
    result = scenario.run_requested()
    assert not result.success
    assert {event.asset_key.path[0] for event in result.get_asset_materialization_events() if event.asset_key} == {
        "raw",
        "quarantine",
        "clean",
    }
    assert scenario.tick() == set()


def test_a_requested_run_runs_all_checks_of_its_month(scenario: Story) -> None:
    job = scenario.defs.resolve_job_def("green")
    whole = job.execute_in_process(instance=scenario.instance, partition_key=MONTH)
    scenario.publish(rows=4)
    assert checks(scenario.run_requested()).keys() == checks(whole).keys() >= {"row_counts_reconcile", "matches_clean"}


def test_a_run_of_many_months_says_what_it_makes(
    scenario: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home := tmp_path / "home").mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setitem(_loaded, "defs", scenario.defs)
    assert _run_month("green", MONTH, "a backfill").succeeded
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
    assert run.asset_selection == {dg.AssetKey([layer, "green_trips"]) for layer in CHAIN}


def test_the_sensor_that_follows_changes_looks_at_all_assets_and_is_on(scenario: Story) -> None:
    (sensor,) = (sensor for sensor in scenario.defs.sensors or [] if sensor.name == "automation_conditions")
    assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    graph = scenario.defs.resolve_asset_graph()
    assert sensor.asset_selection.resolve(graph) >= graph.materializable_asset_keys


def test_a_backfill_of_the_job_asks_for_nothing_more(scenario: Story) -> None:
    scenario.tick()
    # Launched from the UI, its runs do not say what they make.
    result = scenario.defs.resolve_job_def("green").execute_in_process(instance=scenario.instance, partition_key=MONTH)
    assert result.success
    (run,) = scenario.instance.get_runs()
    assert not run.asset_selection
    assert scenario.tick() == set()
    assert scenario.tick() == set()
