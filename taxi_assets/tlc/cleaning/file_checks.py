"""Check that a file belongs to its month, and that its rows have the shape of its header."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.errors import AmbiguousTimesError, ColumnMismatchError, WrongMonthError
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.rules import WRONG_FIELD_COUNT

if TYPE_CHECKING:
    from taxi_assets.tlc.cleaning.split_batch import SplitBatch
    from taxi_assets.tlc.readers.base_reader import MalformedRow, RawBatch

MINIMUM_SHARE_IN_MONTH = 0.5
"""The smallest accepted share of pickups in the month of the file, 0 to 1. Real months have more than 0.99."""

_NAMED_MONTHS = 3
# A real month has pickups at night and in the afternoon. Fewer pickups may have neither by chance.
_PICKUPS_OF_ALL_HOURS = 100


@dataclass(frozen=True)
class FileChecks:
    """The checks of a whole file that a run can relax.

    Attributes:
        allow_other_months: Whether most of the pickups may be in other months.
        maximum_share_unreadable: The largest accepted share of rows that cannot be read, 0 to 1: they have another
            number of fields than the header, or a value that cannot be read.
    """

    allow_other_months: bool = False
    maximum_share_unreadable: float = 0.05


DEFAULT_CHECKS = FileChecks()


class PickupMonths:
    """Counts the pickups of a file: clean and quarantined ones by month, and clean ones by hour."""

    def __init__(self, month: Month) -> None:
        self._month = month
        self._pickups: Counter[Month] = Counter()
        self._hours = np.zeros(24, np.int64)

    def add(self, split: SplitBatch) -> None:
        """Count the pickups of a batch. Rows whose pickup cannot be read do not count."""
        quarantined = pc.cast(split.quarantine.column("pickup_datetime"), pa.date32(), safe=False)
        hours = split.clean.column("pickup_hour")
        self._hours += np.bincount(np.asarray(hours.drop_null()), minlength=24)
        for dates in (split.clean.column("pickup_date"), quarantined):
            for entry in pc.value_counts(dates).to_pylist():
                if entry["values"] is not None:
                    self._pickups[Month(entry["values"].year, entry["values"].month)] += entry["counts"]

    def require_month(self, label: str, run_config: str) -> None:
        """Refuse a file of which less than half of the pickups are in its month.

        Args:
            label: Names the file in errors, such as "green 2020-10".
            run_config: The place of `allow_other_months` in the run config.

        Raises:
            WrongMonthError: The file belongs to another month.
        """
        pickups, inside = self._pickups.total(), self._pickups[self._month]
        if inside >= MINIMUM_SHARE_IN_MONTH * pickups:
            return
        others = [entry for entry in self._pickups.most_common() if entry[0] != self._month]
        months = ", ".join(f"{count:,} in {month}" for month, count in others[:_NAMED_MONTHS])
        more = f", and others in {len(others) - _NAMED_MONTHS:,} more months" if len(others) > _NAMED_MONTHS else ""
        raise WrongMonthError(
            f"{label}: {inside:,} of {pickups:,} pickups are in {self._month}; {months}{more}. Nothing was written.",
            remedy="Check that the publisher has the right file under this name, then run the month again. If the file "
            f"is right, set {run_config} in the run config.",
        )

    def require_all_day(self, label: str) -> None:
        """Refuse a file whose pickups were written by a 12-hour clock without AM or PM: no hour is 0, or 13 to 23.

        Args:
            label: Names the file in errors, such as "green 2020-10".

        Raises:
            AmbiguousTimesError: There are enough pickups, in all hours from 1 to 12 and in no other.
        """
        has_other_hours = self._hours[0] or self._hours[13:].any()
        if self._hours.sum() >= _PICKUPS_OF_ALL_HOURS and self._hours[1:13].all() and not has_other_hours:
            raise AmbiguousTimesError(
                f"{label}: pickup_datetime has only the hours 1 to 12, in {self._hours.sum():,} rows: the times were "
                "written with 12 hours, without AM or PM. Nothing was written.",
                remedy="Write the times with 24 hours, such as 2021-03-01 16:36:54.",
            )


class MalformedRows:
    """Notes the first row that has another number of fields than the header."""

    def __init__(self) -> None:
        self._first: tuple[MalformedRow, int] | None = None

    def add(self, raw: RawBatch) -> None:
        """Note the first malformed row of a batch, if there was none before."""
        if self._first is None:
            malformed = (row for row in raw.malformed_rows if WRONG_FIELD_COUNT in row.reasons)
            self._first = next(((row, len(raw.layout.names)) for row in malformed), None)

    def require_few(self, label: str, malformed: int, rows: int, maximum_share: float, run_config: str) -> None:
        """Refuse a file with too many malformed rows, such as the rest of a part that has no header.

        Args:
            label: Names the file in errors, such as "green 2020-10".
            malformed: The number of malformed rows.
            rows: The number of all rows.
            maximum_share: The largest accepted share of malformed rows, 0 to 1.
            run_config: The place of `maximum_share_unreadable` in the run config.

        Raises:
            ColumnMismatchError: Too many rows are malformed.
        """
        if self._first is None or malformed <= maximum_share * rows:
            return
        row, expected = self._first
        raise ColumnMismatchError(
            f"{label}: {malformed:,} of {rows:,} rows do not have {expected} fields, as the header and most rows "
            f"before them. The first is data row {row.source_row:,}: {row.text[:200]!r}. Nothing was written.",
            remedy="Check whether the file was joined from parts with different columns: each part needs its own "
            f"header. To quarantine these rows, raise {run_config} in the run config.",
        )
