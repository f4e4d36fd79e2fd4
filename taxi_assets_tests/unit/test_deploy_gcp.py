"""deploy/gcp and docs/google-cloud.md are valid and consistent, tested without Google Cloud and Terraform providers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import dagster as dg
import pytest
import yaml
from dagster._core.storage.compute_log_manager import ComputeIOType
from google.api_core.exceptions import Forbidden

from taxi_assets.addresses import BigQueryAddress, BucketAddress, parse_lake_address, parse_warehouse_address
from taxi_assets.google_auth import READ_BUCKET, READ_OBJECTS, WRITE_OBJECTS
from taxi_assets.resources.google import CloudStorageResource
from taxi_assets.storage.lake.gcs_lake import GcsLake
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.bigquery_fixtures import load, make_dataset
from taxi_assets_tests.contract.stores.bigquery import bigquery, open_warehouse, service_account
from taxi_assets_tests.contract.stores.gcs import cloud_storage
from taxi_assets_tests.google.cloud_storage import BUCKET, CloudStorage
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taxi_assets_tests.google.bigquery import BigQuery
    from taxi_assets_tests.google.service_account import ServiceAccount

__all__ = ["bigquery", "cloud_storage", "service_account"]

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy" / "gcp"
GUIDE = (REPOSITORY / "docs" / "google-cloud.md").read_text()
VALUES = {"PROJECT": "my-project", "BUCKET": "taxi-lake", "LOCATION": "europe-west6"}

RoleGrants = set[tuple[str, str]]
"""Pairs of a role and the scope on which it is grants."""
ROLES: RoleGrants = {
    ("roles/storage.objectUser", "bucket"),
    ("roles/storage.legacyBucketReader", "bucket"),
    ("roles/bigquery.dataEditor", "dataset"),
    ("roles/bigquery.jobUser", "project"),
    ("roles/bigquery.readSessionUser", "project"),
}

PERMISSIONS = {
    "roles/storage.objectUser": {
        *("storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list"),
        "storage.objects.update",
    },
    "roles/storage.legacyBucketReader": {"storage.buckets.get", "storage.objects.list"},
    "roles/bigquery.dataEditor": {
        *("bigquery.datasets.get", "bigquery.tables.create", "bigquery.tables.delete", "bigquery.tables.get"),
        *("bigquery.tables.getData", "bigquery.tables.list", "bigquery.tables.update", "bigquery.tables.updateData"),
    },
    "roles/bigquery.jobUser": {"bigquery.jobs.create"},
    "roles/bigquery.readSessionUser": {"bigquery.readsessions.create", "bigquery.readsessions.getData"},
}
"""Permissions of each role that matter here, from Google's pages "IAM roles for Cloud Storage"
(storage/docs/access-control/iam-roles) and "BigQuery roles and permissions" (bigquery/docs/access-control)."""


# --- Terraform --------------------------------------------------------------------------------------------------------


def terraform() -> str:
    return "\n".join(file.read_text() for file in sorted(DEPLOY.glob("*.tf")))


def terraform_block(head: str) -> str:
    """Return a top-level block, from its head to its closing brace."""
    found = re.search(rf"^{re.escape(head)} {{$.*?^}}$", terraform(), flags=re.MULTILINE | re.DOTALL)
    assert found is not None, head
    return found[0]


def variable_default(variable: str) -> str:
    found = re.search(r'default\s+= "?([^"\n]+)', terraform_block(f'variable "{variable}"'))
    assert found is not None, variable
    return found[1]


def test_the_terraform_files_are_formatted_and_can_be_parsed() -> None:
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("terraform is not installed")
    environment = {"PATH": os.environ["PATH"], "CHECKPOINT_DISABLE": "1"}
    run = subprocess.run(
        [program, "fmt", "-check", "-diff", str(DEPLOY)], capture_output=True, text=True, check=False, env=environment
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_variable_and_resource_in_terraform_is_declared() -> None:
    text = terraform()
    variables = set(re.findall(r'^variable "(\w+)"', text, flags=re.MULTILINE))
    assert set(re.findall(r"\bvar\.(\w+)", text)) == variables
    resources = {f"{kind}.{name}" for kind, name in re.findall(r'^resource "(\w+)" "(\w+)"', text, flags=re.MULTILINE)}
    assert set(re.findall(r"\bgoogle_\w+\.\w+", text)) <= resources


def test_terraform_grants_each_role_on_the_smallest_scope() -> None:
    grants = re.findall(r'resource "google_(\w+)" "\w+" {[^}]*?role\s+= "([^"]+)"', terraform())
    scopes = {
        "storage_bucket_iam_member": "bucket",
        "bigquery_dataset_iam_member": "dataset",
        "project_iam_member": "project",
    }
    assert {(role, scopes[kind]) for kind, role in grants} == ROLES
    assert len(grants) == len(ROLES) == len(set(re.findall(r"roles/[\w.]+", terraform())))


def test_the_readme_counts_the_roles() -> None:
    limited = [role for role, scope in ROLES if scope != "project"]
    assert f"| {len(ROLES)} roles, {len(limited)} of which are limited" in (DEPLOY / "README.md").read_text()


def test_terraform_creates_no_key_because_its_state_would_contain_it() -> None:
    assert "google_service_account_key" not in terraform()


def test_the_bucket_is_private_and_keeps_replaced_objects_for_a_while() -> None:
    bucket = re.sub(r"\s+", " ", terraform_block('resource "google_storage_bucket" "lake"'))
    assert "uniform_bucket_level_access = true" in bucket
    assert 'public_access_prevention = "enforced"' in bucket
    assert "versioning { enabled = true }" in bucket
    assert 'type = "Delete" } condition { days_since_noncurrent_time = var.noncurrent_days }' in bucket
    assert 'type = "AbortIncompleteMultipartUpload" } condition { age = 7 }' in bucket
    assert "retention_duration_seconds = var.soft_delete_days * 24 * 60 * 60" in bucket


def address_from_terraform(name: str) -> str:
    """Return the value of an output for the variables that `create.sh` gets in these tests."""
    values = {
        "google_storage_bucket.lake.name": VALUES["BUCKET"],
        "google_bigquery_dataset.warehouse.dataset_id": variable_default("dataset"),
        "var.lake_prefix": variable_default("lake_prefix"),
        "var.project": VALUES["PROJECT"],
        "var.location": VALUES["LOCATION"],
    }
    found = re.search(r'value = "(.*)"', terraform_block(f'output "{name}"'))
    assert found is not None
    return re.sub(r"\$\{([^}]+)\}", lambda expression: values[expression[1]], found[1])


def test_an_output_named_after_a_setting_is_a_valid_value_of_the_setting() -> None:
    named = set(re.findall(r'^output "(TAXI_\w+)"', terraform(), flags=re.MULTILINE))
    readers: dict[str, Callable[[str], object]] = {
        "TAXI_LAKE": parse_lake_address,
        "TAXI_WAREHOUSE": parse_warehouse_address,
    }
    assert {name: readers[name](address_from_terraform(name)) for name in named} == {
        "TAXI_LAKE": BucketAddress("taxi-lake", "lake"),
        "TAXI_WAREHOUSE": BigQueryAddress("my-project", "taxi", "europe-west6"),
    }


def test_every_output_in_the_readme_exists() -> None:
    named = set(re.findall(r"terraform output -raw (\w+)", (DEPLOY / "README.md").read_text()))
    assert named
    assert named <= set(re.findall(r'^output "(\w+)"', terraform(), flags=re.MULTILINE))


# --- create.sh --------------------------------------------------------------------------------------------------------

RECORDER = f"""#!{sys.executable} -IS
import json, os, pathlib, sys
words = sys.argv[1:]
calls = pathlib.Path(os.environ["CALLS"])
with calls.open("a") as file:
    file.write(json.dumps([pathlib.Path(sys.argv[0]).name, *words]) + "\\n")
