"""Comparisons of loading a clean month into DuckDB and Postgres, and of reading it into a frame."""

from __future__ import annotations

import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import write_source_record
from benchmarks.cleaning import OURS, SMALL, row_label
from benchmarks.measure import Measurement, measure
from benchmarks.rounds import Comparison
from benchmarks.server import server_url

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

MONTHS = 24
ICEBERG_NEW = "new table"
PYTHON_OBJECTS = "pyarrow, Python objects"


def duckdb(bench: Bench) -> list[Comparison]:
    """Return the comparison of replacing a month if there is one month, and if there are many."""
    return [
        Comparison(
            f"load-{row_label(SMALL)}",
            f"Load: replacing a month of {SMALL:,} rows in DuckDB, by number of loaded months",
            {
                f"{months} month{'' if months == 1 else 's'} loaded": partial(_replace, bench, months)
                for months in (1, MONTHS)
            },
        )
    ]


def postgres(bench: Bench) -> list[Comparison]:
    """Return the comparison with the course's load. Ours includes indexes, control totals and the swap."""
    return [
        Comparison(
            f"postgres-{row_label(SMALL)}",
            f"Load: a month of {SMALL:,} rows into Postgres, with exact numerics",
            {OURS: partial(_postgres, bench, "replace_month"), "to_sql": partial(_postgres, bench, "to_sql")},
        )
    ]


def iceberg(bench: Bench) -> list[Comparison]:
    """Return the comparison of committing a clean month to Iceberg, with a new table and with one of many months."""
    return [
        Comparison(
            f"iceberg-{row_label(SMALL)}",
            f"Load: a clean month of {SMALL:,} rows into an Iceberg table, by number of months in it",
            {
                ICEBERG_NEW: partial(_iceberg, bench, 1),
                f"{MONTHS} months": partial(_iceberg, bench, MONTHS),
            },
        )
    ]


def _iceberg(bench: Bench, months: int) -> Measurement:
    with bench.temporary_folder() as folder:
        shutil.copytree(cleaned_month(bench, SMALL) / "lake", folder / "lake", copy_function=os.link)
        return measure(["-m", "benchmarks.peers.iceberg_month", str(folder), str(months)])


def reading(bench: Bench) -> list[Comparison]:
    """Return the comparison of reading a loaded month into a frame."""

    def make(folder: Path) -> None:
        source = bench.months.file("yellow", SMALL, "parquet")
        write_source_record(source, folder)
        measure(["-m", "benchmarks.peers.loaded_months", str(source), str(folder), "1"])
        shutil.rmtree(folder / "lake")
        (folder / "lake").symlink_to(cleaned_month(bench, SMALL) / "lake")

    def read(method: str) -> Measurement:
        folder = bench.prepared_folder("readable", make)
        return measure(["-m", "benchmarks.peers.read_month", method, str(folder)])

    ways = {
        "load_asset_value, warehouse": "warehouse",
        "load_asset_value, clean": "clean",
        PYTHON_OBJECTS: "objects",
        "polars.read_parquet": "polars",
    }
    return [
        Comparison(
            f"read-{row_label(SMALL)}",
            f"Read: a month of {SMALL:,} rows into a frame",
            {label: partial(read, method) for label, method in ways.items()},
            minimum_rounds=5,
        )
    ]


def cleaned_month(bench: Bench, rows: int) -> Path:
    """Return a folder whose lake has the clean month."""

    def make(folder: Path) -> None:
        source = bench.months.file("yellow", rows, "parquet")
        write_source_record(source, folder)
        measure(["-m", "benchmarks.peers.without_dagster", "both", str(source), str(folder)])

    return bench.prepared_folder(f"cleaned-{rows}", make)


def load(bench: Bench, rows: int) -> Measurement:
    """Measure loading a clean month into a new DuckDB file."""
    folder = cleaned_month(bench, rows)
    (folder / "warehouse.duckdb").unlink(missing_ok=True)
    return measure(["-m", "benchmarks.peers.without_dagster", "load", "yellow", str(folder)])


def _replace(bench: Bench, months: int) -> Measurement:
    source = bench.months.file("yellow", SMALL, "parquet")
    lake = cleaned_month(bench, SMALL) / "lake"

    def make(folder: Path) -> None:
        write_source_record(source, folder)
        measure(["-m", "benchmarks.peers.loaded_months", str(source), str(folder), str(months)])

    full = bench.prepared_folder(f"loaded-{months}", make)
    with bench.temporary_folder() as folder:
        (folder / "lake").symlink_to(lake)
        shutil.copy(full / "warehouse.duckdb", folder)
        os.sync()  # otherwise the load would wait for the disk to write the copy
        return measure(["-m", "benchmarks.peers.without_dagster", "load", "yellow", str(folder)])


def _postgres(bench: Bench, method: str) -> Measurement:
    url = server_url(bench.prepared_folder("server", lambda _: None))
    return measure(["-m", "benchmarks.peers.postgres", method, url, str(cleaned_month(bench, SMALL) / "lake")])
