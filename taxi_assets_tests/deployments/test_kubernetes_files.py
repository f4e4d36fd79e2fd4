"""The values for Dagster's Helm chart: keys that it takes, and pods that are what the documentation says of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from dagster._config import process_config

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.files import CODE_LOCATION, find_group, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

VALUES: dict[str, Any] = read_yaml("deploy/kubernetes/values.yaml")
KEYS: Any = read_yaml("taxi_assets_tests/deployments/helm_keys.yaml")
CODE: dict[str, Any] = VALUES["dagster-user-deployments"]["deployments"][0]
LAUNCHER: dict[str, Any] = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
QUEUE: dict[str, Any] = VALUES["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
KINDS = {"string": str, "boolean": bool, "integer": int}
NOT_INSTALLED = "dagster-k8s (requirements/docker.lock) is not installed"


def leaves(value: Any, kind: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Each value with the kind that the chart takes there; fails at a key that it does not know."""
    if isinstance(kind, dict) and kind:
        assert isinstance(value, dict), path
        assert set(value) <= set(kind), path
        for key in value:
            yield from leaves(value[key], kind[key], f"{path}.{key}")
    elif isinstance(kind, list):
        assert isinstance(value, list), path
        for number, item in enumerate(value):
            yield from leaves(item, kind[0], f"{path}[{number}]")
    elif kind == {}:
        assert isinstance(value, dict), path
    else:
        yield path, value, kind


def test_the_chart_knows_every_key_and_every_value_is_of_its_kind() -> None:
    found = list(leaves(VALUES, KEYS))
    assert len(found) > 50
    assert [path for path, value, kind in found if kind in KINDS and type(value) is not KINDS[kind]] == []


