"""`make backfill` says what it uses, how far it is, and what it warns of."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import duckdb
import pytest

from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Project:
    """Own stores, and a publisher's folder with real months: 2013-08 has a day without trips."""

    def __init__(self, home: Path, data: Path) -> None:
        self.home, self.files = home, home / "files"
        self.files.mkdir()
        for name in ("green_tripdata_2013-08.csv", "green_tripdata_2023-01.parquet", "taxi_zone_lookup.csv"):
            (self.files / name).symlink_to(data / "months" / name)
        (home / "dagster").mkdir()
        (home / "dagster/dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text())

    def start(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "taxi_assets.cli.backfill", "backfill", "--service", "green", *options],
            cwd=REPOSITORY,
            env={
                "PATH": os.environ["PATH"],
                "DAGSTER_HOME": str(self.home / "dagster"),
                "TAXI_LAKE": str(self.home / "lake"),
                "TAXI_WAREHOUSE": f"duckdb:///{self.home / 'warehouse.duckdb'}",
                "TAXI_SOURCE": str(self.files),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*options, **environment)
        output, errors = process.communicate(timeout=800)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Project:
    return Project(tmp_path_factory.mktemp("backfill"), data)


@pytest.fixture(scope="module")
def published(project: Project) -> subprocess.CompletedProcess[str]:
    """The first backfill: of all months that the folder has, with warnings as failures."""
    return project.run("--months", "published", "--strict")


@pytest.fixture(scope="module")
def listed(project: Project, published: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The next backfill: of a month that the folder has, and of one that it does not have."""
    assert published.stdout
    return project.run("--months", "2013-08,2023-03")


def test_it_prints_the_places_before_the_first_run(
    project: Project, published: subprocess.CompletedProcess[str], listed: subprocess.CompletedProcess[str]
) -> None:
    places, _, _ = published.stdout.partition("[1/9]")
    lake = project.home / "lake"
    assert places.splitlines()[1:5] == [
        f"source       {project.files}",
        f"lake         creating a new lake at {lake}",
        f"warehouse    duckdb:///{project.home / 'warehouse.duckdb'}?schema=taxi",
        f"run history  {project.home / 'dagster'}",
    ]
    assert listed.stdout.splitlines()[1] == f"lake         {lake}"


def test_one_counter_counts_all_runs_and_those_that_a_failed_month_makes_impossible(
    listed: subprocess.CompletedProcess[str],
) -> None:
    lines = [line for line in listed.stdout.splitlines() if line.startswith("[")]
    assert [line[:5] for line in lines] == [f"[{number}/8]" for number in range(1, 9)]
    assert [line[6:] for line in lines if "skipped" in line] == [
        "green_report 2023-03  skipped: 2023-03 was not loaded",
        "marts 2023-03  skipped: 2023-03 was not loaded",
    ]


def month_rows(ended: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """Return the cells of the month table after the month, by month."""
    return {line.split()[1]: line.split()[2:] for line in ended.stdout.splitlines() if line.startswith("green ")}


def warnings_of(ended: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in ended.stdout.splitlines() if line.startswith("  warning, ")]


WARNING = "  warning, green 2013-08: clean/green_trips, check every_day_present: No trips on 2013-08-04."


def test_each_month_has_its_quarantined_percentage_and_warnings_and_each_failed_month_one_error(
    listed: subprocess.CompletedProcess[str],
) -> None:
    assert month_rows(listed) == {
        "2013-08": ["7,623", "7,532", "91", "7,532", "1.2", "1"],
        "2023-03": ["-"] * 6,
    }
    assert warnings_of(listed) == [WARNING]
    assert listed.returncode == 1
    outcome, *errors = listed.stdout[listed.stdout.index("5 of 6 runs succeeded") :].splitlines()
    assert outcome.startswith("5 of 6 runs succeeded, 2 skipped, 1 warning, in ")
    (error,) = errors
    assert error.startswith("  green 2023-03 is not published at file://")


def test_published_months_are_those_in_the_folder_and_strict_makes_warnings_the_exit_code(
    project: Project, published: subprocess.CompletedProcess[str]
) -> None:
    assert f"{project.files} has 2 of the " in published.stdout
    assert month_rows(published) == {
        "2013-08": ["7,623", "7,532", "91", "7,532", "1.2", "1"],
        "2023-01": ["68,211", "67,779", "432", "67,779", "0.6", "0"],
    }
    assert warnings_of(published) == [WARNING]
    assert published.stdout.splitlines()[-1] == "STRICT is set, so warnings count as failures."
    assert published.returncode == 1
    assert "9 of 9 runs succeeded, 1 warning" in published.stdout


def test_a_publisher_without_any_of_the_months_is_an_error(project: Project) -> None:
    ended = project.run("--months", "published", "--from", "2022-01", "--to", "2022-12")
    assert ended.returncode == 1
    assert ended.stderr == (
        f"Error: {project.files} has no month of green from 2022-01 to 2022-12. Check TAXI_SOURCE.\n"
    )


@pytest.mark.usefixtures("published")
def test_a_wait_for_the_warehouse_names_the_process_that_has_it_open(project: Project) -> None:
    with duckdb.connect(str(project.home / "warehouse.duckdb")):
        process = project.start("--months", "2013-08")
        try:
            lines = _read_until(process, "waiting for", seconds=800)
        finally:
            process.kill()
            process.communicate()
    assert lines[-1].startswith(f"  waiting for {project.home / 'warehouse.duckdb'}, which ")
    assert f"(PID {os.getpid()}) has open" in lines[-1]


def _read_until(process: subprocess.Popen[str], text: str, *, seconds: float) -> list[str]:
    assert process.stderr is not None
    deadline, lines = time.monotonic() + seconds, []
    for line in _lines(process.stderr):
        lines.append(line)
        if text in line or time.monotonic() > deadline:
            break
    return lines


def _lines(stream: object) -> Iterator[str]:
    for line in stream:  # type: ignore[attr-defined]
        yield line.rstrip("\n")
