"""Comparisons of trips as tables with trips as views, in a DuckDB file: loads, marts, ten questions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import write_source_record
from benchmarks.cleaning import SMALL, row_label
from benchmarks.loading import MONTHS
from benchmarks.measure import Measurement, measure
from benchmarks.months import FHVHV_SIZES
from benchmarks.peers.trip_questions import QUESTIONS
from benchmarks.rounds import Comparison

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

TABLES, VIEWS = "tables", "views"
_KINDS = (TABLES, VIEWS)


def comparisons(bench: Bench) -> list[Comparison]:
    """Return all comparisons of tables and views."""
    loads = [("yellow", SMALL), ("fhvhv", FHVHV_SIZES[0])]
    return [
        *(
            Comparison(
                f"views-load-{service}",
                f"Tables and views: loading a month of {rows:,} rows of {service}",
                {kind: partial(_load, bench, service, rows, kind) for kind in _KINDS},
            )
            for service, rows in loads
        ),
        Comparison(
            "views-marts",
            f"Tables and views: the marts of a month, with {MONTHS} months of {row_label(SMALL)} rows",
            {kind: partial(_marts, bench, kind) for kind in _KINDS},
        ),
        *(
            Comparison(
                f"views-question-{number + 1}-{months}",
                f"{question} ({'one month' if months == 'one' else f'{MONTHS} months'})",
                {kind: partial(_question, bench, kind, number, months) for kind in _KINDS},
                minimum_rounds=5,
            )
            for months in ("one", "all")
            for number, question in enumerate(QUESTIONS)
        ),
    ]


def _cleaned(bench: Bench, service: str, rows: int) -> Path:
    def make(folder: Path) -> None:
        source = bench.months.file(service, rows, "parquet")
        write_source_record(source, folder)
        measure(["-m", "benchmarks.peers.without_dagster", "both", str(source), str(folder)])

    return bench.prepared_folder(f"cleaned-{service}-{rows}", make)


def _load(bench: Bench, service: str, rows: int, kind: str) -> Measurement:
    lake = _cleaned(bench, service, rows) / "lake"
    with bench.temporary_folder() as folder:
        (folder / "lake").symlink_to(lake)
        return measure(["-m", "benchmarks.peers.without_dagster", f"load {kind}", service, str(folder)])


def _loaded(bench: Bench) -> Path:
    """Return a folder with both databases over the same lake."""

    def make(folder: Path) -> None:
        source = bench.months.file("yellow", SMALL, "parquet")
        write_source_record(source, folder)
        measure(["-m", "benchmarks.peers.loaded_months", str(source), str(folder), str(MONTHS), *_KINDS])

    return bench.prepared_folder("tables-and-views", make)


def _marts(bench: Bench, kind: str) -> Measurement:
    return measure(["-m", "benchmarks.peers.mart_queries", str(_loaded(bench) / f"{kind}.duckdb"), kind])


def _question(bench: Bench, kind: str, number: int, months: str) -> Measurement:
    file = _loaded(bench) / f"{kind}.duckdb"
    return measure(["-m", "benchmarks.peers.trip_questions", str(file), str(number), months])
