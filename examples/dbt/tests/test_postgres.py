"""The example on a Postgres server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from example_project import copy_of_example, load_demo
from example_tests import ExampleTests

if TYPE_CHECKING:
    from collections.abc import Mapping

    from example_project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, postgres: Mapping[str, str]) -> Project:
    project = copy_of_example(tmp_path_factory.mktemp("postgres"), {"MOBILITY_TARGET": "postgres", **postgres})
    load_demo(project)
    project.run(
        sys.executable, "-m", "taxi_assets.cli.dbt_sources", "--output", project.folder / "dbt/models/sources.yml"
    )
    return project


class TestPostgres(ExampleTests):
    pass
