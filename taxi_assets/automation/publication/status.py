"""Compare the published months of a service with the loaded ones: which are newer, missing, revised or incomplete.

Belongs here: the groups of months that the publication sensors, schedules and check work on. Does not belong here: how
many months one sensor tick checks (`scan.py`), and the decision for a single month (`decision.py`).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.automation.publication.decision import Decision, RunNeeded, decide
from taxi_assets.automation.publication.instance_state import InstanceState
from taxi_assets.automation.publication.materializations import parse_month
from taxi_assets.automation.publication.published_versions import PublishedVersions
from taxi_assets.automation.publication.run_requests import build_run_request
from taxi_assets.automation.publication.run_tags import MONTH_TAG, SERVICE_TAG
from taxi_assets.partitions import monthly_partitions
from taxi_assets.tlc.month import Month

if TYPE_CHECKING:
    from taxi_assets.resources.publisher import PublisherResource
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.source_record import FileVersion

PUBLISHED_MONTHS_LOADED = "published_months_loaded"
"""Name of the asset check that reports missing months. There is one per service."""

RECENT_MONTHS = 12
"""Gaps of more months than this are not filled automatically.

Only the newest month beyond such a gap is loaded; load the others with a backfill.
"""

MAX_FAILED_CHECKS = 3
"""Stop a group of months, or the schedule, after more failed version checks than this."""

_MAX_RUNS = 100


@dataclass(frozen=True)
class ScanLimits:
    """How many months one scan checks, and how long it may take."""

    newer: int = 24
    """Maximum number of months newer than the newest loaded one to check."""
    gaps: int = 12
    """Maximum number of missing months between loaded ones to check."""
    incomplete: int = 12
    """Maximum number of months to check that have not reached the warehouse."""
    loaded: int = 12
    """Maximum number of loaded months to check."""
    seconds: float = 20
    """Shared by these four groups; each checks one month even if the time is up. Dagster gives a tick a minute."""
    seconds_per_month: float = 8
    """Timeout for the version check of one month, over all its URLs."""
    pause_seconds: float = 0.05
    """Pause between two version checks."""


DEFAULT_SCAN_LIMITS = ScanLimits()


def utc_now() -> dt.datetime:
    """Return the current time in UTC."""
    return dt.datetime.now(dt.UTC)


class PublicationStatus:
    """The published and the loaded months of a service, as read during one tick or check.

    The publisher is asked when a month's published version is first needed. Then `PublisherUnreachableError` is raised
    if no connection to it is possible; an error for a single month is in `versions.errors`.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        service: Service,
        publisher: PublisherResource,
        now: dt.datetime,
        limits: ScanLimits = DEFAULT_SCAN_LIMITS,
    ) -> None:
        keys = monthly_partitions(service).get_partition_keys(current_time=now)
        self.instance = instance
        self.service = service
        self.limits = limits
        self.months = [Month.parse(key) for key in reversed(keys)]
        """All months of the service that have ended, newest first."""
        self.state = InstanceState(instance, service, now)
        self.versions = PublishedVersions(
            service, publisher, seconds_per_month=limits.seconds_per_month, pause_seconds=limits.pause_seconds
        )
        self._now = now

    # --- one month ---

    def published_version(self, month: Month) -> FileVersion | None:
        """Return the version of a month that is published now; see `PublishedVersions.check`."""
        return self.versions.check(month, known=self._loaded_version(month))

    def decide(self, month: Month) -> Decision:
        """Decide whether a month needs a run, given the version that is published now."""
        return self._decide(month, self.published_version(month))

    def is_due(self, month: Month) -> bool:
        """Return whether an incomplete month may need a run now; False saves a request to the publisher.

        It may if its raw file is not loaded, or if a run would be due for the loaded version.
        """
        loaded = self._loaded_version(month)
        return loaded is None or isinstance(self._decide(month, loaded), RunNeeded)

    def run_request(self, month: Month, run: RunNeeded) -> dg.RunRequest:
        """Return the Dagster request for a needed run."""
        return build_run_request(self.service, month, run, self._now)

    def _decide(self, month: Month, published: FileVersion | None) -> Decision:
        if published is None or self._is_up_to_date(month, published) or self.state.is_pinned(month):
            return None  # as `decide` does, without reading the month's requested runs; or the month is pinned
        return decide(self.state.month_state(month), published, self._now)

    def _is_up_to_date(self, month: Month, published: FileVersion) -> bool:
        """Return whether the published version is loaded and in the warehouse, as that of most months is."""
        raw = self.state.raw.get(month)
        if raw is None or self.state.warehouse.get(month) != raw.sha256:
            return False
        return raw.version is None or published.is_same_as(raw.version)

    def _loaded_version(self, month: Month) -> FileVersion | None:
        raw = self.state.raw.get(month)
        return None if raw is None else raw.version

    # --- groups of months, newest first ---

    @property
    def newest_loaded(self) -> Month | None:
        """The newest loaded month; None if no month is loaded."""
        return max(self.state.raw, default=None)

    @property
    def newer(self) -> list[Month]:
        """Months that are newer than the newest loaded one."""
        newest = self.newest_loaded
        return [month for month in self.months if newest is None or month > newest]

    def is_beyond_long_gap(self, month: Month) -> bool:
        """Return whether a month is more than `RECENT_MONTHS` newer than the newest loaded one, or none is loaded."""
        newest = self.newest_loaded
        return newest is None or month > newest.shift(RECENT_MONTHS)

    @property
    def gaps(self) -> list[Month]:
        """Missing months between loaded ones, without older months, which are left to backfills."""
        newest = self.newest_loaded
        if newest is None:
            return []
        recent = [month for month in self.months if newest.shift(-RECENT_MONTHS) <= month <= newest]
        first = min((month for month in recent if month in self.state.raw), default=newest)
        return [month for month in recent if month > first and month not in self.state.raw]

    @property
    def incomplete(self) -> list[Month]:
        """Months that have not reached the warehouse, and for which a run may be due."""
        return [month for month in self.state.incomplete if self.is_due(month)]

    @property
    def loaded(self) -> list[Month]:
        """Months whose raw file is loaded."""
        return sorted(self.state.raw, reverse=True)

    @property
    def missing_between_loaded(self) -> list[Month]:
        """All missing months between loaded ones, also older months, whether they are published or not."""
        first, last = min(self.state.raw, default=None), self.newest_loaded
        if first is None or last is None:
            return []
        return [month for month in self.months if first < month < last and month not in self.state.raw]

    # --- months that should have been loaded, whether or not a run is processing them ---

    def published_but_not_loaded(self) -> set[Month]:
        """Return the published months that are not loaded, without older months, which are left to backfills."""
        found = set()
        for month in self.newer:
            if self.published_version(month) is not None:
                found.add(month)
                if self.is_beyond_long_gap(month):
                    break
        return found | {month for month in self.gaps if self.published_version(month) is not None}

    def revised_but_not_loaded(self) -> set[Month]:
        """Return the loaded months that were revised, and for which some requested run failed or was canceled.

        A month is revised if its published version differs from the loaded one. Other revised months are not overdue:
        the sensor requests their runs.
        """
        ended = dg.RunsFilter(
            job_name=self.service.name,
            tags={SERVICE_TAG: self.service.name},
            statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
        )
        runs = self.instance.get_runs(ended, limit=_MAX_RUNS)
        months = {parse_month(run.tags.get(MONTH_TAG)) for run in runs}
        return {month for month in sorted(self.state.raw) if month in months and self._needs_reload(month)}

    def _needs_reload(self, month: Month) -> bool:
        loaded = self._loaded_version(month)
        published = self.published_version(month) if loaded is not None else None
        if loaded is None or published is None or published.is_same_as(loaded):
            return False
        return self._decide(month, published) is not None

    def loaded_but_not_in_the_warehouse(self) -> set[Month]:
        """Return the loaded months that are not in the warehouse, or that it has from another file without a pin."""
        digests = self.state.warehouse
        missing = {m for m, raw in self.state.raw.items() if m not in digests or digests[m] != raw.sha256}
        return {m for m in missing if m not in digests or not self.state.is_pinned(m)}
