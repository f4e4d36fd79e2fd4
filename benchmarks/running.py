"""What is run from the command line: a month through all shelves, many months, start-up, marts, a sensor's tick."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import materialize, note_record, settings
from benchmarks.cleaning import LARGE, MIDDLE, SMALL, clean, named
from benchmarks.loading import load
from benchmarks.measure import Figures, run
from benchmarks.months import FHVHV_SIZES, MONTH, SMALL_MONTHS
from benchmarks.rounds import Comparison

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

OWN = "the months' own"
MATERIALIZE = "dagster asset materialize"
WITHOUT_REPORT = f"{MATERIALIZE}, no report"
GROUP = "group:yellow"
EMPTY = "stock Dagster, empty steps"
STOCK = "stock Dagster"
BARE = "clean + load, bare"
_SHELVES = 'group:yellow and not key:"reports/yellow_trips"'
WORKERS = (2,)
_FORMATS = ("csv.gz", "parquet")


def memory(bench: Bench) -> list[Comparison]:
    """Is it flat?"""
    sizes = (SMALL, LARGE)
    return [
        *(
            Comparison(
                f"memory-clean-{ending}",
                f"Memory: clean alone, {ending}",
                {named(rows): partial(clean, bench, "yellow", rows, ending) for rows in sizes},
            )
            for ending in _FORMATS
        ),
        Comparison(
            "memory-load", "Memory: DuckDB load alone", {named(rows): partial(load, bench, rows) for rows in sizes}
        ),
        *(
            Comparison(
                f"memory-chain-{ending}",
                f"Memory: the whole chain, {ending}, Dagster in the process",
                {named(rows): partial(_chain, bench, rows, ending) for rows in sizes},
            )
            for ending in _FORMATS
        ),
    ]


def chain(bench: Bench) -> list[Comparison]:
    """Raw to warehouse, as a user has it done."""
    return [
        Comparison(
            f"chain-{named(SMALL)}-{ending}",
            f"A month of {SMALL:,} rows, {ending}, from the published file to the warehouse",
            {
                BARE: partial(_both, bench, ending),
                MATERIALIZE: partial(_chain, bench, SMALL, ending),
                WITHOUT_REPORT: partial(_chain, bench, SMALL, ending, selection=_SHELVES),
                EMPTY: partial(_empty, bench),
                STOCK: partial(_stock, bench, ending),
            },
        )
        for ending in _FORMATS
    ]


def growth(bench: Bench) -> list[Comparison]:
    """What the model of all of TLC's history is made of: Parquet, as TLC publishes it, with all that comes with it."""
    return [
        Comparison(
            "growth",
            "A month through all shelves, Parquet: what the growth on paper is made of",
            {f"yellow, {named(MIDDLE)}": partial(_chain, bench, MIDDLE, "parquet")}
            | {
                f"fhvhv, {named(rows)}": partial(_chain, bench, rows, "parquet", service="fhvhv")
                for rows in FHVHV_SIZES
            },
        )
    ]


def overhead(bench: Bench) -> list[Comparison]:
    """A run with nothing to do, and what of it is start-up."""

    def imported(module: str) -> Figures:
        return run(["-c", f"import {module}"])

    return [
        Comparison(
            "overhead",
            "A run of a month of 100 rows, all shelves and checks; and what of it is start-up",
            {
                MATERIALIZE: partial(_tiny, bench, GROUP),
                WITHOUT_REPORT: partial(_tiny, bench, _SHELVES),
                EMPTY: partial(_empty, bench),
                "a run in a worker of make backfill": partial(_warm, bench),
                "import dagster": partial(imported, "dagster"),
                "import taxi_assets.definitions": partial(imported, "taxi_assets.definitions"),
            },
            at_least=5,
        )
    ]


def backfill(bench: Bench) -> list[Comparison]:
    """24 months, marts and reports, two runs at once; and the same runs in one process, its start not counted."""
    peers = {OWN: partial(_own, bench)}
    return [
        Comparison(
            "backfill",
            f"make backfill: {len(SMALL_MONTHS)} months of 100,000 rows or so, with marts and reports",
            peers | {f"{workers} at once": partial(_backfill, bench, workers) for workers in WORKERS},
        )
    ]


