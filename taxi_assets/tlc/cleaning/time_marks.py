"""Decide on times that are marked as UTC: are they in UTC, or are they New York local times?

Tools such as Spark write local times and mark them as UTC. A single value does not show whether the mark is right, but
a month's file does: its pickups lie in the month by New York's clocks. If the mark is right, the last hours of the
month are outside of it when read as local times. If it is wrong, the first hours are outside when converted from UTC.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from taxi_assets.errors import AmbiguousTimeZoneError
from taxi_assets.tlc.values.new_york import NEW_YORK
from taxi_assets.tlc.values.time_forms import AMBIGUOUS_FORMS, INTERPRETATIONS, TimeForm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.cleaning.parse_batch import ParsedBatch
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.readers.base_reader import RawBatch

_PICKUP = "pickup_datetime"
# With a larger share of marked pickups whose meaning is uncertain, a file is refused. Fewer rows go to quarantine.
_MAXIMUM_SHARE_UNCERTAIN = 0.05


class TimeMarks:
    """Collects the forms of a month's times, batch by batch.

    Args:
        month: The partition.
    """

    def __init__(self, month: Month) -> None:
        self._months = {"local": _bounds(month, dt.UTC), "utc": _bounds(month, ZoneInfo(NEW_YORK))}
        self._forms: dict[str, set[int]] = {}
        self._pickups: dict[TimeForm, int] = {}
        self._outside: dict[tuple[TimeForm, str], int] = {}
        self._published_as = ""

    def add(self, raw: RawBatch, parsed: ParsedBatch) -> None:
        """Collect the forms of a batch, and count its marked pickups outside of the month."""
        for name, forms in parsed.forms.items():
            self._forms.setdefault(name, set()).update(np.unique(forms).tolist())
        if _PICKUP not in parsed.forms:
            return
        times = np.asarray(parsed.batch.column(_PICKUP).cast(pa.int64()).fill_null(0))
        for form in AMBIGUOUS_FORMS:
            pickups = times[parsed.forms[_PICKUP] == form]
            if not len(pickups):
                continue
            self._published_as = published_as(raw, _PICKUP)
            self._pickups[form] = self._pickups.get(form, 0) + len(pickups)
            for reading, (start, end) in self._months.items():
                outside = int(np.count_nonzero((pickups < start) | (pickups >= end)))
                self._outside[form, reading] = self._outside.get((form, reading), 0) + outside

    def uncertain_forms(self, label: str, *, rows: int) -> frozenset[TimeForm]:
        """Return the forms that may not be local times.

        Marked times are local times if, as such, fewer pickups are outside of the month than as times in UTC.

        Args:
            label: Names the file in errors, such as "green 2020-10".
            rows: The number of rows of the file.

        Raises:
            AmbiguousTimeZoneError: More than 5% of the pickups are in UTC, or it is uncertain.
        """
        uncertain = set()
        for form, pickups in self._pickups.items():
            local, utc = (self._outside[form, reading] for reading in self._months)
            if local >= utc:
                uncertain.add(form)
            if local >= utc and pickups > _MAXIMUM_SHARE_UNCERTAIN * rows:
                meaning = "so the meaning is uncertain" if local == utc else "so they are not New York local times"
                raise AmbiguousTimeZoneError(
                    f"{label}: the times of {_PICKUP} ({self._published_as}) are {AMBIGUOUS_FORMS[form]}. "
                    f"Pickups outside the month: {local:,} of {pickups:,} if these are New York local times, and "
                    f"{utc:,} if they are in UTC, {meaning}. Nothing was written.",
                    remedy="Write the times of all columns as New York local times without a time zone, such as "
                    "2021-03-01 04:36:54.",
                    facts={
                        "column": _PICKUP,
                        "published_as": self._published_as,
                        "pickups_outside_month_as_local_time": local,
                        "pickups_outside_month_as_utc": utc,
                    },
                )

        return frozenset(uncertain)

    def interpretations(self) -> Mapping[str, Sequence[str]]:
        """Return how times were read, where they were not plain local times: column name to sentences."""
        found = {
            name: [sentence for form, sentence in INTERPRETATIONS.items() if form in forms]
            for name, forms in self._forms.items()
        }
        return {name: sentences for name, sentences in found.items() if sentences}


def _bounds(month: Month, zone: dt.tzinfo) -> tuple[int, int]:
    """Return the first microsecond of a month in a zone, and of the next month, since 1970 in UTC."""
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    starts = (dt.datetime.combine(m.start, dt.time(), tzinfo=zone) for m in (month, month.shift(1)))
    start, end = ((time - epoch) // dt.timedelta(microseconds=1) for time in starts)
    return start, end


def published_as(raw: RawBatch, name: str) -> str:
    """Return the names and types that a canonical column has in a file, such as "VendorID, int64"."""
    layout = raw.layout
    return " and ".join(
        f"{layout.names[position]}, {layout.types[position]}" for position in layout.match.positions[name]
    )
