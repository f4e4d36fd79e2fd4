"""With TAXI_CATALOG, trips and marts have Iceberg tables. Without it, nothing of Iceberg is loaded."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from taxi_assets.build import build_definitions
from taxi_assets.marts.mart import marts
from taxi_assets.settings import Settings
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    import dagster as dg


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_definitions(Settings(catalog="sqlite:////nowhere/catalog.db"))


def test_each_service_and_each_mart_has_an_iceberg_table(defs: dg.Definitions) -> None:
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    tables = {key: spec for key, spec in specs.items() if key.startswith("iceberg/")}
    assert set(tables) == {f"iceberg/{table}" for table in (*(f"{name}_trips" for name in SERVICES), *marts())}
    green, mart = tables["iceberg/green_trips"], tables["iceberg/zone_day"]
    assert [dep.asset_key.to_user_string() for dep in green.deps] == ["clean/green_trips"]
    assert [dep.asset_key.to_user_string() for dep in mart.deps] == ["marts/zone_day"]
    assert (green.group_name, mart.group_name) == ("green", "marts")
    assert green.partitions_def == specs["clean/green_trips"].partitions_def
    assert mart.partitions_def == specs["marts/zone_day"].partitions_def
    assert all("iceberg" in spec.kinds for spec in tables.values())
    assert "dagster/uri" not in green.metadata, "the folder gets its name when the table is created"


def test_the_jobs_of_services_and_marts_commit_the_month(defs: dg.Definitions) -> None:
    def keys(job: str) -> set[str]:
        return {key.to_user_string() for key in defs.resolve_job_def(job).asset_layer.executable_asset_keys}

    assert "iceberg/green_trips" in keys("green")
    assert {f"iceberg/{mart}" for mart in marts()} <= keys("marts")


def test_without_a_catalog_there_is_no_asset_and_no_resource() -> None:
    defs = build_definitions(Settings())
    assert not [spec for spec in defs.resolve_all_asset_specs() if spec.key.path[0] == "iceberg"]
    assert "catalog" not in (defs.resources or {})


def test_a_run_without_a_catalog_imports_nothing_of_iceberg_and_writes_no_file_of_it(tmp_path: Path) -> None:
    script = """
import sys
from taxi_assets.definitions import defs
import dagster as dg
with dg.DagsterInstance.ephemeral() as instance:
    result = defs.resolve_job_def("green").execute_in_process(partition_key="2013-08", instance=instance)
assert result.success
assert not [name for name in sys.modules if name.startswith("pyiceberg")]
"""
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "", "TAXI_SOURCE": "sample", "HOME": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    assert not [path for path in tmp_path.rglob("*") if "iceberg" in path.name or "catalog" in path.name]
