"""What every child needs, done once: the fork server imports this module, and forks the children from there.

A process started anew spends three seconds on importing; a forked one hundredths. Nothing here may start a thread, or
use pyarrow or DuckDB: threads do not survive a fork. Hence the warming up with an asset that does nothing.
"""

from __future__ import annotations

import importlib
from contextlib import ExitStack

import dagster as dg

from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings
from taxi_assets_tests.dagster_speedups import cached_migrations

for module in (
    "tabulate",
    "pyarrow.pandas_compat",
    "taxi_assets.io_managers.bigquery_frames",
    "taxi_assets.storage.lake.gcs_lake",
    "taxi_assets.storage.warehouse.postgres",
    "taxi_assets.marts.sql_rendering",
    "taxi_assets.reports.page",
    "taxi_assets.reports.charts",
    "taxi_assets.reports.quality_chart",
    "taxi_assets_tests.faults.children",
    "taxi_assets_tests.google.service_account",
):
    importlib.import_module(module)


@dg.asset
def nothing() -> None:
    pass


_for_good = ExitStack()  # kept: what is let go of would undo its patch
_for_good.enter_context(cached_migrations())
build_definitions(Settings(source="sample")).resolve_job_def("green")
with dg.DagsterInstance.ephemeral() as instance:
    dg.materialize(
        [nothing], instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    )
