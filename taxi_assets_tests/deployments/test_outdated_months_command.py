"""`make backfill … MONTHS=outdated` runs the months that a changed rule has outdated, and no others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND = "2021-01", "2021-02"


class CopyOfTheProject:
    """A copy of the code, whose rules a test can change, with its own instance and stores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(REPOSITORY / "taxi_assets", folder / "taxi_assets")
        (folder / "dagster").mkdir()
        shutil.copy(REPOSITORY / "dagster.yaml", folder / "dagster")

    def limit_distance_to(self, miles: int) -> None:
        """Change the rule `distance_out_of_range`."""
        rules = self.folder / "taxi_assets" / "tlc" / "rules.py"
        text, changes = re.subn(r"MAXIMUM_MILES = \d+", f"MAXIMUM_MILES = {miles}", rules.read_text())
        assert changes == 1
        rules.write_text(text)

    def backfill(self, *options: str) -> list[str]:
        """Run the command for green taxis, and return the months whose layers it has run."""
        self.output = self.command("backfill", "--service", "green", *options)
        return sorted(re.findall(r"\] green (\S+)  (?:ok|warning)", self.output))

    def command(self, *arguments: str) -> str:
        """Run a command, and return its output."""
        ended = subprocess.run(
            [sys.executable, "-m", "taxi_assets.cli.backfill", *arguments],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(self.folder),
                "DAGSTER_HOME": str(self.folder / "dagster"),
                "TAXI_SOURCE": "sample",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def runs(self) -> int:
        """Return how many runs the instance has."""
        with dg.DagsterInstance.from_config(str(self.folder / "dagster")) as instance:
            return instance.get_runs_count()


@pytest.fixture
def project(tmp_path: Path) -> CopyOfTheProject:
    return CopyOfTheProject(tmp_path)


def test_exactly_the_months_that_a_changed_rule_has_outdated_are_rebuilt(project: CopyOfTheProject) -> None:
    assert project.backfill("--from", FIRST, "--to", SECOND) == [FIRST, SECOND]
    project.limit_distance_to(3)

    listed = project.command("outdated").splitlines()
    change = "The rule distance_out_of_range was: The distance is below 0 or above 500 miles. A missing distance"
    assert listed[:2] == [f"green {FIRST}  {change} passes.", f"green {SECOND}  {change} passes."]
    assert listed[-1].startswith("2 months are outdated.")
    assert project.backfill("--months", "outdated", "--from", SECOND) == [SECOND]
    assert "Outdated months of green from 2021-02 to" in project.output
    quarantined = re.findall(rf"^green +{SECOND} +\S+ +\S+ +(\S+)", project.output, re.MULTILINE)
    assert int(quarantined[0].replace(",", "")) > 5_000

    runs = project.runs()
    assert project.backfill("--months", "outdated", "--from", SECOND) == []
    assert re.search(r"^Outdated months of green from 2021-02 to \d{4}-\d\d: 0\. Nothing to do\.\n$", project.output)
    assert project.runs() == runs
    listed = project.command("outdated").splitlines()
    assert listed[0] == f"green {FIRST}  {change} passes."
    assert listed[-1].startswith("1 month is outdated.")
