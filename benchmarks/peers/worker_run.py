"""A run of all layers and checks in a process that has run one before, as in a worker of `make backfill`."""

from __future__ import annotations

import sys

import dagster as dg

from benchmarks.measure import measure_here
from benchmarks.peers.sequential_runs import run_job

if __name__ == "__main__":
    from taxi_assets.definitions import defs

    with dg.DagsterInstance.get() as INSTANCE:
        run_job(defs, INSTANCE, "yellow", sys.argv[1])
        measure_here(lambda: run_job(defs, INSTANCE, "yellow", sys.argv[1]))
