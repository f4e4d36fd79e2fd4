"""Months as Dagster partitions: each service has those of its own history, and no others."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from taxi_assets.tlc.schema import Service


def monthly_partitions(service: Service) -> dg.MonthlyPartitionsDefinition:
    """From the service's first month to the last one that has ended; keys such as `2021-01`."""
    return _monthly_partitions(str(service.first_month))


def partitions_of_all() -> dg.MonthlyPartitionsDefinition:
    """The months in which any service has trips."""
    return monthly_partitions(min(SERVICES.values(), key=lambda service: service.first_month))


@cache
def _monthly_partitions(first_month: str) -> dg.MonthlyPartitionsDefinition:
    # Cached: assets of one run must share one partitions definition, and comparing it is not free.
    return dg.MonthlyPartitionsDefinition(start_date=first_month, fmt="%Y-%m")
