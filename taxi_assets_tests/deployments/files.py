"""What the tests of deployment files share: reading them, and the tools that check them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from taxi_assets.settings import Settings
from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTING_VARIABLES = frozenset(f"TAXI_{name.upper()}" for name in Settings.model_fields)
SECRET_VARIABLES = frozenset(
    {"DAGSTER_POSTGRES_URL", "PGPASSWORD", "POSTGRES_PASSWORD", "TAXI_GOOGLE_CREDENTIALS", "TAXI_NOTIFY_URLS"}
)
CODE_LOCATION = "taxi_assets.definitions"


def read_yaml(path: str) -> Any:
    """A file of the repository."""
    return yaml.safe_load((REPOSITORY / path).read_text())


def find_group(pattern: str, text: str) -> str:
    """What the one group of a pattern matches."""
    match = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    assert match is not None, pattern
    return match[1]


def find_tool(name: str) -> str:
    """A command beside this Python, or on the PATH; the test is skipped where there is none."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


def run_check(command: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
    """Fails with what the command says, unless it ends well."""
    done = subprocess.run(
        [command, *arguments],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
