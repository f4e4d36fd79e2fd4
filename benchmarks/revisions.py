"""Comparisons of comparing two revisions of a month with cleaning the month, and the files of these revisions."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.bench import materialize, write_source_record
from benchmarks.cleaning import MIDDLE, row_label
from benchmarks.measure import Measurement, measure
from benchmarks.months import MONTH
from benchmarks.rounds import Comparison
from taxi_assets.tlc import synthetic

if TYPE_CHECKING:
    from benchmarks.bench import Bench

NAME = f"revisions-{row_label(MIDDLE)}"
CLEAN = "cleaning the month"
FEW, ALL = "comparing, 0.02% of trips differ", "comparing, all trips differ"
SHUFFLED = "comparing, 0.02% of trips differ, in another order"
IN_DAGSTER = "dagster asset materialize"
_CHANGED_SHARES = {"old": 0.0, "few": 0.0002, "shuffled": 0.0002, "all": 1.0}
_ROW_GROUP = 1 << 20


def comparisons(bench: Bench) -> list[Comparison]:
    """Return one comparison. Comparing includes cleaning the older revision, as in the asset."""
    cases = {FEW: "few", SHUFFLED: "shuffled", ALL: "all"}
    peers = {
        CLEAN: partial(_clean, bench),
        **{label: partial(_compare, bench, name) for label, name in cases.items()},
        **{f"{label}, {IN_DAGSTER}": partial(_in_dagster, bench, cases[label]) for label in (FEW, ALL)},
    }
    return [Comparison(NAME, f"Comparing two revisions of a month of {MIDDLE:,} rows of yellow, parquet", peers)]


def _revision(bench: Bench, name: str) -> Path:
    rows = bench.months.rows(MIDDLE)
    path = bench.months.folder / "published" / f"{rows}.revision-{name}" / f"yellow_tripdata_{MONTH}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        measure(["-m", "benchmarks.revisions", str(rows), name, str(path)])
    return path


def _clean(bench: Bench) -> Measurement:
    source = _revision(bench, "old")
    with bench.temporary_folder() as folder:
        write_source_record(source, folder)
        return measure(["-m", "benchmarks.peers.without_dagster", "clean", str(source), str(folder)])


def _compare(bench: Bench, name: str) -> Measurement:
    source = _revision(bench, "old")

    def make(folder: Path) -> None:
        newer = _revision(bench, name)
        write_source_record(newer, folder)
        measure(["-m", "benchmarks.peers.without_dagster", "clean", str(newer), str(folder)])

    newer = bench.prepared_folder(f"revision-{name}", make)
    with bench.temporary_folder() as folder:
        write_source_record(source, folder)
        return measure(["-m", "benchmarks.peers.revised_month", str(source), str(folder), str(newer)])


def _in_dagster(bench: Bench, name: str) -> Measurement:
    layers = " or ".join(f'key:"{layer}/yellow_trips"' for layer in ("raw", "clean", "quarantine"))

    def make(home: Path) -> None:
        for each in ("old", name):
            materialize(bench, home, _revision(bench, each).parent, layers)

    home = bench.prepared_folder(f"revised-{name}", make)
    return materialize(bench, home, _revision(bench, name).parent, 'key:"revisions/yellow_trips"')


def _write_revision(rows: int, name: str, path: Path) -> None:
    """Write a month of distinct trips: the sample several times, each time with other seconds and tips.

    The newer revisions have other fares. The rows of one of them are in another order, so all are held in memory.
    """
    sample_path, unfinished = path.with_name(".sample.csv.gz"), path.with_name(".new")
    synthetic.write_month("yellow", MONTH, sample_path)
    sample = pyarrow.csv.read_csv(sample_path)
    sample_path.unlink()
    with pyarrow.parquet.ParquetWriter(unfinished, sample.schema, compression="snappy") as writer:
        for seed, start in enumerate(range(0, rows, len(sample))):
            random = np.random.default_rng(seed)
            trips = sample.slice(0, rows - start)
            seconds = random.integers(0, 3600, len(trips)).astype("timedelta64[s]")
            trips = _with(trips, "tip_amount", lambda tip, r=random: tip + r.integers(0, 300, len(tip)) / 100)
            for column in ("tpep_pickup_datetime", "tpep_dropoff_datetime"):
                trips = _with(trips, column, lambda time, s=seconds: time + s)
            is_changed = random.random(len(trips)) < _CHANGED_SHARES[name]
            trips = _with(trips, "fare_amount", lambda fare, c=is_changed: fare + 1.5 * c)
            writer.write_table(trips, _ROW_GROUP)
    if name == "shuffled":
        trips = pyarrow.parquet.read_table(unfinished)
        trips = trips.take(pa.array(np.random.default_rng(rows).permutation(len(trips))))
        pyarrow.parquet.write_table(trips, unfinished, _ROW_GROUP, compression="snappy")
    unfinished.replace(path)


def _with(trips: Any, column: str, change: Any) -> Any:
    """Return the trips with other values in a column."""
    values = change(trips[column].to_numpy())
    if values.dtype == np.float64:
        values = values.round(2)
    index = trips.schema.get_field_index(column)
    return trips.set_column(index, column, pa.array(values, from_pandas=True).cast(trips.schema.field(index).type))


if __name__ == "__main__":
    _write_revision(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
