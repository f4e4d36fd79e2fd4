"""Decide whether a month needs a run, from its state in the instance and the version that is published now.

Belongs here: pure functions. Does not belong here: reading the instance (`instance_state.py`), asking the publisher
(`published_versions.py`), and building the Dagster run request (`run_requests.py`).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.automation.publication.materializations import RawMaterialization
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.sources.source_record import FileVersion

RETRY_WAITS = tuple(dt.timedelta(minutes=minutes) for minutes in (10, 60, 6 * 60, 24 * 60))
"""How long to wait after each failed attempt.

After the fifth failed attempt, no run is requested until another version is published.
"""

_MAX_CLOCK_SKEW = dt.timedelta(minutes=5)
"""How far the clocks of two machines may differ."""


class Reason(StrEnum):
    """Why a run is requested."""

    NEW = "new"
    """The month is published, and its raw file is not loaded."""
    REVISED = "revised"
    """The publisher has another version than the loaded one."""
    RETRY = "retry"
    """An earlier run of the month did not reach the warehouse."""


@dataclass(frozen=True)
class RequestedRun:
    """A run that a publication sensor or schedule has requested."""

    run_id: str
    status: dg.DagsterRunStatus
    request: str
    """Name of the request; all attempts at it have the same name."""
    attempt: int
    version: str
    """Name of the published version that the run was requested for."""
    ended_at: dt.datetime
    """When the run ended. When it was requested, if the instance does not know its end."""
    failed_permanently: bool = False
    """Whether a retry would fail in the same way."""
    will_be_retried: bool = False
    """Whether Dagster has announced a retry and has not started it yet."""


@dataclass(frozen=True)
class MonthState:
    """The state of one month of a service, as recorded in the Dagster instance."""

    service: str
    month: Month
    raw: RawMaterialization | None
    """The loaded raw file; None if none is loaded."""
    warehouse_sha256: str | None
    """Digest of the raw file that the warehouse's rows come from; None if the warehouse does not have the month."""
    in_progress: bool
    """Whether a run or a backfill is processing or will process the month."""
    just_loaded: bool
    """Whether the month's first raw file was loaded after `raw` was read as None."""
    requested_runs: Sequence[RequestedRun]
    """Newest first."""

    @property
    def last_status(self) -> dg.DagsterRunStatus | None:
        """Status of the last requested run."""
        return self.requested_runs[0].status if self.requested_runs else None

    def last_attempt(self, request: str) -> RequestedRun | None:
        """Return the last run with this request name."""
        return next((run for run in self.requested_runs if run.request == request), None)


@dataclass(frozen=True)
class RunNeeded:
    """The month needs a run now."""

    reason: Reason
    version: FileVersion
    request: str
    """Name of the request; all attempts at it have the same name.

    It names the published version and the event that it replaces or, for an incomplete month, the raw file's event.
    """
    attempt: int


@dataclass(frozen=True)
class Deferred:
    """The month needs a run, but not now."""

    reason: str


Decision: TypeAlias = RunNeeded | Deferred | None
"""None: the month needs no run."""


def decide(state: MonthState, published: FileVersion | None, now: dt.datetime) -> Decision:
    """Decide whether a month needs a run.

    First, does the month need a run? The first row that applies counts:

    | the month in the instance                           | published now                       | run needed       |
    |-----------------------------------------------------|-------------------------------------|------------------|
    | any                                                 | nothing                             | no               |
    | no raw file                                         | any version                         | yes, NEW (1)     |
    | raw file, whose version is known                    | another version, the same publisher | yes, REVISED (2) |
    | raw file not in the warehouse, and the last         | any version                         | yes, RETRY (3)   |
    | requested run failed, or nothing continued within   |                                     |                  |
    | 10 minutes (`is_incomplete`)                        |                                     |                  |
    | anything else                                       | any version                         | no               |

    1. If the last run of this request succeeded, the materializations were wiped. Then the request gets a new name, so
       that a run is requested.
    2. This row does not apply if the raw file was loaded by a run for that version: some publishers alternate between
       two versions.
    3. Not if a person canceled the last requested run, or if the raw file's digest is unknown.

    Then, if the month needs a run: can it start now? The first row that applies counts:

    | the month in the instance                                          | action                                   |
    |--------------------------------------------------------------------|------------------------------------------|
    | a run or backfill is processing or will process it                 | defer                                    |
    | its first raw file was loaded after it was read as missing         | defer                                    |
    | this request has no run yet                                        | request a run                            |
    | the request's last run is active, canceled or successful           | defer                                    |
    | its last run failed, and Dagster will retry it                     | defer                                    |
    | its last run failed with a permanent error                         | defer until another version is published |
    | its last run failed, and was the fifth                             | defer until another version is published |
    | its last run failed less than its wait (`RETRY_WAITS`) ago         | defer                                    |
    | its last run failed longer ago                                     | request a run with reason RETRY          |

    If a raw file is loaded, "another version" is one of the same publisher. If a run ended more than 5 minutes in the
    future, a clock was set back: the run is retried at once.

    Args:
        state: The month, as the instance knows it.
        published: The version that the publisher has now. None if it has none, or answered with an error.
        now: The current time, with a time zone.

    Returns:
        The needed run, a deferral with its reason, or None.
    """
    if published is None:
        return None
    needed = _needed_request(state, published, now)
    if needed is None:
        return None
    reason, request = needed
    if state.in_progress:
        return Deferred("a run is in progress")
    if state.just_loaded:
        return Deferred("it has just been loaded")
    last = state.last_attempt(request)
    if last is None:
        return RunNeeded(reason, published, request, attempt=1)
    return _deferral_after(last, now) or RunNeeded(Reason.RETRY, published, request, attempt=last.attempt + 1)


