"""The values for Dagster's Helm chart: the chart accepts them, and the pods are as documented."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from dagster._config import process_config

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.doctor_runner import doctor, faults, home
from taxi_assets_tests.deployments.files import CODE_LOCATION, find_group, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["home"]

GOOGLE_GUIDE = (REPOSITORY / "docs" / "google-cloud.md").read_text()
DEPLOY_README = (REPOSITORY / "deploy" / "kubernetes" / "README.md").read_text()
VALUES: dict[str, Any] = read_yaml("deploy/kubernetes/values.yaml")
CHART_TYPES: Any = read_yaml("taxi_assets_tests/deployments/helm_keys.yaml")
CODE: dict[str, Any] = VALUES["dagster-user-deployments"]["deployments"][0]
LAUNCHER: dict[str, Any] = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
QUEUE: dict[str, Any] = VALUES["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
TYPES = {"string": str, "boolean": bool, "integer": int}
NOT_INSTALLED = "dagster-k8s (requirements/docker.lock) is not installed"


def leaves(value: Any, type_name: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield the path, value and type of each leaf. Fail at a key that the chart does not have."""
    if isinstance(type_name, dict) and type_name:
        assert isinstance(value, dict), path
        assert set(value) <= set(type_name), path
        for key in value:
            yield from leaves(value[key], type_name[key], f"{path}.{key}")
    elif isinstance(type_name, list):
        assert isinstance(value, list), path
        for number, item in enumerate(value):
            yield from leaves(item, type_name[0], f"{path}[{number}]")
    elif type_name == {}:
        assert isinstance(value, dict), path
    else:
        yield path, value, type_name


def test_the_chart_has_every_key_and_every_value_has_the_right_type() -> None:
    found = list(leaves(VALUES, CHART_TYPES))
    assert len(found) > 50
    assert [
        path for path, value, type_name in found if type_name in TYPES and type(value) is not TYPES[type_name]
    ] == []


@pytest.mark.parametrize("wrong", [{"dagsterDaemon": {"runMonitor": {}}}, {"dagit": {}}, {"dagsterDaemon": []}])
def test_a_key_that_the_chart_does_not_have_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        list(leaves(wrong, CHART_TYPES))


def test_kubernetes_models_accept_every_kubernetes_value() -> None:
    models = pytest.importorskip("dagster_k8s.models", reason=NOT_INSTALLED)
    client = pytest.importorskip("kubernetes.client")
    for _, value, type_name in leaves(VALUES, CHART_TYPES):
        if type_name not in TYPES:
            model = getattr(client, type_name)
            models.k8s_model_from_dict(model, models.k8s_snake_case_dict(model, value))


