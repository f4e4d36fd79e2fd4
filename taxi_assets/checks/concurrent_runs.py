"""Wait in a check while another run is replacing the month that the check reads.

A mismatch between two layers is an error, unless another run has replaced one layer and not yet the other. Such a run
is recognized by data that it has written: the newest materialization in the event log, or a ledger row that it has
invalidated. The run counts only if it has not yet materialized the compared layer. A run that evaluates its checks has
done that, so two runs that evaluate checks do not wait for each other.

A check waits for the other run and then compares again. If the other run is still running after `WAIT_SECONDS`, the
check reports a warning that names the run. If it has ended, the mismatch is an error at once; if it is unknown, after
`WAIT_SECONDS`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import dagster as dg

from taxi_assets.automation.sensors.orphaned_runs import is_lock_held
from taxi_assets.storage.warehouse.base_warehouse import POLL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WAIT_SECONDS = 300.0
"""How long a check waits for another run: as long as a warehouse waits for a lock."""

Compared = TypeVar("Compared")


@dataclass(frozen=True)
class Replacement:
    """Another run that has replaced a layer of the month, or is replacing it."""

    run_id: str | None
    """None if the run has not logged what it wrote, or logs to another Dagster instance."""


@dataclass(frozen=True)
class ComparisonOutcome(Generic[Compared]):
    """The last comparison, and the run that is still replacing the month after the wait."""

    compared: Compared
    replacing_run_id: str | None = None

    @property
    def severity(self) -> dg.AssetCheckSeverity:
        """WARN if another run is still replacing the month; otherwise ERROR.

        The other run's own check reports the final result.
        """
        return dg.AssetCheckSeverity.ERROR if self.replacing_run_id is None else dg.AssetCheckSeverity.WARN

    def describe(self, description: str) -> str:
        """Add the other run to the description of a mismatch."""
        if self.replacing_run_id is None:
            return description
        return (
            f"Run {self.replacing_run_id} is still replacing this month, and its own check will report the final "
            f"result. Current result: {description}"
        )

    @property
    def metadata(self) -> dict[str, str]:
        """The other run as metadata; empty if there is none."""
        return {} if self.replacing_run_id is None else {"replacing_run": self.replacing_run_id}


def compare_when_settled(
    context: dg.AssetCheckExecutionContext,
    target: dg.AssetKey,
    compare: Callable[[], Compared],
    find_replacements: Callable[[Compared], Sequence[Replacement]],
) -> ComparisonOutcome[Compared]:
    """Compare two layers of a month, and compare again while another run is replacing the month.

    Args:
        context: The check's own context.
        target: The asset that the other run still has to materialize before both sides agree.
        compare: Reads both sides.
        find_replacements: Returns the runs that may explain a mismatch; none if both sides agree, or if no other run
            has written anything.

    Returns:
        The last comparison. `replacing_run_id` is set only if a run is still running after `WAIT_SECONDS`.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    ended: Sequence[Replacement] = []
    while True:
        compared = compare()
        replacements = find_replacements(compared)
        states = {found.run_id: _is_in_progress(context.instance, found.run_id, target) for found in replacements}
        active_run_id = next((run_id for run_id, is_active in states.items() if is_active), None)
        if active_run_id is None and None not in states.values():
            # A run that has ended may have done so since the comparison.
            if replacements and replacements != ended:
                ended = replacements
                continue
            return ComparisonOutcome(compared)
        if time.monotonic() > deadline:
            return ComparisonOutcome(compared, active_run_id)
        context.log.debug(
            "%s is replacing the month; waiting.", f"Run {active_run_id}" if active_run_id else "Another run"
        )
        time.sleep(POLL_SECONDS)


def newest_replacements(
    context: dg.AssetCheckExecutionContext, stored_versions: Mapping[dg.AssetKey, str | None]
) -> Sequence[Replacement]:
    """Return the other runs that have replaced a layer of the month since this run materialized it.

    Args:
        context: The check's own context.
        stored_versions: The current data version of each layer, by asset.
    """
    found = []
    for asset, version in stored_versions.items():
        newest = newest_materialization(context.instance, asset, context.partition_key)
        if newest is None:
            continue
        run_id, logged = newest
        if run_id != context.run.run_id:
            found.append(Replacement(run_id))
        elif logged != version:
            found.append(Replacement(None))
    return found


def newest_materialization(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str
) -> tuple[str, str | None] | None:
    """Return the run ID and data version of the newest materialization; None if the event log has none."""
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[partition]), limit=1
    ).records
    if not found:
        return None
    materialization = found[0].asset_materialization
    tags = (materialization.tags if materialization else None) or {}
    return found[0].run_id, tags.get("dagster/data_version")


def _is_in_progress(instance: dg.DagsterInstance, run_id: str | None, target: dg.AssetKey) -> bool | None:
    """Return whether a run is still running and has yet to materialize the target; None if the run is unknown."""
    run = None if run_id is None else instance.get_run_by_id(run_id)
    if run is None:
        return None
    if run.is_finished or is_lock_held(instance, run.run_id) is False:
        return False
    kinds = {dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_MATERIALIZATION}
    records = instance.get_records_for_run(run.run_id, of_type=kinds).records
    events = [event for record in records if (event := record.event_log_entry.dagster_event) is not None]
    about_target = {event.event_type for event in events if event.asset_key == target}
    return about_target == {dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED}
