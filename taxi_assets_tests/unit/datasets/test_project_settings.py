from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taxi_assets.addresses import DuckDBAddress, FolderAddress
from taxi_assets.datasets.open_dataset import project_settings
from taxi_assets.settings import Settings
from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_settings_of_the_project_do_not_depend_on_the_working_directory(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = project_settings()
    assert settings.lake == FolderAddress(REPOSITORY / "data/lake")
    assert settings.warehouse == DuckDBAddress(REPOSITORY / "data/warehouse.duckdb")
    monkeypatch.setenv("taxi_lake", "mine")
    monkeypatch.setenv("TAXI_WAREHOUSE", "postgresql://user@host/taxi")
    assert project_settings() == Settings.from_env()
    assert project_settings().lake == FolderAddress(here / "mine")


def test_an_installed_package_has_its_data_in_the_working_directory(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxi_assets.datasets.open_dataset.__file__", "/usr/lib/taxi_assets/datasets/x.py")
    assert project_settings().lake == FolderAddress(here / "data/lake")
