"""A finished report on its way to the lake: the pictures, and the page last."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CHARTS = ("trips_per_day", "hour_by_weekday", "top_zones", "fares_and_tips", "quarantine")
"""Names of the pictures that a month can have, in the order of the page."""

PAGE = "report.html"
NAMES = (*(f"{name}.png" for name in CHARTS), PAGE)


@dataclass(frozen=True)
class StagedReport:
    """Files in the order in which they are to appear, and the version of each object that they may replace, by name."""

    files: Sequence[Path]
    replaces: Mapping[str, str | None]

    @property
    def removed(self) -> list[str]:
        """What an earlier report of the month had, and this one has not."""
        made = {file.name for file in self.files}
        return [name for name, version in self.replaces.items() if version is not None and name not in made]


def sha256(file: Path) -> str:
    """Digest of a finished file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
