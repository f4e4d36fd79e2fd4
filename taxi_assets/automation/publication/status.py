"""What a publisher has, compared with what is loaded: which months are newer, missing, or revised.

Belongs here: asking for a month, and passing those for which a publisher has nothing but an error. Does not belong
here: how far a look goes (`scan.py`), and which run a month needs (`run_planner.py`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.automation.publication.materializations import (
    latest_raw_materializations,
    parse_month,
    warehouse_digests,
)
from taxi_assets.automation.publication.run_planner import MONTH_TAG, SERVICE_TAG, RunPlanner
from taxi_assets.errors import PublisherRequestError, PublisherServerError
from taxi_assets.tlc.month import Month

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from taxi_assets.resources.publisher import PublisherResource
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.publishers import Publisher
    from taxi_assets.tlc.sources.source_record import FileVersion

PUBLISHED_MONTHS_LOADED = "published_months_loaded"
"""Name of the asset check that reports missing months; one per service, on its published months."""

RECENT_MONTHS = 12
"""A gap of more months is history, which a person loads: only the newest month beyond it is taken."""

MAX_FAILED_CHECKS = 3
"""After so many months that a publisher has an error for, one more is enough for now."""

_MAX_RUNS = 100


@dataclass(frozen=True)
class ScanLimits:
    """How far one look goes, and how long a publisher has for an answer."""

    newer: int = 24
    """Months newer than all that are loaded."""
    gaps: int = 12
    """Months missing between loaded ones."""
    unfinished: int = 12
    """Months whose run failed and may be tried again."""
    history: int = 12
    """Loaded months."""
    seconds: float = 20
    """Shared by these four; each may ask one question when they are over. Dagster gives a tick a minute."""
    seconds_per_month: float = 8
    """Seconds in which a month is answered, at all its addresses."""
    pause_seconds: float = 0.05
    """Seconds between two questions."""


DEFAULT_SCAN_LIMITS = ScanLimits()


class PublicationStatus:
    """A service's published and loaded months, at a point in time; nothing is asked twice.

    A month for which the publisher has an error is passed; where no connection comes about, raises
    `PublisherUnreachableError`.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        service: Service,
        publisher: PublisherResource,
        keys: Sequence[str],
        now: dt.datetime,
        limits: ScanLimits = DEFAULT_SCAN_LIMITS,
    ) -> None:
        self.instance = instance
        self.service = service
        self.limits = limits
        self.months = [Month.parse(key) for key in reversed(keys)]  # the newest first
        self.raw = latest_raw_materializations(instance, service)
        self.planner = RunPlanner(instance, service, self.raw, now)
        self.checked: dict[Month, FileVersion | None] = {}
        self.failed_checks: dict[Month, str] = {}
        """The months that were passed, each with the error."""
        self._publisher = publisher

    @cached_property
    def publisher(self) -> Publisher:
        """Who is asked."""
        return self._publisher.publisher

    def published_version(self, month: Month) -> FileVersion | None:
        """The version of a month that is published now, if it is, and its publisher says so."""
        if month not in self.checked:
            if self.checked:
                time.sleep(self.limits.pause_seconds)
            self.checked[month] = self._check_version(month)
        return self.checked[month]

    def _check_version(self, month: Month) -> FileVersion | None:
        name = self.service.name
        known = self.raw[month].version if month in self.raw else None
        candidates = self.publisher.source_urls(self.service, month)
        try:
            return self._publisher.check_version(
                f"{name} {month}", candidates, known=known, seconds=self.limits.seconds_per_month
            )
        except (PublisherRequestError, PublisherServerError) as error:
            self.failed_checks[month] = str(error)
            return None

    # --- which months there are ---

    @property
    def newest_loaded(self) -> Month | None:
        """The newest of the loaded months."""
        return max(self.raw, default=None)

    @property
    def newer(self) -> list[Month]:
        """The months newer than all that are loaded, the newest first."""
        newest = self.newest_loaded
        return [month for month in self.months if newest is None or month > newest]

    def is_beyond_history_gap(self, month: Month) -> bool:
        """Whether all that is between this month and the newest loaded one is history."""
        newest = self.newest_loaded
        return newest is None or month > newest.shift(RECENT_MONTHS)

    @property
    def gaps(self) -> list[Month]:
        """Months between two loaded ones, within the last year of those; earlier ones are history."""
        newest = self.newest_loaded
        if newest is None:
            return []
        recent = [month for month in self.months if newest.shift(-RECENT_MONTHS) <= month <= newest]
        first = min((month for month in recent if month in self.raw), default=newest)
        return [month for month in recent if month > first and month not in self.raw]

    @property
    def missing_in_between(self) -> list[Month]:
        """All months between two loaded ones that are not, history or not, published or not."""
        first, last = min(self.raw, default=None), self.newest_loaded
        if first is None or last is None:
            return []
        return [month for month in self.months if first < month < last and month not in self.raw]

    # --- what should have arrived and has not, busy or not ---

    def published_but_not_loaded(self) -> set[Month]:
        """Months that wait to be loaded; history is not among them."""
        found = set()
        for month in self.newer:
            if self.published_version(month) is not None:
                found.add(month)
                if self.is_beyond_history_gap(month):
                    break
        return found | {month for month in self.gaps if self.published_version(month) is not None}

    def revised_but_not_loaded(self) -> set[Month]:
        """Loaded months with a newer version whose run failed or was canceled; any other is the sensor's to ask for."""
        chosen = dg.RunsFilter(
            job_name=self.service.name,
            tags={SERVICE_TAG: self.service.name},
            statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
        )
        runs = self.instance.get_runs(chosen, limit=_MAX_RUNS)
        ended = {parse_month(run.tags.get(MONTH_TAG)) for run in runs}
        return {month for month in sorted(self.raw) if month in ended and self._is_revised(month)}

    def _is_revised(self, month: Month) -> bool:
        held = self.raw[month].version
        published = self.published_version(month) if held is not None else None
        if held is None or published is None or published.is_same_as(held):
            return False
        return self.planner.plan(month, published) is not None

    def loaded_but_not_in_the_warehouse(self) -> set[Month]:
        """Months that are not in the warehouse, or are from another file."""
        there = warehouse_digests(self.instance, self.service)
        return {month for month, raw in self.raw.items() if month not in there or there[month] != raw.sha256}
