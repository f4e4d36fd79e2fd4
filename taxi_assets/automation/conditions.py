"""When an asset is materialized without anybody asking: when what it is made of has changed."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.zones import ZONES_TABLE

if TYPE_CHECKING:
    from taxi_assets.tlc.schema import Service

_AUTOMATION = dg.AutomationCondition
_ZONES = dg.AssetSelection.assets(["reference", ZONES_TABLE])


def on_upstream_change() -> dg.AutomationCondition[dg.AssetKey]:
    """Materialize a month of a shelf when the shelf before it, a month of any age, has other data than before.

    Asks for nothing when a file was fetched again with the same bytes, when a run that goes through the whole chain
    already does it, before blocking checks upstream have passed, and when switched on over months that are loaded.
    """
    # A shelf that is made counts as handled: in a backfill of the job nothing else says that the run goes on to it.
    # Should its file be revised in that very moment, the publication sensor finds that they do not agree.
    by_itself = _AUTOMATION.data_version_changed() & ~_AUTOMATION.executed_with_root_target()
    changed: dg.AutomationCondition[Any] = _AUTOMATION.any_deps_match(by_itself).since_last_handled()
    return (
        changed
        & _AUTOMATION.all_deps_blocking_checks_passed()
        & ~_AUTOMATION.any_deps_missing()
        & ~_AUTOMATION.any_deps_in_progress()
        & ~_AUTOMATION.in_progress()
    ).with_label("what it is made of has changed")


def on_warehouse_change(service: Service) -> dg.AutomationCondition[dg.AssetKey]:
    """Materialize a month's report when its table, or that of the month before, has other data than before.

    Waits for the month's own trips and the taxi zones; these alone make no month anew. A month before that is not
    loaded is not waited for; one that is being loaded, or that failed a blocking check, is.
    """
    # What changes the clean trips changes the warehouse next, and only then is there something to report. But only by
    # them can it be seen whether the month's own trips are there: of the table, the month before may be missing.
    table = dg.AssetSelection.assets(["warehouse", service.table])
    return (
        _not_yet_requested(_AUTOMATION.any_deps_match(_AUTOMATION.data_version_changed()).allow(table))
        & ~_AUTOMATION.any_deps_match(_check_failed())
        & ~_AUTOMATION.any_deps_missing().ignore(table)
        & ~_AUTOMATION.any_deps_in_progress()
        & ~_AUTOMATION.in_progress()
    ).with_label("the table of the month, or of the month before, has changed")


def _check_failed() -> dg.AutomationCondition[Any]:
    return _AUTOMATION.any_checks_match(_AUTOMATION.check_failed(), blocking_only=True)


def on_service_change() -> dg.AutomationCondition[dg.AssetKey]:
    """Materialize a month of a mart when a service's month has other data than before, whichever services are loaded.

    Waits while others of them are being loaded, until blocking checks have passed, and for the taxi zones; these alone
    make no month anew.
    """
    return (
        _not_yet_requested(_AUTOMATION.any_deps_match(_AUTOMATION.data_version_changed()).ignore(_ZONES))
        & ~_AUTOMATION.any_deps_match(_check_failed())
        & ~_AUTOMATION.any_deps_missing().allow(_ZONES)
        & ~_AUTOMATION.any_deps_in_progress()
        & ~_AUTOMATION.in_progress()
    ).with_label("a service that it is made of has changed")


def _not_yet_requested(changed: dg.AutomationCondition[Any]) -> dg.AutomationCondition[dg.AssetKey]:
    # Not `since_last_handled()`: there, whatever changes in the tick after a request, or while the requested run goes,
    # counts as handled, and is lost. So only a request ends the wait, and no change of its own tick.
    asked = (_AUTOMATION.newly_requested() & ~changed) | _AUTOMATION.initial_evaluation()
    return changed.since(asked)


def on_any_month_change() -> dg.AutomationCondition[dg.AssetKey]:
    """Materialize what is made of all months when one of them has other data than before: once for many.

    Waits while any month is being made, so that a backfill of a hundred months asks for one run at its end.
    """
    return (
        _not_yet_requested(_AUTOMATION.any_deps_match(_AUTOMATION.data_version_changed()))
        & ~_AUTOMATION.any_deps_in_progress()
        & ~_AUTOMATION.in_progress()
    ).with_label("a month of those that it is made of has changed")


def load_once_needed() -> dg.AutomationCondition[dg.AssetKey]:
    """Load the taxi zones the first time that a service's trips are in the warehouse: the marts need them."""
    loaded = reduce(or_, (_loaded(service) for service in SERVICES.values()))
    return (_AUTOMATION.missing() & loaded & ~_AUTOMATION.in_progress()).with_label("there are trips, but no zones yet")


def _loaded(service: Service) -> dg.AutomationCondition[dg.AssetKey]:
    return _AUTOMATION.asset_matches(dg.AssetKey(["warehouse", service.table]), _AUTOMATION.newly_updated())


def automation_conditions() -> dg.AutomationConditionSensorDefinition:
    """The sensor that looks whether the conditions hold.

    On from the start: it asks for no month that is not loaded, and downloads nothing but the taxi zones, once.
    """
    return dg.AutomationConditionSensorDefinition(
        "automation_conditions",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes a month anew downstream when what it is made of has changed.",
    )
