"""What must hold: each line is a metric of the results and its limit."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.cleaning import EARLIER_ENCODINGS, FLOOR, NAMES
from benchmarks.running import BARE, EMPTY, OWN, STOCK, WITHOUT_REPORT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.rounds import Result

    Results = Mapping[str, Result]

_COURSE, _PANDAS, _DUCKDB = NAMES["course"], NAMES["plain_pandas"], NAMES["bare_duckdb"]
_CORES = 2
_FLAT = 1.15


@dataclass(frozen=True)
class Requirement:
    """One limit. `measure` takes it from the results; a `KeyError` means that it was not measured."""

    area: str
    label: str
    limit: float
    measure: Callable[[Results], float]
    at_least: bool = False
    unit: str = ""

    @property
    def limit_text(self) -> str:
        """Such as "at most 1.8"."""
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}{self.unit}"

    def text(self, results: Results) -> tuple[str, str]:
        """The figure, and whether it holds."""
        try:
            figure = self.measure(results)
        except KeyError:
            return "", "not measured"
        holds = figure >= self.limit if self.at_least else figure <= self.limit
        return f"{figure:.{0 if figure >= 100 else 2}f}{self.unit}", "holds" if holds else "**falls short**"


def _ratio(comparison: str, peer: str, to: str, label: str) -> Callable[[Results], float]:
    return lambda results: results[comparison].ratio(peer, to, label)


def _peak(*comparisons: str) -> Callable[[Results], float]:
    """The largest of any round."""
    return lambda results: max(
        figures.peak for name in comparisons for rounds in results[name].peers.values() for figures in rounds
    )


def _busy(results: Results) -> float:
    """Seconds of both cores, for a second of the months' own work."""
    result = results["backfill"]
    return _CORES * result.ratio(f"{_CORES} at once", OWN, "wall") * _wall_of_cpu(result)


def _wall_of_cpu(result: Result) -> float:
    return result.median(OWN, "wall") / result.median(OWN, "cpu")


def _cpu_above(results: Results) -> float:
    """CPU seconds of a run above what stock Dagster's empty steps and the bare work take; the median of the rounds."""
    peers = results["chain-1.4M-parquet"].peers
    rounds = zip(peers[WITHOUT_REPORT], peers[EMPTY], peers[BARE], strict=True)
    return statistics.median(run.cpu - empty.cpu - bare.cpu for run, empty, bare in rounds)


_CSV, _PARQUET, _FHVHV = "clean, 1.4 M rows, csv.gz", "clean, 1.4 M rows, Parquet", "clean, fhvhv, 5 M rows, Parquet"
_CHAIN = "`dagster asset materialize`, 1.4 M rows, no report"
_MEMORY_CLEAN = ("memory-clean-csv.gz", "memory-clean-parquet")
_MEMORY_CHAIN = ("memory-chain-csv.gz", "memory-chain-parquet")

REQUIREMENTS = (
    Requirement(_PARQUET, "CPU, of bare DuckDB's", 1.4, _ratio("clean-1.4M-parquet", "ours", _DUCKDB, "cpu")),
    Requirement(_PARQUET, "time, of bare DuckDB's", 1.15, _ratio("clean-1.4M-parquet", "ours", _DUCKDB, "wall")),
    Requirement(
        _PARQUET, "size, of the encodings before", 1.1, _ratio("clean-1.4M-parquet", "ours", EARLIER_ENCODINGS, "bytes")
    ),
    Requirement(_FHVHV, "CPU, of bare DuckDB's", 1.0, _ratio("clean-5M-fhvhv-parquet", "ours", _DUCKDB, "cpu")),
    Requirement(_FHVHV, "time, of bare DuckDB's", 1.0, _ratio("clean-5M-fhvhv-parquet", "ours", _DUCKDB, "wall")),
    Requirement(_CSV, "times as fast as the course", 12, _ratio("clean-1.4M-csv.gz", _COURSE, "ours", "wall"), True),
    Requirement(_CSV, "CPU, of the floor's", 1.3, _ratio("clean-1.4M-csv.gz", "ours", FLOOR, "cpu")),
    Requirement(_CSV, "times as fast as pandas", 2, _ratio("clean-1.4M-csv.gz", _PANDAS, "ours", "wall"), True),
    Requirement(_CSV, "memory, of the course's", 0.5, _ratio("clean-1.4M-csv.gz", "ours", _COURSE, "peak")),
    Requirement("memory", "clean alone, both sizes and formats", 360, _peak(*_MEMORY_CLEAN), unit=" MB"),
    Requirement("memory", "DuckDB load alone", 350, _peak("memory-load"), unit=" MB"),
    Requirement("memory", "the whole chain, both sizes and formats", 600, _peak(*_MEMORY_CHAIN), unit=" MB"),
    *(
        Requirement(
            "memory, 23 M to 1.4 M rows", name.removeprefix("memory-"), _FLAT, _ratio(name, "23M", "1.4M", "peak")
        )
        for name in (*_MEMORY_CLEAN, "memory-load", *_MEMORY_CHAIN)
    ),
    Requirement(
        f"{_CHAIN}, Parquet", "CPU above stock Dagster's empty steps and the bare work", 1.0, _cpu_above, unit=" cpu-s"
    ),
    *(
        Requirement(
            f"{_CHAIN}, {ending}",
            "time, of stock Dagster's",
            0.55,
            _ratio(f"chain-1.4M-{ending}", WITHOUT_REPORT, STOCK, "wall"),
        )
        for ending in ("csv.gz", "parquet")
    ),
    Requirement(
        "start-up",
        "time to import the definitions, of `import dagster`",
        2.5,
        _ratio("overhead", "import taxi_assets.definitions", "import dagster", "wall"),
    ),
    Requirement("24 months, 2 at once", "seconds of both cores, of the months' own CPU", 1.3, _busy),
    Requirement(
        "DuckDB, month replaced",
        "time at 24 months, of that at 1",
        1.3,
        _ratio("load-1.4M", "24 loaded", "1 loaded", "wall"),
    ),
    Requirement("Postgres", "times as fast as to_sql", 20, _ratio("postgres-1.4M", "to_sql", "ours", "wall"), True),
)
