"""The component in another project defines what the platform defines; YAML can change owners, tags and groups."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from taxi_assets.automation.policies import switchable_names
from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings
from taxi_assets_tests.definitions.component_project import component_project, names

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WAREHOUSE = dg.AssetKey(["warehouse", "green_trips"])


def automation(defs: dg.Definitions) -> dict[str, list[object]]:
    """Return what Dagster needs to run the schedules and sensors of definitions, by name."""
    repository = defs.get_repository_def()
    found: dict[str, list[object]] = {
        schedule.name: [schedule.cron_schedule, schedule.execution_timezone, schedule.default_status, schedule.job_name]
        for schedule in repository.schedule_defs
    }
    for sensor in repository.sensor_defs:
        interval, selection = sensor.minimum_interval_seconds, str(sensor.asset_selection)
        found[sensor.name] = [type(sensor), interval, selection, sensor.default_status, sensor.required_resource_keys]
    return found


def names_by_status(defs: dg.Definitions, status: str) -> set[str]:
    """Return the names of the schedules and sensors with a default status."""
    repository = defs.get_repository_def()
    schedules = {schedule.name: schedule.default_status.value for schedule in repository.schedule_defs}
    sensors = {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs}
    return {name for name, found in (schedules | sensors).items() if found == status}


def policies(defs: dg.Definitions) -> dict[str, list[object]]:
    """Return what decides when and how each asset is materialized, by key."""
    graph = defs.resolve_asset_graph()
    return {
        node.key.to_user_string(): [
            sorted(parent.to_user_string() for parent in node.parent_keys),
            node.partitions_def,
            node.automation_condition,
            node.freshness_policy,
            node.code_version,
            node.assets_def.is_executable and node.assets_def.op.retry_policy,
            sorted(node.assets_def.required_resource_keys),
        ]
        for node in graph.asset_nodes
    }


def test_the_component_defines_what_the_platform_defines() -> None:
    attributes = {"notify_urls": "json://localhost", "notify_success": True}
    platform = build_definitions(Settings.from_env(attributes))
    with component_project(attributes) as (_, defs):
        assert names(defs) == names(platform)
        assert automation(defs) == automation(platform)
        assert policies(defs) == policies(platform)
        assert defs.executor is platform.executor


def test_an_asset_refers_to_its_code_and_to_the_yaml_file() -> None:
    with component_project() as (root, defs):
        metadata = defs.resolve_asset_graph().get(WAREHOUSE).metadata
        references = metadata["dagster/code_references"].value.code_references
        files = [reference.file_path for reference in references]
    assert [file.rpartition("/")[2] for file in files] == ["warehouse.py", "defs.yaml"]
    assert files[1].startswith(str(root))


def test_a_month_is_materialized_with_its_checks() -> None:
    with component_project({"source": "sample"}) as (_, defs), dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("green").execute_in_process(instance=instance, partition_key="2021-01")
        checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
        trips = defs.load_asset_value(["warehouse", "green_trips"], partition_key="2021-01", instance=instance)
    assert checks["row_counts_reconcile"]
    assert checks["matches_clean"]
    assert isinstance(trips, pd.DataFrame)
    assert len(trips) == 24_874


def test_a_schedule_and_a_sensor_request_runs_of_published_months(tmp_path: Path) -> None:
    now = dt.datetime(2021, 3, 5, tzinfo=dt.UTC)
    local = dg.DagsterInstance.local_temp(str(tmp_path))
    with component_project({"source": "sample"}) as (_, defs), local as instance:
        publisher = (defs.resources or {})["publisher"]
        repository = defs.get_repository_def()
        schedule = defs.resolve_schedule_def("green_monthly")
        with dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=now,
            repository_def=repository,
            resources={"publisher": publisher},
        ) as context:
            (request,) = schedule.evaluate_tick(context).run_requests or []
        assert request.partition_key == "2021-02"
        sensor = defs.resolve_sensor_def("green_publication")
        with dg.build_sensor_context(
            instance=instance, repository_def=repository, resources={"publisher": publisher}
        ) as sensor_context:
            assert sensor.evaluate_tick(sensor_context).run_requests


# --- post-processing --------------------------------------------------------------------------------------------------


def processed_specs(*rules: Mapping[str, object]) -> Mapping[str, dg.AssetSpec]:
    """Return the specs of all assets by key, after post-processing."""
    with component_project(post_processing={"assets": list(rules)}) as (_, defs):
        return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_post_processing_sets_owners_tags_groups_and_kinds() -> None:
    before = {spec.key.to_user_string(): spec for spec in build_definitions(Settings()).resolve_all_asset_specs()}
    after = processed_specs(
        {"target": "*", "attributes": {"owners": ["team:mobility"], "tags": {"domain": "taxi"}}},
        {"target": "group:green", "attributes": {"group_name": "green_taxis"}},
        {"target": "key:warehouse/*", "attributes": {"tags": {"tier": "gold"}}},
    )
    assert after.keys() == before.keys()
    for key, spec in after.items():
        assert spec.owners == ["team:mobility"]
        assert spec.group_name == ("green_taxis" if before[key].group_name == "green" else before[key].group_name)
        tier = {"tier": "gold"} if key.startswith("warehouse/") else {}
        assert spec.tags == {**before[key].tags, "domain": "taxi", **tier}


def test_post_processing_of_schedules_is_refused_by_dagster_and_an_attribute_switches_them_on() -> None:
    with (
        pytest.raises(Exception, match="TaxiPipeline") as caught,
        component_project(post_processing={"schedules": [{"target": "green_monthly"}]}),
    ):
        pytest.fail("Dagster post-processes schedules now: describe it in docs/how-to/component.md.")
    assert "post_processing.schedules" in str(caught.value.__cause__)
    on = ["green_monthly", "publication_daily", "yellow_publication"]
    with component_project({"switched_on": on}) as (_, defs):
        assert names_by_status(defs, "RUNNING") == {*on, "automation_conditions", "fail_orphaned_runs"}


def test_everything_that_is_off_can_be_switched_on() -> None:
    assert names_by_status(build_definitions(Settings()), "STOPPED") == set(switchable_names())


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`")
def test_a_secret_from_a_template_is_not_sent_to_the_ui(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_SOURCE", "https://user:hunter2@127.0.0.1:9/files")
    monkeypatch.setenv("TEAM_SLACK", "json://hunter2@localhost")
    attributes = {"source": "{{ env.TEAM_SOURCE }}", "notify_urls": "{{ env.TEAM_SLACK }}"}
    with component_project(attributes) as (_, defs):
        sent_to_ui = serialize_value(RepositorySnap.from_def(defs.get_repository_def()))
    assert "TEAM_SOURCE" in sent_to_ui
    assert "hunter2" not in sent_to_ui