for word in words:
    if word.startswith("--lifecycle-file="):
        calls.with_name("lifecycle.json").write_text(pathlib.Path(word.partition("=")[2]).read_text())
sys.exit("describe" in words and not os.environ.get("EXISTS"))
"""
"""A replacement for gcloud and bq that records its arguments."""


class RecordedScript:
    """`create.sh` with replacements for gcloud and bq that record their arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("gcloud", "bq"):
            program = folder / name
            program.write_text(RECORDER)
            program.chmod(0o755)

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "CALLS": str(self.folder / "calls"),
            "TMPDIR": str(self.folder),
            **variables,
        }
        return subprocess.run(
            ["bash", str(DEPLOY / "create.sh")], capture_output=True, text=True, check=False, env=environment
        )

    def calls(self) -> list[list[str]]:
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def script(tmp_path: Path) -> RecordedScript:
    return RecordedScript(tmp_path)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RecordedScript, str]:
    """Run the script while no resource exists; return the script and its output."""
    script = RecordedScript(tmp_path_factory.mktemp("script"))
    result = script.run(**VALUES)
    assert result.returncode == 0, result.stderr
    return script, result.stdout


def creating_calls(calls: list[list[str]]) -> list[list[str]]:
    return [call for call in calls if {"create", "mk"} & set(call)]


def test_the_script_is_executable_and_valid_bash() -> None:
    subprocess.run(["bash", "-n", str(DEPLOY / "create.sh")], check=True)
    assert os.access(DEPLOY / "create.sh", os.X_OK)


