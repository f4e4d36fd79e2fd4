"""Polars reads, filters and writes a file: one rule, doubles for money, no quarantine."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from benchmarks.measure import measure_here

_FILTERS = {"yellow": pl.col("passenger_count").ne_missing(0), "fhvhv": pl.col("trip_miles") >= 0}


def work(source: Path, target: Path) -> None:
    """Run a lazy query, which streams, with zstd at level 1 as in this project."""
    if source.suffix == ".parquet":
        frame = pl.scan_parquet(source)
    else:
        frame = pl.scan_csv(source, try_parse_dates=True, infer_schema_length=10_000)
    keep = _FILTERS[source.name.partition("_")[0]]
    frame.filter(keep).sink_parquet(target, compression="zstd", compression_level=1)


if __name__ == "__main__":
    SOURCE, TARGET = map(Path, sys.argv[1:])
    measure_here(lambda: work(SOURCE, TARGET), written=[TARGET])
