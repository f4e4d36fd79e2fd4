"""Check before the first step of a run that the IO managers can store what the assets of the run return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taxi_assets.automation.step_failures import as_failures

if TYPE_CHECKING:
    from dagster import JobDefinition


def require_storable_outputs(job: JobDefinition, steps: Any) -> None:
    """Raise an error if an IO manager of this package cannot store an asset as it is defined.

    Args:
        job: The job of the run.
        steps: The steps of the run, from Dagster's execution plan.

    Raises:
        dagster.Failure: An asset declares a type that its IO manager cannot store, or a table without the column that
            assigns rows to partitions (`AssetDefinitionError`). The message names the asset and the fix.
    """
    for step in steps:
        node = job.get_op(step.node_handle)
        for output in node.definition.output_defs:
            manager = job.resource_defs.get(output.io_manager_key)
            check = getattr(getattr(manager, "configurable_resource_cls", None), "check_definition", None)
            key = job.asset_layer.get_asset_key_for_node_output(step.node_handle, output.name) if check else None
            if check is None or key is None or output.dagster_type.is_nothing:
                continue
            asset = job.asset_layer.get(key)
            with as_failures():
                check(key, output.dagster_type.typing_type, asset.metadata, asset.partitions_def)
