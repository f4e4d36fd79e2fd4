"""Runs whose process is gone, and what ends them.

A run that was killed by force, or lost its machine, cannot say so: it stays "started", holds a place in the queue, and
its month waits for it. Dagster watches the runs that it has launched itself, as long as it runs. Those of the command
line and of `make backfill`, and those that ended together with Dagster, are found here: while a run works it holds a
lock that dies with its process, and a sensor looks for locks that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL_SECONDS = 30

# A worker of `make backfill` holds the lock before it creates its run, which is "not started" for a moment.
_LOCK_FOLDER = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


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
        with run_lock(plan_context.instance, plan_context.run_id):
            yield from self._executor.execute(plan_context, execution_plan)


_CONFIG: Any = dg.in_process_executor.config_schema


@dg.executor(name="in_process", config_schema=_CONFIG)
def watched_in_process_executor(init_context: dg.InitExecutorContext) -> dg.Executor:
    """All steps in the run's own process: there one takes 0.06 s, in a process of its own 2 s."""
    create: Any = dg.in_process_executor.executor_creation_fn
    return _WatchedExecutor(create(init_context))


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process was killed, so that neither the queue nor their month waits for them.",
)
def fail_orphaned_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Mark as failed what nobody works on any more."""
    ended = []
    for run in context.instance.get_runs(dg.RunsFilter(statuses=_LOCK_FOLDER)):
        if is_orphaned(context.instance, run.run_id):
            context.instance.report_run_failed(run, "The process of this run is gone: it was killed.")
            ended.append(run.run_id)
    return dg.SkipReason(f"Ended {', '.join(ended)}." if ended else "Every run that has started is being worked on.")


def run_lock(instance: dg.DagsterInstance, run_id: str) -> AbstractContextManager[None]:
    """Hold the run's lock, in the process that works on it."""
    return _hold_lock(lock_file(instance, run_id))


def is_orphaned(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether somebody held the run's lock and was killed; said once."""
    return _is_orphaned(lock_file(instance, run_id))


def is_lock_held(instance: dg.DagsterInstance, run_id: str) -> bool | None:
    """Return whether a process works on the run; changes nothing.

    None if the run has no lock on this machine: then its process is not known here. True if the lock belongs to another
    user.
    """
    try:
        descriptor = os.open(lock_file(instance, run_id), os.O_RDONLY)
    except PermissionError:
        return True
    except FileNotFoundError:
        return None
    try:
        # Shared and released at once, because `fail_orphaned_runs` locks the file too.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lock_file(instance: dg.DagsterInstance, run_id: str) -> Path:
    """What whoever works on the run holds."""
    return Path(instance.root_directory, "running", f"{run_id}.lock")


@contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock.

    Its file is never there without its holder, unless that was killed: it gets its name once it is held, and loses it
    before it is let go.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        new.replace(path)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _is_orphaned(path: Path) -> bool:
    """Whether the file is there and nobody holds it; where there is none, or another user's, the run is not ours."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino  # it has not just ended
    except (BlockingIOError, FileNotFoundError):
        found = False
    finally:
        os.close(descriptor)
    if found:
        path.unlink(missing_ok=True)
    return found
