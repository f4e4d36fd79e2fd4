"""A Dagster project that consists of the component, for tests of its YAML file."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml
from dagster.components.testing import create_defs_folder_sandbox

from taxi_assets.component import TaxiPipeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import dagster as dg


@contextmanager
def component_project(
    attributes: Mapping[str, object] | None = None, post_processing: Mapping[str, object] | None = None
) -> Iterator[tuple[Path, dg.Definitions]]:
    """Yield the folder of a project, and its definitions as Dagster loads them.

    Args:
        attributes: Those of defs.yaml, which is otherwise as `dg scaffold defs` writes it.
        post_processing: That of defs.yaml.
    """
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.scaffold_component(component_cls=TaxiPipeline, defs_path="taxi")
        file = folder / "defs.yaml"
        content = yaml.safe_load(file.read_text())
        content |= {"attributes": {**(attributes or {})}}
        content |= {"post_processing": {**post_processing}} if post_processing else {}
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        with sandbox.build_component_tree() as tree:
            with warnings.catch_warnings():  # about Dagster's own code; `load_from_defs_folder` ignores them too
                warnings.simplefilter("ignore")
                defs = tree.build_defs()
            yield sandbox.project_root, defs


def names(defs: dg.Definitions) -> dict[str, set[Any]]:
    """Return the names of everything that definitions consist of."""
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    return {
        "assets": set(graph.get_all_asset_keys()),
        "checks": set(graph.asset_check_keys),
        "jobs": {job.name for job in repository.get_all_jobs()},
        "schedules": {schedule.name for schedule in repository.schedule_defs},
        "sensors": {sensor.name for sensor in repository.sensor_defs},
        "resources": set(repository.get_top_level_resources()),
    }