def sensor(bench: Bench) -> list[Comparison]:
    """A publication sensor that finds nothing new, in a folder."""

    def tick(months: int) -> Figures:
        with bench.place() as folder:
            return run(["-m", "benchmarks.peers.tick", str(folder), str(months)])

    return [
        Comparison(
            "sensor",
            "A tick of a publication sensor, with so many months loaded",
            {f"{months} months": partial(tick, months) for months in (12, 84)},
            at_least=5,
        )
    ]


def marts(bench: Bench) -> list[Comparison]:
    """All marts of a month: through Dagster with all checks, and the bare queries."""

    def make(home: Path) -> None:
        source = bench.months.file("yellow", SMALL, "csv.gz").parent
        materialize(bench, home, source, GROUP)
        materialize(bench, home, source, "group:reference", partition="")

    def through_dagster() -> Figures:
        home = bench.once("for-marts", make)
        return materialize(bench, home, bench.months.file("yellow", SMALL, "csv.gz").parent, "group:marts")

    def bare() -> Figures:
        home = bench.once("for-marts", make)
        return run(["-m", "benchmarks.peers.bare_marts", str(home / "warehouse.duckdb")])

    return [
        Comparison(
            f"marts-{named(SMALL)}",
            f"All marts of a month of {SMALL:,} rows",
            {"the queries, bare": bare, MATERIALIZE: through_dagster},
        )
    ]


def _chain(bench: Bench, rows: int, ending: str, *, service: str = "yellow", selection: str = "") -> Figures:
    source = bench.months.file(service, rows, ending).parent
    with bench.place() as home:
        return materialize(bench, home, source, selection or f"group:{service}")


def _tiny(bench: Bench, selection: str) -> Figures:
    with bench.place() as home:
        return materialize(bench, home, bench.months.tiny(), selection)


def _empty(bench: Bench) -> Figures:
    with bench.place() as home:
        command = ["-m", "dagster", "asset", "materialize", "-m", "benchmarks.peers.empty", "--select", "*"]
        environment = settings(bench, home, bench.months.tiny())
        return run([*command, "--partition", str(MONTH)], environment=environment)


def _warm(bench: Bench) -> Figures:
    with bench.place() as home:
        environment = settings(bench, home, bench.months.tiny())
        return run(["-m", "benchmarks.peers.warm", str(MONTH)], environment=environment)


def _both(bench: Bench, ending: str) -> Figures:
    source = bench.months.file("yellow", SMALL, ending)
    with bench.place() as folder:
        note_record(source, folder)
        return run(["-m", "benchmarks.peers.ours", "both", str(source), str(folder)])


def _stock(bench: Bench, ending: str) -> Figures:
    source = bench.months.file("yellow", SMALL, ending)
    with bench.place() as home:
        (home / "dagster").mkdir()
        environment = {
            "DAGSTER_HOME": str(home / "dagster"),
            "STOCK_SOURCE": str(source),
            "STOCK_WAREHOUSE": str(home / "warehouse.duckdb"),
        }
        command = ["-m", "dagster", "asset", "materialize", "-m", "benchmarks.peers.stock"]
        return run(
            [*command, "--select", "yellow_trips", "--partition", str(MONTH)],
            environment=environment,
            written=[home / "warehouse.duckdb"],
        )


def _backfill(bench: Bench, workers: int) -> Figures:
    with bench.place() as home:
        command = ["-m", "taxi_assets.cli.backfill", "backfill", "--service", "yellow"]
        months = ["--from", bench.months.small_months[0], "--to", bench.months.small_months[-1]]
        written = [home / "lake", home / "warehouse.duckdb"]
        environment = settings(bench, home, bench.months.small())
        return run([*command, *months, "--workers", str(workers)], environment=environment, written=written)


def _own(bench: Bench) -> Figures:
    with bench.place() as home:
        return run(
            ["-m", "benchmarks.peers.own_runs", *bench.months.small_months],
            environment=settings(bench, home, bench.months.small()),
        )