def test_the_script_grants_the_same_roles_as_terraform(first_run: tuple[RecordedScript, str]) -> None:
    scopes = {
        "storage buckets add-iam": "bucket",
        "ON SCHEMA `my-project.taxi`": "dataset",
        "projects add-iam": "project",
    }
    grants: RoleGrants = set()
    for call in map(" ".join, first_run[0].calls()):
        for role in re.findall(r"roles/[\w.]+", call):
            (scope,) = (scope for words, scope in scopes.items() if words in call)
            assert "serviceAccount:taxi-assets@my-project.iam.gserviceaccount.com" in call
            grants.add((role, scope))
    assert grants == ROLES


def test_the_script_prints_the_same_addresses_as_terraform_and_they_are_valid_settings(
    first_run: tuple[RecordedScript, str],
) -> None:
    printed = dict(re.findall(r"^(TAXI_\w+)='(.*)'$", first_run[1], flags=re.MULTILINE))
    assert printed == {name: address_from_terraform(name) for name in ("TAXI_LAKE", "TAXI_WAREHOUSE")}
    assert parse_lake_address(printed["TAXI_LAKE"]) == BucketAddress("taxi-lake", "lake")
    assert parse_warehouse_address(printed["TAXI_WAREHOUSE"]) == BigQueryAddress("my-project", "taxi", "europe-west6")


def test_the_script_configures_the_bucket_like_terraform(first_run: tuple[RecordedScript, str]) -> None:
    script, _ = first_run
    assert json.loads((script.folder / "lifecycle.json").read_text())["rule"] == [
        {
            "action": {"type": "Delete"},
            "condition": {"daysSinceNoncurrentTime": int(variable_default("noncurrent_days"))},
        },
        {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}},
    ]
    (update,) = (call for call in script.calls() if "update" in call)
    wanted = {"--uniform-bucket-level-access", "--public-access-prevention", "--versioning"}
    assert wanted | {f"--soft-delete-duration={variable_default('soft_delete_days')}d"} <= set(update)


def test_the_script_enables_the_services_and_creates_bucket_dataset_and_account(
    first_run: tuple[RecordedScript, str],
) -> None:
    calls = first_run[0].calls()
    services = set(re.findall(r"\w+\.googleapis\.com", terraform()))
    assert services == {word for word in calls[0] if word.endswith(".googleapis.com")}
    assert "iamcredentials.googleapis.com" in services, "Workload Identity and impersonation need it"
    bucket, dataset, account = (" ".join(call) for call in creating_calls(calls))
    assert "gs://taxi-lake" in bucket
    assert "my-project:taxi" in dataset
    assert "--location=europe-west6" in bucket
    assert "--location=europe-west6" in dataset
    assert "service-accounts create taxi-assets" in account


def test_a_second_run_of_the_script_creates_no_duplicates_and_leaves_no_files(script: RecordedScript) -> None:
    assert script.run(**VALUES, EXISTS="yes").returncode == 0
    (dataset,) = creating_calls(script.calls())
    assert "--force" in dataset, "with --force, `bq mk` accepts an existing dataset"
    assert {path.name for path in script.folder.iterdir()} == {"gcloud", "bq", "calls", "lifecycle.json"}


def test_the_script_fails_without_a_project_before_it_calls_anything(script: RecordedScript) -> None:
    refused = script.run(BUCKET="taxi-lake")
    assert refused.returncode != 0
    assert "PROJECT: the project id" in refused.stderr
    assert script.calls() == []


# --- the guide --------------------------------------------------------------------------------------------------------


def test_the_guide_names_the_same_roles() -> None:
    rows = re.findall(r"^\| `(roles/[\w.]+)` \| the (\w+) \|", GUIDE, flags=re.MULTILINE)
    assert set(rows) == ROLES
    assert len(rows) == GUIDE.count("roles/") == len(ROLES)


def test_the_addresses_in_the_guide_are_valid() -> None:
    named = dict(re.findall(r"^export (TAXI_\w+)='(.*)'$", GUIDE, flags=re.MULTILINE))
    assert parse_lake_address(named["TAXI_LAKE"]) == BucketAddress("taxi-lake", "lake")
    assert parse_warehouse_address(named["TAXI_WAREHOUSE"]) == BigQueryAddress("my-project", "taxi", "EU", 10**10)


def test_every_item_that_only_the_real_service_shows_names_a_step_of_the_script() -> None:
    table = GUIDE.partition("Only the real service can show the following.")[2].partition("\n\nNeither the tests")[0]
    items = re.findall(r"^\| (.+) \| (.+) \|$", table, flags=re.MULTILINE)[1:]
    script = (DEPLOY / "verify.py").read_text()
    steps = set(re.findall(r'^    "([a-z-]+)": \w+,$', script.partition("STEPS: ")[2], flags=re.MULTILINE))
    assert len(items) == table.count("\n|") - 2 >= 8
    named = {step.strip("`") for _, step in items}
    assert named <= steps
    assert steps - named == {"next-month"}, "it prepares the step `pruning`"


