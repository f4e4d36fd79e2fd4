"""The check on what a publisher has: is it loaded, and is what is loaded in the warehouse.

It is about a service, not about a month, and it asks the publisher. So it stands on the published months, which no run
makes: on an asset of the chain it would be a step of every month's run.
"""

import datetime as dt
from collections.abc import Callable, Iterable

import dagster as dg

from taxi_assets.automation.publication.status import (
    DEFAULT_SCAN_LIMITS,
    PUBLISHED_MONTHS_LOADED,
    PublicationStatus,
    ScanLimits,
)
from taxi_assets.automation.sensors.notification_sensors import MONTHS_BUSY, MONTHS_NOT_CHECKED, OVERDUE_MONTHS
from taxi_assets.automation.sensors.publication_sensor import now
from taxi_assets.automation.step_failures import as_failures
from taxi_assets.partitions import monthly_partitions
from taxi_assets.resources.publisher import PublisherResource
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service

_MAX_LISTED = 24


def publication_check(
    service: Service, *, limits: ScanLimits = DEFAULT_SCAN_LIMITS, clock: Callable[[], dt.datetime] = now
) -> dg.AssetChecksDefinition:
    """Compare what is published, what is loaded, and what is in the warehouse."""

    @dg.asset_check(
        asset=["published", service.table],
        name=PUBLISHED_MONTHS_LOADED,
        description="Every month that is published is loaded, and every month that is loaded is in the warehouse, from "
        "the same file. Months before the oldest of the last year's that are loaded are history, which a person loads: "
        "those missing in between are listed. So are months that a run is working on, and months for which the "
        "publisher has nothing but an error.",
    )
    def published_months_loaded(
        context: dg.AssetCheckExecutionContext, publisher: PublisherResource
    ) -> dg.AssetCheckResult:
        time = clock()
        keys = monthly_partitions(service).get_partition_keys(current_time=time)
        comparison = PublicationStatus(context.instance, service, publisher, keys, time, limits)
        with as_failures():
            return _result(comparison)

    return published_months_loaded


def _result(status: PublicationStatus) -> dg.AssetCheckResult:
    busy = status.planner.in_progress  # before the shelves are looked at: a run may end in between
    found = {
        "published_but_not_loaded": status.published_but_not_loaded(),
        "revised_but_not_loaded": status.revised_but_not_loaded(),
        "loaded_but_not_in_the_warehouse": status.loaded_but_not_in_the_warehouse(),
    }
    missing = set[Month]().union(*found.values())
    lists = {
        **{name: months - busy for name, months in found.items()},
        MONTHS_NOT_CHECKED: set(status.failed_checks),
        "months_missing_in_between": set(status.missing_in_between),
    }
    return dg.AssetCheckResult(
        passed=missing <= busy,
        severity=dg.AssetCheckSeverity.WARN,
        description=_description(lists, status),
        metadata={
            **{name: _month_keys(months) for name, months in lists.items()},
            OVERDUE_MONTHS: _month_keys(missing - busy),
            MONTHS_BUSY: _month_keys(missing & busy),
            "months_loaded": len(status.raw),
            "newest_loaded": str(status.newest_loaded or "none"),
        },
    )


def _month_keys(months: Iterable[Month]) -> list[str]:
    return [str(month) for month in sorted(months)]


_LABELS = {
    "published_but_not_loaded": "Published, but not loaded",
    "revised_but_not_loaded": "Published in a newer version, whose runs failed or were canceled",
    "loaded_but_not_in_the_warehouse": "Loaded, but not in the warehouse",
    MONTHS_NOT_CHECKED: "Could not be asked for",
    "months_missing_in_between": "Missing in between, published or not",
}


def _description(lists: dict[str, set[Month]], status: PublicationStatus) -> str:
    told = lists["published_but_not_loaded"]
    lists = {**lists, "months_missing_in_between": lists["months_missing_in_between"] - told}
    message = [f"{_LABELS[name]}: {_listed(months)}." for name, months in lists.items() if months]
    newest = status.newest_loaded or "nothing yet"
    first_error = next(iter(status.failed_checks.values()), "")
    nothing = f"All that is published is loaded and in the warehouse, to {newest}."
    return " ".join([*(message or [nothing]), first_error]).rstrip()


def _listed(months: set[Month]) -> str:
    keys = _month_keys(months)
    more = f" and {len(keys) - _MAX_LISTED} more" if len(keys) > _MAX_LISTED else ""
    return ", ".join(keys[:_MAX_LISTED]) + more
