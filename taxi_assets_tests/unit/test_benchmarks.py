"""Measurements of benchmarks: the CPU seconds of a run, and those of other processes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.measure import MachineUsage, Measurement, measure
from benchmarks.page import write
from benchmarks.rounds import Result, Results

if TYPE_CHECKING:
    from pathlib import Path

_BURN = "import time; end = time.process_time() + {seconds}\nwhile time.process_time() < end: pass"


def test_cpu_seconds_of_other_processes_are_recorded_separately() -> None:
    with subprocess.Popen([sys.executable, "-c", _BURN.format(seconds=60)]) as neighbor:
        try:
            measured = measure(["-c", _BURN.format(seconds=0.5)])
        finally:
            neighbor.kill()
    assert 0.5 <= measured.cpu < 5
    assert measured.others_cpu is not None
    assert measured.others_cpu > 0.1


def test_the_runs_own_cpu_seconds_are_subtracted_from_those_of_other_processes() -> None:
    others, disk_wait = MachineUsage(busy=110.0, disk_wait=7.5).since(MachineUsage(busy=100.0, disk_wait=5.0), own=8.0)
    assert (others, disk_wait) == (2.0, 2.5)


def test_the_resolution_of_the_clock_never_gives_negative_seconds() -> None:
    assert MachineUsage(busy=100.5, disk_wait=5.0).since(MachineUsage(busy=100.0, disk_wait=5.0), own=0.51) == (
        0.0,
        0.0,
    )


def test_both_values_are_unknown_if_the_kernel_does_not_record_them() -> None:
    assert MachineUsage(None, None).since(MachineUsage(None, None), own=1.0) == (None, None)
    assert (Measurement(1, 1, 1) + Measurement(1, 1, 1, others_cpu=2.0)).others_cpu is None


def test_the_page_shows_seconds_of_other_processes_and_leaves_cells_of_older_results_empty(tmp_path: Path) -> None:
    old = {"wall": 20.0, "cpu": 10.0, "peak": 100.0, "bytes": 0, "start_up": 0.0}
    new = old | {"others_cpu": 12.34, "disk_wait": 0.56}
    result = Result("backfill", "A backfill", "2026-01-01 00:00 UTC", "abc", "2 cores", "Python", {})
    entry = {**vars(result), "peers": {"old": [old], "new": [new]}}
    (tmp_path / "results.json").write_text(json.dumps([entry]))

    write(Results(tmp_path / "results.json").by_name, tmp_path / "benchmarks.md")

    lines = (tmp_path / "benchmarks.md").read_text().splitlines()
    assert "| old | 20.00 | 10.00 | 100 |  |  |  |  | 1.00 |" in lines
    assert "| new | 20.00 | 10.00 | 100 |  |  | 12.3 | 0.6 | 1.00 |" in lines
