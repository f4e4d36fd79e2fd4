"""What is told to the notifiers, and when: sensors that read what has happened, each thing once.

Belongs here: runs that have failed, runs that have succeeded, months that are overdue, and the words for them. Who is
told, and how, is `client.py`. These are plain sensors, not Dagster's run status sensors: those do not see runs of
the command line, and send 200 messages for a backfill of 200 months whose publisher is down. Here a tick sends one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.automation.failure_reason import failure_reason
from taxi_assets.automation.publication.run_tags import PARTITION_TAG, WILL_RETRY_TAG

# Dagster has no public name for them, and its history takes nothing else.
from taxi_assets.dagster_compat import COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
from taxi_assets.notifications.client import Message, notify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydantic import SecretStr

INTERVAL_SECONDS = 10
OVERDUE_MONTHS = "months_overdue"
"""A check that has failed and lists months under this name in its metadata makes them overdue; one per service."""
MONTHS_BUSY = "months_busy"
MONTHS_NOT_CHECKED = "could_not_be_asked"
"""Of months that a check lists under these two names it cannot tell: what was told of them is not forgotten."""

# All in all, less than the 2,000 characters that the narrowest of the chats take.
_RUNS_PER_TICK = 25
_MAX_RUNS_LISTED = 5
_MAX_MONTHS_LISTED = 12
_MAX_TITLE_CHARACTERS = 120
_MAX_LINE_CHARACTERS = 240
# Dagster decides about a retry just after it has stored the failure.
_RETRY_DECISION_SECONDS = 10
_MESSAGE_EVENTS = {
    dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.ASSET_CHECK_EVALUATION,
}  # fmt: skip


@dataclass(frozen=True)
class EndedRun:
    """A run worth telling of: service and month, how it went in one line, and where to look."""

    subject: str
    message: str
    link: str


@dataclass(frozen=True)
class OverdueMonths:
    """Months of a service that should have arrived somewhere and have not, what is said of it, and where to look."""

    service: str
    months: Sequence[str]
    message: str
    link: str


def notification_sensors(
    notifiers: SecretStr, *, ui_url: str | None = None, success: bool = False
) -> list[dg.SensorDefinition]:
    """The sensors of a deployment that has notifiers; they run from the start."""
    failures = _run_sensor(
        "notify_failures", dg.DagsterEventType.RUN_FAILURE, failure_message, notifiers, ui_url,
        description="Tells of runs that have failed, once each, unless Dagster runs them again by itself.",
    )  # fmt: skip
    successes = _run_sensor(
        "notify_successes", dg.DagsterEventType.RUN_SUCCESS, success_message, notifiers, ui_url,
        description="Tells of runs that have succeeded.",
    )  # fmt: skip
    return [failures, _overdue_sensor(notifiers, ui_url), *([successes] if success else [])]


# --- the words --------------------------------------------------------------------------------------------------------


def failure_message(runs: Sequence[EndedRun]) -> Message:
    """What is said of runs that have failed."""
    return Message("failure", _title(runs, "failed"), _body(runs))


def success_message(runs: Sequence[EndedRun]) -> Message:
    """What is said of runs that have succeeded."""
    return Message("success", _title(runs, "succeeded"), _body(runs))


def overdue_message(overdue: Sequence[OverdueMonths]) -> Message:
    """What is said of months that are overdue."""
    paragraphs = [
        f"{each.service} {_enumerated(each.months, _MAX_MONTHS_LISTED)}: {each.message}\n{each.link}"
        for each in overdue
    ]
    services = ", ".join(sorted({each.service for each in overdue}))
    return Message("warning", f"Months are overdue: {services}", "\n\n".join(paragraphs))


def _title(runs: Sequence[EndedRun], ended: str) -> str:
    label = f"{len(runs)} runs {ended}" if len(runs) > 1 else f"Run {ended}"
    return _one_line(f"{label}: {_enumerated([run.subject for run in runs], _MAX_RUNS_LISTED)}", _MAX_TITLE_CHARACTERS)


def _body(runs: Sequence[EndedRun]) -> str:
    paragraphs = [
        f"{run.message if run.message.startswith(run.subject) else f'{run.subject}: {run.message}'}\n{run.link}"
        for run in runs[:_MAX_RUNS_LISTED]
    ]
    if rest := [run.subject for run in runs[_MAX_RUNS_LISTED:]]:
        paragraphs.append(f"And {', '.join(rest)}.")
    return "\n\n".join(paragraphs)


def _enumerated(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _one_line(text: str, longest: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


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
    def tell_of_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        if not (context.cursor or "").isdecimal():  # switched on just now: what has been is no news
            newest = context.instance.fetch_run_status_changes(event_type, limit=1).records
            context.update_cursor(str(newest[0].storage_id if newest else 0))
            return dg.SkipReason("It tells of what happens from now on.")
        runs = []
        for event, run in _settled(context.instance, event_type, after=int(context.cursor or 0)):
            context.update_cursor(str(event.storage_id))
            if run is not None and _is_of_this_location(context, run) and not _will_be_retried(run):
                runs += _ended_run(context, event, run, ui_url)
        return _notify(context, notifiers, message(runs)) if runs else dg.SkipReason("There is nothing to tell.")

    return tell_of_runs


def _settled(
    instance: dg.DagsterInstance, event_type: Any, *, after: int
) -> Iterator[tuple[dg.EventLogRecord, dg.DagsterRun | None]]:
    """The next events, each with its run, up to one of which it is not yet decided whether it is run again."""
    wanted = dg.RunStatusChangeRecordsFilter(event_type, after_storage_id=after)
    for event in instance.fetch_run_status_changes(wanted, limit=_RUNS_PER_TICK, ascending=True).records:
        run = instance.get_run_by_id(event.run_id)
        decides = event_type == dg.DagsterEventType.RUN_FAILURE and instance.run_retries_enabled
        # In the future: the clock was set back, nobody knows by how much, and the news would wait for as long.
        has_time = abs(time.time() - event.timestamp) < _RETRY_DECISION_SECONDS
        if decides and has_time and run is not None and WILL_RETRY_TAG not in run.tags:
            return
        yield event, run


def _is_of_this_location(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    """Others may share the instance. Runs of the command line do not say whose they are: their job and assets do."""
    if run.remote_job_origin is not None and context.code_location_origin is not None:
        return bool(run.remote_job_origin.location_name == context.code_location_origin.location_name)
    repository, selected = _repository(context), _selected(run)
    if _is_ad_hoc(run):
        return bool(selected) and all(repository.asset_graph.has(key) for key in selected)
    return repository.has_job(run.job_name)


def _will_be_retried(run: dg.DagsterRun) -> bool:
    """Whether Dagster runs it again by itself: not what the command line has started, whatever the tag says."""
    return run.tags.get(WILL_RETRY_TAG) == "true" and run.remote_job_origin is not None


def _ended_run(
    context: dg.SensorEvaluationContext, event: dg.EventLogRecord, run: dg.DagsterRun, ui_url: str | None
) -> list[EndedRun]:
    """What is told of a run; nothing when it had ended before, because two have found the same run dead."""
    entries = context.instance.all_logs(run.run_id, of_type=_MESSAGE_EVENTS)
    ends = [entry for entry in entries if entry.dagster_event_type == event.event_log_entry.dagster_event_type]
    if not ends or ends[0].timestamp < event.timestamp:
        return []
    message = _run_message([entry.get_dagster_event() for entry in entries])
    link = f"{ui_url}/runs/{run.run_id}" if ui_url else f"Run {run.run_id}"
    return [EndedRun(_subject(context, run), _one_line(message, _MAX_LINE_CHARACTERS), link)]


def _run_message(events: Sequence[dg.DagsterEvent]) -> str:
    """How a run ended: the failed check or step, or what ended the run from outside."""
    if any(event.is_step_failure for event in events):
        return failure_reason(events)
    end = next(event for event in events if event.is_job_event)
    if end.event_type == dg.DagsterEventType.RUN_SUCCESS:
        return "Every step has succeeded, every blocking check has passed."
    error = getattr(end.event_specific_data, "error", None)
    return f"{end.message or ''} {error.message if error else ''}"


def _subject(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> str:
    """Service and month; the service is the job's name, or the group of assets that were materialized ad hoc."""
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
        description=f"Tells of months that a failed check lists as `{OVERDUE_MONTHS}`, when one comes in addition.",
    )
    def notify_overdue_months(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        told, news = _notified(context.cursor), []
        for key in _checks_of_whole_services(context):
            name, found = f"{key.asset_key.to_user_string()} {key.name}", _last_evaluation(context.instance, key)
            if found is None:
                continue  # what was told is not forgotten
            before, overdue = set(told.get(name, ())), _overdue(found)
            if set(overdue) - before:
                news.append(_overdue_months(context, found, ui_url))
            undecided = {*_months_in(found, MONTHS_BUSY), *_months_in(found, MONTHS_NOT_CHECKED)}
            told[name] = sorted({*overdue, *(before & undecided)})
        context.update_cursor(json.dumps({name: months for name, months in told.items() if months}))
        return (
            _notify(context, notifiers, overdue_message(news)) if news else dg.SkipReason("There is nothing to tell.")
        )

    return notify_overdue_months


def _notified(cursor: str | None) -> dict[str, list[str]]:
    """The months that were told of, by check; none where the cursor is not one of ours."""
    try:
        told = json.loads(cursor or "{}")
    except ValueError:
        return {}
    lists = told.items() if isinstance(told, dict) else ()
    return {check: [*map(str, months)] for check, months in lists if isinstance(months, list)}


def _checks_of_whole_services(context: dg.SensorEvaluationContext) -> list[dg.AssetCheckKey]:
    """Those of single months list none that are overdue."""
    graph = _repository(context).asset_graph
    return [key for key in sorted(graph.asset_check_keys) if graph.get_check_spec(key).partitions_def is None]


def _last_evaluation(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> dg.AssetCheckEvaluation | None:
    """The last that has come to an end: others may be under way, or their runs failed or were killed."""
    ended = COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=ended)
    return records[0].evaluation if records else None


def _overdue(found: dg.AssetCheckEvaluation) -> list[str]:
    return [] if found.passed else _months_in(found, OVERDUE_MONTHS)


def _overdue_months(
    context: dg.SensorEvaluationContext, found: dg.AssetCheckEvaluation, ui_url: str | None
) -> OverdueMonths:
    asset = found.asset_key.to_user_string()
    message = f"{found.description or 'They are overdue.'} (check {found.check_name})"
    return OverdueMonths(
        service=_repository(context).asset_graph.get(found.asset_key).group_name,
        months=_overdue(found),
        message=_one_line(message, _MAX_LINE_CHARACTERS),
        link=f"{ui_url}/assets/{asset}?view=checks" if ui_url else f"Asset {asset}",
    )


def _months_in(found: dg.AssetCheckEvaluation, name: str) -> list[str]:
    listed = found.metadata.get(name)
    value: Any = listed.value if listed is not None else []
    return [*map(str, value)] if isinstance(value, (list, tuple)) else []


# --- both -------------------------------------------------------------------------------------------------------------


def _notify(context: dg.SensorEvaluationContext, notifiers: SecretStr, message: Message) -> dg.SkipReason:
    """Send a message; who does not take it is named in the tick's log, and changes nothing else."""
    complaints = notify(notifiers, message)
    for complaint in complaints:
        context.log.warning(complaint)
    return dg.SkipReason(" ".join([f"Told: {message.title}.", *complaints]))


def _repository(context: dg.SensorEvaluationContext) -> dg.RepositoryDefinition:
    repository = context.repository_def
    assert repository is not None  # noqa: S101  (none only where a test gives none)
    return repository
