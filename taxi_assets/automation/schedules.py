"""Schedules: load the newest published month of a service, and run the publication checks.

Belongs here: times, and the choice of the newest month. Does not belong here: deciding whether that month needs a
run, which the publication sensors share (`publication/`).
"""

import datetime as dt
from collections.abc import Container

import dagster as dg

from taxi_assets.automation.policies import DAILY, MONTHLY
from taxi_assets.automation.publication.decision import Deferred, RunNeeded
from taxi_assets.automation.publication.status import (
    DEFAULT_SCAN_LIMITS,
    MAX_FAILED_CHECKS,
    PublicationStatus,
    ScanLimits,
)
from taxi_assets.errors import TaxiAssetsError
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.tlc.schema import Service

LAG_MONTHS = 2
"""How many months after its end TLC publishes a month, roughly."""

_MAX_MONTHS_BACK = 6
"""How many months to search for the newest published one."""

_DESCRIPTION = """Requests a run of the whole {title} pipeline for the newest published month, if that month is not
loaded yet, was revised, or has not reached the warehouse. TLC publishes a month about {lag} months later, for example
January in March. Months that are not published are never requested. The schedule is off until you switch it on, because
its runs download files. {use}"""

_USES = {
    "monthly": "Use it as a fallback for the sensor {name}_publication.",
    "daily": "Use it instead of the sensor {name}_publication if one check a day is enough.",
}


def publication_schedules(
    service: Service, *, cron: str = MONTHLY, timezone: str = "UTC", switched_on: Container[str] = ()
) -> list[dg.ScheduleDefinition]:
    """Return a service's monthly schedule, which runs at `cron`, and its daily one.

    Args:
        service: The service whose newest month the schedules request.
        cron: The cron expression of the monthly schedule.
        timezone: The time zone of both.
        switched_on: The names of schedules that are on from the start.
    """
    return [
        _schedule(service, "monthly", cron=cron, timezone=timezone, switched_on=switched_on),
        _schedule(service, "daily", cron=DAILY, timezone=timezone, switched_on=switched_on),
    ]


def publication_check_schedule(*, timezone: str = "UTC", switched_on: Container[str] = ()) -> dg.ScheduleDefinition:
    """Return the schedule that runs the publication checks once a day."""
    name = "publication_daily"
    return dg.ScheduleDefinition(
        name=name,
        job_name="publication",
        cron_schedule="0 9 * * *",
        execution_timezone=timezone,
        default_status=_default_status(name, switched_on),
        description="Checks once a day which published months are not loaded. The schedule is off until you switch it "
        "on, because it sends requests to the publishers.",
    )


def _default_status(name: str, switched_on: Container[str]) -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if name in switched_on else dg.DefaultScheduleStatus.STOPPED


def _schedule(
    service: Service, interval: str, *, cron: str, timezone: str, switched_on: Container[str]
) -> dg.ScheduleDefinition:
    name = f"{service.name}_{interval}"
    use = _USES[interval].format(name=service.name)

    @dg.schedule(
        name=name,
        job_name=service.name,
        cron_schedule=cron,
        execution_timezone=timezone,
        default_status=_default_status(name, switched_on),
        description=_DESCRIPTION.format(title=service.title, lag=LAG_MONTHS, use=use),
    )
    def newest_month(
        context: dg.ScheduleEvaluationContext, publisher: PublisherResource
    ) -> dg.RunRequest | dg.SkipReason:
        now = context.scheduled_execution_time.astimezone(dt.UTC)
        try:
            return request_newest(context.instance, service, publisher, now)
        except TaxiAssetsError as error:
            return dg.SkipReason(str(error))

    return newest_month


def request_newest(
    instance: dg.DagsterInstance,
    service: Service,
    publisher: PublisherResource,
    now: dt.datetime,
    limits: ScanLimits = DEFAULT_SCAN_LIMITS,
) -> dg.RunRequest | dg.SkipReason:
    """Return the run request for the newest published month, or the reason why it needs no run.

    Months for which the publisher answers with an error are skipped.

    Args:
        instance: The instance that knows which months are loaded.
        service: The service whose months are checked.
        publisher: The publisher to ask.
        now: The scheduled time, in UTC.
        limits: The timeout for each month's version check, and the pause between two checks.

    Raises:
        PublisherUnreachableError: No connection to the publisher is possible.
    """
    status = PublicationStatus(instance, service, publisher, now, limits)
    name = status.versions.publisher.name
    months = status.months[:_MAX_MONTHS_BACK]
    for month in months:
        published = status.published_version(month)
        if len(status.versions.errors) > MAX_FAILED_CHECKS:
            return _skip_reason(f"Stopped after too many errors from {name}.", status)
        if published is None:
            continue
        decision = status.decide(month)
        if isinstance(decision, RunNeeded):
            return status.run_request(month, decision)
        reason = decision.reason if isinstance(decision, Deferred) else "it is loaded and unchanged"
        return _skip_reason(f"{service.name} {month} is the newest month published by {name}: {reason}.", status)
    return _skip_reason(f"{name} has published no {service.name} month from {months[-1]} to {months[0]}.", status)


def _skip_reason(message: str, status: PublicationStatus) -> dg.SkipReason:
    """Return the message, after the errors of months that could not be checked."""
    return dg.SkipReason(" ".join([*status.versions.errors.values(), message]))
