"""`make backfill` when a worker is killed, and when the command itself is killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import dagster as dg
import psutil
import pytest
import tenacity

from taxi_assets.automation.sensors.orphaned_runs import remove_stale_lock
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.killing_lake import ALWAYS_KILLED, KILLED_ONCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STARTED = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
UNFINISHED = dg.RunsFilter(statuses=[*(STARTED.statuses or []), dg.DagsterRunStatus.STARTING])
MONTHS = ["--from", KILLED_ONCE, "--to", ALWAYS_KILLED]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        yield instance


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "DAGSTER_HOME": str(tmp_path / "dagster"),
        "TAXI_LAKE": str(tmp_path / "lake"),
        "TAXI_WAREHOUSE": f"duckdb:///{tmp_path / 'warehouse.duckdb'}",
        "TAXI_SOURCE": "sample",
    }


def start_backfill(environment: dict[str, str], *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "taxi_assets.cli.backfill", "backfill", "--service", "green", *MONTHS]
    return subprocess.Popen(
        [*command, "--workers", "2", *options],
        cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_a_month_whose_process_is_always_killed_does_not_stop_other_months(
    instance: dg.DagsterInstance, environment: dict[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "month.yaml"
    config.write_text("ops: {clean_green: {config: {rules: []}}}")
    options = ["--module", "taxi_assets_tests.deployments.killing_lake", "--config", str(config)]
    with start_backfill(environment, *options) as process:
        output, _ = process.communicate(timeout=800)
    assert process.returncode == 1
    assert output.split("runs succeeded")[1].splitlines()[1:] == [
        f"  green {ALWAYS_KILLED}: Its worker process was killed."
    ]
    assert re.search(rf"green {KILLED_ONCE}  ok", output)
    assert not instance.get_runs(UNFINISHED)
    runs = instance.get_runs(dg.RunsFilter(job_name="green"))
    assert len(runs) >= 3  # at least one run was killed, and its month repeated
    assert all(run.run_config["ops"] == {"clean_green": {"config": {"rules": []}}} for run in runs)


def test_the_workers_of_a_killed_backfill_end_too(instance: dg.DagsterInstance, environment: dict[str, str]) -> None:
    with start_backfill(environment) as process:
        for attempt in tenacity.Retrying(wait=tenacity.wait_fixed(0.1), stop=tenacity.stop_after_delay(600)):
            with attempt:
                assert instance.get_runs(STARTED)
        processes = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(processes, timeout=300)
        assert len(processes) >= 3  # the fork server and two workers
        assert not alive
    # The sensor marks the remaining runs as failed.
    assert all(remove_stale_lock(instance, run.run_id) for run in instance.get_runs(UNFINISHED))
