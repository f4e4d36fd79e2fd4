"""Loading a clean month into a warehouse: DuckDB with one month and with 24, Postgres beside `to_sql`."""

from __future__ import annotations

import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import note_record
from benchmarks.cleaning import SMALL, named
from benchmarks.measure import Figures, run
from benchmarks.rounds import Comparison
from benchmarks.server import url_of_server

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

MONTHS = 24


def duckdb(bench: Bench) -> list[Comparison]:
    """Is replacing a month as quick when there are many?"""
    return [
        Comparison(
            f"load-{named(SMALL)}",
            f"Load: a month of {SMALL:,} rows replaced in DuckDB, which holds so many months",
            {f"{months} loaded": partial(_replace, bench, months) for months in (1, MONTHS)},
        )
    ]


def postgres(bench: Bench) -> list[Comparison]:
    """The course's way into Postgres, and ours: indexes, control figures and the swap included."""
    return [
        Comparison(
            f"postgres-{named(SMALL)}",
            f"Load: a month of {SMALL:,} rows into Postgres, numerics exact",
            {"ours": partial(_postgres, bench, "replace_month"), "to_sql": partial(_postgres, bench, "to_sql")},
        )
    ]


def cleaned(bench: Bench, rows: int) -> Path:
    """A folder whose lake holds the clean month."""

    def make(folder: Path) -> None:
        source = bench.months.file("yellow", rows, "parquet")
        note_record(source, folder)
        run(["-m", "benchmarks.peers.ours", "both", str(source), str(folder)])

    return bench.once(f"cleaned-{rows}", make)


def load(bench: Bench, rows: int) -> Figures:
    """A clean month into a new DuckDB file."""
    folder = cleaned(bench, rows)
    (folder / "warehouse.duckdb").unlink(missing_ok=True)
    return run(["-m", "benchmarks.peers.ours", "load", "yellow", str(folder)])


def _replace(bench: Bench, months: int) -> Figures:
    source = bench.months.file("yellow", SMALL, "parquet")
    lake = cleaned(bench, SMALL) / "lake"

    def make(folder: Path) -> None:
        note_record(source, folder)
        run(["-m", "benchmarks.peers.history", str(source), str(folder), str(months)])

    full = bench.once(f"loaded-{months}", make)
    with bench.place() as folder:
        (folder / "lake").symlink_to(lake)
        shutil.copy(full / "warehouse.duckdb", folder)
        os.sync()  # or the load would wait for the disk to take the copy
        return run(["-m", "benchmarks.peers.ours", "load", "yellow", str(folder)])


def _postgres(bench: Bench, how: str) -> Figures:
    url = url_of_server(bench.once("server", lambda _: None))
    return run(["-m", "benchmarks.peers.postgres", how, url, str(cleaned(bench, SMALL) / "lake")])
