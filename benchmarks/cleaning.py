"""Comparisons of cleaning a month: this project, the course, pandas, DuckDB, Polars and a lower bound."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import write_source_record
from benchmarks.measure import Measurement, measure
from benchmarks.months import FHVHV_SIZES, SIZES
from benchmarks.rounds import Comparison

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

OURS = "taxi_assets"
LOWER_BOUND = "lower bound"
EARLIER_ENCODINGS = f"{OURS}, rewritten with DELTA_BINARY_PACKED"
_PARTS = ("decompress", "parse", "write")
SMALL, MIDDLE, LARGE = SIZES


def row_label(rows: int) -> str:
    """Return the number of rows as a label, such as 1.4M."""
    return f"{rows / 1e6:.3g}M"


def comparisons(bench: Bench) -> list[Comparison]:
    """Return a comparison for each size and format."""
    found = [
        *(_yellow(bench, rows, ending) for rows in SIZES for ending in ("csv.gz", "parquet")),
        Comparison(
            f"clean-{row_label(FHVHV_SIZES[0])}-fhvhv-parquet",
            f"Cleaning {FHVHV_SIZES[0]:,} rows of fhvhv, parquet",
            _peers(bench, "fhvhv", FHVHV_SIZES[0], "parquet", ["plain_duckdb", "plain_polars"]),
        ),
    ]
    return sorted(found, key=lambda comparison: comparison.name.endswith("parquet"))


def clean(bench: Bench, service: str, rows: int, ending: str) -> Measurement:
    """Measure cleaning by this project, without Dagster."""
    source = bench.months.file(service, rows, ending)
    with bench.temporary_folder() as folder:
        write_source_record(source, folder)
        return measure(["-m", "benchmarks.peers.without_dagster", "clean", str(source), str(folder)])


def _yellow(bench: Bench, rows: int, ending: str) -> Comparison:
    modules = ["plain_duckdb", "plain_polars"]
    if rows < LARGE:  # a frame of the largest month takes more than 10 GB
        modules.insert(0, "plain_pandas")
    if rows == SMALL and ending == "csv.gz":
        modules.insert(0, "course")
    peers = _peers(bench, "yellow", rows, ending, modules)
    totals = {}
    if rows < LARGE and ending == "csv.gz":
        peers |= {f"{LOWER_BOUND}: {part}": partial(_lower_bound, bench, rows, part) for part in _PARTS}
        totals = {LOWER_BOUND: [f"{LOWER_BOUND}: {part}" for part in _PARTS]}
    if rows == SMALL and ending == "parquet":
        peers[EARLIER_ENCODINGS] = partial(_rewritten, bench, rows)
    title = f"Cleaning {rows:,} rows of yellow, {ending}"
    return Comparison(f"clean-{row_label(rows)}-{ending}", title, peers, totals)


PEER_LABELS = {
    "course": "course",
    "plain_pandas": "pandas",
    "plain_duckdb": "plain DuckDB",
    "plain_polars": "plain Polars",
}


def _peers(bench: Bench, service: str, rows: int, ending: str, modules: list[str]) -> dict[str, partial[Measurement]]:
    ours = {OURS: partial(clean, bench, service, rows, ending)}
    return ours | {PEER_LABELS[module]: partial(_peer, bench, module, service, rows, ending) for module in modules}


def _peer(bench: Bench, module: str, service: str, rows: int, ending: str) -> Measurement:
    source = bench.months.file(service, rows, ending)
    with bench.temporary_folder() as folder:
        target: Path = folder if module == "plain_pandas" else folder / "trips.parquet"
        return measure(["-m", f"benchmarks.peers.{module}", str(source), str(target)])


def _rewritten(bench: Bench, rows: int) -> Measurement:
    source = bench.months.file("yellow", rows, "parquet")
    with bench.temporary_folder() as folder:
        write_source_record(source, folder)
        measure(["-m", "benchmarks.peers.without_dagster", "clean", str(source), str(folder)])
        return measure(
            ["-m", "benchmarks.peers.earlier_encodings", str(folder / "clean.parquet"), str(folder / "x.parquet")]
        )


def _lower_bound(bench: Bench, rows: int, part: str) -> Measurement:
    source = bench.months.file("yellow", rows, "csv.gz") if part == "decompress" else bench.months.csv(rows)
    with bench.temporary_folder() as folder:
        return measure(["-m", "benchmarks.peers.lower_bound", part, str(source), str(folder / "trips.parquet")])
