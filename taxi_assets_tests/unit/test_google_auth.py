"""Google Cloud: credentials, translation of errors, and keys that are never shown."""

from __future__ import annotations

import base64
import json
import logging
import textwrap
import time
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import requests
from google.api_core import exceptions as api_errors
from google.auth import exceptions as auth_errors

from taxi_assets.build import build_definitions
from taxi_assets.errors import LakeConfigurationError, LakeUnreachableError, WarehouseConfigurationError
from taxi_assets.google_auth import (
    describe_google_error,
    load_credentials,
    read_service_account_key,
    storage_client,
    translate_google_errors,
)
from taxi_assets.resources.google import BigQueryClientResource, CloudStorageResource
from taxi_assets.settings import Settings
from taxi_assets.storage.lake.gcs_lake import GcsLake
from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
from taxi_assets.tlc.cleaning.report import NO_ROWS
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.stores.bigquery import bigquery, service_account
from taxi_assets_tests.contract.stores.gcs import cloud_storage
from taxi_assets_tests.pipeline_harness import failure_messages
from taxi_assets_tests.trips import MONTH, csv_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taxi_assets_tests.google.bigquery import BigQuery
    from taxi_assets_tests.google.cloud_storage import CloudStorage
    from taxi_assets_tests.google.service_account import ServiceAccount

__all__ = ["bigquery", "cloud_storage", "service_account"]

KEY = "clean/green_trips/2020-10.parquet"


def lake_of(key: str | None) -> GcsLake:
    return GcsLake(storage=CloudStorageResource(credentials=key), bucket="taxi-lake")


