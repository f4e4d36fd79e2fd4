"""One tick of a publication sensor: check months until the time is up, and request the runs that they need.

Belongs here: the order in which months are checked, the limits of one tick, and its cursor and log line. Does not
belong here: which months belong to a group (`status.py`), and the decision for each month (`decision.py`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from taxi_assets.automation.publication.decision import Deferred, RunNeeded
from taxi_assets.automation.publication.in_progress import running_backfill
from taxi_assets.automation.publication.status import MAX_FAILED_CHECKS
from taxi_assets.errors import TaxiAssetsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dagster as dg

    from taxi_assets.automation.publication.status import PublicationStatus
    from taxi_assets.tlc.month import Month

_MAX_LISTED = 5


class ScanCursor(BaseModel):
    """Where the next tick resumes in each group of months.

    A month key, such as "2021-01", or None for the newest month of the group. This is all that a sensor remembers:
    everything else is read from the instance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    newer_from: str | None = None
    gaps_from: str | None = None
    incomplete_from: str | None = None
    loaded_from: str | None = None

    @classmethod
    def read(cls, cursor: str | None) -> ScanCursor:
        """Parse a sensor's cursor. If it is invalid, return one that starts at the newest months."""
        try:
            return cls.model_validate_json(cursor or "{}")
        except ValidationError:
            return cls()


@dataclass(frozen=True)
class ScanResult:
    """The outcome of one tick."""

    requests: Sequence[dg.RunRequest]
    cursor: str | None
    summary: str
    """One line for the tick history."""


@dataclass(frozen=True)
class _MonthGroup:
    """Months that one tick checks in order, up to a limit."""

    label: str
    months: Sequence[Month]
    """Newest first."""
    limit: int
    stops_beyond_long_gap: bool = False
    """Whether to stop at a published month that is more than `RECENT_MONTHS` newer than the newest loaded one."""


class PublicationScan:
    """One scan of a service's months. Call `run` once."""

    def __init__(self, status: PublicationStatus) -> None:
        self._status = status
        self._limits = status.limits
        self._requests: list[dg.RunRequest] = []
        self._run_labels: list[str] = []
        self._deferred: dict[Month, str] = {}
        self._notes: list[str] = []

    def run(self, cursor: str | None) -> ScanResult:
        """Check four groups of months, and request the runs that they need.

        The groups are the newer months, the missing months, the incomplete months and the loaded months, in this order.
        Each gets an equal share of the remaining time, so that a slow group does not starve the others.

        Args:
            cursor: The cursor that the last tick returned.

        Returns:
            The run requests and the new cursor. If the publisher cannot be reached: the requests so far, the old
            cursor, and the error as the summary.
        """
        try:
            new_cursor = self._scan_groups(ScanCursor.read(cursor))
            return ScanResult(self._requests, new_cursor.model_dump_json(), self._summary())
        except TaxiAssetsError as error:
            return ScanResult(self._requests, cursor, str(error))

    def _scan_groups(self, cursor: ScanCursor) -> ScanCursor:
        status, limits = self._status, self._limits
        deadline = time.monotonic() + limits.seconds

        def share(groups_left: int) -> float:
            return (deadline - time.monotonic()) / groups_left

        newer_from, gaps_from = cursor.newer_from, cursor.gaps_from
        backfill = running_backfill(status.instance, status.service)
        if backfill is None:
            newer = _MonthGroup("Newer months", status.newer, limits.newer, stops_beyond_long_gap=True)
            newer_from = self._scan_group(newer, newer_from, share(4))
            gaps = _MonthGroup("Missing months", status.gaps, limits.gaps)
            gaps_from = self._scan_group(gaps, gaps_from, share(3))
        else:  # months that the backfill has yet to load would be taken for missing ones
            self._notes.append(f"Months that are not loaded wait for the end of backfill {backfill}.")
        incomplete = _MonthGroup("Incomplete months", status.incomplete, limits.incomplete)
        incomplete_from = self._scan_group(incomplete, cursor.incomplete_from, share(2))
        loaded = _MonthGroup("Loaded months", status.loaded, limits.loaded)
        loaded_from = self._scan_group(loaded, cursor.loaded_from, share(1))
        return ScanCursor(
            newer_from=newer_from, gaps_from=gaps_from, incomplete_from=incomplete_from, loaded_from=loaded_from
        )

    def _scan_group(self, group: _MonthGroup, resume_from: str | None, seconds: float) -> str | None:
        """Check the months of a group; return where the next tick resumes.

        Stops at the group's limit, when the time is up, or after too many errors; but checks at least one month.
        """
        checked, errors = self._status.versions.checked, self._status.versions.errors
        checked_before, errors_before = len(checked), len(errors)
        deadline = time.monotonic() + seconds
        keys = [str(month) for month in group.months]
        start = keys.index(resume_from) if resume_from in keys else 0
        end = start + group.limit
        for month in group.months[start:end]:
            if len(checked) > checked_before and time.monotonic() > deadline:
                return self._stop(group, month, "time limit reached")
            if len(errors) > errors_before + MAX_FAILED_CHECKS:
                return self._stop(group, month, "too many errors")
            is_published = self._check_month(month)
            if is_published and group.stops_beyond_long_gap and self._status.is_beyond_long_gap(month):
                return None
        return keys[end] if end < len(keys) else None

    def _stop(self, group: _MonthGroup, month: Month, reason: str) -> str:
        self._notes.append(f"{group.label}: {reason}. The next tick resumes at {month}.")
        return str(month)

    def _check_month(self, month: Month) -> bool:
        """Request the run that a month needs, or note why it is deferred; return whether the month is published.

        A month that another group has checked in this tick is not checked again.
        """
        status = self._status
        if month not in status.versions.checked:
            decision = status.decide(month)
            match decision:
                case RunNeeded():
                    self._requests.append(status.run_request(month, decision))
                    self._run_labels.append(f"{month} ({decision.reason})")
                case Deferred(reason):
                    self._deferred[month] = reason
                case None if month in status.versions.errors:
                    self._deferred[month] = status.versions.errors[month].rstrip(".")
        return status.versions.checked[month] is not None

    def _summary(self) -> str:
        checked = sorted(self._status.versions.checked)
        months = "1 month" if len(checked) == 1 else f"{len(checked)} months"
        match checked:
            case []:
                span = ""
            case [month]:
                span = f", {month}"
            case _:
                span = f" between {checked[0]} and {checked[-1]}"
        runs = f"runs requested for {', '.join(self._run_labels)}" if self._run_labels else "no run requested"
        lines = [f"Checked {months} of {self._status.versions.publisher.name}{span}: {runs}."]
        lines += [f"{month}: {reason}." for month, reason in list(self._deferred.items())[:_MAX_LISTED]]
        if len(self._deferred) > _MAX_LISTED:
            lines.append(f"{len(self._deferred) - _MAX_LISTED} more months are deferred.")
        return " ".join([*lines, *self._notes])
