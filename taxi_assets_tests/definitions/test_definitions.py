"""The names that users rely on, and the policies that every asset has."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.metadata.metadata_set import StorageAddress, TableMetadataSet
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from taxi_assets.build import build_definitions
from taxi_assets.marts.mart import marts
from taxi_assets.settings import Settings
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.conftest import REPOSITORY

FILE_KINDS = {"raw": {"csv", "parquet"}, "clean": {"parquet"}, "quarantine": {"parquet"}, "reports": {"html"}}
FILE_KINDS["revisions"] = {"parquet"}
LAYERS = ("raw", "clean", "quarantine", "warehouse", "reports", "revisions")
MARTS = tuple(marts())
FIRST_MONTHS = {
    "yellow": "2009-01",
    "green": "2013-08",
    "fhv": "2015-01",
    "fhvhv": "2019-02",
}


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_definitions(Settings())


@pytest.fixture(scope="module")
def specs(defs: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_asset_keys(specs: dict[str, dg.AssetSpec]) -> None:
    trips = {f"{layer}/{service}_trips" for layer in LAYERS for service in FIRST_MONTHS}
    published = {f"published/{service}_trips" for service in FIRST_MONTHS}
    marts = {f"marts/{mart}" for mart in MARTS}
    assert {"hour_of_week", "market_share", "od_flows", "payment_mix", "zone_day"} <= {*MARTS}
    assert set(specs) == trips | published | marts | {"reference/taxi_zones", "quality/month_quality", "views/duckdb"}


def test_each_layer_depends_on_the_one_before(specs: dict[str, dg.AssetSpec]) -> None:
    upstream = {key: {dep.asset_key.to_user_string() for dep in spec.deps} for key, spec in specs.items()}
    for service in SERVICES:
        assert upstream[f"raw/{service}_trips"] == {f"published/{service}_trips"}
        assert upstream[f"clean/{service}_trips"] == {f"raw/{service}_trips"}
        assert upstream[f"quarantine/{service}_trips"] == {f"raw/{service}_trips"}
        assert upstream[f"warehouse/{service}_trips"] == {f"clean/{service}_trips"}
        assert upstream[f"revisions/{service}_trips"] == {f"raw/{service}_trips", f"clean/{service}_trips"}
        layers = ("clean", "warehouse", "revisions")
        report_inputs = {*(f"{layer}/{service}_trips" for layer in layers), "reference/taxi_zones"}
        assert upstream[f"reports/{service}_trips"] == report_inputs


def test_each_mart_depends_on_the_services_that_record_what_it_needs(specs: dict[str, dg.AssetSpec]) -> None:
    tables = {f"warehouse/{service}_trips" for service in SERVICES}
    paid = {"warehouse/yellow_trips", "warehouse/green_trips"}
    for mart in MARTS:
        upstream = {dep.asset_key.to_user_string() for dep in specs[f"marts/{mart}"].deps}
        assert upstream == (paid if mart == "payment_mix" else tables) | {"reference/taxi_zones"}


def test_each_service_has_one_group(specs: dict[str, dg.AssetSpec]) -> None:
    for key, spec in specs.items():
        layer, _, table = key.partition("/")
        service = table.removesuffix("_trips")
        assert spec.group_name == (service if service in SERVICES else layer)


def test_partitions_are_the_months_since_each_service_s_first_one(specs: dict[str, dg.AssetSpec]) -> None:
    for service, first in FIRST_MONTHS.items():
        for layer in LAYERS:
            partitions = specs[f"{layer}/{service}_trips"].partitions_def
            assert isinstance(partitions, dg.MonthlyPartitionsDefinition)
            assert partitions.get_first_partition_key() == first
    for mart in MARTS:
        partitions = specs[f"marts/{mart}"].partitions_def
        assert isinstance(partitions, dg.MonthlyPartitionsDefinition)
        assert partitions.get_first_partition_key() == min(FIRST_MONTHS.values())


def test_every_asset_has_an_owner_a_kind_tags_and_a_description(specs: dict[str, dg.AssetSpec]) -> None:
    for key, spec in specs.items():
        assert [*spec.owners] == ["team:taxi-data"], key
        assert spec.kinds, key
        assert spec.tags["domain"] == "nyc-taxi", key
        assert len(spec.description or "") > 100, key


def test_owners_come_from_the_settings() -> None:
    owners = ("jane@example.com", "team:mobility")
    for spec in build_definitions(Settings(owners=owners)).resolve_all_asset_specs():
        assert tuple(spec.owners) == owners


def test_every_layer_has_a_tag_that_selects_it(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    selected = {
        layer: {key.path[0] for key in dg.AssetSelection.from_string(f"tag:layer={layer}").resolve(graph)}
        for layer in ("raw", "clean", "quarantine", "warehouse", "mart", "report", "reference", "quality")
    }
    others = {"mart": "marts", "report": "reports"}
    assert selected == {layer: {others.get(layer, layer)} for layer in selected}
    assert len(dg.AssetSelection.from_string("tag:layer=clean").resolve(graph)) == len(SERVICES)


GOOGLE = {"lake": "gs://bucket/prefix", "warehouse": "bigquery://my-project/nyc"}
POSTGRES = {"warehouse": "postgresql://taxi@no-such-host:5432/trips?schema=nyc"}


@pytest.mark.parametrize(
    ("addresses", "uri", "table", "database", "lake_kinds"),
    [
        ({"lake": "/no such/lake"}, "file:///no%20such/lake", "warehouse.taxi", "duckdb", set()),
        ({"warehouse": "duckdb:////no-such/trips.db?schema=nyc"}, None, "trips.nyc", "duckdb", set()),
        (GOOGLE, "gs://bucket/prefix", "my-project.nyc", "bigquery", {"gcs"}),
        (POSTGRES, None, "trips.nyc", "postgres", set()),
    ],
    ids=["folder", "DuckDB", "Google Cloud", "Postgres"],
)
def test_the_definitions_name_where_and_in_what_each_asset_is_stored(
    addresses: dict[str, Any], uri: str | None, table: str, database: str, lake_kinds: set[str]
) -> None:
    specs = build_definitions(Settings(**addresses)).resolve_all_asset_specs()
    for key, spec in ((spec.key.to_user_string(), spec) for spec in specs):
        layer, _, name = key.partition("/")
        address = TableMetadataSet.extract_storage_address(spec.metadata)
        if layer in FILE_KINDS:
            assert address is None
            assert str(spec.metadata["dagster/uri"]).endswith(f"/{key}")
            assert spec.metadata["dagster/uri"] == f"{uri}/{key}" or uri is None
            assert spec.kinds == lake_kinds | FILE_KINDS[layer] | {spec.tags["layer"]}
        elif layer == "published":
            assert address is None
            assert spec.kinds == FILE_KINDS["raw"] | {layer}
        elif layer == "views":
            assert address is None
            assert str(spec.metadata["dagster/uri"]).endswith("/views.duckdb")
            assert spec.kinds == lake_kinds | {"duckdb"}
        else:
            assert address == StorageAddress(storage_kind=database, table_name=f"{table}.{name}")
            others = {"marts": {"sql"}, "warehouse": {"warehouse"}}
            assert spec.kinds == {database} | others.get(layer, set())


def test_the_assets_of_a_service_are_told_apart_by_their_layer_in_the_graph(specs: dict[str, dg.AssetSpec]) -> None:
    # A box of the graph shows the last part of the key, and the kinds.
    for name in {spec.key.path[-1] for spec in specs.values()}:
        boxes = [spec for spec in specs.values() if spec.key.path[-1] == name]
        assert len({frozenset(spec.kinds) for spec in boxes}) == len(boxes), name
        assert len(boxes) == 1 or all(spec.tags["layer"] in spec.kinds for spec in boxes), name


def test_every_asset_that_runs_write_has_a_code_version(specs: dict[str, dg.AssetSpec]) -> None:
    versions = {key: spec.code_version for key, spec in specs.items()}
    assert {key for key, version in versions.items() if not version} == {f"published/{s}_trips" for s in SERVICES}
    for service in SERVICES.values():
        cleaning = service.version(service.rules)
        assert versions[f"clean/{service.table}"] == versions[f"quarantine/{service.table}"] == cleaning


def test_every_asset_links_to_its_code(specs: dict[str, dg.AssetSpec]) -> None:
    for key, spec in specs.items():
        if not key.startswith("published/"):
            references = spec.metadata["dagster/code_references"].code_references
            assert all(Path(reference.file_path).is_file() for reference in references), key
    of_mart = specs["marts/zone_day"].metadata["dagster/code_references"].code_references
    assert {Path(reference.file_path).name for reference in of_mart} == {"zone_day.sql", "mart_tables.py"}


def test_columns_reach_the_ui_with_unit_and_description(specs: dict[str, dg.AssetSpec]) -> None:
    for layer in ("clean", "warehouse"):
        schema = specs[f"{layer}/green_trips"].metadata["dagster/column_schema"]
        described = {column.name: column.description for column in schema.columns}
        assert list(described) == [column.name for column in SERVICES["green"].columns]
        assert "US dollars" in described["total_amount"]
        assert "miles" in described["trip_distance"]


def test_which_checks_exist_and_which_are_blocking(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    found = {
        (key.asset_key.to_user_string(), key.name): graph.get_check_spec(key).blocking for key in graph.asset_check_keys
    }
    for service in SERVICES:
        clean = f"clean/{service}_trips"
        assert {name: blocking for (asset, name), blocking in found.items() if asset == clean} == {
            "row_counts_reconcile": True,
            "share_quarantined": False,
            "row_count_in_range": False,
            "every_day_present": False,
            "no_unknown_columns": False,
        }
        assert found[f"warehouse/{service}_trips", "matches_clean"] is True
    for mart in MARTS:
        assert found[f"marts/{mart}", "key_is_unique"] is found[f"marts/{mart}", "totals_match_trips"] is True


def test_no_run_of_a_month_executes_a_publication_check(defs: dg.Definitions) -> None:
    publication_checks = {f"published__{service}_trips_published_months_loaded" for service in SERVICES}
    assert {node.name for node in defs.resolve_job_def("publication").nodes} == publication_checks
    for service in SERVICES:
        assert not publication_checks & {node.name for node in defs.resolve_job_def(service).nodes}


def test_job_names(defs: dg.Definitions) -> None:
    assert {job.name for job in defs.jobs or []} == {
        *SERVICES,
        *(f"{service}_report" for service in SERVICES),
        *("marts", "quality", "reference", "views", "publication"),
    }


def test_automation_that_downloads_files_is_off_by_default_and_the_rest_is_on(defs: dg.Definitions) -> None:
    running, stopped = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED
    assert {sensor.name: sensor.default_status for sensor in defs.sensors or []} == {
        "fail_orphaned_runs": running,
        "automation_conditions": running,
        **{f"{service}_publication": stopped for service in SERVICES},
    }
    schedules: list[Any] = [*(defs.schedules or [])]
    assert {schedule.name: schedule.cron_schedule for schedule in schedules} == {
        **{f"{service}_monthly": "0 5 1 * *" for service in SERVICES},
        **{f"{service}_daily": "30 5 * * *" for service in SERVICES},
        "publication_daily": "0 9 * * *",
    }
    for schedule in schedules:
        assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
        assert schedule.execution_timezone == "UTC"
        assert "until you switch it on" in schedule.description


def test_every_month_has_a_freshness_policy_and_steps_that_use_a_network_are_retried() -> None:
    def policies(settings: Settings) -> dict[str, bool]:
        graph = build_definitions(settings).resolve_asset_graph()
        for key in graph.materializable_asset_keys:
            assert (graph.get(key).freshness_policy is not None) == (
                key.path[0] not in {"reference", "views", "revisions"}
            ), key
        return {
            key.to_user_string(): getattr(graph.get(key).assets_def.node_def, "retry_policy", None) is not None
            for key in graph.materializable_asset_keys
            if "green" in key.path[-1] or key.path[0] == "reference"
        }

    embedded = policies(Settings())
    assert {key for key, is_retried in embedded.items() if is_retried} == {"raw/green_trips", "reference/taxi_zones"}
    remote = Settings(lake="gs://bucket", warehouse="postgresql://user@host/database")  # type: ignore[arg-type]
    assert all(policies(remote).values())


def test_the_code_location_has_the_same_name_everywhere() -> None:
    workspace = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    tools = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
    project, dg_project = tools["dagster"], tools["dg"]["project"]
    # The CLI's -m names the location after the module.
    assert workspace["location_name"] == workspace["module_name"] == "taxi_assets.definitions"
    assert project["code_location_name"] == project["module_name"] == "taxi_assets.definitions"
    assert dg_project["code_location_name"] == dg_project["code_location_target_module"] == "taxi_assets.definitions"


@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`")
def test_no_secret_reaches_the_ui(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_SOURCE", "http://reader:hidden-1@127.0.0.1:9/files")
    monkeypatch.setenv("TAXI_NOTIFY_URLS", "json://user:hidden-2@127.0.0.1:9/x?token=hidden-3")
    snapshot = RepositorySnap.from_def(build_definitions(Settings.from_env()).get_repository_def())
    sent_to_ui = serialize_value(snapshot)
    assert "TAXI_SOURCE" in sent_to_ui
    assert "hidden" not in sent_to_ui


@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`")
def test_a_source_without_a_secret_is_shown_in_the_ui(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_SOURCE", "http://127.0.0.1:9/files")
    snapshot = RepositorySnap.from_def(build_definitions(Settings.from_env()).get_repository_def())
    assert "http://127.0.0.1:9/files" in serialize_value(snapshot)


def test_importing_the_code_uses_no_network_and_writes_no_file(tmp_path: Path) -> None:
    # In a fresh interpreter, in an empty folder, with sockets and opening for writing forbidden.
    script = """
import sys
import tomllib
def forbid(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise RuntimeError(f"network at import: {event} {arguments}")
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        raise RuntimeError(f"file at import: {arguments}")
sys.addaudithook(forbid)
heavy = {"google.cloud.bigquery", "google.cloud.storage", "apprise", "matplotlib", "psycopg2", "requests", "sqlglot"}
heavy.add("pyiceberg")
import taxi_assets.build
found = {*heavy, "duckdb"} & set(sys.modules)  # see definitions.py
assert not found, f"imported at load: {found}"
import taxi_assets.definitions
found = heavy & set(sys.modules)
assert not found, f"imported at load: {found}"
import gc
assert gc.get_freeze_count(), "imported objects are still garbage-collected"
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_domain_does_not_import_dagster() -> None:
    package = REPOSITORY / "taxi_assets"
    for path in (path for folder in ("tlc", "marts", "reports") for path in (package / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not [n for n in names if n.split(".")[0] == "dagster"], path
            outside = ("taxi_assets.assets", "taxi_assets.storage", "taxi_assets.checks", "taxi_assets.automation")
            assert not [n for n in names if n.startswith(outside)], path
