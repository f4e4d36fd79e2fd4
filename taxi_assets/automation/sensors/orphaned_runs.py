"""Marks runs whose process was killed as failed.

A run whose process was killed, or whose machine went down, cannot report its end. It stays "started", occupies a slot
in the run queue, and blocks its month. Dagster monitors the runs that it has launched, while its daemon is running.
This module covers the others: runs started from the command line or by `make backfill`, and runs that were killed
together with Dagster. Every run holds a file lock, which the operating system releases with the process. A sensor
searches for lock files that no process holds.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.automation.output_checks import require_storable_outputs
from taxi_assets.dagster_compat import ignore_preview_warnings

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL_SECONDS = 30

# A worker of `make backfill` holds the lock before it creates its run, which is "not started" for a moment.
_ACTIVE = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


class _LockingExecutor(dg.Executor):
    """An executor that first checks what the assets return, then holds the run's lock while its steps are executed."""

    def __init__(self, executor: dg.Executor) -> None:
        self._executor = executor

    @property
    def retries(self) -> Any:
        return self._executor.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._executor.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        ignore_preview_warnings()  # again, because Dagster resets the filters after it has loaded a component
        require_storable_outputs(plan_context.job.get_definition(), execution_plan.get_steps_to_execute_in_topo_order())
        with run_lock(plan_context.instance, plan_context.run_id):
            yield from self._executor.execute(plan_context, execution_plan)


_CONFIG: Any = dg.in_process_executor.config_schema


@dg.executor(name="in_process", config_schema=_CONFIG)
def locking_in_process_executor(init_context: dg.InitExecutorContext) -> dg.Executor:
    """Return the executor that runs all steps in the run's own process, and holds the run's lock.

    The overhead per step is 0.06 s in that process, and 2 s in a separate one.
    """
    create: Any = dg.in_process_executor.executor_creation_fn
    return _LockingExecutor(create(init_context))


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks runs whose process was killed as failed, so that they block neither the run queue nor their "
    "month. It finds the runs whose process was on this machine, within a minute.",
)
def fail_orphaned_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Mark active runs whose lock file no process holds as failed."""
    failed = []
    for run in context.instance.get_runs(dg.RunsFilter(statuses=_ACTIVE)):
        if remove_stale_lock(context.instance, run.run_id):
            context.instance.report_run_failed(run, "The process of this run is gone: it was killed.")
            failed.append(run.run_id)
    return dg.SkipReason(f"Marked as failed: {', '.join(failed)}." if failed else "No orphaned runs.")


def run_lock(instance: dg.DagsterInstance, run_id: str) -> AbstractContextManager[None]:
    """Acquire the lock of a run, in the process that executes it."""
    return _acquire_lock(lock_file(instance, run_id))


def remove_stale_lock(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Delete the run's lock file if the process that held the lock was killed; return whether there was such a file.

    Only the first call for a run returns True.
    """
    return _remove_stale_lock(lock_file(instance, run_id))


def is_lock_held(instance: dg.DagsterInstance, run_id: str) -> bool | None:
    """Return whether a process is executing the run, without changing anything.

    Returns:
        True if a process holds the lock, or if the lock file belongs to another user. None if this machine has no lock
        file of the run, so nothing is known of its process.
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
    """Return the path of the run's lock file. The process that executes the run holds the lock."""
    return Path(instance.root_directory, "running", f"{run_id}.lock")


@contextmanager
def _acquire_lock(path: Path) -> Iterator[None]:
    """Acquire the lock.

    A lock file that no process holds means that its holder was killed. For this, the file gets its final name only once
    it is locked, and is deleted before it is unlocked.
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


def _remove_stale_lock(path: Path) -> bool:
    """Delete the lock file if no process holds it; return whether there was such a file.

    A missing file, or one of another user, belongs to a run that another machine or user executes.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino  # the run has not just ended
    except (BlockingIOError, FileNotFoundError):
        found = False
    finally:
        os.close(descriptor)
    if found:
        path.unlink(missing_ok=True)
    return found
