"""Helpers for tests of deployment files: read and copy them, and run the tools that check them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from taxi_assets.settings import Settings, variable_of
from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTING_VARIABLES = frozenset(
    {
        *(variable_of(name) for name in Settings.model_fields if name != "service_sources"),
        *(f"TAXI_SOURCE_{service}" for service in ("YELLOW", "GREEN", "FHV", "FHVHV")),
    }
)
SECRET_VARIABLES = frozenset(
    {"DAGSTER_POSTGRES_URL", "PGPASSWORD", "POSTGRES_PASSWORD", "TAXI_GOOGLE_CREDENTIALS", "TAXI_NOTIFY_URLS"}
)
CODE_LOCATION = "taxi_assets.definitions"


def read_yaml(path: str) -> Any:
    """Return the content of a YAML file of the repository."""
    return yaml.safe_load((REPOSITORY / path).read_text())


def copy_project(folder: Path) -> None:
    """Copy all files that git does not ignore, with their times: otherwise make would install packages again."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)


def find_group(pattern: str, text: str) -> str:
    """Return the text that the first group of a pattern matches; the pattern must match."""
    match = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    assert match is not None, pattern
    return match[1]


def find_tool(name: str) -> str:
    """Return the path of a command next to this Python or on the PATH. Skip the test if there is none."""
    in_environment = Path(sys.executable).with_name(name)
    path = str(in_environment) if in_environment.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run_check(command: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a command in the repository. Fail with its output if its exit code is not 0."""
    result = subprocess.run(
        [command, *arguments],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
