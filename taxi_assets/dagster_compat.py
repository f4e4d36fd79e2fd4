"""Import Dagster's private API. No other module of this package does.

Dagster offers no public name for any of these. If a new version of Dagster moves one, only this module changes.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

# Raised by Dagster's checks of arguments, for example when dagster.yaml names a class that does not exist.
from dagster._check import CheckError

# The filter that the public method `DagsterInstance.get_backfills` takes, and the states it selects by.
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

# The states in which an evaluation of a check is over; the public API returns records in any state.
from dagster._core.storage.asset_check_execution_record import COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES

# The argument by which `BigQueryPandasTypeHandler` of dagster-gcp-pandas takes the name of a table.
from dagster._core.storage.db_io_manager import TableSlice

if TYPE_CHECKING:
    import dagster as dg

    # Types of values that public functions return, for annotations only.
    from dagster._config.errors import EvaluationError
    from dagster._core.definitions.assets.graph.asset_graph import AssetGraph, AssetNode
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster_shared.error import SerializableErrorInfo

__all__ = [
    "COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES",
    "AssetGraph",
    "AssetNode",
    "BulkActionStatus",
    "BulkActionsFilter",
    "CheckError",
    "EvaluationError",
    "PartitionBackfill",
    "SerializableErrorInfo",
    "TableSlice",
    "UnresolvedAssetJobDefinition",
    "ignore_preview_warnings",
    "stores_runs_in_sqlite",
]


def ignore_preview_warnings() -> None:
    """Ignore the warnings about features in preview or beta that this package uses.

    They are: data versions, mappings to partitions that do not exist, links to source code, and partitioned checks.
    """
    warnings.filterwarnings("ignore", message="Parameter `data_version` of initializer `Output.__init__`")
    warnings.filterwarnings("ignore", message="Parameter `allow_nonexistent_upstream_partitions` of initializer")
    warnings.filterwarnings("ignore", message="(Class|Function) `.*[cC]ode_?[rR]eference")
    warnings.filterwarnings("ignore", message="Specifying a partitions_def on an AssetCheckSpec")


def stores_runs_in_sqlite(instance: dg.DagsterInstance) -> bool:
    """Return whether the instance keeps its runs in SQLite, that is, on this machine only."""
    # Takes 0.4 s to import, and only `make doctor` needs it.
    from dagster._core.storage.runs import SqliteRunStorage  # noqa: PLC0415

    return isinstance(instance.run_storage, SqliteRunStorage)
