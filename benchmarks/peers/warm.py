"""A run of all shelves and checks, in a process that has started and has run one before, as `make backfill` has it."""

from __future__ import annotations

import sys

import dagster as dg

from benchmarks.measure import timed
from benchmarks.peers.own_runs import run_job

if __name__ == "__main__":
    from taxi_assets.definitions import defs

    with dg.DagsterInstance.get() as INSTANCE:
        run_job(defs, INSTANCE, "yellow", sys.argv[1])
        timed(lambda: run_job(defs, INSTANCE, "yellow", sys.argv[1]))
