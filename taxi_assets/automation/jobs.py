"""The jobs: two per service, and one each for marts, quality, zones, views and the publication checks.

One job of a service materializes all its layers, the other its report.

Belongs here: asset selections by name. Does not belong here: when a job runs (`schedules.py`, `sensors/`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.automation.publication.status import PUBLISHED_MONTHS_LOADED
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from taxi_assets.dagster_compat import UnresolvedAssetJobDefinition
    from taxi_assets.tlc.schema import Service


def service_job(service: Service) -> UnresolvedAssetJobDefinition:
    """Return the job that takes one month of a service from the publisher to the warehouse, with all checks."""
    return dg.define_asset_job(
        service.name,
        selection=dg.AssetSelection.groups(service.name) - _reports(service),
        description=f"{service.title}: downloads one month, cleans it, loads it into the warehouse, and checks it.",
    )


def report_job(service: Service) -> UnresolvedAssetJobDefinition:
    """Return the job that renders the report on one month of a service.

    It is not part of the service's job, so that a run neither waits for charts nor fails because of them.
    """
    return dg.define_asset_job(
        f"{service.name}_report",
        selection=_reports(service),
        description=f"{service.title}: renders the report on one month that is in the warehouse.",
    )


def _reports(service: Service) -> dg.AssetSelection:
    return dg.AssetSelection.assets(["reports", service.table])


def marts_job() -> UnresolvedAssetJobDefinition:
    """Return the job that computes one month of all marts, with their checks."""
    return dg.define_asset_job(
        "marts",
        selection=dg.AssetSelection.groups("marts"),
        description="Computes one month of all marts from the services whose trips are in the warehouse.",
    )


def quality_job() -> UnresolvedAssetJobDefinition:
    """Return the job that computes the quality metrics of all months."""
    return dg.define_asset_job(
        "quality",
        selection=dg.AssetSelection.groups("quality"),
        description="Counts the clean and quarantined rows of every month in the lake, with the reasons.",
    )


def reference_job() -> UnresolvedAssetJobDefinition:
    """Return the job that loads the taxi zones."""
    return dg.define_asset_job(
        "reference",
        selection=dg.AssetSelection.groups("reference"),
        description="Downloads the taxi zones and loads them into the warehouse.",
    )


def views_job() -> UnresolvedAssetJobDefinition:
    """Return the job that writes the file of views over the lake's Parquet."""
    return dg.define_asset_job(
        "views",
        selection=dg.AssetSelection.groups("views"),
        description="Writes views.duckdb: a DuckDB file with views of all tables in the lake, for readers.",
    )


def publication_job() -> UnresolvedAssetJobDefinition:
    """Return the job that runs the publication check of every service. It materializes no asset."""
    return dg.define_asset_job(
        "publication",
        selection=dg.AssetSelection.checks(
            *(
                dg.AssetCheckKey(dg.AssetKey(["published", service.table]), PUBLISHED_MONTHS_LOADED)
                for service in SERVICES.values()
            )
        ),
        description="Checks for every service which published months are not loaded, and which loaded months are not "
        "in the warehouse.",
    )
