"""The component takes the settings from YAML; an error names the attribute and the YAML file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.component import TaxiPipeline
from taxi_assets.errors import SettingsError
from taxi_assets.settings import Settings
from taxi_assets_tests.definitions.component_project import component_project

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def stores(defs: dg.Definitions) -> tuple[str, str]:
    """Return the folder of the lake, and the file of the warehouse."""
    resources = defs.resources or {}
    return resources["lake"].folder, resources["warehouse"].file


def error_message(attributes: Mapping[str, object]) -> str:
    """Return the error of a project whose attributes are refused. It must name the YAML file."""
    with pytest.raises(Exception, match="TaxiPipeline") as caught, component_project(attributes):
        pytest.fail("The attributes are accepted.")
    message = str(caught.value.__cause__)
    assert "/defs/taxi/defs.yaml:" in message
    return message


# --- the attributes ---------------------------------------------------------------------------------------------------


def test_every_setting_is_an_attribute_with_the_same_description() -> None:
    settings = {name: field.description for name, field in Settings.model_fields.items()}
    assert {name: field.description for name, field in TaxiPipeline.model_fields.items()} == settings


def test_without_attributes_lake_and_warehouse_are_in_the_data_folder_of_the_project() -> None:
    with component_project() as (root, defs):
        assert stores(defs) == (str(root / "data/lake"), str(root / "data/warehouse.duckdb"))


def test_attributes_take_precedence_over_variables_and_variables_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_LAKE", "/from/variable")
    monkeypatch.setenv("TAXI_WAREHOUSE", "duckdb:////from/variable.duckdb")
    with component_project({"lake": "/from/yaml"}) as (_, defs):
        assert stores(defs) == ("/from/yaml", "/from/variable.duckdb")


def test_every_attribute_takes_effect(tmp_path: Path) -> None:
    attributes = {
        "source": str(tmp_path),
        "lake": "gs://taxi-lake/nyc",
        "warehouse": "bigquery://taxi-project/taxi?location=EU",
        "schedule_cron": "0 7 2 * *",
        "schedule_timezone": "America/New_York",
        "switched_on": ["green_monthly", "yellow_publication"],
        "publication_interval_seconds": 60,
        "retry_delay_seconds": 0.5,
        "max_file_bytes": 1000,
        "max_expansion_ratio": 10,
        "keep_revisions": 3,
        "notify_urls": "json://localhost",
        "notify_success": True,
        "owners": ["team:mobility", "jane@example.com"],
        "ui_url": "https://dagster.example.com",
    }
    with component_project(attributes) as (_, defs):
        resources = defs.resources or {}
        schedules = {schedule.name: schedule for schedule in defs.get_repository_def().schedule_defs}
        sensors = {sensor.name: sensor for sensor in defs.sensors or []}
        clean = defs.resolve_asset_graph().assets_def_for_key(dg.AssetKey(["clean", "green_trips"]))
    assert clean.specs_by_key[dg.AssetKey(["clean", "green_trips"])].owners == ("team:mobility", "jane@example.com")
    publisher = resources["publisher"]
    assert (publisher.source, publisher.max_file_bytes, publisher.max_expansion_ratio) == (str(tmp_path), 1000, 10)
    lake = resources["lake"]
    assert (lake.bucket, lake.prefix, lake.keep_revisions) == ("taxi-lake", "nyc", 3)
    assert (resources["warehouse"].project, resources["warehouse"].location) == ("taxi-project", "EU")
    monthly = schedules["green_monthly"]
    assert (monthly.cron_schedule, monthly.execution_timezone) == ("0 7 2 * *", "America/New_York")
    assert {name for name, s in schedules.items() if s.default_status is dg.DefaultScheduleStatus.RUNNING} == {
        "green_monthly"
    }
    publication = {n: s for n, s in sensors.items() if n.endswith("_publication")}
    assert {sensor.minimum_interval_seconds for sensor in publication.values()} == {60}
    assert {name for name, s in publication.items() if s.default_status is dg.DefaultSensorStatus.RUNNING} == {
        "yellow_publication"
    }
    assert "notify_successes" in sensors
    assert clean.op.retry_policy is not None
    assert clean.op.retry_policy.delay == 0.5


def test_a_relative_path_is_in_the_project_wherever_dagster_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAXI_WAREHOUSE", "duckdb:///from/variable.duckdb")
    with component_project({"lake": "from/yaml"}) as (root, defs):
        assert stores(defs) == (str(root / "from/yaml"), str(root / "from/variable.duckdb"))


def test_templates_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_BUCKET", "taxi-lake")
    monkeypatch.setenv("TEAM_SECONDS", "77")
    attributes = {
        "lake": "gs://{{ env.TEAM_BUCKET }}/nyc",
        "warehouse": "duckdb:///{{ context.project_root }}/w.duckdb?schema={{ env('TEAM_SCHEMA', 'nyc') }}",
        "publication_interval_seconds": "{{ env.TEAM_SECONDS }}",
    }
    with component_project(attributes) as (root, defs):
        resources = defs.resources or {}
        assert resources["lake"].bucket == "taxi-lake"
        assert resources["warehouse"].file == str(root / "w.duckdb")
        assert resources["warehouse"].schema_name == "nyc"
        sensors = {sensor.name: sensor for sensor in defs.sensors or []}
        assert sensors["green_publication"].minimum_interval_seconds == 77


def test_a_folder_may_have_a_number_as_its_name() -> None:
    with component_project({"lake": "2021"}) as (root, defs):
        assert stores(defs)[0] == str(root / "2021")


def test_the_component_can_be_declared_in_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert stores(dg.build_defs_for_component(TaxiPipeline(lake="mine")))[0] == str(tmp_path / "mine")
    with pytest.raises(SettingsError, match="lake='s3://mine' is not accepted"):
        dg.build_defs_for_component(TaxiPipeline(lake="s3://mine"))


def test_the_repr_of_the_component_shows_no_settings_because_they_may_be_secrets() -> None:
    assert "hunter2" not in repr(TaxiPipeline(source="https://user:hunter2@host/x", notify_urls="slack://hunter2"))


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"lakes": "data"}, "attributes.lakes at "),
        ({"source": ["sample"]}, "attributes.source at "),
        ({"lake": "s3://bucket"}, "lake='s3://bucket' is not accepted. Use a folder, such as ./data/lake, or gs://"),
        ({"lake": ""}, "lake='' is not accepted. It is empty."),
        ({"lake": None}, "lake is not accepted. It has no value."),
        ({"lake": "{{ env.NOT_SET }}"}, "lake is not accepted. It has no value. Perhaps its environment variable is"),
        (
            {"publication_interval_seconds": "soon"},
            "publication_interval_seconds='soon' is not accepted. Write a whole number",
        ),
        ({"notify_success": "maybe"}, "notify_success='maybe' is not accepted. Write true or false."),
        ({"switched_on": ["green_hourly"]}, "is not accepted. There is no 'green_hourly'. Use yellow_monthly, "),
        ({"source": "https://user:hunter2@host/x"}, "source='https://…@host/x' is not accepted. It contains a secret."),
    ],
)
def test_an_error_names_the_attribute_and_the_yaml_file(attributes: Mapping[str, object], message: str) -> None:
    found = error_message(attributes)
    assert message in found
    assert "hunter2" not in found


def test_each_invalid_attribute_and_variable_has_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_WAREHOUSE", "warehouse.duckdb")
    file, *lines = error_message({"lake": "s3://bucket", "schedule_cron": "often"}).splitlines()
    assert file.endswith("defs.yaml:")
    assert [line.partition(" is not accepted. ")[0] for line in lines] == [
        "schedule_cron='often'",
        "lake='s3://bucket'",
        "TAXI_WAREHOUSE='warehouse.duckdb'",
    ]
