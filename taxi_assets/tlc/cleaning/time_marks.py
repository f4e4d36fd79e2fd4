"""Decide on times that have two meanings: marked as UTC or local, month first or day first.

Tools such as Spark write local times and mark them as UTC. A single value does not show whether the mark is right, but
a month's file does: its pickups lie in the month by New York's clocks. If the mark is right, the last hours of the
month are outside of it when read as local times. If it is wrong, the first hours are outside when converted from UTC.
In the same way, the pickups show whether the month comes first in 3/1/2021.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from taxi_assets.errors import AmbiguousTimesError
from taxi_assets.tlc.values.new_york import NEW_YORK
from taxi_assets.tlc.values.time_forms import AMBIGUOUS_FORMS, INTERPRETATIONS, TimeForm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.cleaning.parse_batch import ParsedBatch
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.readers.base_reader import Layout, RawBatch
    from taxi_assets.tlc.values.time_forms import Integers, Mask

_PICKUP = "pickup_datetime"
# With a larger share of marked pickups whose meaning is uncertain, a file is refused. Fewer rows go to quarantine.
_MAXIMUM_SHARE_UNCERTAIN = 0.05
# How many times more pickups must be outside of the month with the other meaning. In real months it is about twenty.
_MINIMUM_RATIO = 10


class TimeMarks:
    """Collects the forms of a month's times, batch by batch.

    Args:
        month: The partition.
    """

    def __init__(self, month: Month) -> None:
        self._month = month
        self._bounds, self._bounds_in_utc = _bounds(month, dt.UTC), _bounds(month, ZoneInfo(NEW_YORK))
        self._forms: dict[str, set[int]] = {}
        self._pickups: dict[TimeForm, int] = {}
        self._outside: dict[TimeForm, int] = {}
        self._outside_otherwise: dict[TimeForm, int] = {}
        self._outside_in_part: Counter[tuple[TimeForm, int]] = Counter()
        self._parts: dict[int, Layout] = {}  # keeps the layouts, and so their ids, while months are read
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
            otherwise = self._is_inside(pickups, self._bounds_in_utc)
            if form is TimeForm.MONTH_FIRST:
                pickups, otherwise = self._day_first(pickups)
            if not len(pickups):
                continue
            self._published_as = published_as(raw, _PICKUP)
            self._pickups[form] = self._pickups.get(form, 0) + len(pickups)
            inside = self._is_inside(pickups, self._bounds)
            outside, outside_otherwise = int(np.count_nonzero(~inside)), int(np.count_nonzero(~otherwise))
            self._outside[form] = self._outside.get(form, 0) + outside
            self._outside_otherwise[form] = self._outside_otherwise.get(form, 0) + outside_otherwise
            self._parts[id(raw.layout)] = raw.layout
            self._outside_in_part[form, id(raw.layout)] += outside - outside_otherwise

    def _is_inside(self, pickups: Integers, bounds: tuple[int, int]) -> Mask:
        return (pickups >= bounds[0]) & (pickups < bounds[1])

    def _day_first(self, pickups: Integers) -> tuple[Integers, Mask]:
        """Return the pickups whose day is not their month's number, and whether they are in the month day first."""
        dates = pickups.astype("datetime64[us]").astype("datetime64[D]")
        months = dates.astype("datetime64[M]")
        month_numbers = months.astype(np.int64) % 12 + 1
        days = (dates - months.astype("datetime64[D]")).astype(np.int64) + 1
        years = months.astype("datetime64[Y]").astype(np.int64) + 1970
        differ = days != month_numbers
        return pickups[differ], ((years == self._month.year) & (days == self._month.number))[differ]

    def uncertain_forms(self, label: str, *, rows: int) -> frozenset[TimeForm]:
        """Return the forms that may have another meaning than New York local times with the month first.

        A form has the expected meaning if far fewer pickups are outside of the month than with the other meaning. No
        part of the file may show the contrary.

        Args:
            label: Names the file in errors, such as "green 2020-10".
            rows: The number of rows of the file.

        Raises:
            AmbiguousTimesError: More than 5% of the pickups have another meaning, or it is uncertain.
        """
        uncertain = set()
        for form, pickups in self._pickups.items():
            is_contradicted = any(excess > 0 for (of, _), excess in self._outside_in_part.items() if of is form)
            clear = 0 < self._outside_otherwise[form] >= _MINIMUM_RATIO * self._outside[form]
            if is_contradicted or not clear:
                uncertain.add(form)
                if pickups > _MAXIMUM_SHARE_UNCERTAIN * rows:
                    raise self._error(label, form)
        return frozenset(uncertain)

    def _error(self, label: str, form: TimeForm) -> AmbiguousTimesError:
        outside, otherwise = self._outside[form], self._outside_otherwise[form]
        readings = ("these are New York local times", "they are in UTC")
        if form is TimeForm.MONTH_FIRST:
            readings = ("the month is first", "the day is first")
        meaning = f"so {readings[1]}" if outside > otherwise else "so the meaning is uncertain"
        counts = {
            f"pickups outside the month if {reading}": n
            for reading, n in zip(readings, (outside, otherwise), strict=True)
        }
        return AmbiguousTimesError(
            f"{label}: the times of {_PICKUP} ({self._published_as}) are {AMBIGUOUS_FORMS[form]}. Pickups outside the "
            f"month: {outside:,} of {self._pickups[form]:,} if {readings[0]}, and {otherwise:,} if {readings[1]}, "
            f"{meaning}. Nothing was written.",
            remedy="Write the times of all columns as New York local times without a time zone, such as "
            "2021-03-01 04:36:54.",
            facts={"column": _PICKUP, "published_as": self._published_as, **counts},
        )

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
