"""Files for contributors: GitHub accepts the issue forms, and the hooks run the pinned tools offline."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.files import find_tool, read_yaml, run_check
from taxi_assets_tests.deployments.processes import BIN

if TYPE_CHECKING:
    from pathlib import Path

FORMS = sorted(path.name for path in (REPOSITORY / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")


@pytest.mark.parametrize("name", FORMS)
def test_github_accepts_each_issue_form(name: str) -> None:
    run_check(
        find_tool("check-jsonschema"), "--builtin-schema", "vendor.github-issue-forms", f".github/ISSUE_TEMPLATE/{name}"
    )


def test_github_accepts_the_configuration_of_issue_forms() -> None:
    config = ".github/ISSUE_TEMPLATE/config.yml"
    run_check(find_tool("check-jsonschema"), "--builtin-schema", "vendor.github-issue-config", config)


def test_the_hooks_run_installed_tools_and_pre_commit_downloads_nothing() -> None:
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in repository["hooks"])
    assert {hook["id"] for hook in repository["hooks"]} == {"mypy", *MISTAKES}


# For each hook, a file with a mistake, and a word of the hook's output. mypy always checks the whole project.
MISTAKES = {
    "ruff-format": ("wrong.py", '"""A module."""\n\nx = {  "a":1 }\n', "1 file reformatted"),
    "ruff-check": ("wrong.py", '"""A module."""\n\nimport os\n', "F401"),
    "yaml": ("wrong.yaml", "months: [2021-01\n", "expected ',' or ']'"),
    "toml": ("wrong.toml", "month = 2021-\n", "wrong.toml"),
    "whitespace": ("wrong.md", "A month. \n", "Fixing wrong.md"),
    "end-of-file": ("wrong.md", "A month.\n\n\n", "Fixing wrong.md"),
    "spelling": ("wrong.md", "Recieve a month.\n", "Receive"),  # codespell:ignore recieve
    "secrets": ("wrong.env", 'PGPASSWORD="k8Zq2vRw7T"\n', "wrong.env:1"),  # pragma: allowlist secret
    "sql": ("taxi_assets/marts/sql/wrong.sql", "SELECT count(*) AS trips FROM all_trips\n", "CP03"),
}


@pytest.mark.parametrize("hook", MISTAKES)
def test_each_hook_rejects_a_file_with_a_mistake(hook: str, tmp_path: Path) -> None:
    name, text, message = MISTAKES[hook]
    for copied in (".pre-commit-config.yaml", "pyproject.toml"):
        (tmp_path / copied).write_text((REPOSITORY / copied).read_text())
    (tmp_path / ".venv").symlink_to(BIN.parent)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": os.devnull}

    def run(*command: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=800
        )

    run("git", "init", "--quiet")
    run("git", "add", ".pre-commit-config.yaml", "pyproject.toml")
    assert run(BIN / "pre-commit", "run", hook).returncode == 0
    run("git", "add", name)
    result = run(BIN / "pre-commit", "run", hook)
    assert result.returncode == 1
    assert message in result.stdout


def test_shellcheck_accepts_every_script() -> None:
    known = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    scripts = [name for name in known.splitlines() if name.endswith(".sh") or name == ".ci/run"]
    assert {"deploy/gcp/create.sh", "deploy/gcp/verify.sh", "deploy/docker/entrypoint.sh", ".ci/run"} <= set(scripts)
    run_check(find_tool("shellcheck"), *scripts)


def test_no_temporary_file_of_a_tool_is_committed() -> None:
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert listed.stdout == ""
