"""Dagster's command `dg` in a new copy of the project, after `make setup`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import duckdb
import psutil
import pytest
import requests
import tenacity

from taxi_assets_tests.deployments.files import CODE_LOCATION, copy_project
from taxi_assets_tests.deployments.processes import BIN, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEAM = """
    type: dagster.DefsFolderComponent
    post_processing:
      assets:
        - attributes: {owners: ["team:analytics"]}
"""
THEIRS = """
    import dagster as dg

    @dg.asset
    def theirs() -> None: ...
"""
LOCATIONS = """{
    shouldShowNux
    workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } }
}"""


@dataclass(frozen=True)
class Project:
    """A copy of the project with its own environment."""

    folder: Path
    variables: dict[str, str]

    def run(self, *command: str) -> str:
        """Run a command of the environment in the project's folder; return its output. It must succeed."""
        result = subprocess.run(
            [self.folder / ".venv/bin" / command[0], *command[1:]],
            cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=800, check=False,
        )  # fmt: skip
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        assert "To suppress this warning" not in result.stderr, result.stderr
        return result.stdout

    @contextmanager
    def running(self, *command: str) -> Iterator[psutil.Process]:
        """Run a command of the environment in the background until the context ends."""
        with (self.folder / "data/log").open("w") as log:
            path = self.folder / ".venv/bin" / command[0]
            child = psutil.Popen([path, *command[1:]], cwd=self.folder, env=self.variables, stdout=log, stderr=log)
        try:
            yield child
        finally:
            processes = [child, *child.children(recursive=True)]
            child.send_signal(signal.SIGTERM)
            _, remaining = psutil.wait_procs(processes, 300)
            for survivor in remaining:
                survivor.kill()
        assert not remaining, "dg dev left processes behind"


def make_environment(folder: Path) -> None:
    """Create the environment that `make setup` has before it installs the package: with the packages of this test."""
    subprocess.run([BIN / "uv", "venv", "--quiet", "--python", sys.executable, folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "packages_of_the_test.pth").write_text(sysconfig.get_path("purelib"))
    (folder / "bin/uv").symlink_to(BIN / "uv")
    command = folder / "bin/dg"
    command.write_text(f"#!{folder}/bin/python\n{(BIN / 'dg').read_text().partition(chr(10))[2]}")
    command.chmod(0o755)
    for stamp in (".runtime", ".dev"):
        (folder / stamp).touch()


def make_setup(folder: Path, home: Path) -> None:
    """Run `make setup` where all packages are installed already."""
    subprocess.run(
        ["make", "setup", "-o", ".venv/bin/uv"],
        cwd=folder, env={"PATH": os.environ["PATH"], "HOME": str(home)}, check=True, timeout=600,
    )  # fmt: skip


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if ".venv" not in path.parts}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder, home = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("home")
    copy_project(folder)
    make_environment(folder / ".venv")
    copied = files_in(folder)
    make_setup(folder, home)
    assert files_in(folder) == copied, "the installation left files in the project"
    instance = folder / "data/dagster"
    instance.mkdir(parents=True)
    shutil.copy(folder / "dagster.yaml", instance)
    variables = {"PATH": os.environ["PATH"], "HOME": str(home), "DAGSTER_HOME": str(instance), "TAXI_SOURCE": "sample"}
    return Project(folder, variables)


def test_make_setup_installs_the_package_for_use_in_any_folder(project: Project, tmp_path: Path) -> None:
    script = "import taxi_assets, importlib.metadata as m; print(taxi_assets.__file__, m.version('taxi-assets'))"
    python = project.folder / ".venv/bin/python"
    output = subprocess.run(
        [python, "-c", script], cwd=tmp_path, env=project.variables, capture_output=True, text=True, check=True
    ).stdout
    assert output.startswith(str(project.folder / "taxi_assets/__init__.py"))


def test_make_setup_keeps_the_package_of_an_environment_that_is_linked(project: Project, tmp_path: Path) -> None:
    copy_project(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".venv").symlink_to(project.folder / ".venv")
    make_setup(tmp_path, tmp_path)
    assert str(project.folder) in project.run("python", "-P", "-c", "import taxi_assets; print(taxi_assets.__file__)")


def test_dg_checks_the_project(project: Project) -> None:
    assert "Project configuration file is valid." in project.run("dg", "check", "toml")
    components = json.loads(project.run("dg", "list", "components", "--json"))["items"]
    assert "taxi_assets.component.TaxiPipeline" in {component["key"] for component in components}


def test_a_scaffolded_asset_and_a_component_are_listed_and_loaded(project: Project) -> None:
    project.run("dg", "scaffold", "defs", "dagster.asset", "mine.py")
    folder = project.folder / "taxi_assets/defs"
    (folder / "team").mkdir()
    (folder / "team/defs.yaml").write_text(dedent(TEAM))
    (folder / "team/theirs.py").write_text(dedent(THEIRS))
    try:
        assets = json.loads(project.run("dg", "list", "defs", "--json"))["assets"]
        tree = project.run("dg", "list", "component-tree")
        assert "All component YAML validated successfully." in project.run("dg", "check", "yaml")
        script = "import sys; from taxi_assets.definitions import defs; defs.resolve_assets_def('mine');"
        project.run("python", "-c", f"{script} assert 'dagster_gcp.components' not in sys.modules")
        subprocess.run([BIN / "ruff", "check", "--quiet", folder / "mine.py"], cwd=project.folder, check=True)
    finally:
        shutil.rmtree(folder / "team")
        (folder / "mine.py").unlink()
    assert {"mine", "theirs", "warehouse/green_trips"} <= {asset["asset_key"] for asset in assets}
    assert "team" in tree


def test_dg_launch_runs_a_month_of_a_job(project: Project) -> None:
    project.run("dg", "launch", "--job", "green", "--partition", "2021-02")
    with duckdb.connect(str(project.folder / "data/warehouse.duckdb"), read_only=True) as connection:
        rows = connection.sql(
            "SELECT strftime(data_month, '%Y-%m'), count(*) FROM taxi.green_trips GROUP BY 1"
        ).fetchall()
    ((month, trips),) = rows
    assert month == "2021-02"
    assert trips > 20_000


def test_dg_dev_serves_the_code_location_on_loopback_and_ends_with_all_its_processes(project: Project) -> None:
    port = free_port()
    with project.running("dg", "dev", "--port", str(port)) as process:
        data = ask(port)
        assert data["workspaceOrError"]["locationEntries"] == [
            {"name": CODE_LOCATION, "locationOrLoadError": {"__typename": "RepositoryLocation"}}
        ]
        assert not data["shouldShowNux"], "the UI asks new users for their email address"
        connections = [c for child in process.children(recursive=True) for c in child.net_connections()]
        addresses = {c.laddr for c in connections if c.status == psutil.CONN_LISTEN and c.laddr}
        assert {address.ip for address in addresses} == {"127.0.0.1"}
        assert port in {address.port for address in addresses}


def ask(port: int) -> dict[str, Any]:
    """Return the webserver's answer to `LOCATIONS`, when it is up."""
    for attempt in tenacity.Retrying(wait=tenacity.wait_fixed(0.5), stop=tenacity.stop_after_delay(600)):
        with attempt:
            response = requests.post(f"http://127.0.0.1:{port}/graphql", json={"query": LOCATIONS}, timeout=60)
            return dict(response.json()["data"])
    raise AssertionError
