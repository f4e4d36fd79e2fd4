"""Dagster's instance as deployments configure it: the daemon, the run queue, killed runs and the run history.

The tests start both variants: the embedded one (dagster.yaml), and the shared one on Postgres (deploy/postgres).
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.contract.stores.postgres import postgres_server, postgres_url, run
from taxi_assets_tests.deployments.processes import Deployment
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher
from taxi_assets_tests.trips import MONTH, csv_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taxi_assets.tlc.month import Month
    from taxi_assets_tests.contract.stores.postgres import Server

__all__ = ["postgres_server", "postgres_url"]

MONTHS = [MONTH.shift(shift) for shift in range(3)]
embedded = pytest.mark.parametrize("deployment", ["embedded"], indirect=True)
VARIANTS = {"embedded": REPOSITORY / "dagster.yaml", "shared": REPOSITORY / "deploy" / "postgres" / "dagster.yaml"}


@pytest.fixture(params=VARIANTS)
def deployment(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(VARIANTS[request.param].read_text())
    if request.param == "shared":
        url = request.getfixturevalue("postgres_url")
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", url.replace("postgresql:", "postgresql+psycopg2:"))
    files = {f"green_tripdata_{m}.csv": "\n".join(csv_lines(m, 50)).encode() + b"\n" for m in MONTHS}
    with LoopbackPublisher(files) as publisher:
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        monkeypatch.setenv("TAXI_SOURCE", publisher.base)
        monkeypatch.setenv("TAXI_LAKE", str(tmp_path / "lake"))
        monkeypatch.setenv("TAXI_WAREHOUSE", f"duckdb:///{tmp_path / 'w.duckdb'}")
        with dg.DagsterInstance.get() as instance:
            yield Deployment(home, publisher, dict(os.environ), instance)


def hold_back(deployment: Deployment, *months: Month) -> threading.Event:
    """Hold back the publisher's answers for each month until the returned event is set."""
    gate = threading.Event()

    def wait() -> None:
        gate.wait(900)

    for month in months:
        deployment.publisher.script(f"green_tripdata_{month}.csv", then=Answer(before=wait))
    return gate


