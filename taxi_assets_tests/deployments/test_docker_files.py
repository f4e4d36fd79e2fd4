"""The image and the compose file: their properties that can be tested without Docker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dagster._config import process_config

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.files import (
    CODE_LOCATION,
    SECRET_VARIABLES,
    SETTING_VARIABLES,
    find_group,
    find_tool,
    read_yaml,
    run_check,
)

if TYPE_CHECKING:
    from collections.abc import Callable

COMPOSE: dict[str, Any] = read_yaml("docker-compose.yaml")
SERVICES: dict[str, Any] = COMPOSE["services"]
INSTANCE: dict[str, Any] = read_yaml("deploy/docker/dagster.yaml")
LAUNCHER: dict[str, Any] = INSTANCE["run_launcher"]["config"]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
DOCUMENT = (REPOSITORY / "docs" / "docker.md").read_text()
ENTRYPOINT = REPOSITORY / "deploy" / "docker" / "entrypoint.sh"
SOCKET = "/var/run/docker.sock:/var/run/docker.sock"


# --- the image --------------------------------------------------------------------------------------------------------
def test_hadolint_accepts_the_dockerfile() -> None:
    run_check(find_tool("hadolint"), "Dockerfile")


def test_the_image_does_not_run_as_root_and_its_packages_are_pinned_by_hash() -> None:
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^ARG PYTHON=python:3\.\d+\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    installs = re.findall(r"pip install(?:.|\\\n)*", DOCKERFILE)
    assert installs
    assert all("--require-hashes" in install and "--no-deps" in install for install in installs)


def test_the_build_context_holds_exactly_the_files_that_the_dockerfile_copies() -> None:
    allowed = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copies = [words for words in map(str.split, DOCKERFILE.splitlines()) if words[:1] == ["COPY"]]
    sources = [word for words in copies if "--from=build" not in words for word in words[1:-1] if word[:2] != "--"]
    assert sorted(allowed) == sorted(sources)
    assert all((REPOSITORY / source).exists() for source in sources)
    assert not [source for source in sources if fnmatch(source, "*secret*") or source in {".", ".env", "data"}]


def test_the_image_has_every_runtime_package_in_the_tested_version() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^([a-z].*?) \\$", (REPOSITORY / f"requirements/{name}.lock").read_text(), re.MULTILINE))

    assert pins("runtime") <= pins("docker")
    added = {pin.partition("==")[0] for pin in pins("docker") - pins("runtime")}
    assert {"dagster-docker", "dagster-k8s", "dagster-cloud"} <= added


# --- secrets ----------------------------------------------------------------------------------------------------------
def run_entrypoint(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the entrypoint with a command that prints its environment and its arguments."""
    script = 'printf "%s|" "$TAXI_NOTIFY_URLS" "$PGPASSWORD" "$@"'
    return subprocess.run(
        ["sh", ENTRYPOINT, "sh", "-uc", script, "sh", "an argument", "$another"],
        env={"PATH": "/usr/bin:/bin", "TAXI_NOTIFY_URLS": "unset", "PGPASSWORD": "unset", **environment},
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_secrets_are_read_unchanged_from_files_and_an_empty_file_sets_no_secret(tmp_path: Path) -> None:
    (tmp_path / "notify").write_text("mailto://a:b'\"$(touch x)`touch y`&?@example.com, json://c\n")
    (tmp_path / "empty").write_text("")
    result = run_entrypoint(tmp_path, TAXI_NOTIFY_URLS_FILE="notify", PGPASSWORD_FILE="empty", DAGSTER_HOME_FILE="")
    assert result.stdout == "mailto://a:b'\"$(touch x)`touch y`&?@example.com, json://c|unset|an argument|$another|"
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "notify"]


@pytest.mark.parametrize("name", ["no-such-file", "."])
def test_an_unreadable_secret_is_reported_in_one_line(tmp_path: Path, name: str) -> None:
    result = run_entrypoint(tmp_path, TAXI_NOTIFY_URLS_FILE=name)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"TAXI_NOTIFY_URLS_FILE names {name}, which user")
    assert result.stderr.count("\n") == 1


