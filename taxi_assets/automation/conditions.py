"""When an asset is materialized without anybody asking: when what it is made of has changed."""

from __future__ import annotations

import dagster as dg


def follow_upstream() -> dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]:
    """Materialize a month when a month upstream of it, of any age, has other data than before.

    Asks for nothing when a file was fetched again with the same bytes, when a run that goes through the whole chain
    already does it, before blocking checks upstream have passed, and when switched on over months that are loaded.
    """
    changed = dg.AutomationCondition.data_version_changed() & ~dg.AutomationCondition.executed_with_root_target()
    return (
        dg.AutomationCondition.any_deps_match(changed).since_last_handled()
        & dg.AutomationCondition.all_deps_blocking_checks_passed()
        & ~dg.AutomationCondition.any_deps_missing()
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
    ).with_label("what it is made of has changed")


def follow_changes() -> dg.AutomationConditionSensorDefinition:
    """The sensor that looks whether the conditions hold. It downloads nothing, so it is on from the start."""
    return dg.AutomationConditionSensorDefinition(
        "follow_changes",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes a month anew downstream when what it is made of has changed.",
    )
