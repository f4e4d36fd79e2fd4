"""The package as somebody gets it who has no checkout: built, installed into an environment of its own, and used.

Does not belong here: what the commands do; see `pipeline/test_command_line.py`.
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

pytestmark = pytest.mark.timeout(900)  # the first of them waits for an environment


def uv(*arguments: object, cwd: Path) -> None:
    subprocess.run([BIN / "uv", *map(str, arguments), "--quiet"], cwd=cwd, check=True)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make dist` builds it, from a copy: building leaves things behind."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(REPOSITORY / name, copy)
    shutil.copytree(REPOSITORY / "taxi_assets", copy / "taxi_assets", ignore=shutil.ignore_patterns("__pycache__"))
    uv("build", "--no-build-isolation", "--offline", "--python", sys.executable, cwd=copy)
    return copy / "dist"


@dataclass(frozen=True)
class Installed:
    """The wheel and what runtime.lock pins, nothing else; commands run in an empty folder."""

    environment: Path
    folder: Path

    def run(self, *command: str) -> str:
        ended = subprocess.run(
            [self.environment / "bin" / command[0], *command[1:]],
            cwd=self.folder,
            env={"PATH": os.defpath, "HOME": str(self.folder), "TAXI_SOURCE": "sample"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    environment, folder = tmp_path_factory.mktemp("installed") / "venv", tmp_path_factory.mktemp("elsewhere")
    python = ("--python", environment / "bin/python")
    uv("venv", environment, "--python", sys.executable, cwd=folder)
    lock = REPOSITORY / "requirements/runtime.lock"
    uv("pip", "install", *python, "--require-hashes", "--no-deps", "-r", lock, cwd=folder)
    uv("pip", "install", *python, "--no-deps", "--offline", *dist.glob("*.whl"), cwd=folder)
    uv("pip", "check", *python, cwd=folder)
    return Installed(environment, folder)


def test_wheel_and_sdist_hold_every_file_of_the_package(dist: Path) -> None:
    package = REPOSITORY / "taxi_assets"
    files = {
        str(path.relative_to(REPOSITORY))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    (built,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(built) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == files
    with tarfile.open(source) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
    assert files | {"pyproject.toml", "setup.py", "README.md"} <= held
    assert not any("test" in name for name in held)


def test_it_is_the_wheel_that_runs_and_it_knows_which_versions_it_takes(installed: Installed) -> None:
    message = installed.run(
        "python", "-c", "from taxi_assets.cli.doctor import versions as v; print(v.__file__, v.versions(None))"
    )
    assert message.startswith(str(installed.environment))
    assert "libraries as they must be" in message


def test_from_the_wheel_alone_a_month_goes_through_every_shelf(installed: Installed) -> None:
    message = installed.run(
        *("dagster", "asset", "materialize", "-m", "taxi_assets.definitions"),
        *("--select", "group:green", "--partition", "2021-01"),
    )
    assert 'Finished execution of run for "__ASSET_JOB"' in message
    assert "Asset check 'matches_clean' on 'warehouse/green_trips' passed" in message
    with duckdb.connect(str(installed.folder / "data/warehouse.duckdb"), read_only=True) as connection:
        ((rows, month),) = connection.sql("SELECT count(*), min(data_month)::TEXT FROM taxi.green_trips").fetchall()
    assert rows > 20_000
    assert month == "2021-01-01"
    assert "Green taxi" in (installed.folder / "data/lake/reports/green_trips/2021-01/report.html").read_text()


def test_from_the_wheel_alone_the_definitions_hold_together(installed: Installed) -> None:
    assert "Validation successful" in installed.run(
        "dagster", "definitions", "validate", "-m", "taxi_assets.definitions"
    )
