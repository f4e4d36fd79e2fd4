"""The example on a Postgres server."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg2
import pytest
from example_project import MONTH, NEXT_MONTH, copy_of_example, load_demo
from example_tests import BUILD_MONTH, ExampleTests

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


def test_two_runs_of_a_month_at_the_same_time_do_not_double_it(project: Project) -> None:
    days = f"mobility.airport_days WHERE data_month = DATE '{NEXT_MONTH}-01'"
    before = project.tables(NEXT_MONTH)
    with (
        psycopg2.connect(project.variables["TAXI_WAREHOUSE"]) as other_run,
        other_run.cursor() as cursor,
        ThreadPoolExecutor() as pool,
    ):
        cursor.execute(f"CREATE TEMPORARY TABLE new_rows AS SELECT * FROM {days}")
        cursor.execute(f"DELETE FROM {days}")
        cursor.execute("INSERT INTO mobility.airport_days SELECT * FROM new_rows")
        command = BUILD_MONTH.replace(MONTH, NEXT_MONTH)
        run = pool.submit(project.shell, command, "dbt")
        while not run.done() and not project.query("SELECT 1 FROM pg_locks WHERE NOT granted"):
            time.sleep(0.1)
        assert not run.done(), "The run did not wait."
        other_run.commit()
        run.result()
    assert before["airport_days"]
    assert project.tables(NEXT_MONTH) == before
