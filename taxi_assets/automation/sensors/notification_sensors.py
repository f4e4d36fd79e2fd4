"""Sensors that send notifications of failed runs, successful runs and overdue months, once each.

Belongs here: which events are reported, and the text of the messages. Does not belong here: the delivery to the
notifiers (`notifications/client.py`). These are plain sensors, not Dagster's run status sensors. Run status sensors
do not see runs started from the command line, and would send 200 messages for a backfill of 200 months while the
publisher is down. Here each tick sends one message.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.automation.failure_reason import failure_reason
from taxi_assets.automation.publication.run_tags import PARTITION_TAG, WILL_RETRY_TAG
from taxi_assets.dagster_compat import COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
from taxi_assets.notifications.client import Message, notify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydantic import SecretStr

INTERVAL_SECONDS = 10
OVERDUE_MONTHS = "months_overdue"
"""Metadata key under which a failed check lists overdue months. Each service has one such check."""
MONTHS_IN_PROGRESS = "months_in_progress"
"""Metadata key for months in progress. Once reported as overdue, they are not reported again."""
MONTHS_NOT_CHECKED = "months_not_checked"
"""Metadata key for months whose version check failed. They are not reported again either."""

# Together these keep a message below 2,000 characters, the lowest limit among the chat services.
EVENTS_PER_TICK = 25
MAX_LISTED = 5
_MAX_MONTHS_LISTED = 12
MAX_TITLE_CHARACTERS = 120
MAX_LINE_CHARACTERS = 240
# Dagster decides whether to retry a run shortly after it has stored the failure.
_RETRY_DECISION_SECONDS = 10
_MESSAGE_EVENTS = {
    dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.ASSET_CHECK_EVALUATION,
}  # fmt: skip


@dataclass(frozen=True)
class EndedRun:
    """An ended run to report."""

    subject: str
    """Service and month."""
    message: str
    """How the run ended, in one line."""
    link: str
    """URL of the run in the UI; the run's ID if TAXI_UI_URL is not set."""


@dataclass(frozen=True)
class OverdueMonths:
    """Months of a service that a check reports as overdue."""

    service: str
    months: Sequence[str]
    message: str
    """The check's description of its result, in one line."""
    link: str
    """URL of the check in the UI; the asset's key if TAXI_UI_URL is not set."""


def notification_sensors(
    notifiers: SecretStr, *, ui_url: str | None = None, success: bool = False
) -> list[dg.SensorDefinition]:
    """Return the notification sensors, which are on by default.

    Args:
        notifiers: The notifiers' addresses, as in TAXI_NOTIFY_URLS.
        ui_url: Base URL of Dagster's UI, for links. None: messages name the run or asset instead.
        success: Whether to report successful runs, too.
    """
    failures = _run_sensor(
        "notify_failures", dg.DagsterEventType.RUN_FAILURE, failure_message, notifiers, ui_url,
        description="Reports each failed run once, unless Dagster will retry it; failures found in one tick share a "
        "message.",
    )  # fmt: skip
    successes = _run_sensor(
        "notify_successes", dg.DagsterEventType.RUN_SUCCESS, success_message, notifiers, ui_url,
        description="Reports each successful run once; successes found in one tick share a message.",
    )  # fmt: skip
    return [failures, _overdue_sensor(notifiers, ui_url), *([successes] if success else [])]


# --- message texts ----------------------------------------------------------------------------------------------------


def failure_message(runs: Sequence[EndedRun]) -> Message:
    """Return the message that reports failed runs."""
    return Message("failure", _title(runs, "failed"), _body(runs))


def success_message(runs: Sequence[EndedRun]) -> Message:
    """Return the message that reports successful runs."""
    return Message("success", _title(runs, "succeeded"), _body(runs))


def overdue_message(overdue: Sequence[OverdueMonths]) -> Message:
    """Return the message that reports overdue months, with a paragraph for each service."""
    paragraphs = [
        f"{each.service} {enumerated(each.months, _MAX_MONTHS_LISTED)}: {each.message}\n{each.link}" for each in overdue
    ]
    services = ", ".join(sorted({each.service for each in overdue}))
    return Message("warning", f"Months are overdue: {services}", "\n\n".join(paragraphs))


def _title(runs: Sequence[EndedRun], ended: str) -> str:
    label = f"{len(runs)} runs {ended}" if len(runs) > 1 else f"Run {ended}"
    return one_line(f"{label}: {enumerated([run.subject for run in runs], MAX_LISTED)}", MAX_TITLE_CHARACTERS)


