"""Monthly partitions: each service has the months of its own history, and no others."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from taxi_assets.tlc.schema import Service


def monthly_partitions(service: Service) -> dg.MonthlyPartitionsDefinition:
    """Return the months from the service's first one to the last that has ended, with keys such as "2021-01"."""
    return _monthly_partitions(str(service.first_month))


def all_services_partitions() -> dg.MonthlyPartitionsDefinition:
    """Return the months in which at least one service exists, with keys such as "2021-01"."""
    return monthly_partitions(min(SERVICES.values(), key=lambda service: service.first_month))


@cache
def _monthly_partitions(first_month: str) -> dg.MonthlyPartitionsDefinition:
    # Cached, because the assets of a run must share one partitions definition, and comparing two is slow.
    return dg.MonthlyPartitionsDefinition(start_date=first_month, fmt="%Y-%m")