@pytest.mark.parametrize("wrong", [{"dagsterDaemon": {"runMonitor": {}}}, {"dagit": {}}, {"dagsterDaemon": []}])
def test_a_key_that_the_chart_does_not_know_is_noticed(wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        list(leaves(wrong, KEYS))


def test_kubernetes_knows_every_key_of_its_own() -> None:
    models = pytest.importorskip("dagster_k8s.models", reason=NOT_INSTALLED)
    client = pytest.importorskip("kubernetes.client")
    for _, value, kind in leaves(VALUES, KEYS):
        if kind not in KINDS:
            model = getattr(client, kind)
            models.k8s_model_from_dict(model, models.k8s_snake_case_dict(model, value))


# --- runs -------------------------------------------------------------------------------------------------------------
def pod_of_a_run() -> dict[str, Any]:
    """The job's pod, as the launcher makes it of what the chart writes into dagster.yaml."""
    launchers = pytest.importorskip("dagster_k8s", reason=NOT_INSTALLED)
    jobs = pytest.importorskip("dagster_k8s.job")
    client = pytest.importorskip("kubernetes.client")
    names = {"containerConfig": "container_config", "podSpecConfig": "pod_spec_config"} | {
        "podTemplateSpecMetadata": "pod_template_spec_metadata", "jobSpecConfig": "job_spec_config",
    }  # fmt: skip
    assert set(names) == set(LAUNCHER["runK8sConfig"])
    written = {
        "dagster_home": "/opt/dagster/dagster_home", "instance_config_map": "any",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
        "service_account_name": VALUES["serviceAccount"]["name"],
        "image_pull_policy": LAUNCHER["imagePullPolicy"],
        "fail_pod_on_run_failure": LAUNCHER["failPodOnRunFailure"],
        "env_config_maps": [source["name"] for source in LAUNCHER["envConfigMaps"]],
        "env_secrets": [source["name"] for source in LAUNCHER["envSecrets"]],
        "run_k8s_config": {names[key]: value for key, value in LAUNCHER["runK8sConfig"].items()},
    }  # fmt: skip
    read = process_config(launchers.K8sRunLauncher.config_type(), written)
    assert read.success, read.errors
    config = dict(read.value or {})
    ours = jobs.UserDefinedDagsterK8sConfig.from_dict(config.pop("run_k8s_config"))
    fields = jobs.DagsterK8sJobConfig._fields
    job = jobs.construct_dagster_k8s_job(
        jobs.DagsterK8sJobConfig(job_image="any:1", **{key: value for key, value in config.items() if key in fields}),
        ["any"], "any", pod_name="any", component="run_worker", user_defined_k8s_config=ours,
    )  # fmt: skip
    spec: dict[str, Any] = client.ApiClient().sanitize_for_serialization(job)["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (0, 3600)
    pod: dict[str, Any] = spec["template"]["spec"]
    return pod


def test_a_runs_pod_has_its_own_resources_and_account_and_the_settings_of_the_code_server() -> None:
    pod = pod_of_a_run()
    (container,) = pod["containers"]
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "4Gi"}
    assert container["resources"]["limits"] == {"memory": "2Gi", "ephemeral-storage": "8Gi"}
    assert container["envFrom"] == [{"configMapRef": {"name": "taxi-assets"}}, {"secretRef": {"name": "taxi-assets"}}]
    assert pod["serviceAccountName"] == VALUES["dagster-user-deployments"]["serviceAccount"]["name"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsUser"] == 10001
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_node_that_is_silent_does_not_keep_its_run_for_minutes() -> None:
    seconds = {
        rule["key"]: rule["tolerationSeconds"] for rule in pod_of_a_run()["tolerations"] if "tolerationSeconds" in rule
    }
    assert set(seconds) == {"node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"}
    assert max(seconds.values()) <= 60


def test_code_server_and_runs_have_the_same_settings_each_from_its_own_lines() -> None:
    assert VALUES["dagsterDaemon"]["envConfigMaps"] == LAUNCHER["envConfigMaps"], "the doctor looks from there"
    assert VALUES["dagsterDaemon"]["envSecrets"] == LAUNCHER["envSecrets"]
    assert CODE["envConfigMaps"] == LAUNCHER["envConfigMaps"]
    assert CODE["envSecrets"] == LAUNCHER["envSecrets"]
    assert CODE["includeConfigInLaunchedRuns"] == {"enabled": False}
    assert CODE["dagsterApiGrpcArgs"] == ["--module-name", CODE_LOCATION]
    assert CODE["replicaCount"] > 1


def test_the_location_has_the_name_that_it_has_everywhere() -> None:
    # The chart's own name for it, the deployment's, may hold neither dot nor underscore.
    server = {"host": CODE["name"], "port": CODE["port"], "name": CODE_LOCATION}
    assert VALUES["dagsterWebserver"]["workspace"] == {"enabled": True, "servers": [server]}


def test_nobody_listens_where_only_root_may() -> None:
    webserver = VALUES["dagsterWebserver"]
    port = webserver["service"]["port"]
    assert min(port, CODE["port"]) >= 1024
    assert webserver["readinessProbe"]["httpGet"]["port"] == port
    assert f"service/taxi-dagster-webserver 3000:{port}" in (REPOSITORY / "deploy/kubernetes/README.md").read_text()


# --- the queue --------------------------------------------------------------------------------------------------------
def test_the_queue_is_limited_once_and_a_backfill_leaves_room() -> None:
    (limit,) = QUEUE["tagConcurrencyLimits"]
    assert limit["key"] == "dagster/backfill"
    assert limit["limit"] < QUEUE["maxConcurrentRuns"]
    text = (REPOSITORY / "docs" / "kubernetes.md").read_text()
    assert f"maxConcurrentRuns: {QUEUE['maxConcurrentRuns']}" in text
    assert f"{limit['limit']} pods" in text


def test_retries_and_monitoring_are_the_teams_but_for_the_time_to_wait_for_a_node() -> None:
    team = read_yaml("deploy/postgres/dagster.yaml")
    here = VALUES["additionalInstanceConfig"]
    assert here["run_retries"] == team["run_retries"]
    assert here["run_monitoring"] == {**team["run_monitoring"], "start_timeout_seconds": 900}
    # The chart would write them a second time.
    assert VALUES["dagsterDaemon"]["runMonitoring"] == VALUES["dagsterDaemon"]["runRetries"] == {"enabled": False}


def test_nothing_is_shown_to_the_world_and_no_secret_stands_here() -> None:
    assert VALUES["ingress"] == {"enabled": False}
    assert VALUES["dagsterWebserver"]["service"]["type"] == "ClusterIP"
    text = (REPOSITORY / "deploy" / "kubernetes" / "values.yaml").read_text()
    assert not re.search(r"[pP]assword: \S|://[^/\s]*:[^/\s]*@", text)
    assert not VALUES["generatePostgresqlPasswordSecret"]


def test_every_pod_runs_as_the_images_user_without_privileges() -> None:
    (user, group) = find_group(r"^USER (\d+:\d+)$", (REPOSITORY / "Dockerfile").read_text()).split(":")
    for part in (CODE, VALUES["dagsterDaemon"], VALUES["dagsterWebserver"]):
        assert part["podSecurityContext"]["runAsNonRoot"] is True
        assert (part["podSecurityContext"]["runAsUser"], part["podSecurityContext"]["runAsGroup"]) == (
            int(user),
            int(group),
        )
        assert part["securityContext"]["allowPrivilegeEscalation"] is False
        assert part["resources"]["limits"]["memory"]
