"""The performance requirements: each is a metric of the results and its limit."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import revisions, unusual_values
from benchmarks.cleaning import EARLIER_ENCODINGS, LOWER_BOUND, OURS, PEER_LABELS
from benchmarks.loading import ICEBERG_NEW
from benchmarks.running import EMPTY, SEQUENTIAL, STOCK, WITHOUT_DAGSTER, WITHOUT_REPORT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.rounds import Result

    Results = Mapping[str, Result]

_COURSE, _PANDAS, _DUCKDB = PEER_LABELS["course"], PEER_LABELS["plain_pandas"], PEER_LABELS["plain_duckdb"]
_CORES = 2
_FLAT = 1.15


@dataclass(frozen=True)
class Requirement:
    """A limit for a metric. `measure` computes the metric; it raises `KeyError` if something was not measured."""

    area: str
    label: str
    limit: float
    measure: Callable[[Results], float]
    at_least: bool = False
    unit: str = ""

    @property
    def limit_text(self) -> str:
        """The limit as text, such as "at most 1.8"."""
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}{self.unit}"

    def evaluate(self, results: Results) -> tuple[str, str]:
        """Return the metric as text, and the verdict."""
        try:
            value = self.measure(results)
        except KeyError:
            return "", "not measured"
        met = value >= self.limit if self.at_least else value <= self.limit
        return f"{value:.{0 if value >= 100 else 2}f}{self.unit}", "met" if met else "**not met**"


def _ratio(comparison: str, peer: str, to: str, label: str) -> Callable[[Results], float]:
    return lambda results: results[comparison].ratio(peer, to, label)


def _wall(comparison: str, peer: str) -> Callable[[Results], float]:
    return lambda results: results[comparison].median(peer, "wall")


def _peak(*comparisons: str) -> Callable[[Results], float]:
    """Return the largest peak memory of all rounds and peers."""
    return lambda results: max(
        measured.peak for name in comparisons for rounds in results[name].peers.values() for measured in rounds
    )


def _seconds_of_both_cores(results: Results) -> float:
    """Return the seconds of both cores per CPU second of the sequential runs."""
    result = results["backfill"]
    return _CORES * result.ratio(f"{_CORES} workers", SEQUENTIAL, "wall") * _wall_of_cpu(result)


def _wall_of_cpu(result: Result) -> float:
    return result.median(SEQUENTIAL, "wall") / result.median(SEQUENTIAL, "cpu")


def _cpu_above(results: Results) -> float:
    """Return the CPU seconds of a run above empty steps and the work without Dagster: the median of the rounds."""
    peers = results["pipeline-1.4M-parquet"].peers
    rounds = zip(peers[WITHOUT_REPORT], peers[EMPTY], peers[WITHOUT_DAGSTER], strict=True)
    return statistics.median(run.cpu - empty.cpu - work.cpu for run, empty, work in rounds)


_CSV, _PARQUET = "cleaning 1.4 M rows, csv.gz", "cleaning 1.4 M rows, Parquet"
_FHVHV = "cleaning 5 M rows of fhvhv, Parquet"
_PIPELINE = "`dagster asset materialize`, 1.4 M rows, without report"
_MEMORY_CLEAN = ("memory-clean-csv.gz", "memory-clean-parquet")
_MEMORY_PIPELINE = ("memory-pipeline-csv.gz", "memory-pipeline-parquet")

REQUIREMENTS = (
    Requirement(_PARQUET, "CPU / plain DuckDB", 1.4, _ratio("clean-1.4M-parquet", OURS, _DUCKDB, "cpu")),
    Requirement(_PARQUET, "wall time / plain DuckDB", 1.15, _ratio("clean-1.4M-parquet", OURS, _DUCKDB, "wall")),
    Requirement(
        _PARQUET,
        "file size / that of the earlier encodings",
        1.1,
        _ratio("clean-1.4M-parquet", OURS, EARLIER_ENCODINGS, "bytes"),
    ),
    Requirement(_FHVHV, "CPU / plain DuckDB", 1.0, _ratio("clean-5M-fhvhv-parquet", OURS, _DUCKDB, "cpu")),
    Requirement(_FHVHV, "wall time / plain DuckDB", 1.0, _ratio("clean-5M-fhvhv-parquet", OURS, _DUCKDB, "wall")),
    Requirement(
        _CSV, "wall time of the course / taxi_assets", 12, _ratio("clean-1.4M-csv.gz", _COURSE, OURS, "wall"), True
    ),
    Requirement(_CSV, "CPU / lower bound", 1.3, _ratio("clean-1.4M-csv.gz", OURS, LOWER_BOUND, "cpu")),
    Requirement(_CSV, "wall time of pandas / taxi_assets", 2, _ratio("clean-1.4M-csv.gz", _PANDAS, OURS, "wall"), True),
    Requirement(_CSV, "peak memory / that of the course", 0.5, _ratio("clean-1.4M-csv.gz", OURS, _COURSE, "peak")),
    *(
        Requirement(
            f"cleaning {unusual_values.ROWS:,} rows with {label}",
            f"wall time / {unusual_values.NORMAL}",
            5,
            _ratio(unusual_values.NAME, label, unusual_values.NORMAL, "wall"),
        )
        for label in unusual_values.UNUSUAL
    ),
    Requirement("peak memory", "cleaning, both sizes and formats", 360, _peak(*_MEMORY_CLEAN), unit=" MB"),
    Requirement("peak memory", "DuckDB load", 350, _peak("memory-load"), unit=" MB"),
    Requirement("peak memory", "all layers, both sizes and formats", 600, _peak(*_MEMORY_PIPELINE), unit=" MB"),
    *(
        Requirement(
            "peak memory at 23 M rows / at 1.4 M rows",
            name.removeprefix("memory-"),
            _FLAT,
            _ratio(name, "23M", "1.4M", "peak"),
        )
        for name in (*_MEMORY_CLEAN, "memory-load", *_MEMORY_PIPELINE)
    ),
    Requirement(
        f"{_PIPELINE}, Parquet",
        "CPU above stock Dagster's empty steps and the work itself",
        1.0,
        _cpu_above,
        unit=" cpu-s",
    ),
    *(
        Requirement(
            f"{_PIPELINE}, {ending}",
            "wall time / stock Dagster",
            0.55,
            _ratio(f"pipeline-1.4M-{ending}", WITHOUT_REPORT, STOCK, "wall"),
        )
        for ending in ("csv.gz", "parquet")
    ),
    Requirement(
        "start-up",
        "time to import the definitions / `import dagster`",
        2.5,
        _ratio("overhead", "import taxi_assets.definitions", "import dagster", "wall"),
    ),
    Requirement(
        "backfill of 24 months, 2 workers",
        "seconds of both cores / CPU of sequential runs",
        1.3,
        _seconds_of_both_cores,
    ),
    Requirement(
        "DuckDB, replacing a month",
        "wall time with 24 months loaded / with 1",
        1.3,
        _ratio("load-1.4M", "24 months loaded", "1 month loaded", "wall"),
    ),
    *(
        Requirement(
            "Iceberg, a clean month of 1.4 M rows", f"wall time, {label}", 0.5, _wall("iceberg-1.4M", label), unit=" s"
        )
        for label in (ICEBERG_NEW, "24 months")
    ),
    *(
        Requirement(
            "revisions of 7.7 M rows",
            f"wall time of {label} / {revisions.CLEAN}",
            3,
            _ratio(revisions.NAME, label, revisions.CLEAN, "wall"),
        )
        for label in (revisions.FEW, revisions.SHUFFLED, revisions.ALL)
    ),
    Requirement("peak memory", "comparing revisions, in Dagster or without", 600, _peak(revisions.NAME), unit=" MB"),
    Requirement(
        "Postgres", "wall time of to_sql / taxi_assets", 20, _ratio("postgres-1.4M", "to_sql", OURS, "wall"), True
    ),
)
