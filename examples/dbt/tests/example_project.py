"""A copy of the example, with the demo's data in its own warehouse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import psycopg2

from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping

REPOSITORY = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
MODELS = ("airport_trips", "airport_days", "borough_tips")
MONTH, NEXT_MONTH = "2021-01", "2021-02"
_NOT_COPIED = (".venv", "data", "target", "logs", "__pycache__", "*.egg-info")


@dataclass(frozen=True)
class Project:
    """A copy of the example, and the environment of its commands."""

    root: Path
    """The folder that takes the place of the repository."""
    variables: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """The folder of the example."""
        return self.root / "examples/dbt"

    @property
    def duckdb_file(self) -> Path:
        """The DuckDB file, as the example configures it by default."""
        return self.folder / "data/warehouse.duckdb"

    def run(self, *command: str | Path, folder: str = ".", check: bool = True) -> str:
        """Run a command in a folder of the example, and return its output; by default, fail the test if it fails."""
        result = subprocess.run(
            command, cwd=self.folder / folder, env=self.variables, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500,
        )  # fmt: skip
        assert not check or result.returncode == 0, result.stdout[-8000:]
        return result.stdout

    def shell(self, commands: str, folder: str, *, check: bool = True) -> str:
        """Run shell commands in a folder of the example, and return their output."""
        return self.run("bash", "-euo", "pipefail", "-c", commands, folder=folder, check=check)

    def results(self, name: str = "run_results") -> dict[str, str]:
        """Return the status of each node of the last dbt command, by the node's ID."""
        found = json.loads((self.folder / "dbt/target" / f"{name}.json").read_text())["results"]
        return {result["unique_id"]: result["status"] for result in found}

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement in the warehouse, and return its rows."""
        if "TAXI_WAREHOUSE" not in self.variables:
            with duckdb.connect(self.duckdb_file) as file:
                return list(file.execute(statement).fetchall())
        with psycopg2.connect(self.variables["TAXI_WAREHOUSE"]) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def tables(self, month: str) -> dict[str, list[tuple[Any, ...]]]:
        """Return the rows of each model for a month, sorted."""
        query = "SELECT * FROM mobility.{} WHERE data_month = DATE '{}-01'"
        return {model: sorted(self.query(query.format(model, month)), key=repr) for model in MODELS}


def copy_of_example(root: Path, variables: Mapping[str, str]) -> Project:
    """Copy the example. Its commands see no settings of this machine."""
    project = Project(
        root,
        {
            "HOME": str(root),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": f"{root}/examples/dbt/src:{REPOSITORY}",
            "DAGSTER_DG_UPDATE_CHECK_ENABLED": "0",
            **variables,
        },
    )
    shutil.copytree(REPOSITORY / "examples/dbt", project.folder, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    shutil.copy(REPOSITORY / "dagster.yaml", root)
    (project.folder / ".venv").symlink_to(BIN.parent)
    return project


def load_demo(project: Project) -> None:
    """Load the month of the demo: the trips of every service, the zones, the marts and the quality table.

    Green taxis get a second month.
    """
    warehouse = project.variables.get("TAXI_WAREHOUSE", f"duckdb:///{project.duckdb_file}")
    settings = {"source": "sample", "lake": str(project.folder / "data/lake"), "warehouse": warehouse}
    definitions = build_definitions(Settings.from_env(settings))
    trips = [*((service, MONTH) for service in SERVICES), ("green", NEXT_MONTH)]
    with dg.DagsterInstance.ephemeral() as instance:
        for name, month in [*trips, ("reference", None), ("marts", MONTH), ("quality", None)]:
            job = definitions.resolve_job_def(name)
            assert job.execute_in_process(instance=instance, partition_key=month).success
