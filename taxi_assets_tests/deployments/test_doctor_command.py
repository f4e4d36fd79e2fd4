"""`make doctor` on correct, partly wrong and wrong environments: each fault once, exit code 1, no stack trace."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from taxi_assets.cli.doctor.check_runner import UNREACHABLE_HINT
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.doctor_runner import (
    BIN,
    SECRET,
    WITHOUT_INSTANCE,
    doctor,
    doctor_process,
    environment,
    faults,
    home,
    silent_server,
    skipped,
)
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["home"]


@pytest.fixture
def publisher() -> Iterator[LoopbackPublisher]:
    with LoopbackPublisher({"yellow_tripdata_2021-01.csv": b"a file\n"}) as publisher:
        yield publisher


# --- correct ---------------------------------------------------------------------------------------------------------


def test_every_part_of_a_correct_deployment_is_ok_and_described(home: Path, publisher: LoopbackPublisher) -> None:
    source = publisher.base.replace("http://", f"http://me:{SECRET}@")
    found = doctor_process(
        home, TAXI_SOURCE=source, TAXI_NOTIFY_URLS=f"json://me:{SECRET}@127.0.0.1:9", TAXI_UI_URL="http://ui"
    )
    assert faults(found) == skipped(found) == {}
    assert re.match(r"Python 3\.\d+\.\d+, dagster 1\.", found["versions"][1])
    assert found["DAGSTER_HOME"][1] == f"{home / 'dagster'}, 0 runs in Sqlite"
    assert found["run launcher"][1] == "DefaultRunLauncher, behind QueuedRunCoordinator"
    assert found["compute logs"][1] == "LocalComputeLogManager"
    assert found["settings"][1].endswith("set: TAXI_LAKE, TAXI_NOTIFY_URLS, TAXI_SOURCE, TAXI_UI_URL, TAXI_WAREHOUSE")
    assert found["lake"][1] == f"{home / 'lake'}: an object was written, read and deleted"
    assert found["warehouse"][1] == f"DuckDB, {home / 'warehouse.duckdb'}, schema taxi: will be created on first use"
    assert found["publisher"][1] == f"{publisher.base}: has yellow 2021-01"
    assert found["schedules"][1].startswith("monthly at 0 5 1 * * (UTC), sensors every 3600 s")
    assert found["notifiers"][1] == "JSON: notified of failures (not tried), with links to http://ui"
    assert found["code location"][1].startswith("taxi_assets.definitions: ")
    assert {request.method for request in publisher.requests} == {"HEAD"}
    assert [path for path in (home / "lake").rglob("*") if path.is_file()] == []
    assert not (home / "warehouse.duckdb").exists()


def test_make_doctor_sets_up_an_instance_like_make_dev(tmp_path: Path) -> None:
    ended = subprocess.run(
        ["make", "doctor", f"VENV={BIN.parent}"],
        cwd=REPOSITORY, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tmp_path / "dagster" / "dagster.yaml").read_text() == (REPOSITORY / "dagster.yaml").read_text()


# --- partly wrong ----------------------------------------------------------------------------------------------------


def test_a_store_that_cannot_be_written_is_one_fault_and_other_parts_are_checked(home: Path) -> None:
    (home / "file").touch()
    found = doctor(home, TAXI_LAKE=str(home / "file/lake"), TAXI_WAREHOUSE=f"duckdb:///{home / 'file/w.duckdb'}")
    assert faults(found).keys() == {"settings"}, "such paths are refused at once"
    (home / "lake").symlink_to(home / "nowhere")
    (home / "w.duckdb").write_text("no database")
    found = doctor(home, TAXI_WAREHOUSE=f"duckdb:///{home / 'w.duckdb'}")
    assert faults(found).keys() == {"lake", "warehouse"}
    assert f"{home / 'lake'} cannot be written to (File exists)." in faults(found)["lake"]
    assert "cannot be opened as a DuckDB database" in faults(found)["warehouse"]


def test_a_warehouse_in_use_is_not_a_fault(home: Path) -> None:
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, home / "warehouse.duckdb"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        found = doctor(home)
        holder.kill()
    assert faults(found) == {}
    assert f"PID {holder.pid}" in found["warehouse"][1]


def test_servers_that_are_down_or_silent_are_faults_when_the_time_limit_has_passed(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as no_one:
        down = no_one.getsockname()[1]
    with silent_server() as port:
        found = doctor_process(
            home,
            TAXI_SOURCE=f"http://me:{SECRET}@127.0.0.1:{down}",
            TAXI_WAREHOUSE=f"postgresql://taxi@127.0.0.1:{port}/nyc",
            PGPASSWORD=SECRET,
        )  # fmt: skip
    assert faults(found).keys() == {"warehouse", "publisher"}
    assert "timeout expired. Check that the service runs" in faults(found)["warehouse"]
    assert "connection refused" in faults(found)["publisher"].lower()
    assert skipped(found) == {}


def test_the_publishers_of_single_services_are_checked_too(home: Path, publisher: LoopbackPublisher) -> None:
    found = doctor(home, TAXI_SOURCE_GREEN=publisher.base)
    assert found["publisher"][1] == (
        f"sample: has yellow 2021-01 and yellow 2023-01; {publisher.base}: answers, but has no green 2013-08; "
        "it may have other months"
    )
    assert "TAXI_SOURCE_GREEN" in found["settings"][1]
    publisher.script("green_tripdata_2013-08.csv.gz", Answer(status=503))
    assert "HTTP 503" in faults(doctor(home, TAXI_SOURCE_GREEN=publisher.base))["publisher"]


def test_a_publisher_that_fails_is_a_fault_and_one_with_other_months_is_not(
    home: Path, publisher: LoopbackPublisher
) -> None:
    publisher.script("yellow_tripdata_2021-01.csv.gz", Answer(status=503))
    assert "HTTP 503" in faults(doctor(home, TAXI_SOURCE=publisher.base))["publisher"]
    publisher.withdraw("yellow_tripdata_2021-01.csv")
    found = doctor(home, TAXI_SOURCE=publisher.base)
    assert faults(found) == {}
    assert "has neither yellow 2021-01 nor 2023-01; it may have other months" in found["publisher"][1]


def test_a_folder_is_accepted_if_it_has_a_month_of_any_service(home: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    assert (
        f"{files} has no month of yellow or green or fhv or fhvhv. Check the path."
        in (faults(doctor(home, TAXI_SOURCE=str(files)))["publisher"])
    )
    (files / "fhv_tripdata_2019-05.csv").write_text("a header\n")
    assert doctor(home, TAXI_SOURCE=str(files))["publisher"][1] == f"{files}: has 1 month of fhv"


# --- wrong ------------------------------------------------------------------------------------------------------------


def test_each_invalid_setting_is_one_line_and_checks_that_need_settings_are_skipped(tmp_path: Path) -> None:
    found = doctor_process(
        tmp_path,
        DAGSTER_HOME="",
        TAXI_WAREHOUSE=f"postgresql://taxi:{SECRET}@host/nyc",
        TAXI_SOURCE="nowhere",
        TAXI_NOTIFY_URLS=f"nonsense://{SECRET}",
    )
    assert faults(found).keys() == {"DAGSTER_HOME", "settings"}
    assert len(found["settings"]) == 1 + 3
    assert skipped(found) == WITHOUT_INSTANCE | dict.fromkeys(
        [
            *("Google account", "lake", "warehouse", "catalog", "publisher", "schedules", "notifiers"),
            *("code location", "pinned"),
        ],
        "skipped: fix settings first",
    )


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("storage: [\n", "its dagster.yaml is not valid YAML from line 2"),
        ("no_such_key: 1\n", 'Received unexpected config entry "no_such_key" at the root'),
        ("storage: {postgres: {postgres_url: {env: DAGSTER_POSTGRES_URL}}}\n", "DAGSTER_POSTGRES_URL is not set"),
    ],
)
def test_an_instance_that_cannot_be_opened_is_one_line(home: Path, yaml: str, message: str) -> None:
    (home / "dagster" / "dagster.yaml").write_text(yaml)
    found = doctor(home)
    assert faults(found) == {
        "DAGSTER_HOME": f"The instance in {home / 'dagster'} cannot be opened: {message}. "
        "Correct its dagster.yaml, or the service that it names."
    }
    assert skipped(found) == WITHOUT_INSTANCE


@pytest.mark.parametrize(
    "address",
    ["nonsense", f"postgresql+psycopg2://dagster:{SECRET}@host:port/dagster", "no-such-engine://host/dagster"],
)
def test_an_invalid_address_of_dagsters_storage_names_its_variable(home: Path, address: str) -> None:
    shutil.copy(REPOSITORY / "deploy/postgres/dagster.yaml", home / "dagster")
    assert faults(doctor(home, DAGSTER_POSTGRES_URL=address)) == {
        "DAGSTER_HOME": "DAGSTER_POSTGRES_URL is not the address of a database. Write it as "
        "postgresql+psycopg2://user:password@host:5432/database."
    }


def test_dagster_storage_that_is_down_is_reported_without_its_password(home: Path) -> None:
    shutil.copy(REPOSITORY / "deploy/postgres/dagster.yaml", home / "dagster")
    with socket.create_server(("127.0.0.1", 0)) as no_one:
        down = no_one.getsockname()[1]
    url = f"postgresql+psycopg2://dagster:{SECRET}@127.0.0.1:{down}/dagster"
    found = doctor_process(home, DAGSTER_POSTGRES_URL=url)
    assert faults(found).keys() == {"DAGSTER_HOME"}
    assert "Connection refused. Correct" in faults(found)["DAGSTER_HOME"]


def test_a_warehouse_that_refuses_connections_is_reported_with_the_fix(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as no_one:
        down = no_one.getsockname()[1]
    message = faults(doctor(home, TAXI_WAREHOUSE=f"postgresql://taxi@127.0.0.1:{down}/nyc"))["warehouse"]
    assert "failed: Connection refused" in message
    assert message.endswith(f"accepting TCP/IP connections. {UNREACHABLE_HINT}")
