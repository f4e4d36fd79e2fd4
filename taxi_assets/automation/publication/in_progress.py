"""Read from the Dagster instance which months runs and backfills are processing or will process.

Belongs here: reading runs and Dagster's backfills, no matter how they were launched. Does not belong here: the
decision for a month (`decision.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.automation.publication.materializations import parse_month
from taxi_assets.automation.publication.run_tags import BACKFILL_TAG, PARTITION_TAG
from taxi_assets.dagster_compat import BulkActionsFilter, BulkActionStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from taxi_assets.dagster_compat import PartitionBackfill
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

_LAYERS = ("raw", "quarantine", "clean", "warehouse")
_BACKFILL_TAGS = (BACKFILL_TAG, "dagster/backfill")
_RUNNING = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def pipeline_assets(service: Service) -> list[dg.AssetKey]:
    """Return the keys of the assets that a run of the service's job materializes."""
    return [dg.AssetKey([layer, service.table]) for layer in _LAYERS]


def months_in_progress(instance: dg.DagsterInstance, service: Service) -> frozenset[Month]:
    """Return the months of a service that a run is processing or will process.

    While one of Dagster's backfills is active, all of its months are included.
    """
    assets, keys = pipeline_assets(service), set[str | None]()
    for run in instance.get_runs(dg.RunsFilter(statuses=[*_RUNNING, dg.DagsterRunStatus.CANCELING])):
        if _materializes(service, assets, run.job_name, run.asset_selection):
            keys.add(run.tags.get(PARTITION_TAG))
    for backfill in _active_backfills(instance):
        if _materializes(service, assets, backfill.job_name, backfill.asset_selection):
            keys.update(_partitions(backfill, assets))
    return frozenset(month for month in map(parse_month, keys) if month is not None)


def running_backfill(instance: dg.DagsterInstance, service: Service) -> str | None:
    """Return the ID of a backfill that is loading months of a service; None if there is none."""
    raw = pipeline_assets(service)[:1]
    for run in instance.get_runs(dg.RunsFilter(statuses=_RUNNING)):
        if _materializes(service, raw, run.job_name, run.asset_selection):
            for tag in _BACKFILL_TAGS:
                if tag in run.tags:
                    return run.tags[tag]
    # One of Dagster's backfills may have no active run between batches.
    for backfill in _active_backfills(instance):
        if _materializes(service, raw, backfill.job_name, backfill.asset_selection):
            return backfill.backfill_id
    return None


def _materializes(
    service: Service, assets: Iterable[dg.AssetKey], job: str | None, selected: Collection[dg.AssetKey] | None
) -> bool:
    """Return whether a job, or the selected part of it, materializes some of these assets."""
    return job == service.name if selected is None else any(key in selected for key in assets)


def _active_backfills(instance: dg.DagsterInstance) -> Sequence[PartitionBackfill]:
    return instance.get_backfills(filters=BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED]))


def _partitions(backfill: PartitionBackfill, assets: Iterable[dg.AssetKey]) -> Iterable[str]:
    """Return the partitions of a backfill of a job, or those of any of these assets in a backfill of assets."""
    if backfill.asset_backfill_data is None:
        return backfill.partition_names or ()
    subsets = [backfill.asset_backfill_data.get_target_partitions_subset(key) for key in assets
               if key in backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key]  # fmt: skip
    return {key for subset in subsets for key in subset.get_partition_keys()}