def test_a_killed_run_fails_and_is_retried_and_its_history_survives_a_restart(
    deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    gate = hold_back(deployment, MONTH)
    with deployment.running_daemon():
        deployment.launch_runs(MONTH)
        deployment.wait_for_requests(1)
        (started,) = deployment.runs("STARTED")
        deployment.kill_run_process(started.run_id)
        deployment.wait_until(lambda: deployment.runs("FAILURE"))
        gate.set()
        (retry,) = deployment.wait_until(lambda: deployment.runs("SUCCESS"))
    assert retry.tags["dagster/parent_run_id"] == started.run_id

    events = deployment.event_types(retry.run_id)
    assert {"PIPELINE_ENQUEUED", "PIPELINE_START", "ASSET_MATERIALIZATION", "PIPELINE_SUCCESS"} <= set(events)
    if "DAGSTER_POSTGRES_URL" in deployment.environment:
        server: Server = request.getfixturevalue("postgres_server")
        url: str = request.getfixturevalue("postgres_url")
        if server.process is not None:
            server.restart()
        query = f"SELECT dagster_event_type FROM event_logs WHERE run_id = '{retry.run_id}' ORDER BY id"
        assert [name for (name,) in run(url, query) if name] == events
    with dg.DagsterInstance.get() as later:
        assert later.get_run_by_id(retry.run_id) == retry
        assert later.get_materialized_partitions(dg.AssetKey(["warehouse", "green_trips"])) == {str(MONTH)}


@embedded
def test_the_queue_limits_concurrent_runs_and_a_run_that_fails_for_its_data_is_not_retried(
    deployment: Deployment,
) -> None:
    missing = MONTH.shift(-1)
    gate = hold_back(deployment, *MONTHS)
    with deployment.running_daemon():
        deployment.launch_runs(*MONTHS)
        deployment.launch_runs(missing)  # the last in the queue, because it fails at once and would make room
        deployment.wait_for_requests(2)
        deployment.wait_until(lambda: len(deployment.runs("STARTED", "QUEUED")) == 4)
        assert len(deployment.runs("STARTED")) == 2
        gate.set()
        deployment.wait_until(lambda: len(deployment.runs("SUCCESS", "FAILURE")) == 4)
    (failed,) = deployment.runs("FAILURE")
    assert failed.tags["dagster/partition"] == str(missing)
    assert failed.tags["dagster/will_retry"] == "false"


MATERIALIZE = "dagster asset materialize -m taxi_assets.definitions --select group:green --partition"
BACKFILL = f"python -m taxi_assets.cli.backfill backfill --service green --from {MONTH} --to"
by_command = pytest.mark.parametrize("command", [MATERIALIZE, BACKFILL], ids=["materialize", "backfill"])


@embedded
@by_command
def test_an_interrupted_command_line_run_ends_immediately_and_loads_nothing(
    deployment: Deployment, command: str
) -> None:
    gate = hold_back(deployment, MONTH)
    process = deployment.start_command(*command.split(), str(MONTH))
    deployment.wait_for_requests(1)
    os.killpg(process.pid, signal.SIGINT)
    gate.set()
    assert process.wait(600) != 0
    (run,) = deployment.instance.get_runs()
    assert run.is_finished
    assert "STEP_UP_FOR_RETRY" not in deployment.event_types(run.run_id)
    assert "ASSET_MATERIALIZATION" not in deployment.event_types(run.run_id)


@embedded
def test_a_terminated_run_is_canceled_and_not_retried(deployment: Deployment) -> None:
    gate = hold_back(deployment, MONTH)
    with deployment.running_daemon():
        deployment.launch_runs(MONTH)
        deployment.wait_for_requests(1)
        (started,) = deployment.runs("STARTED")
        deployment.instance.run_launcher.terminate(started.run_id)
        (canceled,) = deployment.wait_until(lambda: deployment.runs("CANCELED"))
        gate.set()
    assert "ASSET_MATERIALIZATION" not in deployment.event_types(canceled.run_id)
    assert not deployment.runs("QUEUED", "STARTED", "SUCCESS")


@embedded
@by_command
def test_a_killed_command_line_run_is_marked_as_failed_within_a_minute(deployment: Deployment, command: str) -> None:
    gate = hold_back(deployment, MONTH)
    with deployment.running_daemon():
        process = deployment.start_command(*command.split(), str(MONTH))
        deployment.wait_for_requests(1)
        (started,) = deployment.runs("STARTED")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(120)
        gate.set()
        deployment.wait_until(lambda: deployment.runs("FAILURE"))
        assert "The process of this run is gone" in deployment.messages(started.run_id)
        deployment.launch_runs(MONTH)
        deployment.wait_until(lambda: deployment.runs("SUCCESS"))


def test_the_configuration_of_the_instance_is_in_effect(deployment: Deployment) -> None:
    instance = deployment.instance
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert queue.max_concurrent_runs == 2
    assert instance.run_monitoring_enabled
    assert (instance.run_monitoring_start_timeout_seconds, instance.run_monitoring_cancel_timeout_seconds) == (180, 180)
    assert instance.run_monitoring_poll_interval_seconds == 30
    assert instance.get_settings("run_monitoring")["free_slots_after_run_end_seconds"] == 60
    assert instance.run_monitoring_max_runtime_seconds == 4 * 3600
    assert (instance.run_retries_enabled, instance.run_retries_max_retries) == (True, 2)
    assert not instance.run_retries_retry_on_asset_or_op_failure
    assert not instance.telemetry_enabled
    assert not instance.nux_enabled
    schedules = instance.get_tick_retention_settings(InstigatorType.SCHEDULE)
    assert {days for days in schedules.values() if days > 0} == {90}
    kept = instance.get_tick_retention_settings(InstigatorType.SENSOR)
    assert {status.value: days for status, days in kept.items() if days > 0} == {
        "SKIPPED": 7, "FAILURE": 90, "SUCCESS": 90,
    }  # fmt: skip
