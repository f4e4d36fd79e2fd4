"""docs/add-a-dataset.md, followed exactly in a copy of the project: a fifth service, from file to warehouse.

These tests verify the promises of the document. `unit/tlc/services/test_registry.py` tests the rules for all services.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import os
import random
import re
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq
import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.processes import BIN

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = (REPOSITORY / "docs/add-a-dataset.md").read_text()
COPIED = (
    *("taxi_assets", "taxi_assets_tests", "docs", "requirements", "Makefile", "pyproject.toml", "setup.py"),
    *("workspace.yaml", "dagster.yaml", "README.md"),
)
HEADER = (
    "ride_id,rideable_type,started_at,ended_at,start_station_name,start_station_id,end_station_name,end_station_id,"
    "start_lat,start_lng,end_lat,end_lng,member_casual"
)
STATIONS = (
    ("W 21 St & 6 Ave", "6140.05", 40.74174, -73.99416),
    ("E 33 St & 1 Ave", "6197.08", 40.743227, -73.974498),
    ("Grand Army Plaza & Central Park S", "6839.10", 40.7643971, -73.97371465),
    ("Vernon Blvd & 50 Ave", "6170.02", 40.742327, -73.954117),
    ('Pier 40, "Hudson River" Park', "SYS033", 40.7288, -74.0121),
)
MAX_CHANGED_LINES = 10

pytestmark = pytest.mark.timeout(1800)  # the first test runs all commands of the document


def code_blocks(language: str) -> list[str]:
    """Return the text of the document's fenced code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def rides() -> list[list[str]]:
    """Return a month of published rides: one an hour, 17 false starts, 5 without an end station."""
    generator, published = random.Random(1), []  # noqa: S311  (not for security)
    for hour in range(31 * 24):
        started = dt.datetime(2024, 1, 1) + dt.timedelta(hours=hour, milliseconds=generator.randrange(3_600_000))  # noqa: DTZ001  (local time)
        seconds = 20 if hour < 17 else generator.randrange(180, 3000)
        times = [time.isoformat(" ", "milliseconds") for time in (started, started + dt.timedelta(seconds=seconds))]
        (start_name, start_id, *start_point), (end_name, end_id, *end_point) = generator.sample(STATIONS, 2)
        if 100 <= hour < 105:
            end_name = end_id = ""
        kind, rider = (
            generator.choice(["electric_bike", "classic_bike"]),
            generator.choice(["member", "member", "casual"]),
        )
        values = [f"{hour:016X}", kind, *times, start_name, start_id, end_name, end_id, *start_point, *end_point, rider]
        published.append(list(map(str, values)))
    return published


def write_archive(path: Path) -> None:
    """Write an archive as the operator publishes it: several CSV files, and what macOS adds."""
    published = rides()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, half in enumerate((published[:400], published[400:]), 1):
            content = io.StringIO()
            writer = csv.writer(content) if part == 1 else csv.writer(content, quoting=csv.QUOTE_ALL)
            writer.writerows([HEADER.split(","), *half])
            archive.writestr(f"202401-citibike-tripdata_{part}.csv", content.getvalue())
            archive.writestr(f"__MACOSX/._202401-citibike-tripdata_{part}.csv", b"\x00\x05\x16\x07")


@dataclass(frozen=True)
class ProjectCopy:
    """A copy of the project in which the document was followed, with the output of each block of commands."""

    folder: Path
    outputs: list[str]


@pytest.fixture(scope="module")
def project_copy(tmp_path_factory: pytest.TempPathFactory) -> ProjectCopy:
    folder = tmp_path_factory.mktemp("copy") / "taxi"
    folder.mkdir()
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():  # with its file times: otherwise make would rebuild the environment
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "images"))
        else:
            shutil.copy2(source, folder)
    (folder / ".venv").symlink_to(BIN.parent)

    (schema,) = code_blocks("python")
    (new_file,) = re.findall(r"^`(taxi_assets/\S+\.py)`:$", DOCUMENT, re.MULTILINE)
    (folder / new_file).write_text(schema)
    for diff in code_blocks("diff"):
        subprocess.run(["git", "apply", "-"], cwd=folder, input=diff, text=True, check=True)

    downloads = folder / "downloads"
    downloads.mkdir()
    write_archive(downloads / "202401-citibike-tripdata.zip")
    # The commands get their own home, and no coverage, settings or paths of this process. The linked environment has
    # the package of another folder; PYTHONPATH takes precedence.
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(folder)}
    outputs = []
    for commands in code_blocks("sh"):
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=1500, check=False,
        )  # fmt: skip
        assert result.returncode == 0, f"{commands}\n{result.stdout[-4000:]}\n{result.stderr[-8000:]}"
        outputs.append(result.stdout + result.stderr)
    return ProjectCopy(folder, outputs)


