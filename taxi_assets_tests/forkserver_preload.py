"""Imports and caches that all child processes share: the fork server imports this module before it forks them.

A new process takes three seconds to import; a forked one takes hundredths of a second. This module must not start a
thread or use pyarrow or DuckDB, because threads do not survive a fork. So it warms up Dagster with an empty asset.
"""

from __future__ import annotations

import importlib
from contextlib import ExitStack

import dagster as dg

from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings
from taxi_assets_tests.dagster_speedups import cached_migrations, cached_source_lines, cached_tables

for module in (
    "tabulate",
    "pyarrow.pandas_compat",
    "taxi_assets.io_managers.bigquery_table",
    "taxi_assets.storage.warehouse.bigquery",
    "taxi_assets.storage.warehouse.duckdb",
    "taxi_assets.storage.lake.gcs_lake",
    "taxi_assets.storage.warehouse.postgres",
    "taxi_assets.marts.sql_rendering",
    "taxi_assets.reports.page",
    "taxi_assets.reports.charts",
    "taxi_assets.reports.quality_chart",
    "taxi_assets_tests.contract.own_asset_runs",
    "taxi_assets_tests.faults.child_runs",
    "taxi_assets_tests.google.service_account",
    "taxi_assets_tests.iceberg_tables",
    "taxi_assets_tests.trips",
):
    importlib.import_module(module)


@dg.asset
def empty() -> None:
    pass


_never_closed = ExitStack()  # a global, because closing it would undo its patches
for patches in (cached_migrations, cached_source_lines, cached_tables):
    _never_closed.enter_context(patches())
build_definitions(Settings(source="sample")).resolve_job_def("green")
with dg.DagsterInstance.ephemeral() as instance:
    dg.materialize(
        [empty], instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    )
