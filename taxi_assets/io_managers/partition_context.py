"""Read the asset, the partition and the attempt from the Dagster context of an IO manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.automation.step_failures import CONCURRENT_UPDATE_RETRIES
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from taxi_assets.tlc.schema import Service


def object_prefix_of(context: dg.OutputContext | dg.InputContext) -> str:
    """Return the key of the asset's objects in the lake without the extension, such as "clean/green_trips/2021-01"."""
    partition = [context.partition_key] if context.has_asset_partitions else []
    return "/".join([*context.asset_key.path, *partition])


def service_of(context: dg.OutputContext | dg.InputContext) -> Service:
    """Return the service whose table has the name in the last part of the asset key."""
    table = context.asset_key.path[-1]
    return next(service for service in SERVICES.values() if service.table == table)


def retry_number_of(context: dg.OutputContext | dg.InputContext) -> int:
    """Return how many attempts of the step have failed.

    Without a step, as when a script loads an asset, return the maximum, so that no retry is requested.
    """
    try:
        return context.step_context.previous_attempt_count
    except dg.DagsterInvariantViolationError:
        return CONCURRENT_UPDATE_RETRIES
