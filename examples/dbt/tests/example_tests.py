"""The tests that hold on every database, in the order in which they run: the last ones change the trips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from example_project import MODELS, MONTH, NEXT_MONTH, REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from example_project import Project


def commands(page: str) -> list[str]:
    """Return the shell blocks of a page."""
    text = (REPOSITORY / page).read_text()
    return [block.partition("```")[0] for block in text.split("```sh\n")[1:]]


((TRY_IT,), (BUILD_AND_FRESHNESS, BUILD_MONTH)) = commands("examples/dbt/README.md"), commands("docs/how-to/dbt.md")
BUILD, FRESHNESS = BUILD_AND_FRESHNESS.splitlines()
PLATFORM = {"raw", "clean", "quarantine", "warehouse", "reports", "revisions"}


def failed(results: Mapping[str, str]) -> dict[str, str]:
    """Return the nodes that neither passed nor succeeded."""
    return {node: status for node, status in results.items() if status not in {"pass", "success"}}


class ExampleTests:
    """Subclasses set the database, by their module's fixture `project`."""

    def test_all_models_and_all_tests_of_the_generated_sources_pass(self, project: Project) -> None:
        project.shell(BUILD, "dbt")
        results = project.results()
        assert failed(results) == {}
        assert len([node for node in results if ".source_" in node or ".unique_key_" in node]) > 50
        assert all(project.tables(MONTH).values())
        assert all(project.tables(NEXT_MONTH).values())

    def test_every_source_with_a_ledger_is_fresh(self, project: Project) -> None:
        project.shell(FRESHNESS, "dbt")
        fresh = project.results("sources")
        assert failed(fresh) == {}
        assert {node.rpartition(".")[2] for node in fresh} == {
            "yellow_trips", "green_trips", "fhv_trips", "fhvhv_trips", "month_quality",
        }  # fmt: skip

    def test_the_commands_of_the_readme_run_a_month_of_the_platform_and_the_models_in_one_run(
        self, project: Project
    ) -> None:
        before, following = project.tables(MONTH), project.tables(NEXT_MONTH)
        project.shell(TRY_IT, "../..")
        with dg.DagsterInstance.from_config(str(project.folder / "data/dagster")) as instance:
            (run,) = instance.get_runs()
            assert (run.status, run.tags["dagster/partition"]) == (dg.DagsterRunStatus.SUCCESS, MONTH)
            entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        events = [entry.dagster_event for entry in entries if entry.dagster_event]
        stored = {event.asset_key.to_user_string() for event in events if event.asset_key}
        assert stored == {f"{layer}/green_trips" for layer in PLATFORM} | {"reference/taxi_zones", *MODELS}
        # The models replaced their month, and left the other one alone.
        assert (project.tables(MONTH), project.tables(NEXT_MONTH)) == (before, following)

    def test_a_month_is_replaced_and_the_other_months_stay(self, project: Project) -> None:
        before, following = project.tables(MONTH), project.tables(NEXT_MONTH)
        assert all(before.values())

        # The month has been loaded again, with fewer rows. --full-refresh does not drop the other months.
        project.query("DELETE FROM taxi.green_trips WHERE data_month = DATE '2021-01-01' AND dropoff_location_id = 132")
        project.shell(f"{BUILD_MONTH.strip()} --full-refresh", "dbt")
        after = project.tables(MONTH)
        assert after["airport_days"] == [row for row in before["airport_days"] if "JFK Airport" not in row]
        assert after["airport_days"] != before["airport_days"]
        assert project.tables(NEXT_MONTH) == following

        # The month has no rows any more.
        project.query("DELETE FROM taxi.green_trips WHERE data_month = DATE '2021-01-01'")
        project.shell(BUILD_MONTH, "dbt")
        assert project.tables(MONTH) == {model: [] for model in MODELS}
        assert project.tables(NEXT_MONTH) == following
