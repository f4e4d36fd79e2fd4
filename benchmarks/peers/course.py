"""The course's flow for a month: read it, parse the times, drop trips without passengers, write Parquet."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from benchmarks.measure import measure_here


def work(source: Path, target: Path) -> None:
    """Run the flow as the course writes it."""
    frame = pd.read_csv(source, low_memory=False)
    frame["tpep_pickup_datetime"] = pd.to_datetime(frame["tpep_pickup_datetime"])
    frame["tpep_dropoff_datetime"] = pd.to_datetime(frame["tpep_dropoff_datetime"])
    frame = frame[frame["passenger_count"] != 0]
    frame.to_parquet(target, compression="gzip")


if __name__ == "__main__":
    SOURCE, TARGET = map(Path, sys.argv[1:])
    measure_here(lambda: work(SOURCE, TARGET), written=[TARGET])
