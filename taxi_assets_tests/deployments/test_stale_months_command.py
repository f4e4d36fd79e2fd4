"""`make backfill … STALE=1` runs the months that a changed rule has made stale, and no others."""

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
        ended = subprocess.run(
            [sys.executable, "-m", "taxi_assets.cli.backfill", "backfill", "--service", "green", *options],
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
        self.output = ended.stdout
        return sorted(re.findall(r"\] green (\S+)  ok", ended.stdout))

    def runs(self) -> int:
        """Return how many runs the instance has."""
        with dg.DagsterInstance.from_config(str(self.folder / "dagster")) as instance:
            return instance.get_runs_count()


@pytest.fixture
def project(tmp_path: Path) -> CopyOfTheProject:
    return CopyOfTheProject(tmp_path)


def test_exactly_the_months_that_a_changed_rule_has_made_stale_are_rebuilt(project: CopyOfTheProject) -> None:
    assert project.backfill("--from", FIRST, "--to", SECOND) == [FIRST, SECOND]
    project.limit_distance_to(3)

    assert project.backfill("--stale", "--from", SECOND) == [SECOND]
    assert "Stale months of green from 2021-02 to" in project.output
    assert project.backfill("--stale") == [FIRST]
    quarantined = re.findall(r"^green +2021-01 +25,000 +\S+ +(\S+)", project.output, re.MULTILINE)
    assert int(quarantined[0].replace(",", "")) > 5_000

    runs = project.runs()
    assert project.backfill("--stale") == []
    assert re.search(r"^Stale months of green from 2013-08 to \d{4}-\d\d: 0\. Nothing to do\.\n$", project.output)
    assert project.runs() == runs
