"""What the course does with a month: read it, parse the times, drop trips without passengers, write Parquet."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from benchmarks.measure import timed


def work(source: Path, target: Path) -> None:
    """The course's flow, in its own words."""
    frame = pd.read_csv(source, low_memory=False)
    frame["tpep_pickup_datetime"] = pd.to_datetime(frame["tpep_pickup_datetime"])
    frame["tpep_dropoff_datetime"] = pd.to_datetime(frame["tpep_dropoff_datetime"])
    frame = frame[frame["passenger_count"] != 0]
    frame.to_parquet(target, compression="gzip")


if __name__ == "__main__":
    SOURCE, TARGET = map(Path, sys.argv[1:])
    timed(lambda: work(SOURCE, TARGET), written=[TARGET])
