"""Dagster+ and the CI workflow: code location, resources of runs, and the conditions of a deployment."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.files import CODE_LOCATION, find_tool, read_yaml, run_check

FILE = ".github/workflows/ci.yaml"
WORKFLOW: dict[Any, Any] = read_yaml(FILE)
JOBS: dict[str, Any] = WORKFLOW["jobs"]
MATRIX: list[dict[str, str]] = JOBS["test"]["strategy"]["matrix"]["include"]
IMAGE_PYTHON = "3.13"
ON = True  # YAML 1.1 parses the key `on` as true
(CODE_LOCATION_CONFIG,) = read_yaml("dagster_cloud.yaml")["locations"]


def test_dagster_plus_accepts_dagster_cloud_yaml() -> None:
    models = pytest.importorskip(
        "dagster_cloud_cli.config.models", reason="dagster-cloud (requirements/docker.lock) is not installed"
    )
    models.DagsterCloudYaml.model_validate(read_yaml("dagster_cloud.yaml"))


def test_the_code_location_has_the_same_name_as_in_other_deployments() -> None:
    assert (CODE_LOCATION_CONFIG["location_name"], CODE_LOCATION_CONFIG["code_source"]) == (
        CODE_LOCATION,
        {"module_name": CODE_LOCATION},
    )
    assert (REPOSITORY / CODE_LOCATION_CONFIG["build"]["directory"] / "Dockerfile").is_file()


def test_pod_settings_are_valid_and_documented_commands_create_the_account_and_secret_that_they_name() -> None:
    contexts = pytest.importorskip("dagster_k8s.container_context", reason="dagster-k8s is not installed")
    pods = contexts.K8sContainerContext.create_from_config(CODE_LOCATION_CONFIG["container_context"])
    assert pods.run_k8s_config.pod_spec_config["service_account_name"] == "taxi-code"
    assert pods.run_k8s_config.pod_spec_config["image_pull_secrets"] == [{"name": "taxi-registry"}]
    text = (REPOSITORY / "docs" / "kubernetes.md").read_text()
    assert "create serviceaccount taxi-code" in text
    assert "create secret docker-registry taxi-registry" in text


def test_runs_have_the_same_resources_as_in_the_kubernetes_deployment() -> None:
    kubernetes = read_yaml("deploy/kubernetes/values.yaml")
    container_config = kubernetes["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]["containerConfig"]
    assert (
        CODE_LOCATION_CONFIG["container_context"]["k8s"]["run_k8s_config"]["container_config"]["resources"]
        == container_config["resources"]
    )


def test_the_workflow_matches_githubs_schema_and_every_job_has_a_timeout() -> None:
    run_check(find_tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", FILE)
    assert all(0 < job["timeout-minutes"] <= 30 for job in JOBS.values())


def test_a_pull_request_cancels_only_its_own_workflow_runs() -> None:
    # The `closed` event of a merged pull request has the ref of main: only its number distinguishes it.
    assert WORKFLOW["concurrency"] == {
        "group": "${{ github.workflow }}-${{ github.event.pull_request.number || github.ref }}",
        "cancel-in-progress": "${{ github.event_name == 'pull_request' }}",
    }


def test_the_workflow_runs_every_tier_of_the_ci_script_and_deploys_only_after_they_pass() -> None:
    (command,) = re.findall(r"^make .*$", (REPOSITORY / ".ci/run").read_text(), re.MULTILINE)
    tiers = [word for word in command.split()[1:] if not word.startswith("-")]
    full = {entry["tier"] for entry in MATRIX if entry["python"] == IMAGE_PYTHON}
    assert len(tiers) >= 5
    assert full == {*tiers, "check", "test-ui"}
    (step,) = [step for step in JOBS["test"]["steps"] if "make" in step.get("run", "")]
    assert step["run"] == 'make "$TIER" COVERAGE="$COVERAGE"'
    assert step["env"] == {"TIER": "${{ matrix.tier }}", "COVERAGE": "${{ matrix.coverage }}"}
    assert set(JOBS["deploy"]["needs"]) == {"test", "image", "dagster-plus"}
    assert "needs.test.result == 'success' && needs.image.result == 'success'" in JOBS["deploy"]["if"]


def test_the_workflow_tests_every_supported_python() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    supported = re.findall(r"Python :: (3\.\d+)", str(project["classifiers"]))
    assert len(supported) >= 4
    assert sorted(entry["python"] for entry in MATRIX if entry["tier"] == "test") == supported
    assert f"python:{IMAGE_PYTHON}." in (REPOSITORY / "Dockerfile").read_text()


def test_the_workflow_reports_the_coverage_of_the_tiers_that_make_coverage_runs() -> None:
    (command,) = re.findall(r"COVERAGE=1 (test.+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert {entry["tier"] for entry in MATRIX if entry.get("coverage") == "1"} == set(command.split())
    (upload,) = [step for step in JOBS["test"]["steps"] if "upload-artifact" in step.get("uses", "")]
    (download,) = [step for step in JOBS["coverage"]["steps"] if "download-artifact" in step.get("uses", "")]
    assert upload["if"] == "matrix.coverage"
    assert upload["with"]["path"] == download["with"]["path"] == "data/coverage"
    assert JOBS["coverage"]["needs"] == "test"
    assert JOBS["coverage"]["steps"][-1]["run"] == "make coverage-report"


def test_jobs_share_installed_packages_only_if_python_and_every_lock_file_are_the_same() -> None:
    caches = [step["with"] for job in JOBS.values() for step in job["steps"] if "actions/cache" in step.get("uses", "")]
    assert len(caches) == 2
    for cache in caches:
        assert cache["path"].split() == [".venv", "examples/dbt/.venv"]
        assert "steps.python.outputs.python-version" in cache["key"]
        assert "hashFiles('requirements/*.lock', 'examples/dbt/requirements.lock')" in cache["key"]
        assert "restore-keys" not in cache


def test_the_workflow_tests_the_lowest_and_newest_allowed_versions() -> None:
    pairs = [(entry["versions"], entry["python"]) for entry in JOBS["versions"]["strategy"]["matrix"]["include"]]
    assert pairs == [("lowest", "3.11"), ("newest", "3.14")]
    step = {"run": 'make "test-$VERSIONS"', "env": {"VERSIONS": "${{ matrix.versions }}"}}
    assert JOBS["versions"]["steps"][-1] == step


def test_the_workflow_deploys_only_if_a_token_is_configured() -> None:
    assert "needs.dagster-plus.outputs.configured == 'true'" in JOBS["deploy"]["if"]
    (step,) = JOBS["dagster-plus"]["steps"]
    assert step["env"] == {"DAGSTER_CLOUD_API_TOKEN": "${{ secrets.DAGSTER_CLOUD_API_TOKEN }}"}
    assert '[ -n "$DAGSTER_CLOUD_API_TOKEN" ]' in step["run"]


def test_a_pull_request_has_a_branch_deployment_while_it_is_open() -> None:
    assert set(WORKFLOW[ON]["pull_request"]["types"]) == {"opened", "synchronize", "reopened", "closed"}
    closing = [step for step in JOBS["deploy"]["steps"] if step.get("if") == "github.event.action == 'closed'"]
    assert ["--mark-closed" in step["run"] for step in closing] == [True]


def test_the_workflow_has_least_privileges_and_pins_its_actions() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert [name for name, job in JOBS.items() if "write" in job.get("permissions", {}).values()] == ["deploy"]
    steps = [step for job in JOBS.values() for step in job["steps"]]
    assert all(re.search(r"@[0-9a-f]{40}$", step["uses"]) for step in steps if "uses" in step)
    # An expression in a script could insert text of a pull request: script injection.
    assert not [step["run"] for step in steps if "${{" in step.get("run", "")]
