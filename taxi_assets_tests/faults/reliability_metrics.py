"""What a session of faults has tried, summed up: printed at its end, and kept in docs/reliability.md by the long form.

A test says what it tried by `record_property(name, number)`, in its last line, or at least after it has looked.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import tabulate

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAMES = (
    *("kills", "faults", "bad inputs", "hostile names", "planted secrets"),
    *("rows lost", "rows doubled", "hangs", "reader crashes"),
)
BEGIN, END = "<!-- figures: written by make reliability -->", "<!-- end of figures -->"


class Figures:
    """Sums, over all workers."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._tests: Counter[str] = Counter()

    def add(self, properties: Iterable[tuple[str, object]], outcome: str) -> None:
        """What one test has recorded, once it is over, and how it ended."""
        self._tests[outcome] += 1
        for name, number in properties:
            if name in NAMES and isinstance(number, int):
                self._sums[name] += number

    def table(self, style: str = "simple") -> str:
        """One line a figure."""
        rows = [(name, self._sums[name]) for name in NAMES if name in self._sums]
        tests = [(f"tests {outcome}", number) for outcome, number in sorted(self._tests.items())]
        return tabulate.tabulate([*rows, *tests], headers=["tried", "figure"], tablefmt=style, intfmt=",")

    def keep(self, page: Path) -> None:
        """Write them into the page, between its two markers, with when and on what they were measured."""
        text = page.read_text()
        lines = f"{BEGIN}\n{_provenance(page.parent)}\n\n{self.table('github')}\n{END}"
        kept, times = re.subn(rf"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: lines, text, flags=re.DOTALL)
        if times != 1:
            raise ValueError(f"{page} does not have the two markers, once: {BEGIN} and {END}")
        page.write_text(kept)


def _provenance(folder: Path) -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, commit {commit or 'unknown'}, {os.cpu_count()} cores:"
