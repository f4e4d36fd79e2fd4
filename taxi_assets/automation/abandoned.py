"""Runs whose process is gone, and what ends them.

A run that was killed by force, or lost its machine, cannot say so: it stays "started", holds a place in the queue, and
its month waits for it. Dagster watches the runs that it has launched itself, as long as it runs. Those of the command
line, and those that ended together with Dagster, are found here: while a run works it holds a lock that dies with its
process, and a sensor looks for locks that nobody holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL_SECONDS = 30


class _WatchedExecutor(dg.Executor):
    """Another executor, which holds the run's lock while it works."""

    def __init__(self, executor: dg.Executor) -> None:
        self._executor = executor

    @property
    def retries(self) -> Any:
        return self._executor.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._executor.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        lock = FileLock(_lock_file(plan_context.instance, plan_context.run_id), thread_local=False)
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        with lock:
            yield from self._executor.execute(plan_context, execution_plan)
            Path(lock.lock_file).unlink()  # while it is held: nobody finds it without its holder


@dg.executor(name="in_process", config_schema=dg.in_process_executor.config_schema)
def watched_in_process_executor(init_context: dg.InitExecutorContext) -> dg.Executor:
    """All steps in the run's own process: there one takes 0.06 s, in a process of its own 2 s."""
    create: Any = dg.in_process_executor.executor_creation_fn
    return _WatchedExecutor(create(init_context))


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process was killed, so that neither the queue nor their month waits for them.",
)
def end_abandoned_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Mark as failed what nobody works on any more."""
    ended = []
    for run in context.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        if _is_abandoned(context.instance, run.run_id):
            context.instance.report_run_failed(run, "The process of this run is gone: it was killed.")
            ended.append(run.run_id)
    return dg.SkipReason(f"Ended {', '.join(ended)}." if ended else "Every run that has started is being worked on.")


def _lock_file(instance: dg.DagsterInstance, run_id: str) -> Path:
    return Path(instance.root_directory, "running", f"{run_id}.lock")


def _is_abandoned(instance: dg.DagsterInstance, run_id: str) -> bool:
    path = _lock_file(instance, run_id)
    if not path.exists():  # not one of this machine's
        return False
    try:
        with FileLock(path, timeout=0):
            path.unlink(missing_ok=True)
    except Timeout:
        return False
    return True
