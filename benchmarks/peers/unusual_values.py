"""This project without Dagster: cleaning a month that may be refused because too many rows cannot be read.

python -m benchmarks.peers.unusual_values FILE FOLDER
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from benchmarks.measure import measure_here
from benchmarks.peers.without_dagster import clean
from taxi_assets.errors import TooManyQuarantinedError


def main(path: Path, folder: Path) -> None:
    """Measure cleaning, without imports."""

    def run() -> None:
        with suppress(TooManyQuarantinedError):
            clean(path, folder)

    measure_here(run, written=[folder / "clean.parquet"])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
