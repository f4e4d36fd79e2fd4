"""Comparisons of whole runs: all layers of a month, a backfill, start-up, marts, and a tick of a sensor."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import deployment_environment, materialize, write_source_record
from benchmarks.cleaning import LARGE, MIDDLE, SMALL, clean, row_label
from benchmarks.loading import load
from benchmarks.measure import Measurement, measure
from benchmarks.months import FHVHV_SIZES, MONTH, SMALL_MONTHS
from benchmarks.rounds import Comparison

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

SEQUENTIAL = "sequential runs in one process"
MATERIALIZE = "dagster asset materialize"
WITHOUT_REPORT = f"{MATERIALIZE}, without report"
GROUP = "group:yellow"
EMPTY = "stock Dagster, empty steps"
STOCK = "stock Dagster"
WITHOUT_DAGSTER = "clean + load without Dagster"
_LAYERS = 'group:yellow and not key:"reports/yellow_trips"'
WORKERS = (2,)
_FORMATS = ("csv.gz", "parquet")


def memory(bench: Bench) -> list[Comparison]:
    """Return the comparisons of peak memory at a small and a large size."""
    sizes = (SMALL, LARGE)
    return [
        *(
            Comparison(
                f"memory-clean-{ending}",
                f"Memory of cleaning, {ending}",
                {row_label(rows): partial(clean, bench, "yellow", rows, ending) for rows in sizes},
            )
            for ending in _FORMATS
        ),
        Comparison(
            "memory-load", "Memory of the DuckDB load", {row_label(rows): partial(load, bench, rows) for rows in sizes}
        ),
        *(
            Comparison(
                f"memory-pipeline-{ending}",
                f"Memory of all layers in Dagster, {ending}",
                {row_label(rows): partial(_pipeline, bench, rows, ending) for rows in sizes},
            )
            for ending in _FORMATS
        ),
    ]


def pipeline(bench: Bench) -> list[Comparison]:
    """Return the comparisons of all layers, from the published file to the warehouse."""
    return [
        Comparison(
            f"pipeline-{row_label(SMALL)}-{ending}",
            f"All layers of a month of {SMALL:,} rows, {ending}",
            {
                WITHOUT_DAGSTER: partial(_clean_and_load, bench, ending),
                MATERIALIZE: partial(_pipeline, bench, SMALL, ending),
                WITHOUT_REPORT: partial(_pipeline, bench, SMALL, ending, selection=_LAYERS),
                EMPTY: partial(_empty, bench),
                STOCK: partial(_stock, bench, ending),
            },
        )
        for ending in _FORMATS
    ]


def full_months(bench: Bench) -> list[Comparison]:
    """Return the measurement of large Parquet months, which `full_history` extrapolates."""
    return [
        Comparison(
            "full-months",
            "All layers of large months, parquet: input of the estimate for the full history",
            {f"yellow, {row_label(MIDDLE)}": partial(_pipeline, bench, MIDDLE, "parquet")}
            | {
                f"fhvhv, {row_label(rows)}": partial(_pipeline, bench, rows, "parquet", service="fhvhv")
                for rows in FHVHV_SIZES
            },
        )
    ]


def overhead(bench: Bench) -> list[Comparison]:
    """Return the comparison of a run with almost no rows, and the parts of its start-up."""

    def imported(module: str) -> Measurement:
        return measure(["-c", f"import {module}"])

    return [
        Comparison(
            "overhead",
            "Overhead: a run of a month of 100 rows with all layers and checks, and its start-up",
            {
                MATERIALIZE: partial(_tiny, bench, GROUP),
                WITHOUT_REPORT: partial(_tiny, bench, _LAYERS),
                EMPTY: partial(_empty, bench),
                "a run in a worker of make backfill": partial(_warm, bench),
                "import dagster": partial(imported, "dagster"),
                "import taxi_assets.definitions": partial(imported, "taxi_assets.definitions"),
            },
            minimum_rounds=5,
        )
    ]


def backfill(bench: Bench) -> list[Comparison]:
    """Return the comparison of a backfill with two workers, and the same runs one by one in a started process."""
    peers = {SEQUENTIAL: partial(_sequential, bench)}
    return [
        Comparison(
            "backfill",
            f"make backfill: {len(SMALL_MONTHS)} months of about 100,000 rows, with marts and reports",
            peers | {f"{workers} workers": partial(_backfill, bench, workers) for workers in WORKERS},
        )
    ]


def sensor(bench: Bench) -> list[Comparison]:
    """Return the comparison of ticks of a publication sensor that finds nothing new, in a folder."""

    def tick(months: int) -> Measurement:
        with bench.temporary_folder() as folder:
            return measure(["-m", "benchmarks.peers.sensor_tick", str(folder), str(months)])

    return [
        Comparison(
            "sensor",
            "A tick of a publication sensor, by number of loaded months",
            {f"{months} months": partial(tick, months) for months in (12, 84)},
            minimum_rounds=5,
        )
    ]


def marts(bench: Bench) -> list[Comparison]:
    """Return the comparison of all marts of a month: in Dagster with checks, and the queries only."""

    def make(home: Path) -> None:
        source = bench.months.file("yellow", SMALL, "csv.gz").parent
        materialize(bench, home, source, GROUP)
        materialize(bench, home, source, "group:reference", partition="")

    def in_dagster() -> Measurement:
        home = bench.prepared_folder("for-marts", make)
        return materialize(bench, home, bench.months.file("yellow", SMALL, "csv.gz").parent, "group:marts")

    def without_dagster() -> Measurement:
        home = bench.prepared_folder("for-marts", make)
        return measure(["-m", "benchmarks.peers.mart_queries", str(home / "warehouse.duckdb")])

    return [
        Comparison(
            f"marts-{row_label(SMALL)}",
            f"All marts of a month of {SMALL:,} rows",
            {"queries without Dagster": without_dagster, MATERIALIZE: in_dagster},
        )
    ]


def _pipeline(bench: Bench, rows: int, ending: str, *, service: str = "yellow", selection: str = "") -> Measurement:
    source = bench.months.file(service, rows, ending).parent
    with bench.temporary_folder() as home:
        return materialize(bench, home, source, selection or f"group:{service}")


def _tiny(bench: Bench, selection: str) -> Measurement:
    with bench.temporary_folder() as home:
        return materialize(bench, home, bench.months.tiny(), selection)


def _empty(bench: Bench) -> Measurement:
    with bench.temporary_folder() as home:
        command = ["-m", "dagster", "asset", "materialize", "-m", "benchmarks.peers.empty_steps", "--select", "*"]
        environment = deployment_environment(bench, home, bench.months.tiny())
        return measure([*command, "--partition", str(MONTH)], environment=environment)


def _warm(bench: Bench) -> Measurement:
    with bench.temporary_folder() as home:
        environment = deployment_environment(bench, home, bench.months.tiny())
        return measure(["-m", "benchmarks.peers.worker_run", str(MONTH)], environment=environment)


def _clean_and_load(bench: Bench, ending: str) -> Measurement:
    source = bench.months.file("yellow", SMALL, ending)
    with bench.temporary_folder() as folder:
        write_source_record(source, folder)
        return measure(["-m", "benchmarks.peers.without_dagster", "both", str(source), str(folder)])


def _stock(bench: Bench, ending: str) -> Measurement:
    source = bench.months.file("yellow", SMALL, ending)
    with bench.temporary_folder() as home:
        (home / "dagster").mkdir()
        environment = {
            "DAGSTER_HOME": str(home / "dagster"),
            "STOCK_SOURCE": str(source),
            "STOCK_WAREHOUSE": str(home / "warehouse.duckdb"),
        }
        command = ["-m", "dagster", "asset", "materialize", "-m", "benchmarks.peers.stock_dagster"]
        return measure(
            [*command, "--select", "yellow_trips", "--partition", str(MONTH)],
            environment=environment,
            written=[home / "warehouse.duckdb"],
        )


def _backfill(bench: Bench, workers: int) -> Measurement:
    with bench.temporary_folder() as home:
        command = ["-m", "taxi_assets.cli.backfill", "backfill", "--service", "yellow"]
        months = ["--from", bench.months.small_months[0], "--to", bench.months.small_months[-1]]
        written = [home / "lake", home / "warehouse.duckdb"]
        environment = deployment_environment(bench, home, bench.months.small())
        return measure([*command, *months, "--workers", str(workers)], environment=environment, written=written)


def _sequential(bench: Bench) -> Measurement:
    with bench.temporary_folder() as home:
        return measure(
            ["-m", "benchmarks.peers.sequential_runs", *bench.months.small_months],
            environment=deployment_environment(bench, home, bench.months.small()),
        )