# --- runs -------------------------------------------------------------------------------------------------------------
def run_pod() -> dict[str, Any]:
    """Return the pod that the run launcher creates with the values that the chart writes to dagster.yaml."""
    launchers = pytest.importorskip("dagster_k8s", reason=NOT_INSTALLED)
    jobs = pytest.importorskip("dagster_k8s.job")
    client = pytest.importorskip("kubernetes.client")
    names = {"containerConfig": "container_config", "podSpecConfig": "pod_spec_config"} | {
        "podTemplateSpecMetadata": "pod_template_spec_metadata", "jobSpecConfig": "job_spec_config",
    }  # fmt: skip
    assert set(names) == set(LAUNCHER["runK8sConfig"])
    launcher_config = {
        "dagster_home": "/opt/dagster/dagster_home", "instance_config_map": "any",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
        "service_account_name": VALUES["serviceAccount"]["name"],
        "image_pull_policy": LAUNCHER["imagePullPolicy"],
        "fail_pod_on_run_failure": LAUNCHER["failPodOnRunFailure"],
        "env_config_maps": [source["name"] for source in LAUNCHER["envConfigMaps"]],
        "env_secrets": [source["name"] for source in LAUNCHER["envSecrets"]],
        "run_k8s_config": {names[key]: value for key, value in LAUNCHER["runK8sConfig"].items()},
    }  # fmt: skip
    processed = process_config(launchers.K8sRunLauncher.config_type(), launcher_config)
    assert processed.success, processed.errors
    config = dict(processed.value or {})
    user_config = jobs.UserDefinedDagsterK8sConfig.from_dict(config.pop("run_k8s_config"))
    fields = jobs.DagsterK8sJobConfig._fields
    job = jobs.construct_dagster_k8s_job(
        jobs.DagsterK8sJobConfig(job_image="any:1", **{key: value for key, value in config.items() if key in fields}),
        ["any"], "any", pod_name="any", component="run_worker", user_defined_k8s_config=user_config,
    )  # fmt: skip
    spec: dict[str, Any] = client.ApiClient().sanitize_for_serialization(job)["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (0, 3600)
    pod: dict[str, Any] = spec["template"]["spec"]
    return pod


def test_the_run_pod_has_its_own_resources_and_account_and_the_settings_of_the_code_server() -> None:
    pod = run_pod()
    (container,) = pod["containers"]
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "4Gi"}
    assert container["resources"]["limits"] == {"memory": "2Gi", "ephemeral-storage": "8Gi"}
    assert container["envFrom"] == [{"configMapRef": {"name": "taxi-assets"}}, {"secretRef": {"name": "taxi-assets"}}]
    assert pod["serviceAccountName"] == VALUES["dagster-user-deployments"]["serviceAccount"]["name"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsUser"] == 10001
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_run_is_evicted_from_an_unreachable_node_within_a_minute() -> None:
    seconds = {
        rule["key"]: rule["tolerationSeconds"] for rule in run_pod()["tolerations"] if "tolerationSeconds" in rule
    }
    assert set(seconds) == {"node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"}
    assert max(seconds.values()) <= 60


def service_links() -> dict[str, str]:
    """Return the variables that Kubernetes adds to each container for the chart's services.

    Names and ports are those of the chart's templates/helpers/_service-webserver.tpl and, for the code server,
    charts/dagster-user-deployments/templates/service-user.yaml. The variables are those of Kubernetes'
    pkg/kubelet/envvars/envvars.go.
    """
    release = find_group(r"helm upgrade --install (\S+) dagster/dagster", DEPLOY_README)
    webserver = f"{release}-dagster-webserver"
    services = {webserver: VALUES["dagsterWebserver"]["service"]["port"], CODE["name"]: CODE["port"]}
    if VALUES["dagsterWebserver"]["enableReadOnly"]:
        services[f"{webserver}-read-only"] = services[webserver]
    links: dict[str, str] = {}
    for service, port in services.items():
        name = service.upper().replace("-", "_")
        address = f"tcp://10.0.0.11:{port}"
        links |= {
            f"{name}_SERVICE_HOST": "10.0.0.11",
            f"{name}_SERVICE_PORT": str(port),
            f"{name}_SERVICE_PORT_{'GRPC' if service == CODE['name'] else 'HTTP'}": str(port),
            f"{name}_PORT": address,
            f"{name}_PORT_{port}_TCP": address,
            f"{name}_PORT_{port}_TCP_PROTO": "tcp",
            f"{name}_PORT_{port}_TCP_PORT": str(port),
            f"{name}_PORT_{port}_TCP_ADDR": "10.0.0.11",
        }
    return links


def test_addresses_of_the_charts_services_are_not_taken_for_settings(home: Path) -> None:
    links = service_links()
    assert {"TAXI_ASSETS_PORT_4000_TCP_ADDR", "TAXI_DAGSTER_WEBSERVER_SERVICE_PORT_HTTP"} <= set(links)
    assert all(name.startswith("TAXI_") for name in links)
    found = doctor(home, **links)
    assert faults(found) == {}
    assert found["settings"] == ["ok", "set: TAXI_LAKE, TAXI_SOURCE, TAXI_WAREHOUSE"]


def test_runs_get_no_addresses_of_services() -> None:
    assert run_pod()["enableServiceLinks"] is False


def test_code_server_daemon_and_runs_read_the_same_settings() -> None:
    assert VALUES["dagsterDaemon"]["envConfigMaps"] == LAUNCHER["envConfigMaps"], (
        "`make doctor` runs in the daemon's pod"
    )
    assert VALUES["dagsterDaemon"]["envSecrets"] == LAUNCHER["envSecrets"]
    assert CODE["envConfigMaps"] == LAUNCHER["envConfigMaps"]
    assert CODE["envSecrets"] == LAUNCHER["envSecrets"]
    assert CODE["includeConfigInLaunchedRuns"] == {"enabled": False}
    assert CODE["dagsterApiGrpcArgs"] == ["--module-name", CODE_LOCATION]
    assert CODE["replicaCount"] > 1


def test_a_backfill_waits_for_the_code_server_as_in_other_deployments() -> None:
    compose: Any = read_yaml("docker-compose.yaml")
    name = "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR"
    assert VALUES["dagsterDaemon"]["env"] == {name: compose["services"]["daemon"]["environment"][name]}


def test_the_code_location_has_the_same_name_as_in_other_deployments() -> None:
    # The name of the deployment cannot be used: it may not contain dots or underscores.
    server = {"host": CODE["name"], "port": CODE["port"], "name": CODE_LOCATION}
    assert VALUES["dagsterWebserver"]["workspace"] == {"enabled": True, "servers": [server]}


def test_no_service_listens_on_a_privileged_port() -> None:
    webserver = VALUES["dagsterWebserver"]
    port = webserver["service"]["port"]
    assert min(port, CODE["port"]) >= 1024
    assert webserver["readinessProbe"]["httpGet"]["port"] == port
    assert f"service/taxi-dagster-webserver 3000:{port}" in DEPLOY_README


def test_compute_logs_are_stored_as_in_the_guide_for_google_cloud() -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", GOOGLE_GUIDE, flags=re.MULTILINE | re.DOTALL)
    guide = yaml.safe_load(example)["compute_logs"]
    assert guide["class"] == VALUES["computeLogManager"]["type"]
    config = VALUES["computeLogManager"]["config"]["gcsComputeLogManager"]
    assert (config["prefix"], config["uploadInterval"]) == (
        guide["config"]["prefix"],
        guide["config"]["upload_interval"],
    )
    assert config["uploadInterval"] >= 60, "the guide advises minutes rather than seconds"
    variables = (REPOSITORY / "deploy" / "gcp" / "variables.tf").read_text()
    assert f"Compute logs are under {config['prefix']}/." in variables
    assert f"`{config['prefix']}/storage/<run>/`" in GOOGLE_GUIDE


# --- the queue --------------------------------------------------------------------------------------------------------
def test_a_backfill_leaves_room_in_the_queue_for_other_runs() -> None:
    (limit,) = QUEUE["tagConcurrencyLimits"]
    assert limit["key"] == "dagster/backfill"
    assert limit["limit"] < QUEUE["maxConcurrentRuns"]
    text = (REPOSITORY / "docs" / "kubernetes.md").read_text()
    assert f"maxConcurrentRuns: {QUEUE['maxConcurrentRuns']}" in text
    assert f"{limit['limit']} pods" in text


def test_the_instance_differs_from_the_postgres_deployment_only_in_the_start_timeout() -> None:
    team = read_yaml("deploy/postgres/dagster.yaml")
    config = VALUES["additionalInstanceConfig"]
    assert config["run_retries"] == team["run_retries"]
    assert config["run_monitoring"] == {**team["run_monitoring"], "start_timeout_seconds": 900}
    assert config["nux"] == team["nux"]
    # If enabled, the chart would write both keys to dagster.yaml a second time.
    assert VALUES["dagsterDaemon"]["runMonitoring"] == VALUES["dagsterDaemon"]["runRetries"] == {"enabled": False}


def test_no_service_is_public_and_the_values_contain_no_secret() -> None:
    assert VALUES["ingress"] == {"enabled": False}
    assert VALUES["dagsterWebserver"]["service"]["type"] == "ClusterIP"
    text = (REPOSITORY / "deploy" / "kubernetes" / "values.yaml").read_text()
    assert not re.search(r"[pP]assword: \S|://[^/\s]*:[^/\s]*@", text)
    assert not VALUES["generatePostgresqlPasswordSecret"]


def test_every_pod_runs_as_the_user_of_the_image_without_privileges() -> None:
    (user, group) = find_group(r"^USER (\d+:\d+)$", (REPOSITORY / "Dockerfile").read_text()).split(":")
    for part in (CODE, VALUES["dagsterDaemon"], VALUES["dagsterWebserver"]):
        assert part["podSecurityContext"]["runAsNonRoot"] is True
        assert (part["podSecurityContext"]["runAsUser"], part["podSecurityContext"]["runAsGroup"]) == (
            int(user),
            int(group),
        )
        assert part["securityContext"]["allowPrivilegeEscalation"] is False
        assert part["resources"]["limits"]["memory"]
