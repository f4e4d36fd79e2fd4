"""`make doctor` with runs, logs and data in containers, buckets, Postgres, Google Cloud, and in an image."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import psutil
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.bigquery import Client, Dataset
from yaml import safe_dump as dump

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.contract.stores.bigquery import bigquery, service_account
from taxi_assets_tests.contract.stores.gcs import cloud_storage
from taxi_assets_tests.contract.stores.postgres import postgres_server, postgres_url, run
from taxi_assets_tests.deployments.doctor_runner import (
    BIN,
    doctor,
    doctor_process,
    environment,
    faults,
    home,
    skipped,
)
from taxi_assets_tests.deployments.files import read_yaml
from taxi_assets_tests.google.bigquery import BigQuery, JobFault
from taxi_assets_tests.google.cloud_storage import Fault
from taxi_assets_tests.google.service_account import EMAIL, ServiceAccount
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher
from taxi_assets_tests.trips import MONTH

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets_tests.contract.stores.postgres import Server
    from taxi_assets_tests.google.cloud_storage import CloudStorage

__all__ = ["bigquery", "cloud_storage", "home", "postgres_server", "postgres_url", "service_account"]


# --- parts that Dagster loads on first use --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "named", "message"),
    [
        ("run_launcher", "{module: no_such_module, class: Any}", "it names no_such_module.Any, which does not exist"),
        ("run_launcher", "{module: dagster, class: NoSuch}", "it names dagster.NoSuch, which does not exist"),
        (
            "run_coordinator",
            "{module: no_such_module, class: Any}",
            "it names no_such_module.Any, which does not exist",
        ),
        (
            "run_launcher",
            "{module: dagster, class: DefaultRunLauncher, config: {no_such_key: 1}}",
            'Received unexpected config entry "no_such_key" at the root',
        ),
    ],
)
def test_run_coordinator_and_run_launcher_are_loaded(home: Path, key: str, named: str, message: str) -> None:
    (home / "dagster" / "dagster.yaml").write_text(f"{key}: {named}\n")
    assert faults(doctor(home)) == {
        "run launcher": f"{key} of the instance cannot be used: {message}. "
        f"Correct {key} in its dagster.yaml, or install the package that it names."
    }


@pytest.fixture
def in_containers(home: Path) -> Path:
    """A home with the run launcher of docker-compose.yaml."""
    pytest.importorskip("dagster_docker", reason="dagster-docker (requirements/docker.lock) is not installed")
    launcher = read_yaml("deploy/docker/dagster.yaml")["run_launcher"]
    (home / "dagster" / "dagster.yaml").write_text(dump({"run_launcher": launcher}))
    return home


def test_docker_is_checked_if_runs_are_containers(in_containers: Path) -> None:
    class Docker(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = b'{"ApiVersion": "1.47", "Version": "28.2.2"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nowhere."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Docker) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        found = doctor(in_containers, DOCKER_HOST=f"tcp://127.0.0.1:{server.server_port}")
        server.shutdown()
        serving.join()
    assert faults(found) == {}
    assert found["run launcher"][1] == "DockerRunLauncher, Docker 28.2.2, behind QueuedRunCoordinator"


def test_docker_that_does_not_answer_is_a_fault(in_containers: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as no_one:
        down = no_one.getsockname()[1]
    message = faults(doctor(in_containers, DOCKER_HOST=f"tcp://127.0.0.1:{down}"))
    assert message.keys() == {"run launcher"}
    assert "does not answer: Connection refused. Start Docker" in message["run launcher"]
    # In a process of its own, because the client leaves a socket open.
    message = faults(doctor_process(in_containers, DOCKER_HOST=f"unix://{in_containers / 'no.sock'}"))
    assert "does not answer: No such file or directory." in message["run launcher"]


@pytest.fixture
def logs_in_bucket(home: Path) -> Path:
    """A home with the compute logs of docs/google-cloud.md."""
    logs = {
        "module": "dagster_gcp.gcs.compute_log_manager",
        "class": "GCSComputeLogManager",
        "config": {"bucket": {"env": "BUCKET"}, "local_dir": str(home)},
    }
    (home / "dagster" / "dagster.yaml").write_text(dump({"compute_logs": logs}))
    return home


def test_the_bucket_of_compute_logs_is_checked(logs_in_bucket: Path, cloud_storage: CloudStorage) -> None:
    look = partial(doctor_process, STORAGE_EMULATOR_HOST=cloud_storage.endpoint, GOOGLE_CLOUD_PROJECT="any")
    found = look(logs_in_bucket, BUCKET=cloud_storage.bucket)
    assert faults(found) == {}
    assert found["compute logs"][1] == f"GCSComputeLogManager, gs://{cloud_storage.bucket}"
    message = faults(look(logs_in_bucket, BUCKET="no-such-bucket"))
    assert message.keys() == {"compute logs"}
    assert message["compute logs"].startswith(
        "gs://no-such-bucket, the bucket of compute logs, cannot be used: it does not exist"
    )


def test_logs_in_a_bucket_without_credentials_are_a_fault(logs_in_bucket: Path) -> None:
    message = faults(doctor_process(logs_in_bucket, BUCKET="any", NO_GCE_CHECK="true"))
    assert message.keys() == {"compute logs"}
    assert "there are no Google credentials" in message["compute logs"]


def test_logs_in_a_bucket_need_a_project_if_the_credentials_name_none(logs_in_bucket: Path) -> None:
    person = {"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"}
    (logs_in_bucket / "adc.json").write_text(json.dumps(person))
    credentials = str(logs_in_bucket / "adc.json")
    look = partial(doctor_process, NO_GCE_CHECK="true", GOOGLE_APPLICATION_CREDENTIALS=credentials)
    message = faults(look(logs_in_bucket, BUCKET="any"))
    assert message == {
        "compute logs": "gs://any, the bucket of compute logs, cannot be used: its client needs a project, and the "
        "Google credentials name none. Set GOOGLE_CLOUD_PROJECT to the ID of a project."
    }


# --- in an image ------------------------------------------------------------------------------------------------------


def test_the_image_knows_the_required_versions(home: Path) -> None:
    app = home / "app"
    for source in re.findall(r"^COPY (\S+) /app/", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE):
        copy = shutil.copytree if (REPOSITORY / source).is_dir() else shutil.copy2
        copy(REPOSITORY / source, app / source)
    found = doctor_process(home, folder=app)
    assert faults(found) == skipped(found) == {}
    assert re.search(r"\d\d packages in allowed versions$", found["versions"][1])


# --- orphaned runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("dagster", "asset", "materialize", "-m", "taxi_assets.definitions", "--select", "raw/green_trips",
         "--partition", str(MONTH)),
        ("python", "-m", "taxi_assets.cli.backfill", "backfill", "--service", "green",
         "--from", str(MONTH), "--to", str(MONTH)),
    ],
    ids=["materialize", "backfill"],
)  # fmt: skip
def test_a_run_is_a_fault_only_after_its_process_was_killed(home: Path, command: tuple[str, ...]) -> None:
    name, gate, begun = f"green_tripdata_{MONTH}.csv.gz", threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        gate.wait(900)

    with LoopbackPublisher() as publisher:
        publisher.script(name, Answer(before=wait))
        with subprocess.Popen(
            [BIN / command[0], *command[1:]], cwd=REPOSITORY, env=environment(home, TAXI_SOURCE=publisher.base),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            assert begun.wait(600)
            assert doctor(home)["runs"] == ["ok", "1 started, all with a process"]
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for member in family:
                member.kill()
            psutil.wait_procs(family, 120)
        gate.set()
    for _ in range(2):  # a check must not release the lock that the sensor needs
        found = doctor(home)
        assert faults(found).keys() == {"runs"}
        assert f" {MONTH} (run " in faults(found)["runs"]


# --- Postgres ---------------------------------------------------------------------------------------------------------


def test_checking_postgres_leaves_it_unchanged(home: Path, postgres_url: str) -> None:
    found = doctor(home, TAXI_WAREHOUSE=postgres_url)
    assert faults(found) == {}
    assert found["warehouse"][1].endswith(": tables can be created")
    assert run(postgres_url, "SELECT count(*) FROM pg_namespace WHERE nspname = 'taxi'") == [(0,)]


def test_a_role_without_the_right_to_create_gets_the_grant_to_run(
    home: Path, postgres_server: Server, postgres_url: str
) -> None:
    role = f"reader_{os.getpid()}"
    run(postgres_url, f"CREATE ROLE {role} LOGIN")
    try:
        database = postgres_url.partition("?")[0].rpartition("/")[2]
        found = doctor(home, TAXI_WAREHOUSE=postgres_server.url_of(database, role))
        assert faults(found).keys() == {"warehouse"}
        assert faults(found)["warehouse"].endswith(
            f'Ask the owner of the database to run: GRANT CREATE ON DATABASE "{database}" TO "{role}";'
        )
    finally:
        run(postgres_url, f"DROP ROLE {role}")


# --- Google Cloud -----------------------------------------------------------------------------------------------------


@pytest.fixture
def on_google(cloud_storage: CloudStorage, bigquery: BigQuery, service_account: ServiceAccount) -> dict[str, str]:
    """Settings for Google; for the same process only, because google-auth queries Google in a new process."""
    cloud_storage.location = "EU"
    return {
        "TAXI_LAKE": f"gs://{cloud_storage.bucket}/nyc",
        "TAXI_WAREHOUSE": f"bigquery://{bigquery.project}/taxi?location=EU",
        "TAXI_GOOGLE_CREDENTIALS": service_account.base64,
    }


def test_checking_bucket_and_dataset_leaves_them_unchanged(
    home: Path, on_google: dict[str, str], cloud_storage: CloudStorage, bigquery: BigQuery
) -> None:
    found = doctor(home, **on_google)
    assert faults(found) == {}
    assert found["Google account"][1] == f"{EMAIL}, by TAXI_GOOGLE_CREDENTIALS"
    assert found["lake"][1] == f"gs://{cloud_storage.bucket}/nyc: an object was written, read and deleted"
    assert found["warehouse"][1].endswith(
        ": will be created on first use, in EU, and loaded from the lake, whose bucket is in EU"
    )
    assert cloud_storage.objects() == {}
    assert [request.method for request in bigquery.requests if request.path.endswith("/datasets")] == ["POST"]


def test_each_missing_permission_is_reported_with_the_role_that_grants_it(
    home: Path, on_google: dict[str, str], cloud_storage: CloudStorage, bigquery: BigQuery
) -> None:
    cloud_storage.forbid("storage.objects.create")
    bigquery.forbid("bigquery.datasets.create")
    found = faults(doctor(home, **on_google))
    assert found.keys() == {"lake", "warehouse"}
    assert "roles/storage.objectUser" in found["lake"]
    assert "roles/bigquery.user" in found["warehouse"]


def test_an_existing_dataset_is_tried_and_one_in_another_location_is_a_fault(
    home: Path, on_google: dict[str, str], bigquery: BigQuery
) -> None:
    with Client(project=bigquery.project, credentials=AnonymousCredentials()) as client:  # type: ignore[no-untyped-call]  # it has no types
        dataset = Dataset(f"{bigquery.project}.taxi")
        dataset.location = "EU"
        client.create_dataset(dataset)
        found = doctor(home, **on_google)
        assert faults(found) == {}
        assert ": exists, in EU; tables can be created, and loaded from the lake, " in found["warehouse"][1]
        assert list(client.list_tables("taxi")) == []
        bigquery.forbid("bigquery.tables.create")
        assert "roles/bigquery.dataEditor" in faults(doctor(home, **on_google))["warehouse"]
        on_google["TAXI_WAREHOUSE"] = f"bigquery://{bigquery.project}/taxi?location=US"
        message = faults(doctor(home, **on_google))["warehouse"]
        assert message.startswith("The dataset taxi-project.taxi is in EU, but TAXI_WAREHOUSE")


def test_bucket_and_dataset_in_incompatible_locations_are_a_fault_that_names_both(
    home: Path, on_google: dict[str, str], cloud_storage: CloudStorage
) -> None:
    cloud_storage.location = "europe-west6"
    message = faults(doctor(home, **on_google))
    assert message == {
        "warehouse": "BigQuery cannot load from the lake: 400 Cannot read and write in different locations: source: "
        "europe-west6, destination: EU. The bucket taxi-lake is in EUROPE-WEST6, and the dataset is in EU. "
        "Create the dataset in the location of the bucket, or the bucket in that of the dataset (docs/google-cloud.md)."
    }
    assert cloud_storage.objects() == {}


def test_another_error_of_the_load_from_the_lake_does_not_blame_locations(
    home: Path, on_google: dict[str, str], bigquery: BigQuery
) -> None:
    bigquery.script_job(JobFault("invalid", "The file is damaged."), kind="load")
    message = faults(doctor(home, **on_google))["warehouse"]
    assert message.startswith("BigQuery cannot load from the lake: 400 The file is damaged. ")
    assert message.endswith("Check TAXI_LAKE and TAXI_WAREHOUSE.")


def test_the_load_from_the_lake_never_creates_a_table(
    home: Path, on_google: dict[str, str], bigquery: BigQuery
) -> None:
    """BigQuery may start it after the doctor has deleted the table."""
    assert faults(doctor(home, **on_google)) == {}
    loads = [job for job in bigquery.jobs if job.kind == "load"]
    assert [job.settings.get("createDisposition") for job in loads] == ["CREATE_NEVER"]


def test_a_bucket_that_bigquery_may_not_read_is_a_fault_of_the_warehouse(
    home: Path, on_google: dict[str, str], cloud_storage: CloudStorage
) -> None:
    cloud_storage.forbid("storage.buckets.get")
    message = faults(doctor(home, **on_google))
    assert message.keys() == {"warehouse"}
    assert "does not have storage.buckets.get access" in message["warehouse"]
    assert message["warehouse"].endswith(
        "Grant the account Storage Legacy Bucket Reader (roles/storage.legacyBucketReader) on the lake's bucket."
    )
    assert cloud_storage.objects() == {}


def test_a_bucket_that_keeps_failing_is_a_fault_when_the_time_limit_has_passed(
    home: Path, on_google: dict[str, str], cloud_storage: CloudStorage
) -> None:
    cloud_storage.script(*[Fault(status=503)] * 50)
    assert faults(doctor(home, **on_google)).keys() == {"lake"}


def test_a_revoked_google_key_is_one_fault_and_parts_outside_google_are_checked(
    home: Path, on_google: dict[str, str]
) -> None:
    with ServiceAccount(refuses=True) as revoked:
        on_google |= {"TAXI_GOOGLE_CREDENTIALS": revoked.base64, "TAXI_LAKE": str(home / "lake")}
        found = doctor(home, **on_google)
    assert faults(found).keys() == {"Google account"}
    assert skipped(found) == {"warehouse": "skipped: fix Google account first"}
    assert found["lake"][0] == "ok"
