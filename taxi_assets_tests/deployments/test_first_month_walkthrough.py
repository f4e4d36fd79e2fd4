"""The publication sensor under a real daemon: new and revised months are loaded without manual steps."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings
from taxi_assets.tlc.month import Month
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.processes import Deployment
from taxi_assets_tests.loopback_publisher import LoopbackPublisher
from taxi_assets_tests.trips import csv_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dagster._core.scheduler.instigation import InstigatorTick

SENSOR = "green_publication"
HISTORY = ["2021-01", "2021-02"]
ZONES = b"LocationID,Borough,Zone,service_zone\n1,EWR,Newark Airport,EWR\n"


@pytest.fixture
def publisher_stack() -> Iterator[ExitStack]:
    """Return a stack that holds the publisher; close it to stop the publisher."""
    with ExitStack() as publisher_stack:
        yield publisher_stack


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publisher_stack: ExitStack) -> Iterator[Deployment]:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text())
    files = {file_name(month): month_file(month) for month in HISTORY} | {"taxi_zone_lookup.csv": ZONES}
    publisher = publisher_stack.enter_context(LoopbackPublisher(files))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("TAXI_SOURCE", publisher.base)
    monkeypatch.setenv("TAXI_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("TAXI_WAREHOUSE", f"duckdb:///{tmp_path / 'w.duckdb'}")
    monkeypatch.setenv("TAXI_PUBLICATION_INTERVAL_SECONDS", "1")
    with dg.DagsterInstance.get() as instance:
        yield Deployment(home, publisher, dict(os.environ), instance)


def file_name(month: str) -> str:
    return f"green_tripdata_{month}.csv"


def month_file(month: str, *, seed: int = 0) -> bytes:
    return "".join(f"{line}\n" for line in csv_lines(Month.parse(month), 50, seed=seed)).encode()


def sensor_runs(deployment: Deployment, *statuses: str) -> list[str]:
    """Return month and reason of the sensor's runs with one of the statuses, oldest first."""
    runs = [run for run in reversed(deployment.runs(*statuses)) if run.tags.get("dagster/sensor_name") == SENSOR]
    return [f"{run.tags['dagster/partition']} {run.tags['taxi_assets/reason']}" for run in runs]


def pipeline_runs(deployment: Deployment) -> list[dg.DagsterRun]:
    """Return the runs of raw, clean and warehouse assets, newest first; marts and reports have their own runs."""
    pipeline = {dg.AssetKey([layer, "green_trips"]) for layer in ("raw", "clean", "warehouse")}
    runs = deployment.instance.get_runs()
    return [run for run in runs if run.job_name == "green" or (run.asset_selection or set()) & pipeline]


def materialized_layers(deployment: Deployment, month: str) -> list[str]:
    """Return the layers that the newest run of a month has materialized, in order."""
    run = next(run for run in pipeline_runs(deployment) if run.tags["dagster/partition"] == month)
    events = [log.asset_materialization for log in deployment.instance.all_logs(run.run_id)]
    return [event.asset_key.path[0] for event in events if event is not None]


def materialized_months(deployment: Deployment, *key: str) -> set[str]:
    """Return the materialized months of an asset."""
    return deployment.instance.get_materialized_partitions(dg.AssetKey(key))


def ticks(deployment: Deployment) -> list[InstigatorTick]:
    """Return the sensor's ticks, newest first."""
    states = deployment.instance.all_instigator_state()
    (state,) = (state for state in states if state.instigator_name == SENSOR)
    return list(deployment.instance.get_ticks(state.instigator_origin_id, state.selector_id))


@pytest.mark.timeout(1800)
def test_new_and_revised_months_are_loaded_once_each_and_the_sensor_waits_for_an_unreachable_publisher(
    deployment: Deployment, publisher_stack: ExitStack
) -> None:
    job = build_definitions(Settings.from_env()).resolve_job_def("green")
    for month in HISTORY:  # as if a user loaded the history
        assert job.execute_in_process(instance=deployment.instance, partition_key=month).success
    publisher = deployment.publisher
    with deployment.running_daemon():
        start = deployment.start_command("dagster", "sensor", "start", SENSOR, "-m", "taxi_assets.definitions")
        assert start.wait(600) == 0, deployment.read_log("dagster")
        deployment.wait_until(lambda: any("no run requested" in str(tick.skip_reason) for tick in ticks(deployment)))
        publisher.publish(file_name("2021-03"), month_file("2021-03"))
        deployment.wait_until(lambda: sensor_runs(deployment, "SUCCESS") == ["2021-03 new"])

        publisher.publish(file_name("2021-01"), month_file("2021-01", seed=7))
        publisher.publish(file_name("2021-02"), month_file("2021-02"), etag='"the same bytes"')
        deployment.wait_until(lambda: len(sensor_runs(deployment, "SUCCESS")) == 3)
        deployment.wait_until(lambda: {"2021-01", "2021-03"} <= materialized_months(deployment, "marts", "zone_day"))
        deployment.wait_until(
            lambda: {"2021-01", "2021-03"} <= materialized_months(deployment, "reports", "green_trips")
        )

        publisher_stack.close()
        deployment.wait_until(lambda: "connection refused" in str(ticks(deployment)[0].skip_reason))

    assert sorted(sensor_runs(deployment, "SUCCESS")) == ["2021-01 revised", "2021-02 revised", "2021-03 new"]
    assert (
        materialized_layers(deployment, "2021-03")
        == materialized_layers(deployment, "2021-01")
        == ["raw", "quarantine", "clean", "warehouse"]
    )
    assert materialized_layers(deployment, "2021-02") == ["raw"]
    assert [run.status.value for run in pipeline_runs(deployment)] == ["SUCCESS"] * (2 + 3)

    tick_statuses = {tick.status.value for tick in ticks(deployment)}
    assert tick_statuses <= {"SKIPPED", "SUCCESS", "STARTED"}
    run_keys = [key for tick in reversed(ticks(deployment)) for key in tick.run_keys]
    assert run_keys[0].startswith("green 2021-03: ")
    assert sorted(key.partition(":")[0] for key in run_keys) == ["green 2021-01", "green 2021-02", "green 2021-03"]
