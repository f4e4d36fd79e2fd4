"""Automation conditions: when an asset is rebuilt because its upstream data changed.

Belongs here: one condition per kind of asset, and the sensor that evaluates them. Does not belong here: the request for
the first layer, the raw file, which needs the publisher (`publication/`).
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.automation.publication.run_tags import PINNED_TAG, UNCOMPARED_TAG
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.zones import ZONES_TABLE

if TYPE_CHECKING:
    from taxi_assets.tlc.schema import Service

_AUTOMATION = dg.AutomationCondition
_ZONES = dg.AssetSelection.assets(["reference", ZONES_TABLE])


def on_upstream_change() -> dg.AutomationCondition[dg.AssetKey]:
    """Return the condition of a layer: request a month when the layer before it has new data for that month.

    The month may be of any age. The condition requests nothing

    - if a file was downloaded again with the same bytes,
    - if a run of the whole pipeline already materializes both layers,
    - before the blocking checks upstream have passed,
    - for months that were loaded before the condition was first evaluated.
    """
    # `since_last_handled()` also counts a materialization of the asset itself as handled. In a backfill of the job,
    # nothing else shows that the run will also build this layer. If the file is revised meanwhile, the publication
    # sensor detects the mismatch.
    changed_alone = _AUTOMATION.data_version_changed() & ~_AUTOMATION.executed_with_root_target()
    changed: dg.AutomationCondition[Any] = _AUTOMATION.any_deps_match(changed_alone).since_last_handled()
    return (
        changed
        & _AUTOMATION.all_deps_blocking_checks_passed()
        & ~_AUTOMATION.any_deps_missing()
        & ~_AUTOMATION.any_deps_in_progress()
        & ~_AUTOMATION.in_progress()
    ).with_label("upstream data changed")


def on_raw_change() -> dg.AutomationCondition[dg.AssetKey]:
    """Return the condition of the clean layer: like `on_upstream_change`, but never for a month that is pinned."""
    # The pin is in the lake. The run that cleaned the month has copied it to its tags. Not `executed_with_tags()`: it
    # is true only for the partition that was materialized last of all.
    is_pin = _AUTOMATION.all_new_updates_have_run_tags(tag_keys={PINNED_TAG})
    pinned = is_pin.since(_AUTOMATION.newly_updated() & ~is_pin)
    return (on_upstream_change() & ~pinned).with_label("the raw file changed, and the month is not pinned")


def on_warehouse_change(service: Service) -> dg.AutomationCondition[dg.AssetKey]:
    """Return the condition of a report: request a month when the warehouse has new data for it or for the month before.

    The request waits

    - until the month's own trips and the taxi zones are loaded; revised zones alone rebuild no report,
    - while the month before is being loaded, or if it failed a blocking check. If that month is not
      loaded, the request does not wait for it,
    - while the two newest revisions of the month are being compared. A new comparison rebuilds the report.
    """
    # Changed clean trips change the warehouse next, and the report shows the warehouse. But the clean trips show
    # whether the month itself is loaded: the month before may be missing from the table.
    table = dg.AssetSelection.assets(["warehouse", service.table])
    revisions = dg.AssetSelection.assets(["revisions", service.table])
    return (
        _not_yet_requested(_AUTOMATION.any_deps_match(_AUTOMATION.data_version_changed()).allow(table | revisions))
        & ~_AUTOMATION.any_deps_match(_check_failed())
        & ~_AUTOMATION.any_deps_missing().ignore(table | revisions)
        & ~_AUTOMATION.any_deps_in_progress()
        & ~_AUTOMATION.in_progress()
    ).with_label("warehouse data of this month or the month before changed")


def _check_failed() -> dg.AutomationCondition[Any]:
    return _AUTOMATION.any_checks_match(_AUTOMATION.check_failed(), blocking_only=True)


def on_revision(service: Service) -> dg.AutomationCondition[dg.AssetKey]:
    """Return the condition of a comparison: request a month when other bytes have replaced its raw file.

    The first file of a month requests nothing, because there is nothing to compare. The request waits until the run
    that downloaded the file has cleaned it.
    """
    is_first_file = (~_AUTOMATION.missing()).newly_true()
    # A month can be loaded and revised between two evaluations. The lake has both files, and the run has found them.
    # Not `executed_with_tags()`: it is true only for the partition that was materialized last of all.
    uncompared = _AUTOMATION.any_new_update_has_run_tags(tag_keys={UNCOMPARED_TAG})
    revised = _AUTOMATION.any_deps_match(_AUTOMATION.data_version_changed() & (~is_first_file | uncompared))
    return (
        _not_yet_requested(revised.allow(dg.AssetSelection.assets(["raw", service.table])))
        & ~_AUTOMATION.any_deps_in_progress()
        & ~_AUTOMATION.in_progress()
    ).with_label("the raw file was replaced by other bytes")


def on_service_change() -> dg.AutomationCondition[dg.AssetKey]:
    """Return the condition of a mart: request a month when any service has new data for it in the warehouse.

    The request does not wait for services that are not loaded. It waits while one of them is being loaded, until the
    blocking checks have passed, and until the taxi zones are loaded. Revised zones alone rebuild no month.
    """
    return (
        _not_yet_requested(_AUTOMATION.any_deps_match(_AUTOMATION.data_version_changed()).ignore(_ZONES))
        & ~_AUTOMATION.any_deps_match(_check_failed())
        & ~_AUTOMATION.any_deps_missing().allow(_ZONES)
        & ~_AUTOMATION.any_deps_in_progress()
        & ~_AUTOMATION.in_progress()
    ).with_label("a service's data in the warehouse changed")


def _not_yet_requested(changed: dg.AutomationCondition[Any]) -> dg.AutomationCondition[dg.AssetKey]:
    """Return the condition that something changed and has not been requested since."""
    # Not `since_last_handled()`: it loses a change in the tick after a request, or during the requested run, because
    # its reset wins over its trigger. Here only a request resets, and not if something changed in the same tick.
    requested = (_AUTOMATION.newly_requested() & ~changed) | _AUTOMATION.initial_evaluation()
    return changed.since(requested)


def on_any_month_change() -> dg.AutomationCondition[dg.AssetKey]:
    """Return the condition of an asset computed from all months: request it when any month has new data.

    The request waits while any month is being materialized, so a backfill of a hundred months causes one run, at its
    end.
    """
    return (
        _not_yet_requested(_AUTOMATION.any_deps_match(_AUTOMATION.data_version_changed()))
        & ~_AUTOMATION.any_deps_in_progress()
        & ~_AUTOMATION.in_progress()
    ).with_label("data of any month changed")


def on_lake_change() -> dg.AutomationCondition[dg.AssetKey]:
    """Return the condition of the file of views: like `on_any_month_change`, but after the marts and the quality table.

    Otherwise, a changed month would cause two runs: one for itself, and one for the marts that follow it.
    """
    follows = _AUTOMATION.any_deps_match(_AUTOMATION.will_be_requested())
    return (on_any_month_change() & ~follows).with_label("data in the lake changed")


def on_first_trips_loaded() -> dg.AutomationCondition[dg.AssetKey]:
    """Return the condition of the taxi zones: request them once, when the first trips are in the warehouse.

    The marts and reports need them.
    """
    loaded = reduce(or_, (_loaded(service) for service in SERVICES.values()))
    return (_AUTOMATION.missing() & loaded & ~_AUTOMATION.in_progress()).with_label(
        "trips are loaded, but the taxi zones are missing"
    )


def _loaded(service: Service) -> dg.AutomationCondition[dg.AssetKey]:
    return _AUTOMATION.asset_matches(dg.AssetKey(["warehouse", service.table]), _AUTOMATION.newly_updated())


def automation_conditions() -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that evaluates the automation conditions of all assets.

    It is on by default: it requests no month that is not loaded yet, and downloads only the taxi zones, once.
    """
    return dg.AutomationConditionSensorDefinition(
        "automation_conditions",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Rebuilds downstream assets when their upstream data changes, for the months that changed. It also "
        "loads the taxi zones once, when the first trips are in the warehouse.",
    )
