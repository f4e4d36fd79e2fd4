"""One look at a publisher: which months are asked for, in which order, and how far a look goes.

Belongs here: what the publication sensor does in a tick. Does not belong here: what is made of an answer
(`run_requests.py`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import dagster as dg
from pydantic import BaseModel, ConfigDict, ValidationError

from taxi_assets.automation.loaded import month_of, raw_months
from taxi_assets.automation.months import BACKFILL_TAG
from taxi_assets.automation.run_requests import MONTH_TAG, REASON_TAG, SERVICE_TAG, Desk, PutOff
from taxi_assets.errors import PublisherFailedError, PublisherRefusedError, TaxiAssetsError
from taxi_assets.tlc.month import Month

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from taxi_assets.publisher import PublisherResource
    from taxi_assets.tlc.publishers import Publisher
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.source import FileVersion

RECENT_MONTHS = 12
"""A gap of more months is history, which a person loads: only the newest month beyond it is taken."""

REFUSALS = 3
"""After so many months that a publisher answers with an error, one more ends the look."""

_QUOTED = 5
_BACKFILL_TAGS = (BACKFILL_TAG, "dagster/backfill")
_RUNNING = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
_REMEMBERED_FAILURES = 100


@dataclass(frozen=True)
class Limits:
    """How far one look goes."""

    newer: int = 24
    """Months newer than all that are loaded."""
    unfinished: int = 12
    """Months whose run failed and may be tried again."""
    history: int = 12
    """Loaded months."""
    seconds: float = 20
    """After them no further month is asked for; Dagster gives a tick a minute."""
    pause: float = 0.05
    """Seconds between two questions."""


DEFAULT_LIMITS = Limits()


class Position(BaseModel):
    """What a sensor remembers: where the next look goes on. Whatever else it must know, the instance knows."""

    model_config = ConfigDict(frozen=False, extra="forbid")

    version: Literal[1] = 1
    newer_from: str | None = None
    """Among the months newer than those that are loaded; None: from the newest."""
    unfinished_from: str | None = None
    """Among those whose run failed; None: from the newest."""
    history_from: str | None = None
    """Among the loaded ones; None: from the newest."""

    @classmethod
    def read(cls, cursor: str | None) -> Position:
        """From a cursor; one that cannot be read is begun anew: nothing is lost but the place."""
        try:
            return cls.model_validate_json(cursor or "{}")
        except ValidationError:
            return cls()


@dataclass(frozen=True)
class Seen:
    """What came of a look: the runs to ask for, the cursor, and a line for the history of ticks."""

    requests: Sequence[dg.RunRequest]
    cursor: str | None
    said: str


class _LookEndsError(Exception):
    """It ends before all is asked for; its text says why. The next one goes on from there."""


class Look:
    """A look at the publisher of a service, at a point in time."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        service: Service,
        publisher: PublisherResource,
        keys: Sequence[str],
        now: dt.datetime,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._instance = instance
        self._service = service
        self._publisher = publisher
        self._months = [Month.parse(key) for key in reversed(keys)]  # the newest first
        self._limits = limits
        self._until = time.monotonic() + limits.seconds
        self.raw = raw_months(instance, service)
        self._desk = Desk(instance, service, self.raw, now)
        self._asked: dict[Month, FileVersion | None] = {}
        self._requests: list[dg.RunRequest] = []
        self._put_off: dict[Month, str] = {}
        self._refusals = 0

    def take(self, cursor: str | None) -> Seen:
        """Ask for what is newer, what was left out in between, what failed, and a part of the history."""
        position, notes = Position.read(cursor), []
        try:
            backfill = self._backfill()
            if backfill is None:
                self._newer(position)
                self._consider_all(self.gaps)
            else:
                notes.append(f"Months that are not loaded wait for the end of backfill {backfill}.")
            self._unfinished(position)
            self._history(position)
            return Seen(self._requests, position.model_dump_json(), self._said(notes))
        except _LookEndsError as end:
            notes.append(f"{end}: the next look goes on from there.")
            return Seen(self._requests, position.model_dump_json(), self._said(notes))
        except TaxiAssetsError as error:
            return Seen(self._requests, cursor, str(error))

    @property
    def newest_loaded(self) -> Month | None:
        """The newest of the loaded months."""
        return max(self.raw, default=None)

    @property
    def newer(self) -> list[Month]:
        """The months newer than all that are loaded, the newest first."""
        newest = self.newest_loaded
        return [month for month in self._months if newest is None or month > newest]

    @property
    def gaps(self) -> list[Month]:
        """Months between two loaded ones, within the last year of those; earlier ones are history."""
        newest = self.newest_loaded
        if newest is None:
            return []
        recent = [month for month in self._months if newest.shift(-RECENT_MONTHS) <= month <= newest]
        first = min((month for month in recent if month in self.raw), default=newest)
        return [month for month in recent if month > first and month not in self.raw]

    @property
    def missing_in_between(self) -> list[Month]:
        """All months between two loaded ones that are not, history or not, published or not."""
        first, last = min(self.raw, default=None), self.newest_loaded
        if first is None or last is None:
            return []
        return [month for month in self._months if first < month < last and month not in self.raw]

    @property
    def busy(self) -> frozenset[Month]:
        """The months that a run is working on, or will."""
        return self._desk.busy

    def published_but_not_loaded(self) -> list[Month]:
        """Months that wait to be loaded, without any run on its way; history is not among them."""
        found = []
        for month in self.newer:
            if self.ask(month) is not None:
                found.append(month)
                if self._is_beyond_a_gap(month):
                    break
        found += [month for month in self.gaps if self.ask(month) is not None]
        return [month for month in found if month not in self.busy]

    def revised_but_not_loaded(self) -> list[Month]:
        """Loaded months with a newer version whose runs fail; one that nobody has asked for yet is the sensor's."""
        chosen = dg.RunsFilter(
            job_name=self._service.name, tags={SERVICE_TAG: self._service.name}, statuses=[dg.DagsterRunStatus.FAILURE]
        )
        runs = self._instance.get_runs(chosen, limit=_REMEMBERED_FAILURES)
        failed = {month_of(run.tags.get(MONTH_TAG)) for run in runs}
        return [month for month in sorted(self.raw) if month in failed - self.busy and self._is_revised(month)]

    def _is_revised(self, month: Month) -> bool:
        held = self.raw[month].version
        published = self.ask(month) if held is not None else None
        if held is None or published is None or published.is_same_as(held):
            return False
        return self._desk.decide(month, published) is not None

    def ask(self, month: Month) -> FileVersion | None:
        """The version of a month that is published now, if it is."""
        if month not in self._asked:
            if time.monotonic() > self._until:
                raise _LookEndsError("Then its time was up")
            if self._asked:
                time.sleep(self._limits.pause)
            name = self._service.name
            candidates = self._by.candidates(name, month)
            known = self.raw[month].version if month in self.raw else None
            self._asked[month] = self._publisher.ask(f"{name} {month}", candidates, known=known)
        return self._asked[month]

    def consider(self, month: Month) -> FileVersion | None:
        """Ask for a month, and for a run of it where it needs one."""
        if month in self._asked:
            return self._asked[month]
        try:
            published = self.ask(month)
        except (PublisherRefusedError, PublisherFailedError) as error:
            self._refused(month, error)
            return None
        decision = self._desk.decide(month, published)
        if isinstance(decision, PutOff):
            self._put_off[month] = decision.because
        elif decision is not None:
            self._requests.append(decision)
        return published

    @cached_property
    def _by(self) -> Publisher:
        return self._publisher.publisher

    def _refused(self, month: Month, error: TaxiAssetsError) -> None:
        """One month that is refused does not hold up the others; a publisher that refuses all is not pestered."""
        self._asked[month] = None
        self._refusals += 1
        self._put_off[month] = str(error).rstrip(".")
        if self._refusals > REFUSALS:
            raise _LookEndsError("That is too many errors for one look")

    def _backfill(self) -> str | None:
        """A backfill of this service that is running: it is bringing home what we would take for gaps."""
        raw = dg.AssetKey(["raw", self._service.table])
        for run in self._instance.get_runs(dg.RunsFilter(statuses=_RUNNING)):
            selected = run.asset_selection
            if run.job_name == self._service.name if selected is None else raw in selected:
                for tag in _BACKFILL_TAGS:
                    if tag in run.tags:
                        return run.tags[tag]
        return None

    def _consider_all(self, months: Sequence[Month]) -> None:
        for month in months:
            self.consider(month)

    def _newer(self, position: Position) -> None:
        months = self.newer
        first = _index(months, position.newer_from)
        for month in months[first : first + self._limits.newer]:
            position.newer_from = str(month)
            if self.consider(month) is not None and self._is_beyond_a_gap(month):
                position.newer_from = None  # what is before it is history
                return
        position.newer_from = _key(months, first + self._limits.newer)

    def _is_beyond_a_gap(self, month: Month) -> bool:
        newest = self.newest_loaded
        return newest is None or month > newest.shift(RECENT_MONTHS)

    def _unfinished(self, position: Position) -> None:
        months = [month for month in self._desk.unfinished if self._may_be_due(month)]
        first = _index(months, position.unfinished_from)
        for month in months[first : first + self._limits.unfinished]:
            position.unfinished_from = str(month)
            self.consider(month)
        position.unfinished_from = _key(months, first + self._limits.unfinished)

    def _may_be_due(self, month: Month) -> bool:
        """Whether it is worth a question; where the raw file is held, the desk can tell without one."""
        held = self.raw[month].version if month in self.raw else None
        return held is None or isinstance(self._desk.decide(month, held), dg.RunRequest)

    def _history(self, position: Position) -> None:
        months = sorted(self.raw, reverse=True)
        first = _index(months, position.history_from)
        for month in months[first : first + self._limits.history]:
            position.history_from = str(month)
            self.consider(month)
        position.history_from = _key(months, first + self._limits.history)

    def _said(self, notes: Sequence[str]) -> str:
        asked = sorted(self._asked)
        months = f"{len(asked)} months, {asked[0]} to {asked[-1]}" if asked else "no month"
        runs = [f"{request.partition_key} ({request.tags[REASON_TAG]})" for request in self._requests]
        said = [f"Asked {self._by.name} for {months}: {', '.join(runs) or 'nothing new'}."]
        said += [f"{month}: {because}." for month, because in list(self._put_off.items())[:_QUOTED]]
        if len(self._put_off) > _QUOTED:
            said.append(f"{len(self._put_off) - _QUOTED} more months have to wait.")
        return " ".join([*said, *notes])


def _index(months: Sequence[Month], key: str | None) -> int:
    """Where to go on; at the newest where that month is no longer among them."""
    return next((index for index, month in enumerate(months) if str(month) == key), 0)


def _key(months: Sequence[Month], index: int) -> str | None:
    return str(months[index]) if index < len(months) else None
