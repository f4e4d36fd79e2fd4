"""The calendar month, which names partitions, published files and table partitions."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

_KEY = re.compile(r"(\d{4})-(\d{2})", re.ASCII)


@dataclass(frozen=True, order=True)
class Month:
    """One calendar month of New York's local time.

    `str(month)` is its key, such as `"2021-01"`. The key is the Dagster partition key, and part of file names and lake
    object keys.

    Attributes:
        year: The year, with four digits.
        number: The month of the year, 1 to 12.
    """

    year: int
    number: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= 12:
            msg = f"A month is numbered 1 to 12, not {self.number}."
            raise ValueError(msg)

    @classmethod
    def parse(cls, key: str) -> Month:
        """Return the month of a key such as `"2021-01"`.

        Args:
            key: Four digits, a hyphen, two digits.

        Raises:
            ValueError: The key has another form, or its month is not 01 to 12.
        """
        match = _KEY.fullmatch(key)
        if match is None:
            msg = f"A month is written YYYY-MM, such as 2021-01, not {key!r}."
            raise ValueError(msg)
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.number:02d}"

    def shift(self, months: int) -> Month:
        """Return the month that is `months` later, or earlier where `months` is negative."""
        index = self.year * 12 + self.number - 1 + months
        return Month(index // 12, index % 12 + 1)

    @property
    def start(self) -> dt.date:
        """The first day of the month."""
        return dt.date(self.year, self.number, 1)

    @property
    def end(self) -> dt.date:
        """The first day of the next month."""
        return self.shift(1).start

    @property
    def days(self) -> int:
        """The number of days in the month."""
        return (self.end - self.start).days