def _body(runs: Sequence[EndedRun]) -> str:
    paragraphs = [
        f"{run.message if run.message.startswith(run.subject) else f'{run.subject}: {run.message}'}\n{run.link}"
        for run in runs[:MAX_LISTED]
    ]
    if rest := [run.subject for run in runs[MAX_LISTED:]]:
        paragraphs.append(f"And {', '.join(rest)}.")
    return "\n\n".join(paragraphs)


def enumerated(names: Sequence[str], limit: int) -> str:
    """Return the first names, and the number of others: "green 2021-01, green 2021-02 and 3 more"."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def one_line(text: str, max_length: int) -> str:
    """Return a text without line breaks, cut to a length."""
    line = " ".join(text.split())
    return line if len(line) <= max_length else f"{line[: max_length - 1]}…"


# --- runs -------------------------------------------------------------------------------------------------------------


def _run_sensor(
    name: str,
    event_type: Any,
    message: Callable[[Sequence[EndedRun]], Message],
    notifiers: SecretStr,
    ui_url: str | None,
    *,
    description: str,
) -> dg.SensorDefinition:
    @dg.sensor(
        name=name,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description,
    )
    def notify_of_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        if not (context.cursor or "").isdecimal():  # the first tick: report only later events
            newest = context.instance.fetch_run_status_changes(event_type, limit=1).records
            context.update_cursor(str(newest[0].storage_id if newest else 0))
            return dg.SkipReason("First tick: later events are reported.")
        runs = []
        for event, run in _reportable_events(context.instance, event_type, after=int(context.cursor or 0)):
            context.update_cursor(str(event.storage_id))
            if run is not None and _belongs_to_this_location(context, run) and not _will_be_retried(run):
                runs += _ended_run(context, event, run, ui_url)
        return send(context, notifiers, message(runs)) if runs else dg.SkipReason("Nothing to report.")

    return notify_of_runs


def _reportable_events(
    instance: dg.DagsterInstance, event_type: Any, *, after: int
) -> Iterator[tuple[dg.EventLogRecord, dg.DagsterRun | None]]:
    """Yield the next events with their runs, in order; stop at a failure that Dagster may still decide to retry."""
    wanted = dg.RunStatusChangeRecordsFilter(event_type, after_storage_id=after)
    for event in instance.fetch_run_status_changes(wanted, limit=EVENTS_PER_TICK, ascending=True).records:
        run = instance.get_run_by_id(event.run_id)
        decides = event_type == dg.DagsterEventType.RUN_FAILURE and instance.run_retries_enabled
        # If the failure lies far in the future, the clock was set back. Waiting for that time would delay all reports.
        is_recent = abs(time.time() - event.timestamp) < _RETRY_DECISION_SECONDS
        if decides and is_recent and run is not None and WILL_RETRY_TAG not in run.tags:
            return
        yield event, run


def _belongs_to_this_location(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    """Return whether a run belongs to this code location; other locations may share the instance.

    Runs started from the command line do not name their location, so their job and assets decide.
    """
    if run.remote_job_origin is not None and context.code_location_origin is not None:
        return bool(run.remote_job_origin.location_name == context.code_location_origin.location_name)
    repository, selected = _repository(context), _selected(run)
    if _is_ad_hoc(run):
        return bool(selected) and all(repository.asset_graph.has(key) for key in selected)
    return repository.has_job(run.job_name)


def _will_be_retried(run: dg.DagsterRun) -> bool:
    """Return whether Dagster will retry the run.

    It never retries runs started from the command line, even if they have the tag.
    """
    return run.tags.get(WILL_RETRY_TAG) == "true" and run.remote_job_origin is not None


def _ended_run(
    context: dg.SensorEvaluationContext, event: dg.EventLogRecord, run: dg.DagsterRun, ui_url: str | None
) -> list[EndedRun]:
    """Return the run to report, or nothing if the run had ended before: two monitors may end the same orphaned run."""
    entries = context.instance.all_logs(run.run_id, of_type=_MESSAGE_EVENTS)
    end_events = [entry for entry in entries if entry.dagster_event_type == event.event_log_entry.dagster_event_type]
    if not end_events or end_events[0].timestamp < event.timestamp:
        return []
    message = _run_message([entry.get_dagster_event() for entry in entries])
    link = f"{ui_url}/runs/{run.run_id}" if ui_url else f"Run {run.run_id}"
    return [EndedRun(_subject(context, run), one_line(message, MAX_LINE_CHARACTERS), link)]


def _run_message(events: Sequence[dg.DagsterEvent]) -> str:
    """Return how a run ended: the failed check or step, or the reason why the run was ended from outside."""
    if any(event.is_step_failure for event in events):
        return failure_reason(events)
    end = next(event for event in events if event.is_job_event)
    if end.event_type == dg.DagsterEventType.RUN_SUCCESS:
        return "Every step succeeded, and every blocking check passed."
    error = getattr(end.event_specific_data, "error", None)
    return f"{end.message or ''} {error.message if error else ''}"


def _subject(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> str:
    """Return service and month. The service is the job's name, or the group of the assets materialized ad hoc."""
    graph = _repository(context).asset_graph
    groups = {graph.get(key).group_name for key in _selected(run) if graph.has(key)}
    label = ", ".join(sorted(groups)) if _is_ad_hoc(run) else run.job_name
    return f"{label} {run.tags.get(PARTITION_TAG, '')}".rstrip()


