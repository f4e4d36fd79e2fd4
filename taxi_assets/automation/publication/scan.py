"""One look at a publisher: which months are asked for, in which order, and how far a look goes.

Belongs here: what the publication sensor does in a tick. Does not belong here: which months there are
(`comparison.py`), and what is made of an answer (`run_planner.py`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import dagster as dg
from pydantic import BaseModel, ConfigDict, ValidationError

from taxi_assets.automation.publication.in_progress import running_backfill
from taxi_assets.automation.publication.run_planner import REASON_TAG, Deferred
from taxi_assets.automation.publication.status import MAX_FAILED_CHECKS
from taxi_assets.errors import TaxiAssetsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.automation.publication.status import PublicationStatus
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.sources.source_record import FileVersion

_MAX_LISTED = 5

# Named as in `Limits` and `Position`.
_NOT_LOADED = {"newer": "Newer months", "gaps": "Months in between"}
_LOADED = {"unfinished": "Failed months", "history": "Loaded months"}
_PARTS = {**_NOT_LOADED, **_LOADED}


class ScanCursor(BaseModel):
    """What a sensor remembers: where the next look goes on. Whatever else it must know, the instance knows."""

    model_config = ConfigDict(frozen=False, extra="forbid")

    version: Literal[1] = 1
    newer_from: str | None = None
    """Among the months newer than those that are loaded; None: from the newest, here as in the others."""
    gaps_from: str | None = None
    """Among those missing in between."""
    unfinished_from: str | None = None
    """Among those whose run failed."""
    history_from: str | None = None
    """Among the loaded ones."""

    @classmethod
    def read(cls, cursor: str | None) -> ScanCursor:
        """From a cursor; one that cannot be read is begun anew: nothing is lost but the place."""
        try:
            return cls.model_validate_json(cursor or "{}")
        except ValidationError:
            return cls()

    def go_on(self, part: str, month: Month | None) -> None:
        """From this month, the next time."""
        setattr(self, f"{part}_from", None if month is None else str(month))

    def first(self, part: str, months: Sequence[Month]) -> int:
        """Where to go on; at the newest where that month is no longer among them."""
        key = getattr(self, f"{part}_from")
        return next((index for index, month in enumerate(months) if str(month) == key), 0)


@dataclass(frozen=True)
class ScanResult:
    """What came of a look: the runs to ask for, the cursor, and a line for the history of ticks."""

    requests: Sequence[dg.RunRequest]
    cursor: str | None
    summary: str


class PublicationScan:
    """A look at the publisher of a service, at the point in time of a comparison."""

    def __init__(self, comparison: PublicationStatus) -> None:
        self._status = comparison
        self._limits = comparison.limits
        self._requests: list[dg.RunRequest] = []
        self._deferred: dict[Month, str] = {}
        self._notes: list[str] = []

    def run(self, cursor: str | None) -> ScanResult:
        """Ask for what is newer, what was left out in between, what failed, and a part of the history.

        Each part has its share of the time, so that none waits for ever behind another.
        """
        until, position = time.monotonic() + self._limits.seconds, ScanCursor.read(cursor)
        try:
            parts = self._parts()
            for left, part in zip(range(len(parts), 0, -1), parts, strict=True):
                self._go_through(part, position, (until - time.monotonic()) / left)
            return ScanResult(self._requests, position.model_dump_json(), self._summary())
        except TaxiAssetsError as error:
            return ScanResult(self._requests, cursor, str(error))

    def _parts(self) -> Sequence[str]:
        """All of them; but a backfill that is running brings home what we would take for gaps."""
        backfill = running_backfill(self._status.instance, self._status.service)
        if backfill is None:
            return list(_PARTS)
        self._notes.append(f"Months that are not loaded wait for the end of backfill {backfill}.")
        return list(_LOADED)

    def _months(self, part: str) -> Sequence[Month]:
        match part:
            case "newer":
                return self._status.newer
            case "gaps":
                return self._status.gaps
            case "unfinished":
                return [month for month in self._status.planner.unfinished if self._may_be_due(month)]
            case _:
                return sorted(self._status.raw, reverse=True)

    def _may_be_due(self, month: Month) -> bool:
        """Whether it is worth a question; where the raw file is held, the desk can tell without one."""
        raw = self._status.raw
        held = raw[month].version if month in raw else None
        return held is None or isinstance(self._status.planner.plan(month, held), dg.RunRequest)

    def _go_through(self, part: str, position: ScanCursor, seconds: float) -> None:
        """Go on with a part where the last look came to, for a share of the time, but with one question at least."""
        comparison, months = self._status, self._months(part)
        until, asked, refused = time.monotonic() + seconds, len(comparison.checked), len(comparison.failed_checks)
        first = position.first(part, months)
        end = first + int(getattr(self._limits, part))
        for month in months[first:end]:
            reason = None
            if len(comparison.checked) > asked and time.monotonic() > until:
                reason = "their time was up"
            elif len(comparison.failed_checks) > refused + MAX_FAILED_CHECKS:
                reason = "that is too many errors for one look"
            if reason is not None:
                self._notes.append(f"{_PARTS[part]}: {reason}; the next look goes on from {month}.")
                position.go_on(part, month)
                return
            if self._consider(month) is not None and part == "newer" and comparison.is_beyond_history_gap(month):
                end = len(months)  # what is before it is history
                break
        position.go_on(part, months[end] if end < len(months) else None)

    def _consider(self, month: Month) -> FileVersion | None:
        """Ask for a month, and for a run of it where it needs one."""
        comparison = self._status
        if month in comparison.checked:
            return comparison.checked[month]
        published = comparison.published_version(month)
        if month in comparison.failed_checks:
            self._deferred[month] = comparison.failed_checks[month].rstrip(".")
        decision = comparison.planner.plan(month, published)
        if isinstance(decision, Deferred):
            self._deferred[month] = decision.reason
        elif decision is not None:
            self._requests.append(decision)
        return published

    def _summary(self) -> str:
        asked = sorted(self._status.checked)
        months = f"{len(asked)} months, {asked[0]} to {asked[-1]}" if asked else "no month"
        runs = [f"{request.partition_key} ({request.tags[REASON_TAG]})" for request in self._requests]
        message = [f"Asked {self._status.publisher.name} for {months}: {', '.join(runs) or 'nothing new'}."]
        message += [f"{month}: {reason}." for month, reason in list(self._deferred.items())[:_MAX_LISTED]]
        if len(self._deferred) > _MAX_LISTED:
            message.append(f"{len(self._deferred) - _MAX_LISTED} more months have to wait.")
        return " ".join([*message, *self._notes])
