"""The check that every published month is loaded, and that every loaded month is in the warehouse.

It checks a service, not a month, and it asks the publisher. So it is a check of the `published/…` assets, which no run
materializes. On an asset of the pipeline, it would be a step of every month's run.
"""

import datetime as dt
from collections.abc import Callable, Iterable

import dagster as dg

from taxi_assets.automation.publication.status import (
    DEFAULT_SCAN_LIMITS,
    PUBLISHED_MONTHS_LOADED,
    PublicationStatus,
    ScanLimits,
    utc_now,
)
from taxi_assets.automation.sensors.notification_sensors import MONTHS_IN_PROGRESS, MONTHS_NOT_CHECKED, OVERDUE_MONTHS
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service

_MAX_LISTED = 24

_DESCRIPTION = (
    "Every published month is loaded, and every loaded month is in the warehouse, from the same file. Gaps that "
    "begin a year or more before the newest loaded month do not fail the check. It lists their months; load them with "
    "a backfill. The check also lists the months that a run is processing, and those whose version check failed."
)


def publication_check(
    service: Service, *, limits: ScanLimits = DEFAULT_SCAN_LIMITS, clock: Callable[[], dt.datetime] = utc_now
) -> dg.AssetChecksDefinition:
    """Return the check that compares a service's published months with the loaded ones and with the warehouse.

    Args:
        service: The service whose months are compared.
        limits: The timeout for each month's version check, and the pause between two checks.
        clock: Returns the current time in UTC. Tests pass their own.
    """

    @dg.asset_check(asset=["published", service.table], name=PUBLISHED_MONTHS_LOADED, description=_DESCRIPTION)
    def published_months_loaded(
        context: dg.AssetCheckExecutionContext, publisher: PublisherResource
    ) -> dg.AssetCheckResult:
        status = PublicationStatus(context.instance, service, publisher, clock(), limits)
        with as_failures():
            return _result(status)

    return published_months_loaded


def _result(status: PublicationStatus) -> dg.AssetCheckResult:
    in_progress = status.state.in_progress
    found = {
        "published_but_not_loaded": status.published_but_not_loaded(),
        "revised_but_not_loaded": status.revised_but_not_loaded(),
        "loaded_but_not_in_the_warehouse": status.loaded_but_not_in_the_warehouse(),
    }
    missing = set[Month]().union(*found.values())
    lists = {
        **{name: months - in_progress for name, months in found.items()},
        MONTHS_IN_PROGRESS: missing & in_progress,
        MONTHS_NOT_CHECKED: set(status.versions.errors),
        "months_missing_between_loaded": set(status.missing_between_loaded),
    }
    return dg.AssetCheckResult(
        passed=missing <= in_progress,
        severity=dg.AssetCheckSeverity.WARN,
        description=_result_description(lists, status),
        metadata={
            **{name: _month_keys(months) for name, months in lists.items()},
            OVERDUE_MONTHS: _month_keys(missing - in_progress),
            "months_loaded": len(status.state.raw),
            "newest_loaded": str(status.newest_loaded or "none"),
        },
    )


def _month_keys(months: Iterable[Month]) -> list[str]:
    return [str(month) for month in sorted(months)]


_LABELS = {
    "published_but_not_loaded": "Published, but not loaded",
    "revised_but_not_loaded": "Revised, but the run of the newer version failed or was canceled",
    "loaded_but_not_in_the_warehouse": "Loaded, but not in the warehouse",
    MONTHS_IN_PROGRESS: "In progress",
    MONTHS_NOT_CHECKED: "Not checked because of errors",
    "months_missing_between_loaded": "Missing between loaded months, published or not",
}


def _result_description(lists: dict[str, set[Month]], status: PublicationStatus) -> str:
    """Return a sentence for each list that has months, and the first error of the publisher."""
    mentioned = lists["published_but_not_loaded"] | lists[MONTHS_IN_PROGRESS]
    lists = {**lists, "months_missing_between_loaded": lists["months_missing_between_loaded"] - mentioned}
    sentences = [f"{_LABELS[name]}: {_enumerate(months)}." for name, months in lists.items() if months]
    if not sentences and status.newest_loaded is None:
        sentences = ["No month is published, and none is loaded."]
    elif not sentences:
        sentences = [f"All published months are loaded and in the warehouse; the newest is {status.newest_loaded}."]
    first_error = next(iter(status.versions.errors.values()), "")
    return " ".join([*sentences, first_error]).rstrip()


def _enumerate(months: set[Month]) -> str:
    keys = _month_keys(months)
    more = f" and {len(keys) - _MAX_LISTED} more" if len(keys) > _MAX_LISTED else ""
    return ", ".join(keys[:_MAX_LISTED]) + more
