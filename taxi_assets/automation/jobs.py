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


_DESCRIPTIONS = {
    "marts": "Computes one month of all marts from the services whose trips are in the warehouse.",
    "quality": "Counts the clean and quarantined rows of every month in the lake, with the reasons.",
    "reference": "Downloads the taxi zones and loads them into the warehouse.",
    "views": "Writes views.duckdb: a DuckDB file with views of all tables in the lake, for readers.",
}
"""The jobs that materialize the group of assets with the same name."""


def service_jobs(service: Service) -> list[UnresolvedAssetJobDefinition]:
    """Return the job that takes one month from the publisher to the warehouse, and the job of its report.

    The report has a separate job, so that a run neither waits for charts nor fails because of them. The comparison of
    revisions has none: automation requests it only for a month that was revised.
    """
    report, revisions = (dg.AssetSelection.assets([layer, service.table]) for layer in ("reports", "revisions"))
    return [
        dg.define_asset_job(
            service.name,
            selection=dg.AssetSelection.groups(service.name) - report - revisions,
            description=f"{service.title}: downloads one month, cleans it, loads it into the warehouse, and checks it.",
        ),
        dg.define_asset_job(
            f"{service.name}_report",
            selection=report,
            description=f"{service.title}: renders the report on one month that is in the warehouse.",
        ),
    ]


def shared_jobs() -> list[UnresolvedAssetJobDefinition]:
    """Return the jobs that span services. The job `publication` runs checks only, and materializes no asset."""
    checks = (
        dg.AssetCheckKey(dg.AssetKey(["published", service.table]), PUBLISHED_MONTHS_LOADED)
        for service in SERVICES.values()
    )
    publication = dg.define_asset_job(
        "publication",
        selection=dg.AssetSelection.checks(*checks),
        description="Checks for every service which published months are not loaded, and which loaded months are not "
        "in the warehouse.",
    )
    groups = [
        dg.define_asset_job(group, selection=dg.AssetSelection.groups(group), description=description)
        for group, description in _DESCRIPTIONS.items()
    ]
    return [*groups, publication]
