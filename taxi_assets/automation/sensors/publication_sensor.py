"""The sensors that notice what a publisher has brought out: new months, and revised ones."""

import datetime as dt
from collections.abc import Callable

import dagster as dg

from taxi_assets.automation.policies import DEFAULT_INTERVAL_SECONDS
from taxi_assets.automation.publication.scan import PublicationScan
from taxi_assets.automation.publication.status import DEFAULT_SCAN_LIMITS, PublicationStatus, ScanLimits
from taxi_assets.partitions import monthly_partitions
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.tlc.schema import Service

_DESCRIPTION = """Asks the publisher of {title} for months that have appeared or were revised, and runs the whole chain
for each of them.

It downloads by itself, so a person switches it on. On an instance without any month it takes the newest published one;
the history is a backfill that a person launches. Each look asks for the months newer than those that are loaded, and
for some of the history in turn, without fetching anything."""


def now() -> dt.datetime:
    """The time by the clock."""
    return dt.datetime.now(dt.UTC)


def publication_sensor(
    service: Service,
    *,
    interval_seconds: int = DEFAULT_INTERVAL_SECONDS,
    limits: ScanLimits = DEFAULT_SCAN_LIMITS,
    clock: Callable[[], dt.datetime] = now,
) -> dg.SensorDefinition:
    """The sensor of a service."""

    @dg.sensor(
        name=f"{service.name}_publication",
        job_name=service.name,
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=_DESCRIPTION.format(title=service.title),
    )
    def publication(context: dg.SensorEvaluationContext, publisher: PublisherResource) -> dg.SensorResult:
        time = clock()
        keys = monthly_partitions(service).get_partition_keys(current_time=time)
        comparison = PublicationStatus(context.instance, service, publisher, keys, time, limits)
        seen = PublicationScan(comparison).run(context.cursor)
        context.log.info(seen.summary)
        if seen.requests:
            return dg.SensorResult(run_requests=seen.requests, cursor=seen.cursor)
        return dg.SensorResult(skip_reason=seen.summary, cursor=seen.cursor)

    return publication
