"""Run jobs for many months in worker processes, several at a time, without Dagster's daemon.

Each month is a Dagster run of its own. As with a Dagster backfill, the instance records the runs, their events and the
status of each partition; a common tag marks the runs. The code is loaded once, in a process from which the workers are
forked. Each worker runs one month after another, which takes a fraction of the time of a new process per month.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import uuid
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.forkserver import ensure_running
from typing import TYPE_CHECKING, Any, Self

import click
import dagster as dg

from taxi_assets.automation.failure_reason import failure_reason
from taxi_assets.automation.publication.run_tags import BACKFILL_TAG, PARTITION_TAG
from taxi_assets.automation.sensors.orphaned_runs import remove_stale_lock, run_lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# An interrupted run needs a moment to record its failure in the instance.
_SHUTDOWN_SECONDS = 30


@dataclass(frozen=True)
class JobRun:
    """The outcome of one run of a job."""

    job: str
    month: str
    """The partition, such as "2021-01"; empty for a job without partitions."""
    succeeded: bool
    seconds: float
    reason: str = ""
    """Why the run failed, in one line."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Number of rows by layer: raw, clean, quarantine, warehouse."""
    warnings: Sequence[str] = ()
    """The checks that did not pass, but do not fail the run: one line for each."""


class WorkerPool:
    """Worker processes that run jobs. Use it as a context manager, which ends the processes.

    DAGSTER_HOME must be set, because the workers share the instance.

    Args:
        count: How many runs to execute at the same time.
        backfill: Value of the tag that marks the runs.
        module: The module that defines `defs`.
    """

    def __init__(self, count: int, *, backfill: str, module: str = "taxi_assets.definitions") -> None:
        self._count, self._backfill, self._module = count, backfill, module
        self._pool: ProcessPoolExecutor | None = None
        self._context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        if sys.platform == "linux":
            # The fork server imports the code while this process does. It does not import the definitions: an invalid
            # setting would fail there.
            self._context.set_forkserver_preload(["taxi_assets.build"])
            ensure_running()

    def __enter__(self) -> Self:
        _load(self._module)  # an invalid setting raises its own error here
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=exception[0] is None, cancel_futures=True)

    def job(self, name: str) -> dg.JobDefinition:
        """Return the definition of a job."""
        return _loaded["defs"].resolve_job_def(name)

    def run(self, jobs: Sequence[tuple[str, str]], *, run_config: Mapping[str, Any] | None = None) -> Iterator[JobRun]:
        """Run jobs, and yield the outcome of each run as it ends.

        A failed run does not stop the others. If a worker is killed, the pool breaks. Then the runs that were active
        are repeated one by one, to find the one whose worker is killed.

        Args:
            jobs: Pairs of job and month, such as ("green", "2021-01"), or ("quality", "") for a job without partitions.
            run_config: The run config of every run, already validated.
        """
        waiting = list(jobs)
        while waiting:
            for outcome in self._run_together(waiting, self._count, run_config or {}):
                waiting.remove((outcome.job, outcome.month))
                yield outcome
            if not waiting:
                return
            for suspect in self._kill_workers() or waiting[: self._count]:
                killed = JobRun(*suspect, succeeded=False, seconds=0, reason="Its worker process was killed.")
                outcomes = [*self._run_together([suspect], 1, run_config or {}), killed]
                self._kill_workers()
                waiting.remove(suspect)
                yield outcomes[0]

    def _run_together(
        self, jobs: Sequence[tuple[str, str]], count: int, run_config: Mapping[str, Any]
    ) -> Iterator[JobRun]:
        """Yield the outcome of each run as it ends. If a worker is killed, the active and pending runs have none."""
        if self._pool is None:
            with dg.DagsterInstance.get():  # creates the storage now, so that the workers do not race to create it
                pass
            self._pool = ProcessPoolExecutor(count, self._context, initializer=_prepare, initargs=(self._module,))
        futures: list[Future[JobRun]] = []
        with suppress(BrokenProcessPool):
            futures.extend(self._pool.submit(_run_job, *pair, self._backfill, run_config) for pair in jobs)
        for future in as_completed(futures):
            if not isinstance(future.exception(), BrokenProcessPool):
                yield future.result()

    def _kill_workers(self) -> list[tuple[str, str]]:
        """Kill all workers, mark their active runs as failed, and return the job and month of each of these."""
        if self._pool is None:
            return []
        for process in multiprocessing.active_children():
            process.kill()
        self._pool.shutdown(wait=True)
        self._pool = None
        statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
        interrupted = []
        with dg.DagsterInstance.get() as instance:
            for run in instance.get_runs(dg.RunsFilter(tags={BACKFILL_TAG: self._backfill}, statuses=statuses)):
                instance.report_run_failed(run, "The process of this run was killed.")
                remove_stale_lock(instance, run.run_id)
                interrupted.append((run.job_name, run.tags.get(PARTITION_TAG, "")))
        return interrupted


