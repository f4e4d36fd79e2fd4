"""Sensors that request runs for new, revised and incomplete months."""

import datetime as dt
from collections.abc import Callable, Container

import dagster as dg

from taxi_assets.automation.policies import DEFAULT_INTERVAL_SECONDS
from taxi_assets.automation.publication.scan import PublicationScan
from taxi_assets.automation.publication.status import DEFAULT_SCAN_LIMITS, PublicationStatus, ScanLimits, utc_now
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.tlc.schema import Service

_DESCRIPTION = """Asks the publisher of {title} which versions it has, and requests a run of the whole pipeline for each
new, revised or incomplete month.

The sensor is off until you switch it on, because its runs download files. If no month is loaded yet, it requests the
newest published month only; load older months with a backfill. Each tick checks the months that are newer than the
loaded ones, the missing months between them, the incomplete months, and some of the loaded months in turn. Incomplete
months have not reached the warehouse. The tick itself downloads no trip files."""


def publication_sensor(
    service: Service,
    *,
    interval_seconds: int = DEFAULT_INTERVAL_SECONDS,
    switched_on: Container[str] = (),
    limits: ScanLimits = DEFAULT_SCAN_LIMITS,
    clock: Callable[[], dt.datetime] = utc_now,
) -> dg.SensorDefinition:
    """Return the publication sensor of a service.

    Args:
        service: The service whose months are checked, and whose job is run.
        interval_seconds: Minimum time between two ticks.
        switched_on: The names of sensors that are on from the start.
        limits: How many months one tick checks, and how long it may take.
        clock: Returns the current time in UTC. Tests pass their own.
    """
    name = f"{service.name}_publication"

    @dg.sensor(
        name=name,
        job_name=service.name,
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if name in switched_on else dg.DefaultSensorStatus.STOPPED,
        description=_DESCRIPTION.format(title=service.title),
    )
    def publication(context: dg.SensorEvaluationContext, publisher: PublisherResource) -> dg.SensorResult:
        status = PublicationStatus(context.instance, service, publisher, clock(), limits)
        result = PublicationScan(status).run(context.cursor)
        context.log.info(result.summary)
        if result.requests:
            return dg.SensorResult(run_requests=result.requests, cursor=result.cursor)
        return dg.SensorResult(skip_reason=result.summary, cursor=result.cursor)

    return publication
