"""Find out from a run's events why it failed.

Belongs here: reading step failures and failed checks. `make backfill` and the failure notifications show the reason;
the publication sensors do not retry a permanent failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets import errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taxi_assets.dagster_compat import SerializableErrorInfo

# The event log keeps an error's class name only. DagsterAssetCheckFailedError is what Dagster raises when a blocking
# check fails.
_PERMANENT_ERRORS = {
    name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.PermanentError)
} | {"DagsterAssetCheckFailedError"}


def failure_reason(events: Sequence[dg.DagsterEvent]) -> str:
    """Return why a run failed, in one line.

    Args:
        events: The run's events, in the order of the event log. At least its step failures and check evaluations.

    Returns:
        The first check that failed with severity ERROR, with its description; otherwise the first step failure's
        description or error message. If there is neither, a fixed text.
    """
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            # Every check of this package that can have severity ERROR is blocking.
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


def failed_permanently(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether a retry of a failed run would fail again.

    That is so if a step failed with a `PermanentError`, or if a blocking check failed.
    """
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        if event is not None and not _PERMANENT_ERRORS.isdisjoint(_error_names(event.step_failure_data.error)):
            return True
    return False


def _error_names(error: SerializableErrorInfo | None) -> Iterator[str]:
    """Yield the class names of an error and its causes."""
    while error is not None:
        yield error.cls_name or ""
        error = error.cause
