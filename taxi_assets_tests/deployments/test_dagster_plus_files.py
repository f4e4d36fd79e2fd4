"""Dagster+ and the CI workflow: what is deployed, when, and by whom."""

from __future__ import annotations

import re
from typing import Any

import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.files import CODE_LOCATION, find_tool, read_yaml, run_check

FILE = ".github/workflows/ci.yaml"
WORKFLOW: dict[Any, Any] = read_yaml(FILE)
JOBS: dict[str, Any] = WORKFLOW["jobs"]
ON = True  # what YAML 1.1 reads the key `on` as
(CODE,) = read_yaml("dagster_cloud.yaml")["locations"]


def test_dagster_plus_accepts_its_file() -> None:
    models = pytest.importorskip(
        "dagster_cloud_cli.config.models", reason="dagster-cloud (requirements/docker.lock) is not installed"
    )
    models.DagsterCloudYaml.model_validate(read_yaml("dagster_cloud.yaml"))


def test_the_location_has_the_name_that_it_has_everywhere() -> None:
    assert (CODE["location_name"], CODE["code_source"]) == (CODE_LOCATION, {"module_name": CODE_LOCATION})
    assert (REPOSITORY / CODE["build"]["directory"] / "Dockerfile").is_file()


def test_dagster_knows_every_key_for_its_pods_and_what_they_name_is_made_by_a_documented_command() -> None:
    contexts = pytest.importorskip("dagster_k8s.container_context", reason="dagster-k8s is not installed")
    pods = contexts.K8sContainerContext.create_from_config(CODE["container_context"])
    assert pods.run_k8s_config.pod_spec_config["service_account_name"] == "taxi-code"
    assert pods.run_k8s_config.pod_spec_config["image_pull_secrets"] == [{"name": "taxi-registry"}]
    text = (REPOSITORY / "docs" / "kubernetes.md").read_text()
    assert "create serviceaccount taxi-code" in text
    assert "create secret docker-registry taxi-registry" in text


def test_runs_are_as_large_as_in_the_cluster() -> None:
    kubernetes = read_yaml("deploy/kubernetes/values.yaml")
    ours = kubernetes["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]["containerConfig"]
    assert CODE["container_context"]["k8s"]["run_k8s_config"]["container_config"]["resources"] == ours["resources"]


def test_the_workflow_is_of_githubs_schema_and_every_job_ends() -> None:
    run_check(find_tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", FILE)
    assert all(0 < job["timeout-minutes"] <= 60 for job in JOBS.values())


def test_a_pull_request_cancels_its_own_runs_and_never_a_deployment_of_main() -> None:
    # When one has been merged, its `closed` event has main's ref: only its number tells it apart.
    assert WORKFLOW["concurrency"] == {
        "group": "${{ github.workflow }}-${{ github.event.pull_request.number || github.ref }}",
        "cancel-in-progress": "${{ github.event_name == 'pull_request' }}",
    }


def test_it_runs_what_ci_runs_and_deploys_only_what_has_passed() -> None:
    assert [step["run"] for step in JOBS["test"]["steps"] if "run" in step] == [".ci/run"]
    assert set(JOBS["deploy"]["needs"]) == {"test", "image", "dagster-plus"}
    assert "needs.test.result == 'success' && needs.image.result == 'success'" in JOBS["deploy"]["if"]


def test_it_tries_the_versions_at_both_ends_of_what_is_allowed() -> None:
    pairs = [(each["versions"], each["python"]) for each in JOBS["versions"]["strategy"]["matrix"]["include"]]
    assert pairs == [("lowest", "3.11"), ("newest", "3.14")]
    step = {"run": 'make "test-$VERSIONS"', "env": {"VERSIONS": "${{ matrix.versions }}"}}
    assert JOBS["versions"]["steps"][-1] == step


def test_it_deploys_only_where_there_is_a_token() -> None:
    assert "needs.dagster-plus.outputs.configured == 'true'" in JOBS["deploy"]["if"]
    (step,) = JOBS["dagster-plus"]["steps"]
    assert step["env"] == {"DAGSTER_CLOUD_API_TOKEN": "${{ secrets.DAGSTER_CLOUD_API_TOKEN }}"}
    assert '[ -n "$DAGSTER_CLOUD_API_TOKEN" ]' in step["run"]


def test_a_pull_request_has_a_branch_deployment_for_as_long_as_it_is_open() -> None:
    assert set(WORKFLOW[ON]["pull_request"]["types"]) == {"opened", "synchronize", "reopened", "closed"}
    closing = [step for step in JOBS["deploy"]["steps"] if step.get("if") == "github.event.action == 'closed'"]
    assert ["--mark-closed" in step["run"] for step in closing] == [True]


def test_it_may_do_no_more_than_it_must_and_what_it_uses_cannot_change() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert [name for name, job in JOBS.items() if "write" in job.get("permissions", {}).values()] == ["deploy"]
    steps = [step for job in JOBS.values() for step in job["steps"]]
    assert all(re.search(r"@[0-9a-f]{40}$", step["uses"]) for step in steps if "uses" in step)
    # No text of a pull request is ever part of a script.
    assert not [step["run"] for step in steps if "${{" in step.get("run", "")]
