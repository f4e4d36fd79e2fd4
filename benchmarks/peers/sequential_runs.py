"""The runs of `make backfill`, one by one in a started process, without the command's own work."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import dagster as dg

from benchmarks.measure import measure_here

if TYPE_CHECKING:
    from collections.abc import Sequence

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def work(definitions: dg.Definitions, instance: dg.DagsterInstance, months: Sequence[str]) -> None:
    """Run all layers of the months, then zones, marts, reports and quality."""
    jobs = [
        *(("yellow", month) for month in months),
        ("reference", None),
        *((job, month) for job in ("marts", "yellow_report") for month in months),
        ("quality", None),
    ]
    for name, month in jobs:
        run_job(definitions, instance, name, month)


def run_job(definitions: dg.Definitions, instance: dg.DagsterInstance, name: str, month: str | None) -> None:
    """Run a job in this process."""
    job = definitions.resolve_job_def(name)
    result = job.execute_in_process(instance=instance, partition_key=month, run_config=_QUIET)
    assert result.success  # noqa: S101  (a failure raises before this line)


if __name__ == "__main__":
    from taxi_assets.definitions import defs

    with dg.DagsterInstance.get() as INSTANCE:
        measure_here(lambda: work(defs, INSTANCE, sys.argv[1:]))
