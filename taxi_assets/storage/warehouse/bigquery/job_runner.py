"""Runs BigQuery jobs so that a lost answer or a transient failure neither fails a load nor runs it twice."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, Any

import tenacity
from google.api_core import exceptions as api_errors

from taxi_assets.errors import WarehouseUnreachableError
from taxi_assets.google_auth import TRANSIENT_REASONS

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator

    from google.cloud import bigquery

_ATTEMPTS = 4
_LONGEST_WAIT_SECONDS = 30
# A job that failed for one of these reasons may succeed as another job. Quotas are not retried: they last for a day.
_TRANSIENT_REASONS = TRANSIENT_REASONS - {"quotaExceeded"}


class _TransientJobError(Exception):
    """A job has failed for a transient reason."""


def build_job_id(run_id: str, destination: str, *inputs: str) -> str:
    """Return the id prefix of all jobs that write these inputs to this destination in this run.

    A retry of the run gets the same id, so it finds the job that its first attempt has started. Another run, or other
    inputs, get another id.

    Args:
        run_id: The Dagster run.
        destination: The destination, as `project.dataset.table$partition`.
        inputs: Identify the data, such as a data version or a query.
    """
    digest = hashlib.sha256("|".join([run_id, destination, *inputs]).encode()).hexdigest()[:24]
    table = destination.rpartition(".")[2].replace("$", "-")
    return f"taxi_assets-{table}-{digest}"


def run_job_idempotently(
    client: bigquery.Client,
    start_job: Callable[[str], Any],
    job_id: str,
    *,
    location: str,
    log: logging.Logger,
    can_reuse_finished_job: Callable[[], bool] = lambda: True,
    on_job_left_running: Callable[[], None] = lambda: None,
) -> Any:
    """Start a job, or attach to the one that an earlier attempt has started, and wait for its end.

    BigQuery never accepts a job id twice. So the jobs of one `job_id` are numbered from 1, and the next number is used
    if a job has failed, or has finished but must not be reused.

    Args:
        client: The client.
        start_job: Inserts the job with the given id and returns it. Called again for each further job.
        job_id: See `build_job_id`.
        location: The location in which the job runs.
        log: Gets a warning for each failed job that is followed by another.
        can_reuse_finished_job: Called if an earlier attempt's job has finished. Returns whether its result still is
            in place.
        on_job_left_running: Called if the wait ends with an error although the job has not failed: BigQuery goes on
            with it.

    Returns:
        The result of the finished job: the job itself for a load, the rows for a query.

    Raises:
        WarehouseUnreachableError: Four jobs have failed for transient reasons.
        google.api_core.exceptions.GoogleAPICallError: The job failed for another reason, or BigQuery rejected a
            request.
    """
    ids = (f"{job_id}-{number}" for number in itertools.count(1))

    def attempt() -> Any:
        job = _start_or_attach(client, start_job, ids, location, can_reuse_finished_job)
        try:
            return job.result()
        except BaseException:
            error = job.error_result
            if error is None:
                on_job_left_running()
            elif error.get("reason") in _TRANSIENT_REASONS:
                raise _TransientJobError(f"{job.job_id} failed: {error.get('message', error['reason'])}") from None
            raise

    def warn(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("%s; trying again", error)

    try:
        for trial in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientJobError),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=1, max=_LONGEST_WAIT_SECONDS),
            before_sleep=warn,
            reraise=True,
        ):
            with trial:
                return attempt()
    except _TransientJobError as error:
        raise WarehouseUnreachableError(
            f"The job {str(error).rstrip('.')} ({_ATTEMPTS} times).", remedy="Try again later."
        ) from error


def _start_or_attach(
    client: bigquery.Client,
    start_job: Callable[[str], Any],
    ids: Iterator[str],
    location: str,
    can_reuse_finished_job: Callable[[], bool],
) -> Any:
    """Return a new job, or the earlier one of an id if it still runs or can be reused."""
    while True:
        job_id = next(ids)
        try:
            return start_job(job_id)
        except api_errors.Conflict:  # the id is taken
            job = client.get_job(job_id, location=location)
            if job.error_result is None and (job.state != "DONE" or can_reuse_finished_job()):
                return job
