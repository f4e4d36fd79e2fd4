"""Load jobs that end, whatever gets lost on the way: found again by their id, tried again where that may help."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import tenacity
from google.api_core import exceptions as api_errors

from taxi_assets.errors import WarehouseUnreachableError

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from google.cloud import bigquery

_ATTEMPTS = 4
_LONGEST_WAIT_SECONDS = 30
# A job that failed for one of these may succeed as another job.
_MAY_PASS = {
    *("backendError", "internalError", "rateLimitExceeded", "tableUnavailable"),
    *("jobBackendError", "jobInternalError", "jobRateLimitExceeded"),
}


class _MayPassError(Exception):
    """A job has failed for a reason that may pass."""


def job_id_of(run_id: str, destination: str, *data: str) -> str:
    """An id for all attempts to load this data in this run: a run that tries again finds what it began.

    Another run, or other data, gets another id, and so loads anew.
    """
    digest = hashlib.sha256("|".join([run_id, destination, *data]).encode()).hexdigest()[:24]
    table = destination.rpartition(".")[2].replace("$", "-")
    return f"taxi_assets-{table}-{digest}"


def finished(
    client: bigquery.Client, start: Callable[[str], Any], job_id: str, *, location: str, log: logging.Logger
) -> Any:
    """Start a job by `start(id)`, or find it where an earlier attempt has started it, and wait for its end.

    The id of a failed job is never used again: each attempt adds its number. Raises what the job failed of, or
    `WarehouseUnreachableError` when it failed too often for a reason that might have passed.
    """

    def attempt(number: int) -> Any:
        this = f"{job_id}-{number}"
        try:
            job = start(this)
        except api_errors.Conflict:
            job = client.get_job(this, location=location)
        try:
            return job.result()
        except api_errors.GoogleAPICallError:
            error = job.error_result or {}
            if job.state == "DONE" and error.get("reason") in _MAY_PASS:
                raise _MayPassError(f"{this} failed: {error.get('message', error['reason'])}") from None
            raise

    def tell(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("%s; trying again", error)

    try:
        for trial in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_MayPassError),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=1, max=_LONGEST_WAIT_SECONDS),
            before_sleep=tell,
            reraise=True,
        ):
            with trial:
                return attempt(trial.retry_state.attempt_number)
    except _MayPassError as error:
        raise WarehouseUnreachableError(
            f"The load job {str(error).rstrip('.')} ({_ATTEMPTS} times).", remedy="Try again later."
        ) from error