@pytest.fixture
def run_secrets_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs secrets.sh in a copy of the folder layout."""
    folder = tmp_path / "deploy" / "docker"
    folder.mkdir(parents=True)
    script = shutil.copy(REPOSITORY / "deploy" / "docker" / "secrets.sh", folder)

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", **environment}
        return subprocess.run(
            ["bash", script], env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    return run


def test_the_script_creates_the_secrets_of_compose_once_in_a_private_folder(
    tmp_path: Path, run_secrets_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder = tmp_path / "deploy" / "docker" / "secrets"
    assert run_secrets_script(DAGSTER_DOCKER_GROUP="998").returncode == 0
    secrets = {path.name: path.read_text() for path in folder.iterdir()}
    assert {f"deploy/docker/secrets/{name}" for name in secrets} == {s["file"] for s in COMPOSE["secrets"].values()}
    assert re.fullmatch("[0-9a-f]{48}", secrets["postgres_password"])
    assert f"dagster:{secrets['postgres_password']}@postgres:5432/dagster" in secrets["dagster_postgres_url"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}  # the containers run as another user
    assert run_secrets_script(DAGSTER_DOCKER_GROUP="998").returncode == 0
    assert {path.name: path.read_text() for path in folder.iterdir()} == secrets


def test_the_script_writes_the_docker_group_once_to_an_env_file_that_git_ignores(
    tmp_path: Path, run_secrets_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    settings = tmp_path / ".env"
    settings.write_text("DAGSTER_PORT=3001")  # without a line break at the end
    for group in ("998", "999"):
        assert run_secrets_script(DAGSTER_DOCKER_GROUP=group).returncode == 0
    assert settings.read_text() == "DAGSTER_PORT=3001\nDAGSTER_DOCKER_GROUP=998\n"
    settings.unlink()
    socket = Path("/var/run/docker.sock")
    result = run_secrets_script()
    if socket.exists():
        assert settings.read_text() == f"DAGSTER_DOCKER_GROUP={socket.stat().st_gid}\n"
    else:
        assert (result.returncode, result.stderr.splitlines()[-1][:14]) == (1, "Install Docker")
        assert not settings.exists()
    assert "/.env" in (REPOSITORY / ".gitignore").read_text().splitlines()


def test_compose_refuses_to_start_without_the_docker_group_and_names_the_script() -> None:
    text = (REPOSITORY / "docker-compose.yaml").read_text()
    unset = re.findall(r"\$\{(\w+)(?!\w|:-)([^}]*)\}", text)
    assert [(name, message[:2], "deploy/docker/secrets.sh" in message) for name, message in unset] == [
        ("DAGSTER_DOCKER_GROUP", ":?", True)
    ]
    assert [name for name, service in SERVICES.items() if "group_add" in service] == ["webserver", "daemon"]


def test_documented_profiles_work_in_containers_and_do_not_replace_the_env_file() -> None:
    commands = re.findall(r"docker compose (.*--env-file (deploy/profiles/\w+\.env))", DOCUMENT)
    assert commands
    for options, profile in commands:
        assert options.startswith("--env-file .env "), "any --env-file replaces the default .env, so both are needed"
        text = (REPOSITORY / profile).read_text()
        assert re.search(r"^TAXI_LAKE=(/|gs://)", text, re.MULTILINE), "a relative folder would be inside the image"
        assert not re.search(r"^TAXI_WAREHOUSE=.*(///\w|localhost)", text, re.MULTILINE), (
            "localhost would be the container itself"
        )


def test_containers_get_secrets_as_files_and_not_in_environment_variables() -> None:
    for name, service in SERVICES.items():
        environment: dict[str, str] = service.get("environment", {})
        assert not SECRET_VARIABLES & set(environment), name
        files = {value for variable, value in environment.items() if variable.endswith("_FILE")}
        assert files <= {f"/run/secrets/{secret}" for secret in service.get("secrets", [])}, name
    assert not SECRET_VARIABLES & {variable.partition("=")[0] for variable in LAUNCHER["env_vars"]}


# --- compose ----------------------------------------------------------------------------------------------------------
def test_the_compose_file_matches_the_compose_schema() -> None:
    run_check(find_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yaml")


def test_docker_compose_accepts_the_file_with_every_profile() -> None:
    group = {**os.environ, "DAGSTER_DOCKER_GROUP": "0"}
    if standalone := shutil.which("docker-compose"):
        run_check(standalone, "--profile", "*", "config", "--quiet", environment=group)
        return
    docker = find_tool("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, timeout=300, check=False).returncode:
        pytest.skip("there is neither docker-compose nor docker's compose plugin here")
    run_check(docker, "compose", "--profile", "*", "config", "--quiet", environment=group)


def test_the_image_is_built_once_for_all_services() -> None:
    image = SERVICES["code"]["image"]
    assert [name for name, service in SERVICES.items() if service.get("image") == image] == [
        *("code", "webserver", "daemon", "webserver-read-only"),
    ]
    # Concurrent builds of one tag fail: "image already exists".
    assert [name for name, service in SERVICES.items() if "build" in service] == ["code"]


def test_ports_are_published_only_on_loopback_by_default() -> None:
    published = {name: port for name, service in SERVICES.items() for port in service.get("ports", [])}
    assert set(published) == {"webserver", "proxy"}
    assert all(re.match(r"\$\{DAGSTER_\w*BIND:-127\.0\.0\.1\}:", port) for port in published.values())
    assert not [name for name, service in SERVICES.items() if "network_mode" in service or "privileged" in service]


def test_every_container_has_limits_and_restarts() -> None:
    for name, service in SERVICES.items():
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert service["restart"] == "unless-stopped", name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, name
        assert "healthcheck" in service or name == "code", name  # the image defines the health check of `code`


def test_the_shared_webserver_is_read_only_and_has_no_access_to_docker_or_data() -> None:
    assert {name for name, service in SERVICES.items() if SOCKET in service.get("volumes", [])} == {
        "webserver",
        "daemon",
    }
    read_only = SERVICES["webserver-read-only"]
    assert "--read-only" in read_only["command"]
    assert "ports" not in read_only
    assert [volume for volume in read_only["volumes"] if not volume.endswith(":ro")] == ["logs:/logs"]
    assert read_only["secrets"] == ["dagster_postgres_url"]
    assert (read_only["profiles"], SERVICES["proxy"]["profiles"]) == (["proxy"], ["proxy"])
    assert SERVICES["proxy"]["networks"] == ["front"]
    caddyfile = (REPOSITORY / "deploy" / "docker" / "Caddyfile").read_text()
    assert "reverse_proxy webserver-read-only:3000" in caddyfile
    assert "import /run/secrets/proxy_users" in find_group(r"basic_auth \{(.*?)\}", caddyfile)


def test_the_code_server_and_the_workspace_agree_on_address_and_name() -> None:
    (location,) = read_yaml("deploy/docker/workspace.yaml")["load_from"]
    assert location == {"grpc_server": {"host": "code", "port": 4000, "location_name": CODE_LOCATION}}
    for command in (" ".join(SERVICES["code"]["command"]), find_group(r"^CMD \[([^]]*)\]$", DOCKERFILE)):
        words = re.findall(r"[\w.-]+", command)
        assert words[-2:] == ["--module-name", CODE_LOCATION]
        assert words[words.index("--port") + 1] == "4000"


# --- runs -------------------------------------------------------------------------------------------------------------
def test_the_code_server_and_each_run_get_every_setting() -> None:
    names = {name if name not in SECRET_VARIABLES else f"{name}_FILE" for name in SETTING_VARIABLES}
    assert names <= set(SERVICES["code"]["environment"])
    assert names <= set(LAUNCHER["env_vars"])
    # The launcher fails if the daemon does not have a variable that it should pass on.
    assert set(LAUNCHER["env_vars"]) <= set(SERVICES["daemon"]["environment"])


def test_a_run_container_has_the_network_and_volumes_of_the_code_server() -> None:
    assert COMPOSE["networks"]["default"]["name"] == LAUNCHER["network"]
    assert [SERVICES["code"]["container_name"]] == LAUNCHER["container_kwargs"]["volumes_from"]
    assert SERVICES["code"]["environment"]["DAGSTER_CURRENT_IMAGE"] == SERVICES["code"]["image"]
    logs = f"logs:{INSTANCE['compute_logs']['config']['base_dir']}"
    assert {"data:/data", logs} <= set(SERVICES["code"]["volumes"])
    assert logs in SERVICES["webserver"]["volumes"]
    assert "data:/data" in SERVICES["daemon"]["volumes"], "`make doctor` runs in the daemon's container"
    # A new volume gets the owner of the folder in the image.
    assert "--owner taxi --group taxi /data /logs " in DOCKERFILE


def test_the_instance_differs_from_the_postgres_one_only_in_run_launcher_and_compute_logs() -> None:
    team = read_yaml("deploy/postgres/dagster.yaml")
    assert {key: value for key, value in INSTANCE.items() if key not in {"run_launcher", "compute_logs"}} == team


def test_dagster_and_docker_accept_the_options_of_run_containers() -> None:
    launcher = pytest.importorskip(
        "dagster_docker", reason="dagster-docker (requirements/docker.lock) is not installed"
    )
    containers = pytest.importorskip("docker.models.containers")
    assert process_config(launcher.DockerRunLauncher.config_type(), LAUNCHER).success
    options = containers._create_container_args(  # noqa: SLF001  (the public function needs a daemon)
        {
            "image": "any",
            "command": [],
            "version": "1.47",
            "network": LAUNCHER["network"],
            **LAUNCHER["container_kwargs"],
        }
    )
    host = options["host_config"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (2 * 1024**3, 10**9, 512)
    assert (host["VolumesFrom"], host["AutoRemove"]) == (["taxi_assets_code"], True)
    assert options["healthcheck"] == {"test": ["NONE"]}
