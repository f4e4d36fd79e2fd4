"""Read the state of a service's months from the Dagster instance.

Belongs here: reading materializations and runs, and combining them for each month. Does not belong here: deciding on
runs (`decision.py`).
"""

from __future__ import annotations

import datetime as dt
from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.automation.failure_reason import failed_permanently
from taxi_assets.automation.publication.decision import MonthState, RequestedRun, is_incomplete
from taxi_assets.automation.publication.in_progress import months_in_progress
from taxi_assets.automation.publication.materializations import (
    latest_raw_materializations,
    parse_month,
    pinned_months,
    warehouse_digests,
)
from taxi_assets.automation.publication.run_tags import (
    ATTEMPT_TAG,
    MONTH_TAG,
    PARENT_RUN_TAG,
    REQUEST_TAG,
    REQUESTED_AT_TAG,
    SERVICE_TAG,
    VERSION_TAG,
    WILL_RETRY_TAG,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

_MAX_RUNS = 300
"""Requested runs that are read per query, newest first; older ones are ignored."""


class InstanceState:
    """The state of a service's months in the Dagster instance, as read during one tick or check."""

    def __init__(self, instance: dg.DagsterInstance, service: Service, now: dt.datetime) -> None:
        self.raw = latest_raw_materializations(instance, service)
        """The loaded months: those with a materialization of the raw file."""
        self._instance = instance
        self._service = service
        self._now = now

    @cached_property
    def in_progress(self) -> frozenset[Month]:
        """Months that a run or backfill is processing or will process."""
        return months_in_progress(self._instance, self._service)

    @cached_property
    def warehouse(self) -> Mapping[Month, str | None]:
        """Months in the warehouse, each with the digest of the raw file that its rows come from."""
        # Read the runs in progress first, so that a run that ends between the reads does not make its month look
        # incomplete.
        _ = self.in_progress
        return warehouse_digests(self._instance, self._service)

    @cached_property
    def incomplete(self) -> list[Month]:
        """Months that have not reached the warehouse and need another run (`is_incomplete`); newest first."""
        last_statuses = self._last_statuses()
        incomplete = [
            month
            for month in {*last_statuses, *self.raw}
            if is_incomplete(
                self.raw.get(month),
                self.warehouse.get(month),
                last_status=last_statuses.get(month),
                in_progress=month in self.in_progress,
                now=self._now,
            )
        ]
        return sorted(incomplete, reverse=True)

    def _last_statuses(self) -> dict[Month, dg.DagsterRunStatus]:
        """Return the status of the last requested run of each month."""
        latest: dict[Month, dg.DagsterRunStatus] = {}
        for run in self._instance.get_runs(self._requested_filter({}), limit=_MAX_RUNS):
            month = parse_month(run.tags.get(MONTH_TAG))
            if month is not None:
                latest.setdefault(month, run.status)
        return latest

    def is_pinned(self, month: Month) -> bool:
        """Return whether the month is pinned to a revision of its file, so that automation leaves it alone."""
        return bool(pinned_months(self._instance, self._service, [month]))

    def month_state(self, month: Month) -> MonthState:
        """Return the state of one month. Its requested runs are read at the time of this call."""
        in_progress = month in self.in_progress
        raw = self.raw.get(month)
        return MonthState(
            service=self._service.name,
            month=month,
            raw=raw,
            warehouse_sha256=self.warehouse.get(month),
            in_progress=in_progress,
            just_loaded=raw is None and bool(latest_raw_materializations(self._instance, self._service, [month])),
            requested_runs=self._requested_runs(month),
        )

    def _requested_runs(self, month: Month) -> list[RequestedRun]:
        """Return the requested runs of a month, newest first."""
        runs: list[RequestedRun] = []
        for record in self._instance.get_run_records(self._requested_filter({MONTH_TAG: str(month)}), limit=_MAX_RUNS):
            run = record.dagster_run
            is_last_attempt = all(run.tags[REQUEST_TAG] != newer.request for newer in runs)
            failed = is_last_attempt and run.status == dg.DagsterRunStatus.FAILURE
            runs.append(
                RequestedRun(
                    run_id=run.run_id,
                    status=run.status,
                    request=run.tags[REQUEST_TAG],
                    attempt=int(run.tags[ATTEMPT_TAG]),
                    version=run.tags[VERSION_TAG],
                    ended_at=_end_time(record),
                    # Read the event log only for runs whose outcome counts.
                    failed_permanently=failed and failed_permanently(self._instance, run),
                    will_be_retried=failed and self._will_be_retried(run),
                )
            )
        return runs

    def _will_be_retried(self, run: dg.DagsterRun) -> bool:
        """Return whether Dagster has announced a retry of the run, and has not started it yet."""
        if run.tags.get(WILL_RETRY_TAG) != "true":
            return False
        return not self._instance.get_runs(dg.RunsFilter(tags={PARENT_RUN_TAG: run.run_id}), limit=1)

    def _requested_filter(self, tags: Mapping[str, str]) -> dg.RunsFilter:
        """Return the filter for runs that sensors and schedules have requested."""
        return dg.RunsFilter(job_name=self._service.name, tags={SERVICE_TAG: self._service.name, **tags})


def _end_time(record: dg.RunRecord) -> dt.datetime:
    """Return when a run ended; if that is unknown, when it was requested, which may be long before."""
    if record.end_time is None:
        return dt.datetime.fromisoformat(record.dagster_run.tags[REQUESTED_AT_TAG])
    return dt.datetime.fromtimestamp(record.end_time, dt.UTC)
