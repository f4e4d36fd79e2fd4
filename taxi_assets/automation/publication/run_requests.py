"""Build the Dagster run request for a month that needs a run.

Dagster drops a run request whose run key it has seen before. So the key has everything that distinguishes two runs of a
month: the published version, the event that it replaces or, for an incomplete month, the raw file's event, and the
number of the attempt.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.automation.publication.decision import Reason, RunNeeded
from taxi_assets.automation.publication.in_progress import pipeline_assets
from taxi_assets.automation.publication.run_tags import (
    ATTEMPT_TAG,
    MONTH_TAG,
    REASON_TAG,
    REQUEST_TAG,
    REQUESTED_AT_TAG,
    SERVICE_TAG,
    VERSION_TAG,
)

if TYPE_CHECKING:
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service


def build_run_request(service: Service, month: Month, run: RunNeeded, now: dt.datetime) -> dg.RunRequest:
    """Return the request for a run of the service's job for one month.

    Later ticks read the tags: see `instance_state.py`.
    """
    return dg.RunRequest(
        run_key=f"{run.request}, attempt {run.attempt}",
        partition_key=str(month),
        # All assets of the job, by name: the automation conditions read a run's asset selection.
        asset_selection=pipeline_assets(service),
        run_config=_skip_downstream_if_unchanged(service) if run.reason == Reason.REVISED else {},
        tags={
            SERVICE_TAG: service.name,
            MONTH_TAG: str(month),
            REASON_TAG: str(run.reason),
            VERSION_TAG: run.version.name,
            REQUEST_TAG: run.request,
            ATTEMPT_TAG: str(run.attempt),
            REQUESTED_AT_TAG: now.astimezone(dt.UTC).isoformat(timespec="seconds"),
        },
    )


def _skip_downstream_if_unchanged(service: Service) -> dict[str, Any]:
    return {"ops": {f"raw__{service.table}": {"config": {"skip_downstream_if_unchanged": True}}}}
