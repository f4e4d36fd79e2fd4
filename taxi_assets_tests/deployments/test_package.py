"""The package without a checkout: built, installed into a new environment, and used.

`pipeline/test_command_line.py` tests the commands themselves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.processes import BIN

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(1800)  # the first test waits for the environment
OWN_DEFINITIONS = {
    "taxi_assets/defs/team/defs.yaml": "type: dagster.DefsFolderComponent\n",
    "taxi_assets/defs/team/mine.py": "import dagster as dg\n\n\n@dg.asset\ndef mine() -> None: ...\n",
}


def uv(*arguments: object, cwd: Path) -> None:
    subprocess.run([BIN / "uv", *map(str, arguments), "--quiet"], cwd=cwd, check=True)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built wheel and sdist. They are built from a copy, because builds leave files behind."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    shutil.copytree(REPOSITORY / "taxi_assets", copy / "taxi_assets", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in OWN_DEFINITIONS.items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
    uv("build", "--no-build-isolation", "--offline", "--python", sys.executable, cwd=copy)
    return copy / "dist"


@dataclass(frozen=True)
class Installed:
    """An environment with only the wheel and the packages of runtime.lock, and a folder to run commands in."""

    environment: Path
    folder: Path

    def run(self, *command: str) -> str:
        """Run a command of the environment in the folder; return its output."""
        result = subprocess.run(
            [self.environment / "bin" / command[0], *command[1:]],
            cwd=self.folder,
            env={"PATH": os.defpath, "HOME": str(self.folder), "TAXI_SOURCE": "sample"},
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    environment, folder = tmp_path_factory.mktemp("installed") / "venv", tmp_path_factory.mktemp("empty")
    python = ("--python", environment / "bin/python")
    uv("venv", environment, "--python", sys.executable, cwd=folder)
    lock = REPOSITORY / "requirements/runtime.lock"
    uv("pip", "install", *python, "--require-hashes", "--no-deps", "-r", lock, cwd=folder)
    uv("pip", "install", *python, "--no-deps", "--offline", *dist.glob("*.whl"), cwd=folder)
    uv("pip", "check", *python, cwd=folder)
    return Installed(environment, folder)


def test_wheel_and_sdist_contain_every_file_of_the_package_and_no_tests(dist: Path) -> None:
    package = REPOSITORY / "taxi_assets"
    files = OWN_DEFINITIONS.keys() | {
        str(path.relative_to(REPOSITORY))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    (built,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(built) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == files
        metadata = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA"))
        assert "License-Expression: Apache-2.0" in metadata
        assert any(name.endswith("/LICENSE") for name in wheel.namelist())
    with tarfile.open(source) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert files | {"pyproject.toml", "setup.py", "README.md", "LICENSE"} <= names
    assert not any(name.startswith("taxi_assets_tests") for name in names)


def test_the_installed_wheel_runs_and_its_dependencies_have_accepted_versions(installed: Installed) -> None:
    output = installed.run(
        "python", "-c", "from taxi_assets.cli.doctor import versions as v; print(v.__file__, v.versions(None))"
    )
    assert output.startswith(str(installed.environment))
    assert "packages in allowed versions" in output


def test_the_installed_wheel_loads_a_month_through_every_layer(installed: Installed) -> None:
    output = installed.run(
        *("dagster", "asset", "materialize", "-m", "taxi_assets.definitions"),
        *("--select", "group:green", "--partition", "2021-01"),
    )
    assert 'Finished execution of run for "__ASSET_JOB"' in output
    assert "Asset check 'matches_clean' on 'warehouse/green_trips' passed" in output
    with duckdb.connect(str(installed.folder / "data/warehouse.duckdb"), read_only=True) as connection:
        ((rows, month),) = connection.sql("SELECT count(*), min(data_month)::TEXT FROM taxi.green_trips").fetchall()
    assert rows > 20_000
    assert month == "2021-01-01"
    assert "Green taxi" in (installed.folder / "data/lake/reports/green_trips/2021-01/report.html").read_text()


def test_your_own_definitions_in_the_wheel_are_loaded(installed: Installed) -> None:
    own = installed.run("dagster", "asset", "list", "-m", "taxi_assets.definitions", "--select", "key:mine")
    assert own.splitlines()[-1] == "mine"


def test_the_definitions_of_the_installed_wheel_are_valid(installed: Installed) -> None:
    assert "Validation successful" in installed.run(
        "dagster", "definitions", "validate", "-m", "taxi_assets.definitions"
    )
