"""Jobs that end, whatever gets lost on the way: found again by their id, tried again where that may help."""

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
# A job that failed for one of these may succeed as another job. A quota is not tried again: it is for a day.
_TRANSIENT_REASONS = TRANSIENT_REASONS - {"quotaExceeded"}


class _TransientJobError(Exception):
    """A job has failed for a reason that may pass."""


def build_job_id(run_id: str, destination: str, *data: str) -> str:
    """An id for all attempts to load this data in this run: a run that tries again finds what it began.

    Another run, or other data, gets another id, and so loads anew.
    """
    digest = hashlib.sha256("|".join([run_id, destination, *data]).encode()).hexdigest()[:24]
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
    """Start a job by `start(id)`, or find it where an earlier attempt has started it, and wait for its end.

    The id of a failed job is never used again: each new job adds its number. So does one whose work does not stand any
    more, which `stands()` is asked of a job that an earlier attempt has finished. `left()` is called when the wait ends
    with an error, but the job has not failed: it goes on by itself.

    Raises what the job failed of, or `WarehouseUnreachableError` when it failed too often for a reason that might have
    passed.
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

    def tell(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("%s; trying again", error)

    try:
        for trial in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientJobError),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=1, max=_LONGEST_WAIT_SECONDS),
            before_sleep=tell,
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
    start: Callable[[str], Any],
    ids: Iterator[str],
    location: str,
    is_still_valid: Callable[[], bool],
) -> Any:
    """A new job, or an earlier one that has not failed."""
    while True:
        this = next(ids)
        try:
            return start(this)
        except api_errors.Conflict:
            job = client.get_job(this, location=location)
            if job.error_result is None and (job.state != "DONE" or is_still_valid()):
                return job
