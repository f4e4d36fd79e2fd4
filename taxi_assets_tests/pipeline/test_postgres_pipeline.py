"""A real month and the taxi zones with Postgres as the warehouse: equal to the clean trips, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings
from taxi_assets_tests.contract.stores.postgres import postgres_server, postgres_url, run
from taxi_assets_tests.pipeline_harness import check_results, failure_messages, metadata_value

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

__all__ = ["postgres_server", "postgres_url"]

MONTH = "2013-08"


def test_a_real_month_equals_the_clean_trips(
    data: Path, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("TAXI_WAREHOUSE", f"{postgres_url}{'&' if '?' in postgres_url else '?'}schema=nyc")
    monkeypatch.setenv("TAXI_SOURCE", str(data / "months"))
    defs = build_definitions(Settings.from_env())
    with dg.DagsterInstance.ephemeral() as instance:
        for loaded in ("replaced", "unchanged"):
            result = defs.resolve_job_def("green").execute_in_process(
                instance=instance, partition_key=MONTH, raise_on_error=False
            )
            assert result.success, failure_messages(result)
            assert check_results(result)["matches_clean"]
            assert metadata_value(result, "warehouse/green_trips", "loaded") == loaded
        assert defs.resolve_job_def("reference").execute_in_process(instance=instance).success

    table = defs.load_asset_value("warehouse/green_trips", partition_key=MONTH)
    clean = defs.load_asset_value("clean/green_trips", partition_key=MONTH, python_type=pd.DataFrame)
    assert isinstance(table, pd.DataFrame)
    assert isinstance(clean, pd.DataFrame)
    pd.testing.assert_frame_equal(table, clean)
    assert run(postgres_url, "SELECT count(*) FROM nyc.taxi_zones") == [(265,)]
    zones = defs.load_asset_value("reference/taxi_zones")
    assert isinstance(zones, pd.DataFrame)
    assert zones.dtypes.astype(str).to_dict() == {
        "location_id": "int64[pyarrow]",
        "borough": "string[pyarrow]",
        "zone": "string[pyarrow]",
        "service_zone": "string[pyarrow]",
    }