def _is_ad_hoc(run: dg.DagsterRun) -> bool:
    return run.job_name.startswith("__")


def _selected(run: dg.DagsterRun) -> set[dg.AssetKey]:
    return {*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())}


# --- overdue months ---------------------------------------------------------------------------------------------------


def _overdue_sensor(notifiers: SecretStr, ui_url: str | None) -> dg.SensorDefinition:
    @dg.sensor(
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends an alert when a publication check finds newly overdue months. These are published but not "
        "loaded, revised but not reloaded, or loaded but not in the warehouse.",
    )
    def notify_overdue_months(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        notified, to_report = _notified_months(context.cursor), []
        for key in _unpartitioned_checks(context):
            name, evaluation = f"{key.asset_key.to_user_string()} {key.name}", _last_evaluation(context.instance, key)
            if evaluation is None:
                continue  # keep the months that were reported
            before, overdue = set(notified.get(name, ())), _overdue(evaluation)
            if set(overdue) - before:
                to_report.append(_overdue_months(context, evaluation, ui_url))
            undecided = {*_months_in(evaluation, MONTHS_IN_PROGRESS), *_months_in(evaluation, MONTHS_NOT_CHECKED)}
            notified[name] = sorted({*overdue, *(before & undecided)})
        context.update_cursor(json.dumps({name: months for name, months in notified.items() if months}))
        if not to_report:
            return dg.SkipReason("Nothing to report.")
        return send(context, notifiers, overdue_message(to_report))

    return notify_overdue_months


def _notified_months(cursor: str | None) -> dict[str, list[str]]:
    """Return the reported months of each check; none if the cursor is not valid."""
    try:
        notified = json.loads(cursor or "{}")
    except ValueError:
        return {}
    lists = notified.items() if isinstance(notified, dict) else ()
    return {check: [*map(str, months)] for check, months in lists if isinstance(months, list)}


def _unpartitioned_checks(context: dg.SensorEvaluationContext) -> list[dg.AssetCheckKey]:
    """Return the checks without partitions: checks of single months list no overdue months."""
    graph = _repository(context).asset_graph
    return [key for key in sorted(graph.asset_check_keys) if graph.get_check_spec(key).partitions_def is None]


def _last_evaluation(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> dg.AssetCheckEvaluation | None:
    """Return the last completed evaluation; later ones may be in progress, or their runs failed or were killed."""
    ended = COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=ended)
    return records[0].evaluation if records else None


def _overdue(evaluation: dg.AssetCheckEvaluation) -> list[str]:
    return [] if evaluation.passed else _months_in(evaluation, OVERDUE_MONTHS)


def _overdue_months(
    context: dg.SensorEvaluationContext, evaluation: dg.AssetCheckEvaluation, ui_url: str | None
) -> OverdueMonths:
    asset = evaluation.asset_key.to_user_string()
    message = f"{evaluation.description or 'They are overdue.'} (check {evaluation.check_name})"
    return OverdueMonths(
        service=_repository(context).asset_graph.get(evaluation.asset_key).group_name,
        months=_overdue(evaluation),
        message=one_line(message, MAX_LINE_CHARACTERS),
        link=f"{ui_url}/assets/{asset}?view=checks" if ui_url else f"Asset {asset}",
    )


def _months_in(evaluation: dg.AssetCheckEvaluation, key: str) -> list[str]:
    entry = evaluation.metadata.get(key)
    value: Any = entry.value if entry is not None else []
    return [*map(str, value)] if isinstance(value, (list, tuple)) else []


# --- runs and overdue months ------------------------------------------------------------------------------------------


def send(context: dg.SensorEvaluationContext, notifiers: SecretStr, message: Message) -> dg.SkipReason:
    """Send a message. A notifier that fails is named in the tick; its message is not sent again."""
    delivery_errors = [str(delivery) for delivery in notify(notifiers, message) if delivery.problem]
    for error in delivery_errors:
        context.log.warning(error)
    return dg.SkipReason(" ".join([f"Sent: {message.title}.", *delivery_errors]))


def _repository(context: dg.SensorEvaluationContext) -> dg.RepositoryDefinition:
    repository = context.repository_def
    assert repository is not None  # noqa: S101  (None only if a test passes none)
    return repository
