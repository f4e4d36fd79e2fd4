"""Select the months of a scan among those that are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from taxi_assets.errors import ScanArgumentError
from taxi_assets.tlc.month import Month

if TYPE_CHECKING:
    from collections.abc import Sequence


class Bounds(NamedTuple):
    """The first and the last month of a scan, both inclusive; None where it is not limited."""

    first: Month | None
    last: Month | None

    @classmethod
    def parse(cls, first: str | None, last: str | None) -> Bounds:
        """Return the months of two texts such as "2021-01".

        Raises:
            ScanArgumentError: One is not a month, or the first month is after the last.
        """
        bounds = cls(_parse("first", first), _parse("last", last))
        if bounds.first is not None and bounds.last is not None and bounds.first > bounds.last:
            raise ScanArgumentError(
                f"The first month, {bounds.first}, is after the last, {bounds.last}.", remedy="Swap them."
            )
        return bounds

    def contains(self, month: Month) -> bool:
        """Return whether a month is within the bounds."""
        return (self.first is None or self.first <= month) and (self.last is None or month <= self.last)

    def select(self, stored: Sequence[Month]) -> list[Month]:
        """Return the months of the scan, whether or not they are stored.

        Args:
            stored: The stored months in order, at least one. Without any bound, they are selected, even if one between
                them is missing. A single bound selects all months from it to the other end of the stored months.
        """
        if self.first is None and self.last is None:
            return list(stored)
        month = self.first or min(stored[0], self.last or stored[0])
        end = self.last or max(stored[-1], month)
        selected = []
        while month <= end:
            selected.append(month)
            month = month.shift(1)
        return selected


def _parse(argument: str, value: str | None) -> Month | None:
    if value is None:
        return None
    try:
        return Month.parse(value)
    except (TypeError, ValueError):
        raise ScanArgumentError(
            f"{argument}={value!r} is not a month.", remedy='Write a month as text, such as "2021-01".'
        ) from None


def list_months(months: Sequence[Month]) -> str:
    """Return months for a message, with neighbors as a range: "2021-03 to 2021-07, 2022-01"."""
    ranges: list[tuple[Month, Month]] = []
    for month in months:
        if ranges and ranges[-1][1].shift(1) == month:
            ranges[-1] = ranges[-1][0], month
        else:
            ranges.append((month, month))
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in ranges)
