"""The check on what a publisher has: is it loaded, and is what is loaded in the warehouse.

It is about a service, not about a month, and it asks the publisher. So it stands on the published months, which no run
makes: on an asset of the chain it would be a step of every month's run.
"""

import datetime as dt
import math
from collections.abc import Callable

import dagster as dg

from taxi_assets.automation.loaded import digests_in_warehouse
from taxi_assets.automation.look import Limits, Look
from taxi_assets.automation.publication import now
from taxi_assets.failures import as_failures
from taxi_assets.partitions import monthly_partitions
from taxi_assets.publisher import PublisherResource
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Service

CHECK = "loaded_and_in_the_warehouse"

_PATIENT = Limits(seconds=math.inf)
_QUOTED = 24


def publication_check(
    service: Service, *, limits: Limits = _PATIENT, clock: Callable[[], dt.datetime] = now
) -> dg.AssetChecksDefinition:
    """Compare what is published, what is loaded, and what is in the warehouse."""

    @dg.asset_check(
        asset=["published", service.table],
        name=CHECK,
        description="Every month that is published is loaded, and every month that is loaded is in the warehouse, from "
        "the same file. Months before the oldest of the last year's that are loaded are history, which a person loads: "
        "those missing in between are listed.",
    )
    def loaded_and_in_the_warehouse(
        context: dg.AssetCheckExecutionContext, publisher: PublisherResource
    ) -> dg.AssetCheckResult:
        time = clock()
        keys = monthly_partitions(service).get_partition_keys(current_time=time)
        look = Look(context.instance, service, publisher, keys, time, limits)
        with as_failures():
            not_loaded = look.published_but_not_loaded()
            revised = look.revised_but_not_loaded()
        there = digests_in_warehouse(context.instance, service)
        waiting = [
            month
            for month, raw in look.raw.items()
            if (month not in there or there[month] != raw.sha256) and month not in look.busy
        ]
        return dg.AssetCheckResult(
            passed=not (not_loaded or revised or waiting),
            severity=dg.AssetCheckSeverity.WARN,
            description=_said(look, not_loaded, revised, waiting),
            metadata={
                "published_but_not_loaded": _keys(not_loaded),
                "revised_but_not_loaded": _keys(revised),
                "loaded_but_not_in_the_warehouse": _keys(waiting),
                "months_overdue": _keys({*not_loaded, *revised, *waiting}),
                "months_missing_in_between": _keys(look.missing_in_between),
                "months_loaded": len(look.raw),
                "newest_loaded": str(look.newest_loaded or "none"),
            },
        )

    return loaded_and_in_the_warehouse


def _keys(months: set[Month] | list[Month]) -> list[str]:
    return [str(month) for month in sorted(months)]


def _said(look: Look, not_loaded: list[Month], revised: list[Month], waiting: list[Month]) -> str:
    lists = {
        "Published, but not loaded": not_loaded,
        "Published in a newer version, whose runs failed": revised,
        "Loaded, but not in the warehouse": waiting,
        "Missing in between, published or not": [m for m in look.missing_in_between if m not in not_loaded],
    }
    said = [f"{what}: {_some(months)}." for what, months in lists.items() if months]
    newest = look.newest_loaded or "nothing yet"
    return " ".join(said) or f"All that is published is loaded and in the warehouse, to {newest}."


def _some(months: list[Month]) -> str:
    keys = _keys(months)
    more = f" and {len(keys) - _QUOTED} more" if len(keys) > _QUOTED else ""
    return ", ".join(keys[:_QUOTED]) + more
