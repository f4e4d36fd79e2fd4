"""The dbt models as assets, downstream of the platform's tables.

`sources.yml` maps each source to an asset of the platform, such as `warehouse/green_trips`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets

from taxi_assets.partitions import monthly_partitions
from taxi_assets.tlc.services.registry import SERVICES

PROJECT = DbtProject(project_dir=Path(__file__).parents[3] / "dbt")
PROJECT.prepare_if_dev()  # `dg` parses the project. Without `dg`, run `dbt parse` first.


# The partitions are those of green taxis: one run can then materialize their month and the models that read it. The
# tests of sources are excluded, because the platform checks its tables itself.
@dbt_assets(
    manifest=PROJECT.manifest_path,
    project=PROJECT,
    exclude="source:*",
    partitions_def=monthly_partitions(SERVICES["green"]),
)
def dbt_models(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
    """Build and test the models for one month."""
    month = json.dumps({"month": context.partition_key})
    yield from dbt.cli(["build", "--vars", month], context=context).stream()


@dg.definitions
def defs() -> dg.Definitions:
    """Return the models, and the resource that runs dbt."""
    return dg.Definitions(assets=[dbt_models], resources={"dbt": DbtCliResource(project_dir=PROJECT)})