def is_materialized(key: dg.AssetKey) -> bool:
    """Return whether the instance has a materialization of an asset."""
    with dg.DagsterInstance.get() as instance:
        return instance.get_latest_materialization_event(key) is not None


# --- in a worker process ---------------------------------------------------------------------------------------------

# The definitions that this process has imported.
_loaded: dict[str, dg.Definitions] = {}


def _load(module: str) -> None:
    _loaded["defs"] = importlib.import_module(module).defs


class PrintedWaits(logging.Handler):
    """Prints the log lines that say for whom a run waits. The console shows no other line of a run."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the line if it says so."""
        message = record.getMessage()
        if message.startswith("waiting for "):
            click.echo(f"  {message}", err=True)


def _prepare(module: str) -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    dg.get_dagster_logger().addHandler(PrintedWaits())
    _load(module)


def _exit_with_parent() -> None:
    """End this worker when its parent process ends: otherwise it would wait forever for its next run."""
    multiprocessing.connection.wait([_parent().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)  # Dagster marks the active run as failed
    time.sleep(_SHUTDOWN_SECONDS)
    os._exit(1)


def _parent() -> Any:
    return multiprocessing.parent_process()


def _run_job(job_name: str, month: str, backfill: str, run_config: Mapping[str, Any]) -> JobRun:
    if _parent() is not None and not _parent().is_alive():
        os._exit(1)
    started = time.monotonic()
    job = _loaded["defs"].resolve_job_def(job_name)
    run_id = str(uuid.uuid4())
    with dg.DagsterInstance.get() as instance, run_lock(instance, run_id):
        result = job.execute_in_process(
            instance=instance,
            run_id=run_id,
            partition_key=month or None,
            # All assets of the job, by name: the automation conditions read a run's asset selection.
            asset_selection=sorted(job.asset_layer.selected_asset_keys) or None,
            tags={BACKFILL_TAG: backfill},
            # The event log has all messages; the console shows the progress only.
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}} | dict(run_config),
            raise_on_error=False,
        )
    return JobRun(
        job_name,
        month,
        succeeded=result.success,
        seconds=time.monotonic() - started,
        reason="" if result.success else failure_reason(result.all_events),
        rows=_row_counts(result.all_events),
        warnings=_warnings(result.all_events),
    )


def _warnings(events: Sequence[dg.DagsterEvent]) -> list[str]:
    checks = (
        event.asset_check_evaluation_data
        for event in events
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
    )
    return [
        f"{check.asset_key.to_user_string()}, check {check.check_name}: {check.description}"
        for check in checks
        if not check.passed and check.severity == dg.AssetCheckSeverity.WARN
    ]


def _row_counts(events: Sequence[dg.DagsterEvent]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key is not None:
            layer = event.asset_key.path[0]
            if layer in {"raw", "clean", "quarantine"}:
                rows[layer] = _int_value(event.materialization.metadata["dagster/partition_row_count"])
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if check.asset_key.path[0] == "warehouse":  # as counted in the table
                rows["warehouse"] = _int_value(check.metadata["rows_table"])
    return rows


def _int_value(metadata: Any) -> int:
    return int(metadata.value)
