"""The example in the docstring of each IO manager works as it is, on a month of the platform."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import polars as pl
import pytest

from taxi_assets.build import merge_definitions
from taxi_assets.io_managers.lake_parquet import LakeParquetIOManager
from taxi_assets.io_managers.raw_files import RawFileIOManager
from taxi_assets.io_managers.report_pages import ReportIOManager
from taxi_assets.io_managers.warehouse_table import WarehouseTableIOManager
from taxi_assets.partitions import monthly_partitions
from taxi_assets.storage.lake.objects import RawFile
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.pipeline_harness import Deployment, failure_messages

if TYPE_CHECKING:
    from collections.abc import Callable

MONTH = "2021-01"
NAMES = {
    "RawFile": RawFile,
    "SERVICES": SERVICES,
    "dg": dg,
    "monthly_partitions": monthly_partitions,
    "pd": pd,
    "pl": pl,
}
"""The names that the examples use without an import."""


def is_url_and_digest(_rows: Any, printed: str) -> bool:
    return re.fullmatch(r"sample:\S+ [0-9a-f]{64}\n", printed) is not None


# For each IO manager, what its example stores or prints.
EXPECTED: dict[type, Callable[[Any, str], bool]] = {
    LakeParquetIOManager: lambda rows, _: len(rows) > 0 and bool((rows["trip_distance"] > 20).all()),
    WarehouseTableIOManager: lambda rows, _: [*rows] == ["data_month", "pickup_location_id", "tip_amount"],
    RawFileIOManager: is_url_and_digest,
    ReportIOManager: lambda _, printed: "<html" in printed,
}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    deployment = Deployment(tmp_path_factory.mktemp("examples"), "sample")
    assert deployment.run("green", MONTH).success
    assert deployment.run_report("green", MONTH).success
    return deployment


@pytest.mark.parametrize("manager", EXPECTED, ids=lambda manager: manager.__name__)
def test_the_example_of_an_io_manager_works(
    deployment: Deployment, manager: type, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"^(?: {8}.*\n?)+", manager.__doc__ or "", re.MULTILINE)
    names: dict[str, Any] = dict(NAMES)
    exec(dedent(example), names)  # noqa: S102  (code of this package)
    (asset,) = [value for value in names.values() if isinstance(value, dg.AssetsDefinition)]
    defs = merge_definitions(deployment.definitions(), dg.Definitions(assets=[asset]))
    job = defs.resolve_implicit_job_def_def_for_assets([asset.key])
    assert job is not None
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            instance=instance, partition_key=MONTH, asset_selection=[asset.key], raise_on_error=False
        )
        assert result.success, failure_messages(result)
        stored = bool(result.asset_materializations_for_node(asset.node_def.name)[0].metadata)
        rows = defs.load_asset_value(asset.key, partition_key=MONTH, instance=instance) if stored else None
    assert EXPECTED[manager](rows, capsys.readouterr().out)
