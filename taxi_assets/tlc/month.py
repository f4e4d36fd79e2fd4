"""The calendar month: what a partition, a file name and a table partition are all named after."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

_KEY = re.compile(r"(\d{4})-(\d{2})", re.ASCII)


@dataclass(frozen=True, order=True)
class Month:
    """One calendar month of New York's local time.

    `str(month)` is its key, `"2021-01"`: the partition key, and the month in file names and lake objects.
    """

    year: int
    number: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= 12:
            msg = f"A month is numbered 1 to 12, not {self.number}."
            raise ValueError(msg)

    @classmethod
    def parse(cls, key: str) -> Month:
        """Read a key such as `"2021-01"`; raises `ValueError` on anything else."""
        match = _KEY.fullmatch(key)
        if match is None:
            msg = f"A month is written YYYY-MM, such as 2021-01, not {key!r}."
            raise ValueError(msg)
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.number:02d}"

    def shift(self, months: int) -> Month:
        """The month so many months later (earlier when negative)."""
        index = self.year * 12 + self.number - 1 + months
        return Month(index // 12, index % 12 + 1)

    @property
    def start(self) -> dt.date:
        """Its first day."""
        return dt.date(self.year, self.number, 1)

    @property
    def end(self) -> dt.date:
        """The first day after it."""
        return self.shift(1).start

    @property
    def days(self) -> int:
        """How many days it has."""
        return (self.end - self.start).days
