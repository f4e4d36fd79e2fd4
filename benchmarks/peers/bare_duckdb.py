"""DuckDB, doing nothing but read, filter, write: no rules but one, doubles for money, nothing kept of what it drops."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

from benchmarks.measure import timed

_FILTERS = {"yellow": "passenger_count IS DISTINCT FROM 0", "fhvhv": "trip_miles >= 0"}


def work(source: Path, target: Path) -> None:
    """One statement; zstd at level 1, as we have it."""
    read = "read_parquet" if source.suffix == ".parquet" else "read_csv"
    keep = _FILTERS[source.name.partition("_")[0]]
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * FROM {read}('{source}') WHERE {keep}) "  # noqa: S608  (a path of our own)
            f"TO '{target}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
        )


if __name__ == "__main__":
    SOURCE, TARGET = map(Path, sys.argv[1:])
    timed(lambda: work(SOURCE, TARGET), written=[TARGET])