def is_incomplete(
    raw: RawMaterialization | None,
    warehouse_sha256: str | None,
    *,
    last_status: dg.DagsterRunStatus | None,
    in_progress: bool,
    now: dt.datetime,
) -> bool:
    """Return whether a month has not reached the warehouse, and a publication sensor should request another run.

    That is so if the last requested run failed, or if a raw file was loaded at least 10 minutes ago and no run is
    processing it: the automation conditions would have requested one by then. If a person canceled the last requested
    run, no run is requested.
    """
    if raw is not None and warehouse_sha256 == raw.sha256:
        return False
    if last_status == dg.DagsterRunStatus.FAILURE:
        return True
    if raw is None or raw.sha256 is None or in_progress or last_status == dg.DagsterRunStatus.CANCELED:
        return False
    return now - raw.timestamp >= RETRY_WAITS[0]


def _needed_request(state: MonthState, published: FileVersion, now: dt.datetime) -> tuple[Reason, str] | None:
    """Return why the month needs a run, and the name of the request."""
    if state.raw is None:
        return Reason.NEW, _first_request_name(state, published)
    if _is_revised(state, state.raw, published):
        return Reason.REVISED, f"{_prefix(state, published)} replaces event {state.raw.event_id}"
    if is_incomplete(
        state.raw,
        state.warehouse_sha256,
        last_status=state.last_status,
        in_progress=state.in_progress,
        now=now,
    ):
        return Reason.RETRY, _completion_request_name(state, state.raw)
    return None


def _is_revised(state: MonthState, raw: RawMaterialization, published: FileVersion) -> bool:
    loaded = raw.version
    # A version of another publisher is no revision: changing TAXI_SOURCE does not load all months again.
    if loaded is None or loaded.publisher != published.publisher or published.is_same_as(loaded):
        return False
    # A publisher behind several servers may announce one version and send another, in turns.
    return not any(run.run_id == raw.run_id and run.version == published.name for run in state.requested_runs)


def _prefix(state: MonthState, published: FileVersion) -> str:
    # An ETag may return later, so the version alone does not identify a request. The callers add the replaced event.
    return f"{state.service} {state.month}: {published.name}"


def _first_request_name(state: MonthState, published: FileVersion) -> str:
    name = f"{_prefix(state, published)} replaces nothing"
    request = name
    # A successful run without a raw file: its materializations were wiped.
    while (last := state.last_attempt(request)) is not None and last.status == dg.DagsterRunStatus.SUCCESS:
        request = f"{name}, after run {last.run_id}"
    return request


def _completion_request_name(state: MonthState, raw: RawMaterialization) -> str:
    if state.last_status == dg.DagsterRunStatus.FAILURE:
        return state.requested_runs[0].request  # its next attempt
    return f"{state.service} {state.month}: complete event {raw.event_id}"


def _deferral_after(last: RequestedRun, now: dt.datetime) -> Deferred | None:
    """Return why no further attempt is due after the last one; None if it is."""
    if last.status != dg.DagsterRunStatus.FAILURE:
        return Deferred(f"its run has the status {last.status.value}")
    if last.will_be_retried:
        return Deferred("Dagster will retry its run")
    if last.failed_permanently:
        return Deferred("its run failed with a permanent error; no further run until another version is published")
    if last.attempt > len(RETRY_WAITS):
        return Deferred(f"attempt {last.attempt} failed; no further run until another version is published")
    wait = RETRY_WAITS[last.attempt - 1]
    due = last.ended_at + wait
    # If more than the whole wait is left, the clock was set back after the run ended, by an unknown amount.
    if dt.timedelta() < due - now <= wait + _MAX_CLOCK_SKEW:
        return Deferred(f"its run failed; the next attempt is due at {due:%Y-%m-%d %H:%M} UTC")
    return None
