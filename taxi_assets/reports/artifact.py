"""The files of a finished report before they are written to the lake, and the version of the code that makes them.

Definitions import this module, so it imports nothing that is slow.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CHARTS = ("trips_per_day", "hour_by_weekday", "top_zones", "fares_and_tips", "quarantine", "revision")
"""Names of all charts that a month can have, in the order of the page."""

PAGE = "report.html"
FILE_NAMES = (*(f"{name}.png" for name in CHARTS), PAGE)

# Increase it when the same data gives other metrics or charts. The template is part of the digest anyway.
_VERSION = 2
TEMPLATE = "page.html.j2"


@cache
def version() -> str:
    """Return a digest of the code of reports: their code version, and part of the data version of each page."""
    return hashlib.sha256(f"{_VERSION} {template_text()}".encode()).hexdigest()[:16]


def template_text() -> str:
    """Return the template of the page."""
    return resources.files("taxi_assets.reports").joinpath(TEMPLATE).read_text(encoding="utf-8")


@dataclass(frozen=True)
class StagedReport:
    """A finished report that is not in the lake yet.

    Attributes:
        files: Its files, in the order in which they are published: the page is the last.
        replaces: For each file name, the version of the object in the lake that may be replaced; None if there is none.
    """

    files: Sequence[Path]
    replaces: Mapping[str, str | None]

    @property
    def removed(self) -> list[str]:
        """Names of files that an earlier report of the month has, and this one does not have."""
        own = {file.name for file in self.files}
        return [name for name, version in self.replaces.items() if version is not None and name not in own]


def sha256(file: Path) -> str:
    """Return the SHA-256 digest of a file, in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
