"""Profiles: files of valid settings without secrets, which environment variables override."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from taxi_assets.addresses import BigQueryAddress, BucketAddress, DuckDBAddress, FolderAddress, PostgresAddress
from taxi_assets.settings import _SECRETS, Settings, variable_of
from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILES = sorted((REPOSITORY / "deploy" / "profiles").glob("*.env"))
SETTINGS = {variable_of(name) for name in Settings.model_fields if name != "service_sources"}
DAGSTER_VARIABLES = set(re.findall(r"\bDAGSTER_[A-Z_]+", (REPOSITORY / "docs" / "postgres.md").read_text()))

every_profile = pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)


def lines(profile: Path) -> Iterator[tuple[str, str]]:
    """Yield the settings of a profile, parsed as every program that reads such files does."""
    for line in profile.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name, value


def test_each_kind_of_deployment_has_a_profile() -> None:
    assert [path.stem for path in PROFILES] == ["gcp", "local", "postgres"]


@every_profile
def test_each_line_is_a_setting_or_a_documented_dagster_variable_and_no_secret(profile: Path) -> None:
    names = [name for name, _ in lines(profile)]
    assert len(names) == len(set(names)) > 0
    assert set(names) <= (SETTINGS | DAGSTER_VARIABLES) - _SECRETS - {"DAGSTER_POSTGRES_URL"}
    assert set(re.findall(r"\b(?:TAXI|DAGSTER)_[A-Z_]+", profile.read_text())) <= SETTINGS | DAGSTER_VARIABLES | {
        "TAXI_SOURCE_GREEN"
    }
    assert not [value for _, value in lines(profile) if re.search(r"[\"'$\\]|^\s|\s$", value)], (
        "values are used as they are written"
    )


@every_profile
def test_each_setting_has_a_comment_and_the_last_comment_names_the_secrets(profile: Path) -> None:
    blocks = profile.read_text().strip().split("\n\n")
    assert all(block.startswith("# ") for block in blocks)
    assert blocks[-1].startswith("# Secrets, from the environment")
    assert "TAXI_NOTIFY_URLS " in blocks[-1]


@every_profile
def test_the_settings_of_a_profile_are_valid(profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in lines(profile):
        monkeypatch.setenv(name, value)
    settings = Settings.from_env()
    assert (type(settings.lake), type(settings.warehouse)) == {
        "local": (FolderAddress, DuckDBAddress),
        "postgres": (FolderAddress, PostgresAddress),
        "gcp": (BucketAddress, BigQueryAddress),
    }[profile.stem]


def test_the_local_profile_lists_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Settings.from_env()
    local = REPOSITORY / "deploy" / "profiles" / "local.env"
    for name, value in lines(local):
        monkeypatch.setenv(name, value)
    assert Settings.from_env() == defaults.model_copy(update={"ui_url": "http://127.0.0.1:3000"})
    assert dict(lines(local)).keys() == SETTINGS - _SECRETS


# --- make -------------------------------------------------------------------------------------------------------------


def make(target: str, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a make target with commands that only record their environment."""
    (folder / "bin").mkdir(exist_ok=True)
    for command in ("dagster", "python"):
        (folder / "bin" / command).write_text(f"#!/bin/sh\nexec env -0 > {folder}/given\n")
        (folder / "bin" / command).chmod(0o755)
    return subprocess.run(
        ["make", "-o", f"{folder}/.package", target, f"VENV={folder}", *arguments],
        cwd=REPOSITORY,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


def recorded_environment(folder: Path) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in (folder / "given").read_text().split("\0") if entry)


@pytest.mark.parametrize("target", ["dev", "backfill", "doctor"])
def test_every_target_that_reads_settings_uses_the_profile_for_variables_that_are_not_set(
    tmp_path: Path, target: str
) -> None:
    variables = {"SERVICE": "green", "FROM": "2020-01", "TO": "2020-02", "DAGSTER_HOME": str(tmp_path / "dagster")}
    environment = {"TAXI_LAKE": "gs://another/lake", "TAXI_SOURCE": ""}
    result = make(target, tmp_path, "PROFILE=gcp", **variables, **environment)
    assert result.returncode == 0, result.stderr
    settings = {name: value for name, value in recorded_environment(tmp_path).items() if name.startswith("TAXI_")}
    profile = REPOSITORY / "deploy" / "profiles" / "gcp.env"
    assert settings == dict(lines(profile)) | environment
    assert recorded_environment(tmp_path)["DAGSTER_HOME"] == str(tmp_path / "dagster")


def test_values_are_passed_on_unchanged(tmp_path: Path) -> None:
    assert make("doctor", tmp_path, "PROFILE=local", DAGSTER_HOME=str(tmp_path / "dagster")).returncode == 0
    profile = dict(lines(REPOSITORY / "deploy" / "profiles" / "local.env"))
    assert {name: recorded_environment(tmp_path)[name] for name in profile} == profile
    assert profile["TAXI_SCHEDULE_CRON"] == "0 5 1 * *"


def test_an_unknown_profile_is_one_line_that_lists_the_profiles(tmp_path: Path) -> None:
    result = make("dev", tmp_path, "PROFILE=nowhere")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "Unknown profile nowhere. Choose one of: gcp local postgres." in line
    assert not (tmp_path / "given").exists()


@pytest.mark.parametrize(
    ("arguments", "home"), [([], "dagster"), (["PROFILE=local"], "dagster"), (["PROFILE=postgres"], "dagster-postgres")]
)
def test_each_profile_has_its_own_run_history(tmp_path: Path, arguments: list[str], home: str) -> None:
    shown = make("doctor", tmp_path, "--dry-run", *arguments)
    assert f"DAGSTER_HOME:-{REPOSITORY}/data/{home}}}" in shown.stdout
