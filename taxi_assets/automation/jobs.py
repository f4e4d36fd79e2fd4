"""Jobs: the whole chain of one service for one month, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from taxi_assets.tlc.schema import Service


def service_job(service: Service) -> UnresolvedAssetJobDefinition:
    """Everything about a service, a month a run: from the publisher to the warehouse, with all checks."""
    return dg.define_asset_job(
        service.name,
        selection=dg.AssetSelection.groups(service.name),
        description=f"{service.title}: fetch a month, clean it, load it, check it.",
    )


def reference_job() -> UnresolvedAssetJobDefinition:
    """The taxi zones."""
    return dg.define_asset_job(
        "reference", selection=dg.AssetSelection.groups("reference"), description="Fetch and load the taxi zones."
    )
