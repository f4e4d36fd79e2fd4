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


def test_the_hooks_run_the_installed_tools_of_make_check() -> None:
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    hooks = {hook["entry"]: hook["language"] for hook in repository["hooks"]}
    assert repository["repo"] == "local"
    assert set(hooks.values()) == {"system"}, "pre-commit would download hooks in any other language"
    assert [entry.split()[0].removeprefix(".venv/bin/") for entry in hooks] == ["ruff", "ruff", "mypy"]


def test_the_hook_rejects_an_unformatted_file(tmp_path: Path) -> None:
    for name in (".pre-commit-config.yaml", "pyproject.toml"):
        (tmp_path / name).write_text((REPOSITORY / name).read_text())
    (tmp_path / ".venv").symlink_to(BIN.parent)
    (tmp_path / "wrong.py").write_text('"""A module."""\n\nx = {  "a":1 }\n')
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": os.devnull}

    def run(*command: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    run("git", "init", "--quiet")
    run("git", "add", "wrong.py", ".pre-commit-config.yaml")
    result = run(BIN / "pre-commit", "run", "ruff-format")
    assert result.returncode == 1
    assert "1 file reformatted" in result.stdout
    run("git", "add", "wrong.py")
    assert run(BIN / "pre-commit", "run", "ruff-format").returncode == 0


def test_shellcheck_accepts_every_script() -> None:
    known = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    scripts = [name for name in known.splitlines() if name.endswith(".sh") or name == ".ci/run"]
    assert {"deploy/gcp/create.sh", "deploy/gcp/verify.sh", "deploy/docker/entrypoint.sh", ".ci/run"} <= set(scripts)
    run_check(find_tool("shellcheck"), *scripts)
