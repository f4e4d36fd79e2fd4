"""Run the doctor in this process or in a new one, and parse its findings by part."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from taxi_assets.cli.doctor.__main__ import main
from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BIN = Path(sys.executable).parent
SECRET = "quite-secret"  # noqa: S105  (not a real secret)
PARTS = [
    *("versions", "DAGSTER_HOME", "runs", "run launcher", "compute logs", "settings", "Google account", "lake"),
    *("warehouse", "catalog", "publisher", "schedules", "notifiers", "code location", "outdated", "pinned"),
]
WITHOUT_INSTANCE = dict.fromkeys(
    ["runs", "run launcher", "compute logs", "outdated"], "skipped: fix DAGSTER_HOME first"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with an instance as `make` sets it up."""
    (tmp_path / "dagster").mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path / "dagster")
    return tmp_path


# The default limit is too short for a machine that runs other tests.
LIMIT = ["--seconds", "30"]


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Environment of a process that keeps its data in `home`."""
    return {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
        "TAXI_LAKE": str(home / "lake"),
        "TAXI_WAREHOUSE": f"duckdb:///{home / 'warehouse.duckdb'}",
        "TAXI_SOURCE": "sample",
        **variables,
    }


def findings(message: str) -> dict[str, list[str]]:
    """Return the state and the lines of each part."""
    parts: dict[str, list[str]] = {}
    for line in message.splitlines():
        state, part, text = line[:6].strip(), line[6:21].strip(), line[21:]
        parts.setdefault(part, [state]).append(text)
    return parts


def doctor(home: Path, **variables: str) -> dict[str, list[str]]:
    """Run the doctor in this process, and check the form of its output."""
    message = io.StringIO()
    with pytest.MonkeyPatch.context() as monkeypatch, redirect_stdout(message):
        for name, value in environment(home, **variables).items():
            monkeypatch.setenv(name, value)
        code = main(LIMIT)
    return checked(message.getvalue(), code)


def doctor_process(home: Path, *, folder: Path = REPOSITORY, **variables: str) -> dict[str, list[str]]:
    """Run the doctor in a new process, with the code in `folder`."""
    ended = subprocess.run(
        [sys.executable, "-m", "taxi_assets.cli.doctor", *LIMIT],
        cwd=folder, env=environment(home, **variables), capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert ended.stderr == ""
    return checked(ended.stdout, ended.returncode)


def checked(message: str, code: int) -> dict[str, list[str]]:
    found = findings(message)
    assert list(found) == PARTS, message
    assert "Traceback" not in message
    assert SECRET not in message
    assert not re.search(r"(?<!\.)[.?!]\.(?!\.)", message), message
    assert code == (1 if faults(found) else 0)
    return found


def faults(found: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the faults by part, without the name of the error at the end."""
    message = {part: "\n".join(lines) for part, (state, *lines) in found.items() if state == "FAULT"}
    return {part: re.sub(r" \[\w+Error\]$", "", text) for part, text in message.items()}


def skipped(found: Mapping[str, list[str]]) -> dict[str, str]:
    return {part: lines[0] for part, (state, *lines) in found.items() if state == "-"}


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
