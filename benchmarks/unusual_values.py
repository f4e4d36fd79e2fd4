"""Comparisons of cleaning a month of unusual or unreadable values with cleaning the same month as TLC publishes it."""

from __future__ import annotations

import csv
import gzip
import random
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import write_source_record
from benchmarks.measure import Measurement, measure
from benchmarks.rounds import Comparison

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from benchmarks.bench import Bench

ROWS = 150_000
NAME = "unusual-values"
NORMAL = "as published"
_PICKUP, _DROPOFF, _PASSENGERS = "tpep_pickup_datetime", "tpep_dropoff_datetime", "passenger_count"

_Row = dict[str, str]


def _impossible_times(row: _Row, number: int) -> None:
    for column in (_PICKUP, _DROPOFF):
        row[column] = f"{13 + number % 20}/{1 + number % 99}/2021 {number % 100}:{number % 60:02}"


def _month_first(row: _Row, _number: int) -> None:
    for column in (_PICKUP, _DROPOFF):
        date, time = row[column].split()
        year, month, day = date.split("-")
        row[column] = f"{int(month)}/{int(day)}/{year} {time}"


def _short_times(row: _Row, _number: int) -> None:
    for column in (_PICKUP, _DROPOFF):
        date, time = row[column].split()
        row[column] = f"{date} {int(time[:2])}:{time[3:5]}"


def _some_nan(row: _Row, number: int) -> None:
    if random.Random(number).random() < 0.05:  # noqa: S311  (no secret)
        row[_PASSENGERS] = "NaN"


UNUSUAL: Mapping[str, Callable[[_Row, int], None]] = {
    "impossible M/D/YYYY times": _impossible_times,
    "M/D/YYYY times": _month_first,
    "times like 2021-03-01 4:36": _short_times,
    "5% NaN passenger counts": _some_nan,
}
"""The inputs by label, with a function that changes a row, given its number."""


def comparisons(bench: Bench) -> list[Comparison]:
    """Return one comparison of all inputs."""
    peers = {NORMAL: partial(_clean, bench, None)} | {label: partial(_clean, bench, label) for label in UNUSUAL}
    return [Comparison(NAME, f"Cleaning {ROWS:,} rows of yellow with unusual values, csv.gz", peers, minimum_rounds=5)]


def _clean(bench: Bench, label: str | None) -> Measurement:
    source = bench.months.file("yellow", ROWS, "csv.gz")
    if label is not None:
        folder_name = f"{bench.months.rows(ROWS)}.{list(UNUSUAL).index(label)}"
        source = _with_values(source, bench.prepared_folder(folder_name, lambda _: None), label)
    with bench.temporary_folder() as folder:
        write_source_record(source, folder)
        return measure(["-m", "benchmarks.peers.unusual_values", str(source), str(folder)])


def _with_values(source: Path, folder: Path, label: str) -> Path:
    """Write a month with other values, once for all rounds."""
    path = folder / source.name
    if not path.exists():
        with gzip.open(source, "rt", newline="") as file, gzip.open(path, "wt", 1, newline="") as changed:
            reader = csv.DictReader(file)
            writer = csv.DictWriter(changed, reader.fieldnames or [], lineterminator="\n")
            writer.writeheader()
            for number, row in enumerate(reader):
                UNUSUAL[label](row, number)
                writer.writerow(row)
    return path