def test_the_links_of_the_guide_have_targets() -> None:
    for text, home in ((GUIDE, REPOSITORY / "docs"), ((DEPLOY / "README.md").read_text(), DEPLOY)):
        for link in re.findall(r"\]\((?!https:|#)([^)]+)\)", text):
            assert (home / link.partition("#")[0]).exists(), link


# --- compute logs and permissions on the bucket -----------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudStorage]:
    """Return the bucket of the guide."""
    with CloudStorage(versioning=True) as storage:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        yield storage


def guide_dagster_yaml() -> dict[str, Any]:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
    return dict(yaml.safe_load(text))


def instance_on(machine: Path) -> dg.DagsterInstance:
    """Return an instance with the compute logs of the guide; the folder is its machine's local disk."""
    machine.mkdir()
    settings = guide_dagster_yaml() | {"telemetry": {"enabled": False}}
    settings["compute_logs"]["config"]["local_dir"] = str(machine)
    (machine / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return dg.DagsterInstance.from_config(str(machine))


def test_the_instance_of_the_guide_stores_logs_in_the_bucket_and_another_machine_reads_them(
    bucket: CloudStorage, tmp_path: Path
) -> None:
    key, text = ["a-run", "compute_logs", "a-step"], b"24,874 rows are clean\n"
    with (
        instance_on(tmp_path / "one") as instance,
        instance.compute_log_manager.open_log_stream(key, ComputeIOType.STDERR) as log,
    ):
        assert log is not None
        cast("IO[str]", log).write(text.decode())  # Dagster types the stream as bytes, but opens it for text
    assert bucket.object("logs/storage/a-run/compute_logs/a-step.err") == text
    with instance_on(tmp_path / "other") as instance:
        assert instance.compute_log_manager.get_log_data(key).stderr == text


def test_the_roles_suffice_to_load_a_month_and_none_is_superfluous(
    cloud_storage: CloudStorage, bigquery: BigQuery, service_account: ServiceAccount
) -> None:
    """The doubles know which permission each request and each job needs."""
    lake = GcsLake(storage=CloudStorageResource(), bucket=BUCKET, prefix="lake")
    warehouse = open_warehouse(bigquery.environment, service_account.base64)
    make_dataset(warehouse, "US")
    bigquery.demanded.clear()  # deploy/gcp creates the dataset
    for rows in (3, 4):  # replaces the objects and the partition the second time
        load(warehouse, publish_generated_month(lake, rows=rows), f"run-{rows}")
    assert len(warehouse.read_month(GREEN, MONTH)) == 4
    lake.sizes_in("clean/green_trips")
    lake.delete("clean/green_trips/2020-10.parquet")
    demanded = cloud_storage.demanded | bigquery.demanded
    assert set(PERMISSIONS) == {role for role, _ in ROLES}
    assert demanded <= set().union(*PERMISSIONS.values())
    # Only large results need read sessions (contract/test_bigquery_results.py).
    for role, granted in (item for item in PERMISSIONS.items() if item[0] != "roles/bigquery.readSessionUser"):
        others = set().union(*(PERMISSIONS[other] for other in PERMISSIONS if other != role))
        assert demanded & granted - others, f"{role} is not needed"


def test_errors_name_only_roles_that_are_granted_or_documented() -> None:
    remedies = {WRITE_OBJECTS, READ_BUCKET, READ_OBJECTS}
    granted = {role for role, _ in ROLES}
    named = {role for text in remedies for role in re.findall(r"roles/[\w.]+", text)}
    assert named - granted == {"roles/storage.objectViewer"}
    assert "Storage Object Viewer (`storage.objectViewer`)" in GUIDE


def test_compute_logs_need_permission_to_get_the_bucket_and_the_lake_does_not(
    bucket: CloudStorage, tmp_path: Path
) -> None:
    bucket.forbid("storage.buckets.get")
    lake = GcsLake(storage=CloudStorageResource(), bucket=BUCKET, prefix="lake")
    with lake.staging() as folder:
        file = folder / "file"
        file.write_bytes(b"a month")
        lake.publish(file, "clean/green_trips/2021-01.parquet", replaces=None, run_id="a-run")
    with lake.open("clean/green_trips/2021-01.parquet") as month:
        assert month.read() == b"a month"
    with (
        pytest.raises(Forbidden, match=r"storage\.buckets\.get"),
        instance_on(tmp_path / "one") as instance,
    ):
        _ = instance.compute_log_manager
