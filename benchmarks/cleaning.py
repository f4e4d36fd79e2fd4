"""Cleaning a month beside the course, plain pandas, DuckDB, Polars and the floor; and whether its memory stays flat."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import note_record
from benchmarks.measure import Figures, run
from benchmarks.months import FHVHV_SIZES, SIZES
from benchmarks.rounds import Comparison

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

FLOOR = "the floor"
EARLIER_ENCODINGS = "ours, rewritten with DELTA_BINARY_PACKED"
_PARTS = ("unpack", "parse", "write")
SMALL, MIDDLE, LARGE = SIZES


def named(rows: int) -> str:
    """Such as 1.4M."""
    return f"{rows / 1e6:.3g}M"


def comparisons(bench: Bench) -> list[Comparison]:
    """A comparison for each size and format."""
    found = [
        *(_yellow(bench, rows, ending) for rows in SIZES for ending in ("csv.gz", "parquet")),
        Comparison(
            f"clean-{named(FHVHV_SIZES[0])}-fhvhv-parquet",
            f"Clean: {FHVHV_SIZES[0]:,} rows of fhvhv, Parquet",
            _peers(bench, "fhvhv", FHVHV_SIZES[0], "parquet", ["bare_duckdb", "bare_polars"]),
        ),
    ]
    return sorted(found, key=lambda comparison: comparison.name.endswith("parquet"))


def clean(bench: Bench, service: str, rows: int, ending: str) -> Figures:
    """We, without Dagster."""
    source = bench.months.file(service, rows, ending)
    with bench.place() as folder:
        note_record(source, folder)
        return run(["-m", "benchmarks.peers.ours", "clean", str(source), str(folder)])


def _yellow(bench: Bench, rows: int, ending: str) -> Comparison:
    modules = ["bare_duckdb", "bare_polars"]
    if rows < LARGE:  # a frame of the largest takes more than 10 GB
        modules.insert(0, "plain_pandas")
    if rows == SMALL and ending == "csv.gz":
        modules.insert(0, "course")
    peers = _peers(bench, "yellow", rows, ending, modules)
    sums = {}
    if rows < LARGE and ending == "csv.gz":
        peers |= {f"floor: {part}": partial(_floor, bench, rows, part) for part in _PARTS}
        sums = {FLOOR: [f"floor: {part}" for part in _PARTS]}
    if rows == SMALL and ending == "parquet":
        peers[EARLIER_ENCODINGS] = partial(_rewritten, bench, rows)
    title = f"Clean: {rows:,} rows of yellow, {ending}"
    return Comparison(f"clean-{named(rows)}-{ending}", title, peers, sums)


NAMES = {"course": "course", "plain_pandas": "pandas", "bare_duckdb": "DuckDB, bare", "bare_polars": "Polars, bare"}


def _peers(bench: Bench, service: str, rows: int, ending: str, modules: list[str]) -> dict[str, partial[Figures]]:
    ours = {"ours": partial(clean, bench, service, rows, ending)}
    return ours | {NAMES[module]: partial(_peer, bench, module, service, rows, ending) for module in modules}


def _peer(bench: Bench, module: str, service: str, rows: int, ending: str) -> Figures:
    source = bench.months.file(service, rows, ending)
    with bench.place() as folder:
        target: Path = folder if module == "plain_pandas" else folder / "trips.parquet"
        return run(["-m", f"benchmarks.peers.{module}", str(source), str(target)])


def _rewritten(bench: Bench, rows: int) -> Figures:
    source = bench.months.file("yellow", rows, "parquet")
    with bench.place() as folder:
        note_record(source, folder)
        run(["-m", "benchmarks.peers.ours", "clean", str(source), str(folder)])
        return run(
            ["-m", "benchmarks.peers.earlier_encodings", str(folder / "clean.parquet"), str(folder / "x.parquet")]
        )


def _floor(bench: Bench, rows: int, part: str) -> Figures:
    source = bench.months.file("yellow", rows, "csv.gz") if part == "unpack" else bench.months.csv(rows)
    with bench.place() as folder:
        return run(["-m", "benchmarks.peers.floor", part, str(source), str(folder / "trips.parquet")])
