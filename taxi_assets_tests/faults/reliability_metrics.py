"""Metrics of a session of fault tests: printed at its end, and written to docs/reliability.md by the long form.

A test reports what it tried with `record_property(name, number)`, after its assertions.
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
    *("rows lost", "rows duplicated", "hangs", "reader crashes"),
)
BEGIN, END = "<!-- metrics: written by make reliability -->", "<!-- end of metrics -->"


class ReliabilityMetrics:
    """Sums of the metrics over all pytest workers."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._tests: Counter[str] = Counter()

    def add(self, properties: Iterable[tuple[str, object]], outcome: str) -> None:
        """Add what one test recorded, and its outcome."""
        self._tests[outcome] += 1
        for name, number in properties:
            if name in NAMES and isinstance(number, int):
                self._sums[name] += number

    def table(self, style: str = "simple") -> str:
        """Return a table with one line per metric."""
        rows = [(name, self._sums[name]) for name in NAMES if name in self._sums]
        tests = [(f"tests {outcome}", number) for outcome, number in sorted(self._tests.items())]
        return tabulate.tabulate([*rows, *tests], headers=["metric", "value"], tablefmt=style, intfmt=",")

    def write_to(self, page: Path) -> None:
        """Write the table between the page's two markers, with date, commit and number of cores."""
        text = page.read_text()
        lines = f"{BEGIN}\n{_provenance(page.parent)}\n\n{self.table('github')}\n{END}"
        kept, times = re.subn(rf"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: lines, text, flags=re.DOTALL)
        if times != 1:
            raise ValueError(f"{page} must have the two markers once: {BEGIN} and {END}")
        page.write_text(kept)


def _provenance(folder: Path) -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, commit {commit or 'unknown'}, {os.cpu_count()} cores:"
