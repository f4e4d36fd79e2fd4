"""Jobs by name: the whole chain of one service for one month, the marts of one month, and what has no months."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.automation.publication.status import PUBLISHED_MONTHS_LOADED
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from taxi_assets.dagster_compat import UnresolvedAssetJobDefinition
    from taxi_assets.tlc.schema import Service


def service_job(service: Service) -> UnresolvedAssetJobDefinition:
    """Everything about a service, a month a run: from the publisher to the warehouse, with all checks."""
    return dg.define_asset_job(
        service.name,
        selection=dg.AssetSelection.groups(service.name) - _reports(service),
        description=f"{service.title}: fetch a month, clean it, load it, check it.",
    )


def report_job(service: Service) -> UnresolvedAssetJobDefinition:
    """The report on a service's month: apart from the chain, which neither waits for pictures nor fails for them."""
    return dg.define_asset_job(
        f"{service.name}_report",
        selection=_reports(service),
        description=f"{service.title}: draw the report on a month that is in the warehouse.",
    )


def _reports(service: Service) -> dg.AssetSelection:
    return dg.AssetSelection.assets(["reports", service.table])


def marts_job() -> UnresolvedAssetJobDefinition:
    """All marts, a month a run, with their checks."""
    return dg.define_asset_job(
        "marts",
        selection=dg.AssetSelection.groups("marts"),
        description="Make a month of all marts from the services whose trips are in the warehouse.",
    )


def quality_job() -> UnresolvedAssetJobDefinition:
    """What became of the rows of all months."""
    return dg.define_asset_job(
        "quality",
        selection=dg.AssetSelection.groups("quality"),
        description="Count what became of the rows of every month that is in the lake.",
    )


def reference_job() -> UnresolvedAssetJobDefinition:
    """The taxi zones."""
    return dg.define_asset_job(
        "reference", selection=dg.AssetSelection.groups("reference"), description="Fetch and load the taxi zones."
    )


def publication_job() -> UnresolvedAssetJobDefinition:
    """The checks on what the publishers have: no asset, and so no month."""
    return dg.define_asset_job(
        "publication",
        selection=dg.AssetSelection.checks(
            *(
                dg.AssetCheckKey(dg.AssetKey(["published", service.table]), PUBLISHED_MONTHS_LOADED)
                for service in SERVICES.values()
            )
        ),
        description="Ask the publishers of all services: which months are published but not loaded, or loaded but not "
        "in the warehouse?",
    )
