"""A publisher, a real daemon, and nobody who does anything: new and revised months come in by themselves."""

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
def up() -> Iterator[ExitStack]:
    """Closed, the publisher is down."""
    with ExitStack() as up:
        yield up


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, up: ExitStack) -> Iterator[Deployment]:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text())
    files = {name(month): file(month) for month in HISTORY} | {"taxi_zone_lookup.csv": ZONES}
    publisher = up.enter_context(LoopbackPublisher(files))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("TAXI_SOURCE", publisher.base)
    monkeypatch.setenv("TAXI_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("TAXI_WAREHOUSE", f"duckdb:///{tmp_path / 'w.duckdb'}")
    monkeypatch.setenv("TAXI_PUBLICATION_INTERVAL_SECONDS", "1")
    with dg.DagsterInstance.get() as instance:
        yield Deployment(home, publisher, dict(os.environ), instance)


def name(month: str) -> str:
    return f"green_tripdata_{month}.csv"


def file(month: str, *, seed: int = 0) -> bytes:
    return "".join(f"{line}\n" for line in csv_lines(Month.parse(month), 50, seed=seed)).encode()


def asked(deployment: Deployment, *statuses: str) -> list[str]:
    """What the sensor asked for, in order, where its run has come so far."""
    runs = [run for run in reversed(deployment.runs(*statuses)) if run.tags.get("dagster/sensor_name") == SENSOR]
    return [f"{run.tags['dagster/partition']} {run.tags['taxi_assets/reason']}" for run in runs]


def of_the_chain(deployment: Deployment) -> list[dg.DagsterRun]:
    """The runs, the newest first, without those of marts, reports and the like, which follow by themselves."""
    chain = {dg.AssetKey([layer, "green_trips"]) for layer in ("raw", "clean", "warehouse")}
    runs = deployment.instance.get_runs()
    return [run for run in runs if run.job_name == "green" or (run.asset_selection or set()) & chain]


def made(deployment: Deployment, month: str) -> list[str]:
    """The shelves that the last run of a month has materialized."""
    run = next(run for run in of_the_chain(deployment) if run.tags["dagster/partition"] == month)
    events = [log.asset_materialization for log in deployment.instance.all_logs(run.run_id)]
    return [event.asset_key.path[0] for event in events if event is not None]


def materialized(deployment: Deployment, *key: str) -> set[str]:
    """The months of an asset."""
    return deployment.instance.get_materialized_partitions(dg.AssetKey(key))


def ticks(deployment: Deployment) -> list[InstigatorTick]:
    """The sensor's ticks, the newest first."""
    states = deployment.instance.all_instigator_state()
    (state,) = (state for state in states if state.instigator_name == SENSOR)
    return list(deployment.instance.get_ticks(state.instigator_origin_id, state.selector_id))


@pytest.mark.timeout(600)
def test_new_and_revised_months_come_in_by_themselves_once_each_and_a_publisher_that_is_down_is_waited_for(
    deployment: Deployment, up: ExitStack
) -> None:
    job = build_definitions(Settings.from_env()).resolve_job_def("green")
    for month in HISTORY:  # a person loads the history
        assert job.execute_in_process(instance=deployment.instance, partition_key=month).success
    publisher = deployment.publisher
    with deployment.running_daemon():
        start = deployment.start_command("dagster", "sensor", "start", SENSOR, "-m", "taxi_assets.definitions")
        assert start.wait(60) == 0, deployment.read_log("dagster")
        deployment.wait_until(lambda: any("nothing new" in str(tick.skip_reason) for tick in ticks(deployment)))
        publisher.publish(name("2021-03"), file("2021-03"))
        deployment.wait_until(lambda: asked(deployment, "SUCCESS") == ["2021-03 new"], seconds=240)

        publisher.publish(name("2021-01"), file("2021-01", seed=7))
        publisher.publish(name("2021-02"), file("2021-02"), etag='"the same bytes"')
        deployment.wait_until(lambda: len(asked(deployment, "SUCCESS")) == 3, seconds=240)
        deployment.wait_until(lambda: {"2021-01", "2021-03"} <= materialized(deployment, "marts", "zone_day"), 240)
        deployment.wait_until(lambda: {"2021-01", "2021-03"} <= materialized(deployment, "reports", "green_trips"), 240)

        up.close()
        deployment.wait_until(lambda: "connection refused" in str(ticks(deployment)[0].skip_reason))

    assert sorted(asked(deployment, "SUCCESS")) == ["2021-01 revised", "2021-02 revised", "2021-03 new"]
    assert made(deployment, "2021-03") == made(deployment, "2021-01") == ["raw", "quarantine", "clean", "warehouse"]
    assert made(deployment, "2021-02") == ["raw"]
    assert [run.status.value for run in of_the_chain(deployment)] == ["SUCCESS"] * (2 + 3)

    tick_statuses = {tick.status.value for tick in ticks(deployment)}
    assert tick_statuses <= {"SKIPPED", "SUCCESS", "STARTED"}
    told = [key for tick in reversed(ticks(deployment)) for key in tick.run_keys]
    assert told[0].startswith("green 2021-03: ")
    assert sorted(key.partition(":")[0] for key in told) == ["green 2021-01", "green 2021-02", "green 2021-03"]
