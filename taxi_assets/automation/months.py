"""Running many months: each one a Dagster run of its service's job, several at a time, in processes of their own.

What Dagster's own backfills do with a daemon, this does without: the runs, their events and their partitions' health
are in the instance all the same, under one backfill tag. A worker process loads the code once and then runs month
after month, which costs a fraction of a process for each.
"""

from __future__ import annotations

import importlib
import multiprocessing
import time
import uuid
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.automation.abandoned import is_abandoned, working_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Not dagster/backfill: that names a backfill of the daemon, which this is not.
BACKFILL_TAG = "taxi_assets/backfill"
PARTITION_TAG = "dagster/partition"

# A month whose process was killed is tried once more: most often something else took the memory.
_MAXIMUM_DEATHS = 2


@dataclass(frozen=True)
class MonthRun:
    """How one month of a job went. `rows` holds the figures by shelf: raw, clean, quarantine, warehouse."""

    job: str
    month: str
    succeeded: bool
    seconds: float
    reason: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)


def run_months(
    months: Sequence[tuple[str, str]], *, backfill: str, workers: int, module: str = "taxi_assets.definitions"
) -> Iterator[MonthRun]:
    """Run months of jobs, such as ("green", "2021-01") or ("marts", "2021-01"), and yield each as it ends.

    A failed month does not stop the others. `module` is the one that holds `defs`. Needs a DAGSTER_HOME, because the
    worker processes share the instance.
    """
    importlib.import_module(module)  # a wrong setting ends it here, with its own error
    with dg.DagsterInstance.get() as instance:  # also creates its storage, before the workers would race to
        waiting = list(months)
        deaths: Counter[tuple[str, str]] = Counter()
        while waiting:
            for pair, outcome in _run_in_pool(list(waiting), backfill, min(workers, len(waiting)), module):
                if outcome is not None:
                    waiting.remove(pair)
                    yield outcome
            # Where no run tells whose death it was, it is everybody's: this must come to an end.
            deaths.update(_end_abandoned_runs(instance, backfill) or waiting)
            for pair in [pair for pair in waiting if deaths[pair] >= _MAXIMUM_DEATHS]:
                waiting.remove(pair)
                yield MonthRun(*pair, succeeded=False, seconds=0, reason="Its process was killed, twice.")


def run_once(job: str, *, backfill: str, module: str) -> MonthRun:
    """Run a job without months, in this process."""
    _load(module)
    return _run_month(job, None, backfill)


def is_materialized(key: dg.AssetKey) -> bool:
    """Whether the instance knows of a materialization."""
    with dg.DagsterInstance.get() as instance:
        return instance.get_latest_materialization_event(key) is not None


def _run_in_pool(
    months: Sequence[tuple[str, str]], backfill: str, workers: int, module: str
) -> Iterator[tuple[tuple[str, str], MonthRun | None]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_load, initargs=(module,)) as pool:
        futures: dict[Future[MonthRun], tuple[str, str]] = {}
        try:
            for pair in months:
                futures[pool.submit(_run_month, *pair, backfill)] = pair
        except BrokenProcessPool:
            pass  # one died already; what was not handed in is asked for again
        try:
            for future in as_completed(futures):
                try:
                    yield futures[future], future.result()
                except BrokenProcessPool:
                    yield futures[future], None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_abandoned_runs(instance: dg.DagsterInstance, backfill: str) -> list[tuple[str, str]]:
    """Mark runs as failed whose process is gone, so that nobody waits for them; returns their months."""
    statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
    ended = []
    for run in instance.get_runs(dg.RunsFilter(tags={BACKFILL_TAG: backfill}, statuses=statuses)):
        instance.report_run_failed(run, "The process of this run was killed.")
        is_abandoned(instance, run.run_id)  # takes its lock away
        ended.append((run.job_name, run.tags[PARTITION_TAG]))
    return ended


# --- in a worker process ---------------------------------------------------------------------------------------------

_loaded: dict[str, dg.Definitions] = {}


def _load(module: str) -> None:
    _loaded["defs"] = importlib.import_module(module).defs


def _run_month(job_name: str, month: str | None, backfill: str) -> MonthRun:
    started = time.monotonic()
    job = _loaded["defs"].resolve_job_def(job_name)
    run_id = str(uuid.uuid4())
    with dg.DagsterInstance.get() as instance, working_on(instance, run_id):
        result = job.execute_in_process(
            instance=instance,
            run_id=run_id,
            partition_key=month,
            # Said aloud, because the automation conditions ask a run what it was meant to make.
            asset_selection=sorted(job.asset_layer.selected_asset_keys) or None,
            tags={BACKFILL_TAG: backfill},
            # Everything is in the event log; the console is for progress.
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
    return MonthRun(
        job_name,
        month or "",
        succeeded=result.success,
        seconds=time.monotonic() - started,
        reason="" if result.success else failure_reason(result.all_events),
        rows=_rows(result.all_events),
    )


def failure_reason(events: Sequence[dg.DagsterEvent]) -> str:
    """What went wrong in a run, in one line: the blocking check that failed, or the error of the step."""
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR:
                return f"{check.asset_key.to_user_string()}, check {check.check_name}: {check.description}"
    for event in events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data
            if data.user_failure_data is not None and data.user_failure_data.description:
                return data.user_failure_data.description
            error = data.error.cause or data.error if data.error else None
            return error.message.strip().splitlines()[0] if error else "The step failed."
    return "The run failed before its first step."


def _rows(events: Sequence[dg.DagsterEvent]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key is not None:
            shelf = event.asset_key.path[0]
            if shelf in {"raw", "clean", "quarantine"}:
                rows[shelf] = _value(event.materialization.metadata["dagster/partition_row_count"])
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if check.asset_key.path[0] == "warehouse":  # counted in the table
                rows["warehouse"] = _value(check.metadata["rows"])
    return rows


def _value(metadata: Any) -> int:
    return int(metadata.value)
