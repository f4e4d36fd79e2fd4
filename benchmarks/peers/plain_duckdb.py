"""DuckDB reads, filters and writes a file: one rule, doubles for money, no quarantine."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

from benchmarks.measure import measure_here

_FILTERS = {"yellow": "passenger_count IS DISTINCT FROM 0", "fhvhv": "trip_miles >= 0"}


def work(source: Path, target: Path) -> None:
    """Run one statement, with zstd at level 1 as in this project."""
    read = "read_parquet" if source.suffix == ".parquet" else "read_csv"
    keep = _FILTERS[source.name.partition("_")[0]]
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * FROM {read}('{source}') WHERE {keep}) "  # noqa: S608  (the path is from the benchmark)
            f"TO '{target}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
        )


if __name__ == "__main__":
    SOURCE, TARGET = map(Path, sys.argv[1:])
    measure_here(lambda: work(SOURCE, TARGET), written=[TARGET])
