"""What the automation conditions request, and what not, after an upstream month was materialized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.addresses import DuckDBAddress, FolderAddress
from taxi_assets.automation.sensors.publication_sensor import publication_sensor
from taxi_assets.build import build_definitions
from taxi_assets.cli.worker_pool import _loaded, _run_job
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.settings import Settings
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.pipeline_harness import check_results

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MONTH = "2013-09"
LAYERS = ("raw", "clean", "quarantine", "warehouse")
HEADER = "VendorID,lpep_pickup_datetime,Lpep_dropoff_datetime,Store_and_fwd_flag,RateCodeID,Passenger_count,"
HEADER += "Trip_distance,Fare_amount,Extra,MTA_tax,Tip_amount,Tolls_amount,Total_amount,Payment_type,Trip_type,"
HEADER += "PULocationID,DOLocationID"
ROW = "2,2013-09-0{day} 08:14:37,2013-09-0{day} 09:09:06,N,1,1,2.5,21.25,0,0,0,0,21.25,2,1,7,8"


class AutomationHarness:
    """A publisher of one month, an instance, and ticks of the sensor `automation_conditions`."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.file = folder / "published" / f"green_tripdata_{MONTH}.csv"
        self.file.parent.mkdir()
        self.publish(rows=3)
        self.instance = instance
        self.defs = build_definitions(
            Settings(
                lake=FolderAddress(folder=folder / "lake"),
                warehouse=DuckDBAddress(file=folder / "warehouse.duckdb"),
                source=str(self.file.parent),
            )
        )
        self.warehouse = folder / "warehouse.duckdb"
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
        """Execute the run that the publication sensor requests, as the daemon would."""
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
        """Evaluate the conditions once; return the requested assets with their partitions."""
        result = dg.evaluate_automation_conditions(defs=self.defs, instance=self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        requested = set()
        for key in (dg.AssetKey([layer, "green_trips"]) for layer in LAYERS):
            partitions = result.get_requested_partitions(key)
            requested |= {f"{key.to_user_string()} {partition}" for partition in partitions}
        return requested


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[AutomationHarness]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield AutomationHarness(tmp_path, instance)


def test_months_loaded_before_the_first_tick_are_not_requested(harness: AutomationHarness) -> None:
    harness.materialize(*LAYERS)
    assert harness.tick() == set()
    assert harness.tick() == set()


def test_a_run_of_all_layers_causes_no_request(harness: AutomationHarness) -> None:
    harness.tick()
    harness.materialize(*LAYERS)
    assert harness.tick() == set()


def test_the_same_bytes_published_again_cause_no_request(harness: AutomationHarness) -> None:
    harness.materialize(*LAYERS)
    harness.tick()
    harness.publish(rows=3)  # a new modification time, and so a new ETag
    harness.materialize("raw")
    assert harness.tick() == set()


def test_new_bytes_request_the_same_month_downstream(harness: AutomationHarness) -> None:
    harness.materialize(*LAYERS)
    harness.tick()
    harness.publish(rows=4)
    harness.materialize("raw")
    assert harness.tick() == {f"clean/green_trips {MONTH}", f"quarantine/green_trips {MONTH}"}

    harness.materialize("clean", "quarantine")
    assert harness.tick() == {f"warehouse/green_trips {MONTH}"}

    harness.materialize("warehouse")
    assert harness.tick() == set()


def test_a_killed_run_defers_its_month_only_until_it_is_marked_as_failed(harness: AutomationHarness) -> None:
    harness.materialize(*LAYERS)
    harness.tick()
    harness.publish(rows=4)
    harness.materialize("raw")
    selection = frozenset(dg.AssetKey([layer, "green_trips"]) for layer in ("clean", "quarantine"))
    job = harness.defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=selection)
    run = harness.instance.create_run_for_job(job, tags={"dagster/partition": MONTH}, asset_selection=selection)
    harness.instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name=job.name), run_id=run.run_id
    )
    assert harness.tick() == set()
    assert harness.tick() == set()
    harness.instance.report_run_failed(run)
    assert harness.tick() == {f"clean/green_trips {MONTH}", f"quarantine/green_trips {MONTH}"}


def test_a_requested_run_that_fails_before_the_warehouse_causes_no_request(harness: AutomationHarness) -> None:
    harness.materialize(*LAYERS)
    harness.tick()
    harness.publish(rows=4)
    harness.warehouse.write_bytes(b"not a database" * 1000)
    result = harness.run_requested()
    assert not result.success
    assert {event.asset_key.path[0] for event in result.get_asset_materialization_events() if event.asset_key} == {
        "raw",
        "quarantine",
        "clean",
    }
    assert harness.tick() == set()


def test_a_requested_run_executes_all_checks_of_its_month(harness: AutomationHarness) -> None:
    job = harness.defs.resolve_job_def("green")
    whole = job.execute_in_process(instance=harness.instance, partition_key=MONTH)
    harness.publish(rows=4)
    assert (
        check_results(harness.run_requested()).keys()
        == check_results(whole).keys()
        >= {"row_counts_reconcile", "matches_clean"}
    )


def test_a_run_of_make_backfill_records_its_asset_selection(
    harness: AutomationHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dagster_home := tmp_path / "dagster_home").mkdir()
    (dagster_home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    monkeypatch.setitem(_loaded, "defs", harness.defs)
    assert _run_job("green", MONTH, "a backfill", {}).succeeded
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
    assert run.asset_selection == {dg.AssetKey([layer, "green_trips"]) for layer in LAYERS}


def test_the_automation_sensor_covers_all_assets_and_is_on(harness: AutomationHarness) -> None:
    (sensor,) = (sensor for sensor in harness.defs.sensors or [] if sensor.name == "automation_conditions")
    assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    graph = harness.defs.resolve_asset_graph()
    assert sensor.asset_selection.resolve(graph) >= graph.materializable_asset_keys


def test_a_backfill_of_the_job_causes_no_request(harness: AutomationHarness) -> None:
    harness.tick()
    # Runs of a backfill launched in the UI have no asset selection.
    result = harness.defs.resolve_job_def("green").execute_in_process(instance=harness.instance, partition_key=MONTH)
    assert result.success
    (run,) = harness.instance.get_runs()
    assert not run.asset_selection
    assert harness.tick() == set()
    assert harness.tick() == set()
