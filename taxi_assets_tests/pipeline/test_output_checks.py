"""An asset of your own that its IO manager cannot store ends the run before its code runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from dagster._cli.asset import asset_materialize_command

if TYPE_CHECKING:
    from pathlib import Path

_ASSETS = """
from pathlib import Path

import dagster as dg
import pandas as pd

from taxi_assets.build import build_definitions, merge_definitions
from taxi_assets.partitions import monthly_partitions
from taxi_assets.settings import Settings
from taxi_assets.tlc.services.green import GREEN


def work():
    Path("work_was_done").touch()


@dg.asset(key=["mine", "first"], io_manager_key="warehouse_table")
def first() -> pd.DataFrame:
    work()
    return pd.DataFrame({"a": [1]})


{asset}
    work()
    return {value}


defs = merge_definitions(build_definitions(Settings.from_env()), dg.Definitions(assets=[first, last]))
"""
WRONG = {
    "a type that is not rows": (
        '@dg.asset(key=["mine", "last"], deps=[first], io_manager_key="warehouse_table")\ndef last() -> dict:',
        "mine/last returns dict, which warehouse_table cannot store. Return one of: pandas.DataFrame,",
    ),
    "a text for the lake": (
        '@dg.asset(key=["mine", "last"], deps=[first], io_manager_key="lake_parquet")\ndef last() -> str:',
        "mine/last returns str, which lake_parquet cannot store. Return one of: pandas.DataFrame,",
    ),
    "rows for files": (
        '@dg.asset(key=["mine", "last"], deps=[first], io_manager_key="raw_files")\ndef last() -> pd.DataFrame:',
        "mine/last returns pandas.DataFrame, but raw_files stores only files as published.",
    ),
    "a table of the platform": (
        '@dg.asset(key=["last", "green_trips"], deps=[first], io_manager_key="warehouse_table")\ndef last():',
        "last/green_trips would replace the table green_trips, which belongs to the asset warehouse/green_trips.",
    ),
}


@pytest.mark.filterwarnings("ignore:Function `asset_materialize_command` is superseded")
@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_definition_ends_the_run_before_any_work_starts(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset, message = WRONG[kind]
    (tmp_path / "mine.py").write_text(_ASSETS.replace("{asset}", asset).replace("{value}", "{}"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAXI_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("TAXI_WAREHOUSE", f"duckdb:///{tmp_path / 'warehouse.duckdb'}")
    ended = CliRunner().invoke(asset_materialize_command, ["-f", "mine.py", "--select", "key:mine/first or key:*last*"])
    assert ended.exit_code != 0
    assert message in ended.output
    assert "[AssetDefinitionError]" in ended.output
    assert not (tmp_path / "work_was_done").exists()
    assert not (tmp_path / "warehouse.duckdb").exists()