def test_a_new_dataset_takes_one_new_file_and_few_changed_lines() -> None:
    assert len(code_blocks("python")) == 1
    changed = [line for diff in code_blocks("diff") for line in diff.splitlines() if re.match(r"[+-](?![+-])", line)]
    assert 0 < len(changed) <= MAX_CHANGED_LINES
    assert f"one new file and {['no', 'one', 'two', 'three', 'four'][len(changed)]} added lines" in DOCUMENT


def test_the_definitions_are_valid_and_the_data_dictionary_has_a_section(project_copy: ProjectCopy) -> None:
    assert "All definitions loaded successfully." in project_copy.outputs[0]
    assert re.search(r"\d\d passed", project_copy.outputs[0])
    section = (
        (project_copy.folder / "docs/data-dictionary.md")
        .read_text()
        .split("\n## citibike_trips\n")[1]
        .split("\n## ")[0]
    )
    assert "| `pickup_datetime` | datetime | local time | When the bicycle was unlocked. | started_at |" in section
    assert "| `false_start` |" in section


def test_the_documented_code_passes_ruff(project_copy: ProjectCopy) -> None:
    for command in (["format", "--check"], ["check"]):
        subprocess.run(
            [BIN / "ruff", *command, "--quiet", "taxi_assets", "taxi_assets_tests"], cwd=project_copy.folder, check=True
        )


def test_every_ride_is_in_the_warehouse_or_in_quarantine(project_copy: ProjectCopy) -> None:
    with duckdb.connect(str(project_copy.folder / "data/warehouse.duckdb"), read_only=True) as connection:
        rows = connection.sql(
            "SELECT ride_id, pickup_datetime, start_station_id, trip_seconds, end_station_name, start_latitude, "
            "start_station_name "
            "FROM taxi.citibike_trips ORDER BY source_row"
        ).fetchall()
    published = rides()
    kept = [ride for ride in published if int(ride[0], 16) >= 17]
    assert [row[0] for row in rows] == [ride[0] for ride in kept]
    assert [row[1].isoformat(" ", "milliseconds") for row in rows] == [ride[2] for ride in kept]
    assert [row[2] for row in rows] == [ride[5] for ride in kept]
    assert all(180 <= row[3] < 3000 for row in rows)
    assert sum(row[4] is None for row in rows) == 5
    assert [row[5] for row in rows] == [float(ride[8]) for ride in kept]
    assert [row[6] for row in rows] == [ride[4] for ride in kept]
    assert 'Pier 40, "Hudson River" Park' in {row[6] for row in rows}
    quarantine = pq.read_table(project_copy.folder / "data/lake/quarantine/citibike_trips/2024-01.parquet").to_pylist()
    assert [row["original"].split(",")[0] for row in quarantine] == [ride[0] for ride in published[:17]]
    assert {tuple(row["reasons"]) for row in quarantine} == {("false_start",)}
    assert "classic_bike" in project_copy.outputs[2]
    assert "false_start" in project_copy.outputs[2]


def test_the_checks_pass_and_the_marts_include_the_new_service(project_copy: ProjectCopy) -> None:
    for check in (
        "row_counts_reconcile",
        "no_unknown_columns",
        "every_day_present",
        "matches_clean",
        "key_is_unique",
        "totals_match_trips",
    ):
        assert re.search(rf"Asset check '{check}' on '.*' passed", project_copy.outputs[1]), check
    assert "did not pass" not in project_copy.outputs[1]
    with duckdb.connect(str(project_copy.folder / "data/warehouse.duckdb"), read_only=True) as connection:
        rows = connection.sql(
            "SELECT service, sum(trips)::INT, sum(timed_trips)::INT, sum(revenue) FROM taxi.od_flows GROUP BY ALL"
        ).fetchall()
        assert rows == [("citibike", 31 * 24 - 17, 31 * 24 - 17, None)]
    assert (
        "marts/payment_mix 2024-01: the warehouse has no trips of yellow, green for this month."
        in project_copy.outputs[1]
    )
    report = (project_copy.folder / "data/lake/reports/citibike_trips/2024-01/report.html").read_text()
    assert "Citi Bike" in report
