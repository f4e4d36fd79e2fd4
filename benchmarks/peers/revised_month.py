"""The asset revisions/yellow_trips without Dagster: clean the older revision, and compare it with the newer one.

python -m benchmarks.peers.revised_month FILE FOLDER NEWER
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.measure import measure_here
from benchmarks.months import MONTH
from benchmarks.peers.without_dagster import clean
from taxi_assets.storage.revision_comparison.compare_revisions import compare_revisions
from taxi_assets.storage.revision_comparison.month_parts import CleanRevision
from taxi_assets.tlc.cleaning.report import CleaningReport
from taxi_assets.tlc.services.registry import SERVICES


def compare(path: Path, folder: Path, newer: Path) -> None:
    """Clean a file into a folder, and compare it with the clean month in another folder."""
    result = folder / "result"
    result.mkdir()
    cleaned = clean(path, folder)
    report = CleaningReport.from_footer(pq.read_metadata(newer).metadata)
    if report is None:
        raise ValueError(f"{newer} has no cleaning report.")
    old, new = CleanRevision(cleaned.clean, cleaned.report), CleanRevision(newer, report)
    compare_revisions(SERVICES["yellow"], MONTH, old, new, result, {})


if __name__ == "__main__":
    FOLDER = Path(sys.argv[2])
    measure_here(
        lambda: compare(Path(sys.argv[1]), FOLDER, Path(sys.argv[3]) / "clean.parquet"), written=[FOLDER / "result"]
    )
