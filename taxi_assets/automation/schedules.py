"""Schedules: the newest published month of a service, once a month or once a day, whether or not a sensor is on.

And the publication checks, once a day.
"""

import datetime as dt

import dagster as dg

from taxi_assets.automation.policies import DAILY, MONTHLY
from taxi_assets.automation.publication.run_planner import Deferred
from taxi_assets.automation.publication.status import (
    DEFAULT_SCAN_LIMITS,
    MAX_FAILED_CHECKS,
    PublicationStatus,
    ScanLimits,
)
from taxi_assets.errors import TaxiAssetsError
from taxi_assets.partitions import monthly_partitions
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.tlc.schema import Service

LAG_MONTHS = 2
"""How long TLC takes to publish a month, roughly."""

_MAX_MONTHS_BACK = 6
"""How far back the newest published month is looked for."""

_DESCRIPTION = """Runs the whole chain of {title} for the newest month that is published, if it is not loaded yet, or
was revised. TLC publishes about {lag} months later, so in March that is January; a month that is not published is never
asked for. It downloads by itself, so a person switches it on: {use}."""

_USES = {
    "monthly": "the safety net beside the sensor {name}_publication",
    "daily": "a look a day, for those who prefer it to the sensor {name}_publication",
}


def publication_schedules(
    service: Service, *, cron: str = MONTHLY, timezone: str = "UTC"
) -> list[dg.ScheduleDefinition]:
    """The monthly schedule of a service, at the times of `cron`, and the daily one."""
    return [
        _schedule(service, "monthly", cron=cron, timezone=timezone),
        _schedule(service, "daily", cron=DAILY, timezone=timezone),
    ]


def publication_check_schedule(*, timezone: str = "UTC") -> dg.ScheduleDefinition:
    """The publication checks, once a day."""
    return dg.ScheduleDefinition(
        name="publication_daily",
        job_name="publication",
        cron_schedule="0 9 * * *",
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Once a day: which months are overdue? It asks the publishers, so a person switches it on.",
    )


def _schedule(service: Service, word: str, *, cron: str, timezone: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{service.name}_{word}",
        job_name=service.name,
        cron_schedule=cron,
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=_DESCRIPTION.format(title=service.title, lag=LAG_MONTHS, use=_USES[word].format(name=service.name)),
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
    """The run of the newest published month, or why it needs none; a month that is answered with an error is passed."""
    keys = monthly_partitions(service).get_partition_keys(current_time=now)
    comparison = PublicationStatus(instance, service, publisher, keys[-_MAX_MONTHS_BACK:], now, limits)
    name = comparison.publisher.name
    for month in comparison.months:
        published = comparison.published_version(month)
        if len(comparison.failed_checks) > MAX_FAILED_CHECKS:
            return _skip_reason(f"That is too many errors of {name} for one look.", comparison)
        if published is None:
            continue
        decision = comparison.planner.plan(month, published)
        if isinstance(decision, dg.RunRequest):
            return decision
        reason = decision.reason if isinstance(decision, Deferred) else "it is loaded, and unchanged"
        return _skip_reason(f"{service.name} {month} is the newest month of {name}; {reason}.", comparison)
    first, last = comparison.months[-1], comparison.months[0]
    return _skip_reason(f"{name} has published no {service.name} month from {first} to {last}.", comparison)


def _skip_reason(message: str, status: PublicationStatus) -> dg.SkipReason:
    """The reason, after the months that could not be asked for."""
    return dg.SkipReason(" ".join([*status.failed_checks.values(), message]))
