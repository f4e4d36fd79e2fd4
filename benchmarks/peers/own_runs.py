"""The runs of `make backfill` without what it does around them: one by one, in a process that has started."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import dagster as dg

from benchmarks.measure import timed

if TYPE_CHECKING:
    from collections.abc import Sequence

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def work(definitions: dg.Definitions, instance: dg.DagsterInstance, months: Sequence[str]) -> None:
    """All shelves of the months, then zones, marts, reports, and the quality of all."""
    jobs = [
        *(("yellow", month) for month in months),
        ("reference", None),
        *((job, month) for job in ("marts", "yellow_report") for month in months),
        ("quality", None),
    ]
    for name, month in jobs:
        run_job(definitions, instance, name, month)


def run_job(definitions: dg.Definitions, instance: dg.DagsterInstance, name: str, month: str | None) -> None:
    """One run, in this process."""
    job = definitions.resolve_job_def(name)
    ended = job.execute_in_process(instance=instance, partition_key=month, run_config=_QUIET)
    assert ended.success  # noqa: S101  (it raises where it does not succeed)


if __name__ == "__main__":
    from taxi_assets.definitions import defs

    with dg.DagsterInstance.get() as INSTANCE:
        timed(lambda: work(defs, INSTANCE, sys.argv[1:]))
