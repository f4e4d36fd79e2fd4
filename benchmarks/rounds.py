"""Comparisons and their results: peers run in turns (A B C, A B C), and ratios are medians of the ratios of the rounds.

The speed of a machine varies with time, so only programs that ran shortly after each other are compared.
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

from benchmarks.measure import REPOSITORY, Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PACKAGES = ("dagster", "pyarrow", "duckdb", "polars", "pandas")


@dataclass(frozen=True)
class Comparison:
    """The programs that are measured together. `totals` are peers that are sums of other peers."""

    name: str
    title: str
    peers: Mapping[str, Callable[[], Measurement]]
    totals: Mapping[str, Sequence[str]] = field(default_factory=dict)
    minimum_rounds: int = 1
    """Minimum number of rounds, for short programs."""


@dataclass(frozen=True)
class Result:
    """The measurements of a comparison: for each peer, one per round."""

    name: str
    title: str
    measured: str
    commit: str
    machine: str
    versions: str
    peers: Mapping[str, Sequence[Measurement]]

    def median(self, peer: str, label: str) -> float:
        """Return a peer's median of wall, cpu, peak, bytes, start_up, others_cpu or disk_wait."""
        return statistics.median(float(getattr(measurement, label)) for measurement in self.peers[peer])

    def ratio(self, peer: str, base: str, label: str) -> float:
        """Return the median of the ratios of the rounds."""
        pairs = zip(self.peers[peer], self.peers[base], strict=True)
        return statistics.median(float(getattr(one, label)) / float(getattr(other, label)) for one, other in pairs)


def compare(comparison: Comparison, repetitions: int) -> Result:
    """Run all rounds of a comparison."""
    sys.stderr.write(f"{comparison.name}\n")
    commit = _commit()
    peers: dict[str, list[Measurement]] = {name: [] for name in (*comparison.peers, *comparison.totals)}
    for _ in range(max(repetitions, comparison.minimum_rounds)):
        for name, run in comparison.peers.items():
            measured = run()
            peers[name].append(measured)
            shown = f"{measured.wall:8.2f} s {measured.cpu:8.2f} cpu-s {measured.peak:7.0f} MB"
            if measured.others_cpu is not None:
                shown += f"   others {measured.others_cpu:.1f} cpu-s"
            sys.stderr.write(f"  {name:<32}{shown}\n")
        for name, parts in comparison.totals.items():
            first, *others = (peers[part][-1] for part in parts)
            for other in others:
                first += other
            peers[name].append(first)
    if commit != _commit():
        commit += f", then {_commit()}"  # the code changed during the comparison
    now = dt.datetime.now(dt.UTC)
    return Result(
        comparison.name, comparison.title, f"{now:%Y-%m-%d %H:%M} UTC", commit, _machine(), _versions(), peers
    )


class Results:
    """The last result of each comparison, in a JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        known = json.loads(path.read_text()) if path.exists() else []
        self.by_name: dict[str, Result] = {}
        for one in known:
            peers = {name: [Measurement(**fields) for fields in rounds] for name, rounds in one.pop("peers").items()}
            self.by_name[one["name"]] = Result(**one, peers=peers)

    def add(self, result: Result) -> None:
        """Store a result, replacing an older one of the same comparison."""
        self.by_name[result.name] = result
        self._path.write_text(json.dumps([asdict(one) for one in self.by_name.values()], indent=1) + "\n")


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
