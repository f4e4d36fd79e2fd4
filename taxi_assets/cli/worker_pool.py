"""Running many months: each one a Dagster run of its service's job, several at a time, in processes of their own.

What Dagster's own backfills do with a daemon, this does without: the runs, their events and their partitions' health
are in the instance all the same, under one backfill tag. The code is loaded once, in a process that workers are forked
from; a worker then runs month after month, which costs a fraction of a process for each.
"""

from __future__ import annotations

import importlib
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

import dagster as dg

from taxi_assets.automation.failure_reason import failure_reason
from taxi_assets.automation.publication.run_tags import BACKFILL_TAG, PARTITION_TAG
from taxi_assets.automation.sensors.orphaned_runs import is_orphaned, run_lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# A run that is interrupted needs a moment to say so in the instance.
_LAST_SECONDS = 30


@dataclass(frozen=True)
class MonthRun:
    """How one month of a job went; or a job without months, whose `month` is "".

    `rows` holds the figures by shelf: raw, clean, quarantine, warehouse.
    """

    job: str
    month: str
    succeeded: bool
    seconds: float
    reason: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)


class Workers:
    """Processes that run months of jobs, `count` at a time; a context, which ends them.

    `module` is the one that holds `defs`, `backfill` the name under which the instance shows the runs. Needs a
    DAGSTER_HOME, because the workers share the instance.
    """

    def __init__(self, count: int, *, backfill: str, module: str = "taxi_assets.definitions") -> None:
        self._count, self._backfill, self._module = count, backfill, module
        self._pool: ProcessPoolExecutor | None = None
        self._context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        if sys.platform == "linux":
            # It loads the code while this process does; all but the definitions, where settings can be wrong.
            self._context.set_forkserver_preload(["taxi_assets.build"])
            ensure_running()

    def __enter__(self) -> Self:
        _load(self._module)  # a wrong setting ends it here, with its own error
        with dg.DagsterInstance.get():  # creates its storage, before the workers would race to
            return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=exception[0] is None, cancel_futures=True)

    def run(self, jobs: Sequence[tuple[str, str]]) -> Iterator[MonthRun]:
        """Run months of jobs, such as ("green", "2021-01"), or jobs without, ("quality", ""); yield each as it ends.

        A failed one does not stop the others. Where a worker was killed, those that were being worked on are run
        again, each by itself: then it is clear which one it was.
        """
        waiting = list(jobs)
        while waiting:
            for outcome in self._run_together(waiting, self._count):
                waiting.remove((outcome.job, outcome.month))
                yield outcome
            if not waiting:
                return
            for suspect in self._end_workers() or waiting[: self._count]:
                killed = MonthRun(*suspect, succeeded=False, seconds=0, reason="Its process was killed, twice.")
                outcomes = [*self._run_together([suspect], 1), killed]
                self._end_workers()
                waiting.remove(suspect)
                yield outcomes[0]

    def _run_together(self, jobs: Sequence[tuple[str, str]], count: int) -> Iterator[MonthRun]:
        """Each as it ends; fewer than there are where a worker was killed."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(count, self._context, initializer=_prepare, initargs=(self._module,))
        futures: list[Future[MonthRun]] = []
        with suppress(BrokenProcessPool):
            futures.extend(self._pool.submit(_run_month, *pair, self._backfill) for pair in jobs)
        for future in as_completed(futures):
            if not isinstance(future.exception(), BrokenProcessPool):
                yield future.result()

    def _end_workers(self) -> list[tuple[str, str]]:
        """End all of them, where they are, and mark their runs as failed; returns what they were at."""
        if self._pool is None:
            return []
        for process in multiprocessing.active_children():
            process.kill()
        self._pool.shutdown(wait=True)
        self._pool = None
        statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
        ended = []
        with dg.DagsterInstance.get() as instance:
            for run in instance.get_runs(dg.RunsFilter(tags={BACKFILL_TAG: self._backfill}, statuses=statuses)):
                instance.report_run_failed(run, "The process of this run was killed.")
                is_orphaned(instance, run.run_id)  # takes its lock away
                ended.append((run.job_name, run.tags.get(PARTITION_TAG, "")))
        return ended


def is_materialized(key: dg.AssetKey) -> bool:
    """Whether the instance knows of a materialization."""
    with dg.DagsterInstance.get() as instance:
        return instance.get_latest_materialization_event(key) is not None


# --- in a worker process ---------------------------------------------------------------------------------------------

_loaded: dict[str, dg.Definitions] = {}


def _load(module: str) -> None:
    _loaded["defs"] = importlib.import_module(module).defs


def _prepare(module: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _load(module)


def _end_with_parent() -> None:
    """A worker that waits for its next month does not see by itself that nobody will ask for one any more."""
    multiprocessing.connection.wait([_parent().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)  # Dagster marks a run that is being worked on as failed
    time.sleep(_LAST_SECONDS)
    os._exit(1)


def _parent() -> Any:
    return multiprocessing.parent_process()


def _run_month(job_name: str, month: str, backfill: str) -> MonthRun:
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
            # Said aloud, because the automation conditions ask a run what it was meant to make.
            asset_selection=sorted(job.asset_layer.selected_asset_keys) or None,
            tags={BACKFILL_TAG: backfill},
            # Everything is in the event log; the console is for progress.
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
    return MonthRun(
        job_name,
        month,
        succeeded=result.success,
        seconds=time.monotonic() - started,
        reason="" if result.success else failure_reason(result.all_events),
        rows=_rows(result.all_events),
    )


def _rows(events: Sequence[dg.DagsterEvent]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key is not None:
            layer = event.asset_key.path[0]
            if layer in {"raw", "clean", "quarantine"}:
                rows[layer] = _value(event.materialization.metadata["dagster/partition_row_count"])
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if check.asset_key.path[0] == "warehouse":  # counted in the table
                rows["warehouse"] = _value(check.metadata["rows"])
    return rows


def _value(metadata: Any) -> int:
    return int(metadata.value)
