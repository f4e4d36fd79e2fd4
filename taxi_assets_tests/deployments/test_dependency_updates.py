"""Renovate finds every pinned version: locked Python packages, GitHub actions and container images."""

from __future__ import annotations

import json
import re
import shlex
import subprocess

import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.files import find_tool, run_check

CONFIG = json.loads((REPOSITORY / "renovate.json").read_text())
KNOWN = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
LOCKS = [name for name in KNOWN if name.endswith(".lock")]
# The options that Renovate accepts in the head (allowedOptions in its lib/modules/manager/pip-compile/common.ts).
# It ignores a file with any other option of `uv pip compile`, or with a space before a value.
ACCEPTED_FLAGS = {"--all-extras", "--emit-index-url", "--generate-hashes", "--no-strip-extras", "--universal"}
ACCEPTED_WITH_VALUES = {
    "--constraint", "--constraints", "--extra", "--group", "--no-emit-package", "--output-file", "--overrides",
    "--python-version", "--resolution",
}  # fmt: skip

# Folders that `config:recommended` ignores, unless the configuration has `ignorePaths` (preset :ignoreModulesAndTests).
IGNORED_BY_DEFAULT = [
    "node_modules",
    "bower_components",
    "vendor",
    "examples",
    "__tests__",
    "test",
    "tests",
    "__fixtures__",
]


def _patterns() -> list[re.Pattern[str]]:
    return [re.compile(pattern.strip("/")) for pattern in CONFIG["pip-compile"]["managerFilePatterns"]]


def test_renovate_accepts_its_configuration() -> None:
    run_check(find_tool("check-jsonschema"), "--builtin-schema", "vendor.renovate", "renovate.json")


def test_renovate_updates_each_kind_of_pinned_version() -> None:
    assert set(CONFIG["enabledManagers"]) == {"pip-compile", "github-actions", "dockerfile", "docker-compose"}
    assert CONFIG["pip-compile"]["lockFileMaintenance"]["enabled"]
    assert {"Dockerfile", "docker-compose.yaml", ".github/workflows/ci.yaml"} <= set(KNOWN)


@pytest.mark.parametrize("name", LOCKS)
def test_renovate_compiles_each_lock_file_with_the_command_in_its_head(name: str) -> None:
    assert any(pattern.search(name) for pattern in _patterns())
    assert not {*CONFIG.get("ignorePaths", IGNORED_BY_DEFAULT)} & {*name.split("/")}
    match = re.match(r"(?:#.*\n)+?# {4}uv pip compile (.*)\n", (REPOSITORY / name).read_text())
    assert match, "make lock writes the command"
    arguments = shlex.split(match[1])
    options = [argument.partition("=") for argument in arguments if argument.startswith("-")]
    assert {option for option, equals, _ in options if equals} <= ACCEPTED_WITH_VALUES
    assert {option for option, equals, _ in options if not equals} <= ACCEPTED_FLAGS
    assert ("--output-file", "=", name) in options
    sources = [argument for argument in arguments if not argument.startswith("-")]
    assert sources, "Renovate needs a source file"
    assert [source for source in sources if not (REPOSITORY / source).is_file()] == []


def test_every_file_with_hashes_of_packages_is_a_lock_file() -> None:
    hashes = re.compile(rb"^    --hash=sha256:", re.MULTILINE)
    assert set(LOCKS) == {name for name in KNOWN if hashes.search((REPOSITORY / name).read_bytes()[:5000])}
