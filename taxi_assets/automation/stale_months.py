"""Find the months that a change in the code has made stale.

Belongs here: comparing the code version of loaded months with the current one. Does not belong here: months that the
publisher has revised (`publication/`), and requesting runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxi_assets.automation.publication.materializations import clean_code_versions

if TYPE_CHECKING:
    import dagster as dg

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service


def months_of_older_code(instance: dg.DagsterInstance, service: Service) -> list[Month]:
    """Return the months of a service whose clean layer was built with other rules, columns or cleaning code.

    Dagster's UI marks the same months as stale. The answer comes from the latest materialization of each month, so the
    lake is not read. The following months are not stale:

    - Months that a run cleaned with a selection of the rules in its run config. Run config is not code.
    - Months whose materialization was reported by hand. Their code version is unknown.

    Args:
        instance: The Dagster instance with the materializations.
        service: The service with its current rules and columns.

    Returns:
        The months, oldest first.
    """
    versions = clean_code_versions(instance, service)
    return sorted(month for month, version in versions.items() if version not in {None, service.code_version})
