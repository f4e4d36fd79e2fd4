"""Secrets in settings are not shown in errors, logs, events, records, reports or the output of `make doctor`.

The settings are those of the model, so a new setting is tested automatically. Google keys in use are tested in
`unit/test_google_auth.py`, passwords of Postgres in `contract/test_postgres.py`, those of notifiers in
`definitions/test_notification_sensors.py`.
"""

from __future__ import annotations

import logging
import os
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.build import build_definitions
from taxi_assets.cli.doctor.__main__ import main
from taxi_assets.errors import SettingsError
from taxi_assets.settings import Settings, variable_of
from taxi_assets_tests.google.service_account import ServiceAccount
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher
from taxi_assets_tests.loopback_sinks import SECRET as OF_SINK
from taxi_assets_tests.loopback_sinks import HttpSink
from taxi_assets_tests.trips import MONTH, csv_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


SECRET = "s3cr3t-0f-n0b0dy"  # noqa: S105  (a test value)
NAMES = [variable_of(name).replace("<SERVICE>", "GREEN") for name in Settings.model_fields]
SHAPES = [
    "https://user:{}@host/x?token={}#{}", "x://user:{}@host:port/x", "postgresql://taxi:{}@localhost/db?password={}",
    "duckdb:///w.duckdb?password={}", "gs://user:{}@bucket/x?key={}", "slack://{}@nowhere?{}",
    "http://[user:{}@host",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_reading_a_setting_does_not_show_its_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, record_property: Callable[[str, object], None]
) -> None:
    for shape in SHAPES:
        monkeypatch.setenv(name, shape.replace("{}", SECRET))
        try:
            settings = Settings.from_env()
        except SettingsError as error:
            message = "".join([str(error), repr(error), *traceback.format_exception(error), error.format_message()])
        else:
            resources = build_definitions(settings).get_repository_def().get_top_level_resources().values()
            defaults = [resource.config_schema.as_field() for resource in resources]
            shown = [str(default.default_value) for default in defaults if default.default_provided]
            message = "".join([repr(settings), str(settings), *shown])
        assert SECRET not in message, shape
    record_property("planted secrets", len(SHAPES))


# --- in use -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlantedSecrets:
    """The publisher that receives the secrets, and the secrets that must not be shown."""

    publisher: LoopbackPublisher
    secrets: list[str]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PlantedSecrets]:
    """Set a secret in every setting that can contain one and still work."""
    name = f"green_tripdata_{MONTH}.csv"
    content = ("\n".join(csv_lines(MONTH, 60, dirty=2)) + "\n").encode()
    with LoopbackPublisher({name: content}) as publisher, HttpSink() as sink, ServiceAccount() as account:
        base = f"http://user:{SECRET}@127.0.0.1:{publisher.port}/?token={SECRET}"
        working: Mapping[str, str] = {
            "TAXI_SOURCE": base,
            "TAXI_NOTIFY_URLS": sink.address,
            "TAXI_GOOGLE_CREDENTIALS": account.base64,
            "TAXI_LAKE": str(tmp_path / "lake"),
            "TAXI_WAREHOUSE": f"duckdb:///{tmp_path}/warehouse.duckdb",
            "TAXI_RETRY_DELAY_SECONDS": "0",
        }
        for setting in NAMES:
            monkeypatch.setenv(setting, working.get(setting, SECRET))
            if setting not in working:
                try:
                    Settings.from_env()
                except SettingsError:
                    monkeypatch.delenv(setting)  # this setting does not accept such a value
        yield PlantedSecrets(publisher, [SECRET, OF_SINK, account.base64[:60], account.private_key.splitlines()[3]])


def leaks(secrets: list[str], shown: Mapping[str, bytes]) -> set[str]:
    return {where for where, content in shown.items() for secret in secrets if secret.encode() in content}


@pytest.mark.parametrize(
    "answer", [Answer(), Answer(status=401), Answer(body=b"<html>no</html>")], ids=["ok", "401", "page"]
)
def test_a_run_and_the_doctor_do_not_show_the_secrets_that_they_use(
    planted: PlantedSecrets,
    tmp_path: Path,
    answer: Answer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    caplog.set_level(logging.DEBUG)
    planted.publisher.script(f"green_tripdata_{MONTH}.csv", then=answer)
    home = tmp_path / "dagster"
    home.mkdir()
    os.environ["DAGSTER_HOME"] = str(home)
    try:
        with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as instance:
            definitions = build_definitions(Settings.from_env())
            for job in ("green", "green_report") if answer == Answer() else ("green",):
                result = definitions.resolve_job_def(job).execute_in_process(
                    instance=instance, partition_key=str(MONTH), raise_on_error=False
                )
            assert result.success == (answer == Answer())
        if answer == Answer():
            main(["--seconds", "60"])
    finally:
        del os.environ["DAGSTER_HOME"]

    authorization = {request.headers.get("Authorization") for request in planted.publisher.requests}
    assert authorization != {None}, "the password was not used"
    assert any(SECRET in request.query for request in planted.publisher.requests), "the token was not used"
    captured = capfd.readouterr()
    shown = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    shown |= {"log": caplog.text.encode(), "output": (captured.out + captured.err).encode()}
    assert result.run_id.encode() in b"".join(shown.values())
    assert answer != Answer() or "FAULT publisher" in captured.out or "ok    publisher" in captured.out
    assert leaks(planted.secrets, shown) == set()
    assert leaks(planted.secrets, {"self-test": f"x{SECRET}y".encode()}) == {"self-test"}
    record_property("planted secrets", len(planted.secrets))
