"""Asking for a run of a month: why, under which run key, and when not.

Belongs here: what sensors and schedules have in common once they know which version of a month is published. Does not
belong here: how they find out (`publication.py`, `schedules.py`).

Dagster drops a run key that it has seen, for ever. So the key names all that makes a run worth its while: the version,
what it takes the place of (an ETag may come back later), and the attempt (a run may fail).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets import errors
from taxi_assets.automation.publication.in_progress import months_in_progress, pipeline_assets
from taxi_assets.automation.publication.materializations import (
    latest_raw_materializations,
    parse_month,
    warehouse_digests,
)
from taxi_assets.automation.publication.run_tags import WILL_RETRY_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taxi_assets.automation.publication.materializations import RawMaterialization
    from taxi_assets.dagster_compat import SerializableErrorInfo
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.source_record import FileVersion

SERVICE_TAG = "taxi_assets/service"
MONTH_TAG = "taxi_assets/month"
REASON_TAG = "taxi_assets/reason"
VERSION_TAG = "taxi_assets/version"
REQUEST_TAG = "taxi_assets/request"
ATTEMPT_TAG = "taxi_assets/attempt"
REQUESTED_AT_TAG = "taxi_assets/requested_at"

RETRY_WAITS = tuple(dt.timedelta(minutes=minutes) for minutes in (10, 60, 6 * 60, 24 * 60))
"""After each failed attempt; after one more the month is given up, until its publisher has another version."""

_MAX_CLOCK_SKEW = dt.timedelta(minutes=5)
"""By which the clocks of two machines may differ."""

_PARENT_TAG = "dagster/parent_run_id"
_MAX_RUNS = 300


class Reason(StrEnum):
    """Why a month is asked for."""

    NEW = "new"
    REVISED = "revised"
    RETRY = "retry"


@dataclass(frozen=True)
class Deferred:
    """A month that is left alone for now, and why."""

    reason: str


@dataclass(frozen=True)
class RunPlanner:
    """Where runs of a service are asked for, at a point in time; `raw` are the months that are loaded then."""

    instance: dg.DagsterInstance
    service: Service
    raw: Mapping[Month, RawMaterialization]
    now: dt.datetime

    def plan(self, month: Month, published: FileVersion | None) -> dg.RunRequest | Deferred | None:
        """The run that the month needs; or why it has to wait for it; or None, where it needs none."""
        if published is None:
            return None
        reason, request = self._reason(month, published), self._request_name(month, published)
        if reason is None and month in self.unfinished:
            # The raw file came, and the rest did not.
            reason, request = Reason.RETRY, self._completion_request_name(month)
        if reason is None:
            return None
        if month in self.in_progress:
            return Deferred("a run is on its way")
        if month not in self.raw and latest_raw_materializations(self.instance, self.service, [month]):
            return Deferred("it has just been loaded")
        attempt = self._next_attempt(request)
        if isinstance(attempt, Deferred):
            return attempt
        return self._run_request(month, Reason.RETRY if attempt > 1 else reason, published, request, attempt)

    @cached_property
    def in_progress(self) -> frozenset[Month]:
        """Months of this service that a run is working on, or will."""
        return months_in_progress(self.instance, self.service)

    @cached_property
    def unfinished(self) -> list[Month]:
        """Months that came no farther than a shelf before the warehouse; the newest first.

        Their last requested run failed, or a person loaded the raw file, and nothing has brought it home since. One
        whose last requested run a person canceled is that person's.
        """
        busy = self.in_progress  # before the warehouse is looked at: a run may end in between
        left = {month for month, raw in self.raw.items() if self._is_overdue(raw)} - busy - self._canceled
        home = warehouse_digests(self.instance, self.service, {*self._failed, *left})
        months = [m for m in {*self._failed, *left} if m not in self.raw or home.get(m) != self.raw[m].sha256]
        return sorted(months, reverse=True)

    def _is_overdue(self, raw: RawMaterialization) -> bool:
        """Whether a raw file came so long ago that the automation conditions would have seen to the rest."""
        return raw.sha256 is not None and self.now - raw.timestamp >= RETRY_WAITS[0]

    @property
    def _failed(self) -> Mapping[Month, dg.DagsterRun]:
        return {m: run for m, run in self._requested.items() if run.status == dg.DagsterRunStatus.FAILURE}

    @property
    def _canceled(self) -> set[Month]:
        return {m for m, run in self._requested.items() if run.status == dg.DagsterRunStatus.CANCELED}

    @cached_property
    def _requested(self) -> Mapping[Month, dg.DagsterRun]:
        """The last requested run of each month."""
        latest: dict[Month, dg.DagsterRun] = {}
        for run in self._runs({SERVICE_TAG: self.service.name}):
            month = parse_month(run.tags.get(MONTH_TAG))
            if month is not None:
                latest.setdefault(month, run)
        return latest

    def _reason(self, month: Month, published: FileVersion) -> Reason | None:
        loaded = self.raw.get(month)
        if loaded is None:
            return Reason.NEW
        held = loaded.version
        # A version of another publisher is no revision: changing TAXI_SOURCE does not run the whole history again.
        if held is None or held.publisher != published.publisher or published.is_same_as(held):
            return None
        run = self.instance.get_run_by_id(loaded.run_id) if loaded.run_id else None
        if run is not None and run.tags.get(VERSION_TAG) == published.name:
            return None  # it was fetched for this very version: its publisher answers now so, now so
        return Reason.REVISED

    def _request_name(self, month: Month, published: FileVersion) -> str:
        name = f"{self.service.name} {month}: {published.name} replaces "
        if month in self.raw:
            return f"{name}event {self.raw[month].event_id}"
        request = f"{name}nothing"
        # It was loaded under this name, and has been wiped since.
        while (runs := self._runs({REQUEST_TAG: request})) and runs[0].status == dg.DagsterRunStatus.SUCCESS:
            request = f"{name}nothing, after run {runs[0].run_id}"
        return request

    def _completion_request_name(self, month: Month) -> str:
        """A failed run is asked for again under the name that it had."""
        if month in self._failed:
            return self._failed[month].tags[REQUEST_TAG]
        return f"{self.service.name} {month}: what follows event {self.raw[month].event_id}"

    @property
    def _skip_downstream_if_unchanged(self) -> dict[str, Any]:
        return {"ops": {f"raw__{self.service.table}": {"config": {"skip_downstream_if_unchanged": True}}}}

    def _next_attempt(self, request: str) -> int | Deferred:
        runs = self._runs({REQUEST_TAG: request})
        if not runs:
            return 1
        last = runs[0]
        if last.status != dg.DagsterRunStatus.FAILURE:
            return Deferred(f"its run is {last.status.value.lower()}")
        if self._will_be_retried_by_dagster(last):
            return Deferred("Dagster runs it again itself")
        return self._attempt_after(last)

    def _attempt_after(self, last: dg.DagsterRun) -> int | Deferred:
        attempt = int(last.tags[ATTEMPT_TAG])
        if _failed_permanently(self.instance, last):
            return Deferred("its run failed for what does not pass; given up until there is another version")
        if attempt > len(RETRY_WAITS):
            return Deferred(f"given up after {attempt} failed runs")
        due = self._end_time(last) + RETRY_WAITS[attempt - 1]
        # One that has more to wait than the whole wait ended before the clock was set back, nobody knows when.
        if dt.timedelta() < due - self.now <= RETRY_WAITS[attempt - 1] + _MAX_CLOCK_SKEW:
            return Deferred(f"its run failed; again after {due:%Y-%m-%d %H:%M} UTC")
        return attempt + 1

    def _will_be_retried_by_dagster(self, run: dg.DagsterRun) -> bool:
        """Whether Dagster has said so, and not done it yet; it takes seconds to say it, and we wait for minutes."""
        if run.tags.get(WILL_RETRY_TAG) != "true":
            return False
        return not self.instance.get_runs(dg.RunsFilter(tags={_PARENT_TAG: run.run_id}), limit=1)

    def _end_time(self, run: dg.DagsterRun) -> dt.datetime:
        """When a run ended, which may be long after it was requested; or that, where Dagster does not know."""
        record = self.instance.get_run_record_by_id(run.run_id)
        if record is None or record.end_time is None:
            return dt.datetime.fromisoformat(run.tags[REQUESTED_AT_TAG])
        return dt.datetime.fromtimestamp(record.end_time, dt.UTC)

    def _runs(self, tags: Mapping[str, str]) -> list[dg.DagsterRun]:
        """Requested runs, the newest first."""
        chosen = dg.RunsFilter(job_name=self.service.name, tags=dict(tags))
        return list(self.instance.get_runs(chosen, limit=_MAX_RUNS))

    def _run_request(
        self, month: Month, reason: Reason, published: FileVersion, request: str, attempt: int
    ) -> dg.RunRequest:
        return dg.RunRequest(
            run_key=f"{request}, attempt {attempt}",
            partition_key=str(month),
            # All that the job has: the automation conditions ask a run what it was for.
            asset_selection=pipeline_assets(self.service),
            run_config=self._skip_downstream_if_unchanged if reason == Reason.REVISED else {},
            tags={
                SERVICE_TAG: self.service.name,
                MONTH_TAG: str(month),
                REASON_TAG: str(reason),
                VERSION_TAG: published.name,
                REQUEST_TAG: request,
                ATTEMPT_TAG: str(attempt),
                REQUESTED_AT_TAG: self.now.astimezone(dt.UTC).isoformat(timespec="seconds"),
            },
        )


def _failed_permanently(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a step of a run failed for what does not pass: one of our permanent errors, or a blocking check."""
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        if event is not None and any(map(_is_permanent, _error_names(event.step_failure_data.error))):
            return True
    return False


def _error_names(error: SerializableErrorInfo | None) -> Iterator[str]:
    while error is not None:
        yield error.cls_name or ""
        error = error.cause


def _is_permanent(name: str) -> bool:
    """By its name, which is all that the event log keeps of it."""
    known = getattr(errors, name, None)
    return name == "DagsterAssetCheckFailedError" or (
        isinstance(known, type) and issubclass(known, errors.PermanentError)
    )