def warehouse_of(key: str | None) -> BigQueryWarehouse:
    api = BigQueryClientResource(project="taxi-project", credentials=key, maximum_bytes_billed=10**9)
    return BigQueryWarehouse(api=api, project="taxi-project", dataset="taxi")


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_a_file_path_or_its_content_in_base64(
    service_account: ServiceAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Letters and a slash are also valid base64.
    (tmp_path / "abc").mkdir()
    for name in ("key.json", "abc/beef"):
        (tmp_path / name).write_text(service_account.json)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    wrapped = "\n".join(textwrap.wrap(service_account.base64, 76))
    for text in ("key.json", str(tmp_path / "key.json"), "~/key.json", "abc/beef", " key.json\n"):
        assert read_service_account_key(text) == json.loads(service_account.json)
    for text in (service_account.base64, wrapped, f"{wrapped}\n", wrapped.replace("\n", "\r\n")):
        assert read_service_account_key(text) == json.loads(service_account.json)


def test_no_key_means_application_default_credentials(
    service_account: ServiceAccount, bigquery: BigQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_credentials(None) is None
    (tmp_path / "key.json").write_text(service_account.json)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    assert warehouse_of(None).totals(GREEN, MONTH) == NO_ROWS
    assert bigquery.requests[0].headers["Authorization"] == "Bearer a-token"


def test_the_resources_use_the_key_they_are_given(
    service_account: ServiceAccount, bigquery: BigQuery, cloud_storage: CloudStorage
) -> None:
    warehouse_of(service_account.base64).totals(GREEN, MONTH)
    lake_of(service_account.base64).version(KEY)
    assert bigquery.requests[0].headers["Authorization"] == "Bearer a-token"
    assert cloud_storage.requests[0].headers["Authorization"] == "Bearer a-token"


def without_default_project(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Remove all sources of a project and of credentials; no metadata server and no gcloud is queried."""
    for name in ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "CLOUDSDK_CONFIG", "PATH"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def test_objects_are_read_with_a_key_that_names_no_project(
    service_account: ServiceAccount, cloud_storage: CloudStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_default_project(monkeypatch, tmp_path)
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", cloud_storage.endpoint)
    content = json.loads(service_account.json)
    del content["project_id"]
    key = base64.b64encode(json.dumps(content).encode()).decode()
    cloud_storage.put("published/green.csv", b"a,b\n")
    with storage_client(key) as client:
        assert client.bucket(cloud_storage.bucket).blob("published/green.csv").download_as_bytes() == b"a,b\n"
    assert lake_of(key).sizes_in("published") == {"published/green.csv": 4}
    assert {request.headers["Authorization"] for request in cloud_storage.requests} == {"Bearer a-token"}


def test_clients_are_created_for_a_person_whose_credentials_name_no_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_default_project(monkeypatch, tmp_path)
    # As `gcloud auth application-default login` writes it without a default project.
    person = {"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"}
    (tmp_path / "adc.json").write_text(json.dumps(person))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))
    with storage_client(None) as client:
        assert client.project is None
    assert CloudStorageResource().get_client().project is None


@pytest.mark.parametrize("file", [None, "no-such-key.json"])
def test_missing_credentials_are_one_line_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None
) -> None:
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # no metadata server is queried
    if file is not None:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
    started = time.monotonic()
    with pytest.raises(LakeConfigurationError) as of_lake:
        lake_of(None).version(KEY)
    with pytest.raises(WarehouseConfigurationError) as of_warehouse:
        warehouse_of(None).totals(GREEN, MONTH)
    assert time.monotonic() - started < 60  # retries would take minutes
    for error in (of_lake.value, of_warehouse.value):
        line = str(error)
        assert ": there are no Google credentials (" in line
        assert (file or "Your default credentials were not found") in line
        assert error.remedy == "Set TAXI_GOOGLE_CREDENTIALS to a key, or run `gcloud auth application-default login`."
        assert "\n" not in line


def test_a_deleted_key_file_is_one_line(
    service_account: ServiceAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    file = tmp_path / "key.json"
    file.write_text(service_account.json)
    lake, warehouse = lake_of(str(file)), warehouse_of(str(file))
    file.unlink()
    uses: list[tuple[type[Exception], Callable[[], object]]] = [
        (LakeConfigurationError, lambda: lake.version(KEY)),
        (WarehouseConfigurationError, lambda: warehouse.totals(GREEN, MONTH)),
    ]
    for error, use in uses:
        with pytest.raises(error, match=r"TAXI_GOOGLE_CREDENTIALS: It is neither the path of a readable file"):
            use()


# --- errors -----------------------------------------------------------------------------------------------------------


def translated(error: Exception) -> Exception:
    def fail() -> None:
        with translate_google_errors(
            "x cannot be read",
            permanent=LakeConfigurationError,
            transient=LakeUnreachableError,
            remedy=lambda _: "Do it.",
        ):
            raise error

    with pytest.raises((LakeConfigurationError, LakeUnreachableError)) as raised:
        fail()
    return raised.value


def answer(status: int, body: str) -> requests.Response:
    response = requests.Response()
    response.status_code, response.reason, response._content = status, "Bad Gateway", body.encode()  # noqa: SLF001
    response.request = requests.Request("GET", "http://service/b").prepare()
    return response


def quota(name: str) -> list[dict[str, str]]:
    return [{"reason": name, "message": "Too much."}]


_API: Any = api_errors  # they have no types
_AUTH: Any = auth_errors

TRANSIENT: list[tuple[Exception, str]] = [
    (_API.ServiceUnavailable("Down."), "503 Down"),
    (_API.TooManyRequests("Slow."), "429 Slow"),
    (_API.Forbidden("No.", errors=quota("quotaExceeded")), "403 Too much"),
    (_API.Forbidden("No.", errors=quota("rateLimitExceeded")), "403 Too much"),
    *((_API.BadRequest("No.", errors=quota(name)), "400 Too much") for name in ("tableUnavailable", "backendError")),
    (_API.RetryError("Timeout of 1.0s exceeded", _API.BadGateway("Bad\ngateway.")), "502 Bad gateway"),
    (_API.from_http_response(answer(502, "<html>Oops</html>")), "502 Bad Gateway"),
    (
        requests.ConnectionError("('Connection aborted.', http://secret)"),
        "the connection was interrupted or could not be opened",
    ),
    (_AUTH.TransportError("No route."), "No route"),
    (_AUTH.RefreshError("Token service down.", retryable=True), "Token service down"),
    (TimeoutError("timed out"), "timed out"),
]
PERMANENT: list[tuple[Exception, str]] = [
    (_API.Forbidden("No."), "x cannot be read: 403 No. Do it."),
    (_API.InternalServerError("No.", errors=quota("bytesBilledLimitExceeded")), "500 Too much. Do it."),
    (
        _API.Forbidden("…", response=answer(403, '{"error": {"code": 403, "message": "Not\\n you."}}')),
        "x cannot be read: 403 Not you. Do it.",
    ),
    (_API.from_http_status(200, "", errors=quota("stopped")), "x cannot be read: the job was canceled (Too much). Do"),
    (_AUTH.RefreshError("invalid_grant: Gone."), "Google does not accept the credentials (invalid_grant: Gone)."),
    (_API.Unauthorized("Who?"), "Google does not accept the credentials (401 Who?)."),
]


@pytest.mark.parametrize(("error", "message"), TRANSIENT, ids=lambda value: type(value).__name__)
def test_a_transient_error_has_its_cause_in_one_line(error: Exception, message: str) -> None:
    found = translated(error)
    assert isinstance(found, LakeUnreachableError)
    assert str(found) == f"x cannot be read: {message}. Try again later. [LakeUnreachableError]"


@pytest.mark.parametrize(("error", "message"), PERMANENT, ids=lambda value: type(value).__name__)
def test_a_permanent_error_has_its_cause_in_one_line(error: Exception, message: str) -> None:
    found = translated(error)
    assert isinstance(found, LakeConfigurationError)
    assert message in str(found)
    assert "\n" not in str(found)


def test_an_error_without_a_message_is_described_by_its_class() -> None:
    assert describe_google_error(TimeoutError()) == "TimeoutError"


# --- never shown ------------------------------------------------------------------------------------------------------


def chunks(account: ServiceAccount) -> list[str]:
    """Return chunks of the key's text and of its base64 form that cover the whole key."""
    return [*account.private_key.splitlines()[1:-1], *textwrap.wrap(account.base64, 60)[:-1]]


def test_a_key_is_not_in_the_text_of_resources_and_settings(
    service_account: ServiceAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_GOOGLE_CREDENTIALS", service_account.base64)
    settings = Settings.from_env()
    lake, warehouse = lake_of(service_account.base64), warehouse_of(service_account.base64)
    message = "".join(f"{thing!r}{thing}" for thing in (lake, lake.storage, warehouse, warehouse.api, settings))
    assert not [chunk for chunk in chunks(service_account) if chunk in message + repr(settings.google_key)]


def run(settings: Settings, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = build_definitions(settings).resolve_job_def("green")
    return job.execute_in_process(instance=instance, partition_key=str(MONTH), raise_on_error=False)


@pytest.mark.parametrize("given", ["base64", "path"])
def test_a_key_is_in_no_file_of_the_instance_and_in_no_log(
    given: str,
    cloud_storage: CloudStorage,
    bigquery: BigQuery,
    service_account: ServiceAccount,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / f"green_tripdata_{MONTH}.csv").write_text("\n".join(csv_lines(MONTH, 50)) + "\n")
    (tmp_path / "key.json").write_text(service_account.json)
    monkeypatch.setenv("TAXI_LAKE", f"gs://{cloud_storage.bucket}/nyc")
    monkeypatch.setenv("TAXI_WAREHOUSE", f"bigquery://{bigquery.project}/taxi")
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / "files"))
    key = {"base64": service_account.base64, "path": str(tmp_path / "key.json")}[given]
    monkeypatch.setenv("TAXI_GOOGLE_CREDENTIALS", key)
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as instance:
        bigquery.forbid("bigquery.jobs.create")  # error messages are also searched for the key
        (message,) = failure_messages(run(Settings.from_env(), instance))
        assert "roles/bigquery.jobUser" in message
        bigquery.allow("bigquery.jobs.create")
        result = run(Settings.from_env(), instance)
        assert result.success, failure_messages(result)
    assert bigquery.sql("SELECT count(*) FROM taxi.green_trips") == [(50,)]
    shown = {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert any(result.run_id.encode() in content for content in shown.values())
    captured = capfd.readouterr()
    shown |= {"log": caplog.text.encode(), "output": (captured.out + captured.err).encode()}
    assert result.run_id.encode() in shown["log"] + shown["output"]
    found = {
        where for where, content in shown.items() for chunk in chunks(service_account) if chunk.encode() in content
    }
    assert not found


def test_the_chunks_would_find_a_key(service_account: ServiceAccount) -> None:
    assert len(chunks(service_account)) > 20
    for text in (service_account.json, service_account.base64):
        assert any(chunk in text for chunk in chunks(service_account))
    assert base64.b64decode(service_account.base64).decode() == service_account.json
