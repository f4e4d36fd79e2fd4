"""The example on a DuckDB file, and what is the same on every database: lineage and the check of the month."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from example_project import MODELS, NEXT_MONTH, copy_of_example, load_demo
from example_tests import BUILD, BUILD_MONTH, ExampleTests, failed

if TYPE_CHECKING:
    from example_project import Project

HOLD_SECONDS = 12  # dbt starts within this time, and then needs the file
HOLD = "import duckdb, sys, time; file = duckdb.connect(sys.argv[1]); print(flush=True); time.sleep(float(sys.argv[2]))"
LINEAGE = """
import json
from mobility.definitions import defs
graph = defs().resolve_asset_graph()
node = lambda key: graph.get(key)
print(json.dumps({
    key.to_user_string(): {
        "parents": sorted(parent.to_user_string() for parent in graph.get(key).parent_keys),
        "same_months": graph.get(key).partitions_def == graph.get(green).partitions_def,
        "checks": sorted(check.name for check in graph.asset_check_keys if check.asset_key == key),
    }
    for green in graph.get_all_asset_keys() if green.to_user_string() == "warehouse/green_trips"
    for key in graph.get_all_asset_keys() if graph.get(key).group_name == "mobility"
}))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = copy_of_example(tmp_path_factory.mktemp("duckdb"), {})
    load_demo(project)
    return project


class TestDuckDB(ExampleTests):
    pass


def test_lineage_leads_from_the_tables_of_the_platform_to_the_models(project: Project) -> None:
    # The commands of the README have parsed the project.
    output = project.run(sys.executable, "-W", "ignore", "-c", LINEAGE)
    assets = json.loads(output.splitlines()[-1])
    assert {key: asset["parents"] for key, asset in assets.items()} == {
        "airport_trips": ["reference/taxi_zones", "warehouse/green_trips"],
        "borough_tips": ["reference/taxi_zones", "warehouse/green_trips"],
        "airport_days": ["airport_trips"],
    }
    assert {key: asset["same_months"] for key, asset in assets.items()} == dict.fromkeys(MODELS, True)
    assert "not_null_borough_tips_data_month" in assets["borough_tips"]["checks"]


def test_dbt_waits_for_another_process_that_holds_the_file(project: Project) -> None:
    command = [sys.executable, "-c", HOLD, str(project.duckdb_file), str(HOLD_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        started = time.monotonic()
        project.shell(BUILD_MONTH, "dbt")
        assert time.monotonic() - started > HOLD_SECONDS - 1
    assert failed(project.results()) == {}


def test_without_a_month_the_tables_are_rebuilt_from_all_months(project: Project) -> None:
    following = project.tables(NEXT_MONTH)
    project.query("UPDATE mobility.airport_days SET data_month = DATE '2009-01-01'")
    project.shell(f"{BUILD} --select resource_type:model", "dbt")
    assert project.tables(NEXT_MONTH) == following
    assert set(project.query("SELECT DISTINCT data_month FROM mobility.airport_days")) == {(dt.date(2021, 2, 1),)}


def test_an_invalid_month_is_refused(project: Project) -> None:
    output = project.shell("dbt compile --vars '{month: 2021-13}'", "dbt", check=False)
    assert "month is 2021-13. Write it as YYYY-MM, such as 2021-01." in output


def test_dbt_sends_no_usage_statistics(project: Project) -> None:
    # dbt identifies the sender by a file in the home folder.
    assert not (project.root / ".dbt").exists()
