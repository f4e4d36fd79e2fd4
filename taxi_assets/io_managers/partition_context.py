"""Read the asset, partition and attempt that an IO manager works on from its Dagster context."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.automation.step_failures import CONCURRENT_UPDATE_RETRIES
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from taxi_assets.tlc.schema import Service


def object_prefix_of(context: dg.OutputContext | dg.InputContext) -> str:
    """Return the prefix of the asset's objects in the lake, such as "clean/green_trips/2021-01"."""
    partition = [context.partition_key] if context.has_asset_partitions else []
    return "/".join([*context.asset_key.path, *partition])


def service_of(context: dg.OutputContext | dg.InputContext) -> Service:
    """Return the service whose table the asset is."""
    table = context.asset_key.path[-1]
    return next(service for service in SERVICES.values() if service.table == table)


def retry_number_of(context: dg.OutputContext | dg.InputContext) -> int:
    """Return how many attempts of the step have failed; the maximum if the context has no step to retry."""
    try:
        return context.step_context.previous_attempt_count
    except dg.DagsterInvariantViolationError:
        return CONCURRENT_UPDATE_RETRIES
