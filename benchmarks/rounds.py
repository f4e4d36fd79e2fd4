"""Comparisons and their results: peers take turns (A B C, A B C); a ratio is taken within a round, then its median.

A machine gets slower and faster while one waits: what ran side by side can be compared, what ran an hour apart cannot.
"""

from __future__ import annotations

import datetime as dt
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.measure import REPOSITORY, Figures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PACKAGES = ("dagster", "pyarrow", "duckdb", "polars", "pandas")


@dataclass(frozen=True)
class Comparison:
    """Who is measured beside whom. `sums` are peers that are others added up; `title` stands above the table."""

    name: str
    title: str
    peers: Mapping[str, Callable[[], Figures]]
    sums: Mapping[str, Sequence[str]] = field(default_factory=dict)
    at_least: int = 1
    """Rounds, where each is short."""


@dataclass(frozen=True)
class Result:
    """What came of a comparison: each peer's figures, a round each."""

    name: str
    title: str
    measured: str
    commit: str
    machine: str
    versions: str
    peers: Mapping[str, Sequence[Figures]]

    def median(self, peer: str, label: str) -> float:
        """Of a peer's wall, cpu, peak, bytes, start_up, others_cpu or disk_wait."""
        return statistics.median(float(getattr(figures, label)) for figures in self.peers[peer])

    def ratio(self, peer: str, to: str, label: str) -> float:
        """The median of the rounds' ratios."""
        pairs = zip(self.peers[peer], self.peers[to], strict=True)
        return statistics.median(float(getattr(one, label)) / float(getattr(other, label)) for one, other in pairs)


def compare(comparison: Comparison, repetitions: int) -> Result:
    """Run it."""
    sys.stderr.write(f"{comparison.name}\n")
    commit = _commit()
    peers: dict[str, list[Figures]] = {name: [] for name in (*comparison.peers, *comparison.sums)}
    for _ in range(max(repetitions, comparison.at_least)):
        for name, run in comparison.peers.items():
            figures = run()
            peers[name].append(figures)
            shown = f"{figures.wall:8.2f} s {figures.cpu:8.2f} cpu-s {figures.peak:7.0f} MB"
            if figures.others_cpu is not None:
                shown += f"   others {figures.others_cpu:.1f} cpu-s"
            sys.stderr.write(f"  {name:<32}{shown}\n")
        for name, parts in comparison.sums.items():
            first, *others = (peers[part][-1] for part in parts)
            for other in others:
                first += other
            peers[name].append(first)
    if commit != _commit():
        commit += f", then {_commit()}"  # somebody worked on it meanwhile
    now = dt.datetime.now(dt.UTC)
    return Result(
        comparison.name, comparison.title, f"{now:%Y-%m-%d %H:%M} UTC", commit, _machine(), _versions(), peers
    )


class Results:
    """What was last measured of each comparison, in a JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        known = json.loads(path.read_text()) if path.exists() else []
        self.of: dict[str, Result] = {}
        for one in known:
            peers = {name: [Figures(**figures) for figures in rounds] for name, rounds in one.pop("peers").items()}
            self.of[one["name"]] = Result(**one, peers=peers)

    def add(self, result: Result) -> None:
        """Keep it, in place of an older one."""
        self.of[result.name] = result
        self._path.write_text(json.dumps([asdict(one) for one in self.of.values()], indent=1) + "\n")


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "taxi_assets").strip()
    return git("rev-parse", "--short", "HEAD").strip() + (" with changes" if changed else "")


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = " ".join(models[0].split()) if models else "unknown processor"
    return f"{psutil.cpu_count()} cores, {model}, {psutil.virtual_memory().total / 2**30:.0f} GiB"


def _versions() -> str:
    python = ".".join(map(str, sys.version_info[:3]))
    return ", ".join([f"Python {python}", *(f"{package} {version(package)}" for package in _PACKAGES)])
