"""Profiles: files of settings, accepted as they are, without secrets; and what the environment says wins."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from taxi_assets.addresses import BigQueryAddress, BucketAddress, DuckDBAddress, FolderAddress, PostgresAddress
from taxi_assets.settings import _SECRETS, Settings
from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILES = sorted((REPOSITORY / "deploy" / "profiles").glob("*.env"))
SETTINGS = {f"TAXI_{name.upper()}" for name in Settings.model_fields}
OF_DAGSTER = set(re.findall(r"\bDAGSTER_[A-Z_]+", (REPOSITORY / "docs" / "postgres.md").read_text()))

every_profile = pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)


def lines(profile: Path) -> Iterator[tuple[str, str]]:
    """The settings of a profile, as every program takes them that reads such files."""
    for line in profile.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name, value


def test_there_is_one_for_each_kind_of_deployment() -> None:
    assert [path.stem for path in PROFILES] == ["gcp", "local", "postgres"]


@every_profile
def test_each_line_is_a_setting_or_a_documented_variable_of_dagster_s_once_and_no_secret(profile: Path) -> None:
    names = [name for name, _ in lines(profile)]
    assert len(names) == len(set(names)) > 0
    assert set(names) <= (SETTINGS | OF_DAGSTER) - _SECRETS - {"DAGSTER_POSTGRES_URL"}
    assert set(re.findall(r"\b(?:TAXI|DAGSTER)_[A-Z_]+", profile.read_text())) <= SETTINGS | OF_DAGSTER
    assert not [value for _, value in lines(profile) if re.search(r"[\"'$\\]|^\s|\s$", value)], "taken as it is written"


@every_profile
def test_each_line_is_documented_and_the_end_says_where_secrets_come_from(profile: Path) -> None:
    blocks = profile.read_text().strip().split("\n\n")
    assert all(block.startswith("# ") for block in blocks)
    assert blocks[-1].startswith("# Secrets, from the environment")
    assert "TAXI_NOTIFY_URLS " in blocks[-1]


@every_profile
def test_the_settings_accept_it(profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in lines(profile):
        monkeypatch.setenv(name, value)
    settings = Settings.from_env()
    assert (type(settings.lake), type(settings.warehouse)) == {
        "local": (FolderAddress, DuckDBAddress),
        "postgres": (FolderAddress, PostgresAddress),
        "gcp": (BucketAddress, BigQueryAddress),
    }[profile.stem]


def test_the_local_one_says_what_holds_with_nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Settings.from_env()
    local = REPOSITORY / "deploy" / "profiles" / "local.env"
    for name, value in lines(local):
        monkeypatch.setenv(name, value)
    assert Settings.from_env() == nothing.model_copy(update={"ui_url": "http://127.0.0.1:3000"})
    assert dict(lines(local)).keys() == SETTINGS - _SECRETS


# --- make -------------------------------------------------------------------------------------------------------------


def make(target: str, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a target whose commands write down the environment that they are given."""
    (folder / "bin").mkdir(exist_ok=True)
    for command in ("dagster", "python"):
        (folder / "bin" / command).write_text(f"#!/bin/sh\nexec env -0 > {folder}/given\n")
        (folder / "bin" / command).chmod(0o755)
    return subprocess.run(
        ["make", "-o", f"{folder}/.runtime", target, f"VENV={folder}", *arguments],
        cwd=REPOSITORY,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def given(folder: Path) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in (folder / "given").read_text().split("\0") if entry)


@pytest.mark.parametrize("target", ["dev", "backfill", "doctor"])
def test_every_target_that_reads_settings_takes_those_of_the_profile_which_the_environment_does_not_say(
    tmp_path: Path, target: str
) -> None:
    more = {"SERVICE": "green", "FROM": "2020-01", "TO": "2020-02", "DAGSTER_HOME": str(tmp_path / "dagster")}
    message = {"TAXI_LAKE": "gs://another/lake", "TAXI_SOURCE": ""}
    done = make(target, tmp_path, "PROFILE=gcp", **more, **message)
    assert done.returncode == 0, done.stderr
    settings = {name: value for name, value in given(tmp_path).items() if name.startswith("TAXI_")}
    profile = REPOSITORY / "deploy" / "profiles" / "gcp.env"
    assert settings == dict(lines(profile)) | message
    assert given(tmp_path)["DAGSTER_HOME"] == str(tmp_path / "dagster")


def test_values_arrive_to_the_letter(tmp_path: Path) -> None:
    assert make("doctor", tmp_path, "PROFILE=local", DAGSTER_HOME=str(tmp_path / "dagster")).returncode == 0
    profile = dict(lines(REPOSITORY / "deploy" / "profiles" / "local.env"))
    assert {name: given(tmp_path)[name] for name in profile} == profile
    assert profile["TAXI_SCHEDULE_CRON"] == "0 5 1 * *"


def test_an_unknown_profile_is_one_line_that_lists_those_there_are(tmp_path: Path) -> None:
    refused = make("dev", tmp_path, "PROFILE=nowhere")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "Unknown profile nowhere. Choose one of: gcp local postgres." in line
    assert not (tmp_path / "given").exists()


@pytest.mark.parametrize(
    ("arguments", "home"), [([], "dagster"), (["PROFILE=local"], "dagster"), (["PROFILE=postgres"], "dagster-postgres")]
)
def test_each_profile_has_a_history_of_its_own(tmp_path: Path, arguments: list[str], home: str) -> None:
    shown = make("doctor", tmp_path, "--dry-run", *arguments)
    assert f"DAGSTER_HOME:-{REPOSITORY}/data/{home}}}" in shown.stdout
