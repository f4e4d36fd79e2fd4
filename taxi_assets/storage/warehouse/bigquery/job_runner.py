"""Runs BigQuery jobs so that a lost answer or a transient failure neither fails a load nor runs it twice."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from typing import TYPE_CHECKING, Any

import dagster as dg
import tenacity
from google.api_core import exceptions as api_errors
from google.api_core.retry import Retry
from google.auth import exceptions as auth_errors
from requests.exceptions import SSLError

from taxi_assets.errors import TaxiAssetsError, WarehouseUnreachableError
from taxi_assets.google_auth import TRANSIENT_REASONS, describe_google_error, error_reasons, is_transient_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud import bigquery

_ATTEMPTS = 4
# Most limits of BigQuery count the operations of 10 seconds, such as 5 updates of a table's metadata. So the waits are
# at least 4, 8 and 16 seconds.
_WAIT_BETWEEN_JOBS = tenacity.wait_exponential(multiplier=4, max=60) + tenacity.wait_random(0, 2)
_RETRY_SECONDS = 600.0  # as long as the client retries other requests
NO_RETRY: Any = None  # the client's type information does not allow None, its documentation does
# A job that failed for one of these reasons may succeed as another job. Quotas are not retried: they last for a day.
_TRANSIENT_REASONS = TRANSIENT_REASONS - {"quotaExceeded"}
# With these reasons, BigQuery has refused the request before doing anything.
_LIMIT_REASONS = {"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "jobRateLimitExceeded"}
_MISSING_DESTINATION = tuple(f"404 Not found: {kind} " for kind in ("Table", "Dataset", "Project"))


class _TransientJobError(Exception):
    """A job has failed for a transient reason."""


class _JobNotVisibleError(Exception):
    """BigQuery has a job, but does not find it yet."""


class _JobNotDoneError(Exception):
    """A job is still running."""


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


def warn_of_running_job(job_id: str) -> None:
    """Log that a job may still write its result although its run has failed."""
    dg.get_dagster_logger().warning(
        "BigQuery may still be running the job %s. Its rows can appear after this error.", job_id
    )


def run_job_idempotently(
    client: bigquery.Client,
    insert_job: Callable[[str], Any],
    job_id: str,
    *,
    location: str,
    prepare: Callable[[], None] = lambda: None,
    can_reuse_finished_job: Callable[[], bool] = lambda: True,
    on_job_left_running: Callable[[str], None] = warn_of_running_job,
) -> Any:
    """Start a job, or attach to the one that an earlier attempt has started, and wait for its end.

    BigQuery never accepts a job id twice. So the jobs of one `job_id` are numbered from 1, and the next number is used
    if a job has failed, or has finished but must not be reused. Each failed job that is followed by another is logged.

    Args:
        client: The client.
        insert_job: Inserts the job with the given id and returns it. Called again if its outcome is not known, and for
            each further job. It should not retry by itself.
        job_id: See `build_job_id`.
        location: The location in which the job runs.
        prepare: Called before the insertion of each job. If it fails, the job is not inserted.
        can_reuse_finished_job: Called if an earlier attempt's job has finished. Returns whether its result still is
            in place.
        on_job_left_running: Called with a job's id if this function ends with an error although that job may be
            running, or may have finished: BigQuery goes on with it.

    Returns:
        The finished job.

    Raises:
        WarehouseUnreachableError: Four jobs have failed for transient reasons.
        google.api_core.exceptions.GoogleAPIError: The job failed for another reason, or BigQuery rejected a request, or
            kept failing.
    """
    ids = (f"{job_id}-{number}" for number in itertools.count(1))

    def attempt() -> Any:
        for id_ in ids:
            prepare()
            job, is_new = _insert_or_find(client, insert_job, id_, location, on_job_left_running)
            # A job of an earlier attempt may have failed, or its rows may have been replaced since.
            if is_new or (job.error_result is None and (job.state != "DONE" or can_reuse_finished_job())):
                _finish(job, on_job_left_running)
                return job
        raise AssertionError  # the ids are endless

    def warn(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        dg.get_dagster_logger().warning("%s; trying again", error)

    try:
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientJobError),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=_WAIT_BETWEEN_JOBS,
            before_sleep=warn,
            reraise=True,
        )(attempt)
    except _TransientJobError as error:
        raise WarehouseUnreachableError(
            f"The job {str(error).rstrip('.')} ({_ATTEMPTS} times).", remedy="Try again later."
        ) from error


def run_query(
    client: bigquery.Client, query: str, config: bigquery.QueryJobConfig, *, location: str
) -> bigquery.QueryJob:
    """Run a query that changes nothing, and return its finished job.

    Raises:
        WarehouseUnreachableError: Four jobs have failed for transient reasons.
        google.api_core.exceptions.GoogleAPIError: See `run_job_idempotently`.
    """
    job: bigquery.QueryJob = run_job_idempotently(
        client,
        lambda job_id: insert_query(client, query, config, job_id, location=location),
        f"taxi_assets-query-{uuid.uuid4().hex}",
        location=location,
        on_job_left_running=lambda _: None,
    )
    return job


def insert_query(
    client: bigquery.Client, query: str, config: bigquery.QueryJobConfig, job_id: str, *, location: str
) -> bigquery.QueryJob:
    """Insert a query job without retries, for `run_job_idempotently`."""
    return client.query(query, job_config=config, job_id=job_id, location=location, retry=NO_RETRY, job_retry=None)


def wait_for_job(job: Any) -> None:
    """Wait for the end of a job; raise its error if it has failed.

    `QueryJob.result()` alone would ask for the rows at once. BigQuery answers that request with the error of the failed
    job, which the client cannot tell from a failed request, and repeats for 10 minutes
    (https://github.com/googleapis/python-bigquery/issues/1903). So the job's state is read first.
    """

    def require_done() -> None:
        if not job.done(retry=_GET_JOB_RETRY):
            raise _JobNotDoneError

    _POLLING(require_done)()
    job.result()


def _finish(job: Any, on_job_left_running: Callable[[str], None]) -> None:
    try:
        wait_for_job(job)
    except BaseException as raised:
        error = job.error_result
        if error is None:
            on_job_left_running(job.job_id)
        elif error.get("reason") in _TRANSIENT_REASONS and isinstance(raised, Exception):  # not an interrupted run
            raise _TransientJobError(f"{job.job_id} failed: {error.get('message', error['reason'])}") from None
        raise


def _insert_or_find(
    client: bigquery.Client,
    insert_job: Callable[[str], Any],
    job_id: str,
    location: str,
    on_job_left_running: Callable[[str], None],
) -> tuple[Any, bool]:
    """Return the job with the id, and whether it is certainly new.

    If it is not known whether BigQuery has accepted the job, it is looked up. If it is not found, that proves nothing,
    because a new job is visible with a delay (https://github.com/googleapis/python-bigquery/issues/2134). So it is
    inserted again, with the same id.
    """
    is_uncertain = False

    def insert() -> tuple[Any, bool]:
        nonlocal is_uncertain
        try:
            return insert_job(job_id), True
        except BaseException as error:
            if _proves_refusal(error):
                raise
            is_uncertain = True
            if not isinstance(error, Exception):  # such as an interrupted run
                raise
            return _find_job(client, job_id, location, error), False

    try:
        return _INSERT_RETRY(insert)()
    except BaseException:
        if is_uncertain:
            on_job_left_running(job_id)
        raise


def _find_job(client: bigquery.Client, job_id: str, location: str, error: Exception) -> Any:
    """Return the job; raise the error of its insertion if it is not found."""
    try:
        return client.get_job(job_id, location=location, retry=NO_RETRY)
    except api_errors.NotFound:
        if isinstance(error, api_errors.Conflict):
            raise _JobNotVisibleError(f"BigQuery has the job {job_id}, but does not find it") from error
        raise error from None


def _proves_refusal(error: BaseException) -> bool:
    """Return whether an error of an insertion proves that BigQuery has not accepted the job.

    An error of this package or of the credentials occurs before the request is sent. A 404 proves something only if it
    is about a table, a dataset or a project: BigQuery also sends a 404 for a job that it has accepted
    (https://github.com/googleapis/python-bigquery/issues/2134).
    """
    if isinstance(error, TaxiAssetsError | auth_errors.GoogleAuthError):
        return True
    if isinstance(error, api_errors.NotFound):
        return describe_google_error(error).startswith(_MISSING_DESTINATION)
    if not isinstance(error, api_errors.ClientError) or isinstance(error, api_errors.Conflict):
        return False
    reasons = error_reasons(error)  # empty if a proxy has answered
    return bool(reasons) and not reasons & (TRANSIENT_REASONS - _LIMIT_REASONS)


def _is_retried(error: Exception) -> bool:
    if isinstance(error, _JobNotVisibleError):
        return True
    lasts = isinstance(error, SSLError) or "quotaExceeded" in error_reasons(error)
    return is_transient_error(error) and not lasts


_INSERT_RETRY = Retry(_is_retried, timeout=_RETRY_SECONDS)
_GET_JOB_RETRY = Retry(
    lambda error: isinstance(error, api_errors.NotFound) or _is_retried(error), timeout=_RETRY_SECONDS
)
_POLLING = Retry(
    lambda error: isinstance(error, _JobNotDoneError), initial=0.5, multiplier=1.5, maximum=10, timeout=None
)
