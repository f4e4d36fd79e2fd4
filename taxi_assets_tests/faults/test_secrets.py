"""A secret planted in every setting is seen nowhere: not in errors, logs, events, records, reports, nor by the doctor.

The settings are those of the model: one that is added later is planted here by itself. A Google key in use is in
`unit/test_google_cloud.py`, passwords of Postgres are in `contract/test_postgres.py`, those of notifiers in
`definitions/test_notifications.py`.
"""

from __future__ import annotations

import logging
import os
import traceback
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.build import build_definitions
from taxi_assets.doctor.__main__ import main
from taxi_assets.errors import SettingsError
from taxi_assets.settings import Settings
from taxi_assets_tests.google.service_account import ServiceAccount
from taxi_assets_tests.loopback_publisher import Answer, LoopbackPublisher
from taxi_assets_tests.loopback_sinks import HttpSink
from taxi_assets_tests.loopback_sinks import SECRET as OF_SINK
from taxi_assets_tests.trips import MONTH, csv_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.timeout(150)

SECRET = "s3cr3t-0f-n0b0dy"  # noqa: S105  (the one that must not be seen)
NAMES = [f"TAXI_{name.upper()}" for name in Settings.model_fields]
SHAPES = [
    "https://user:{}@host/x?token={}#{}", "x://user:{}@host:port/x", "postgresql://taxi:{}@localhost/db?password={}",
    "duckdb:///w.duckdb?password={}", "gs://user:{}@bucket/x?key={}", "slack://{}@nowhere?{}", "json:/user:{}@host",
    "http://[user:{}@host",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_a_secret_in_a_setting_is_not_shown_by_whoever_reads_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, shape: str
) -> None:
    monkeypatch.setenv(name, shape.replace("{}", SECRET))
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        said = "".join([str(error), repr(error), *traceback.format_exception(error), error.format_message()])
    else:
        definitions = build_definitions(settings)
        resources = definitions.get_repository_def().get_top_level_resources()
        said = "".join(
            [
                repr(settings), str(settings), repr(definitions),
                *(repr(getattr(resource, "configurable_resource_cls", resource)) for resource in resources.values()),
                *(str(resource.config_schema.as_field().default_value) for resource in resources.values()
                  if resource.config_schema.as_field().default_provided),
            ]
        )  # fmt: skip
    assert SECRET not in said + "".join(capsys.readouterr())


# --- in use -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackPublisher]:
    """A deployment each of whose settings holds a secret, where it can hold one at all and still work."""
    name = f"green_tripdata_{MONTH}.csv"
    content = ("\n".join(csv_lines(MONTH, 60, dirty=2)) + "\n").encode()
    with LoopbackPublisher({name: content}) as publisher, HttpSink() as sink, ServiceAccount() as account:
        base = f"http://user:{SECRET}@127.0.0.1:{publisher.port}/?token={SECRET}"
        working: Mapping[str, str] = {
            "TAXI_SOURCE": base,
            "TAXI_NOTIFY": sink.address,
            "TAXI_GOOGLE_CREDENTIALS": account.base64,
            "TAXI_LAKE": str(tmp_path / "lake"),
            "TAXI_WAREHOUSE": f"duckdb:///{tmp_path}/warehouse.duckdb",
            "TAXI_RETRY_DELAY": "0",
        }
        for setting in NAMES:
            monkeypatch.setenv(setting, working.get(setting, SECRET))
            if setting not in working:
                try:
                    Settings.from_env()
                except SettingsError:
                    monkeypatch.delenv(setting)  # it takes no such thing
        publisher.key = account.base64[:60]  # type: ignore[attr-defined]  # for the one who looks
        yield publisher


def seen(secrets: list[str], shown: Mapping[str, bytes]) -> set[str]:
    return {where for where, content in shown.items() for secret in secrets if secret.encode() in content}


@pytest.mark.parametrize(
    "answer", [Answer(), Answer(status=401), Answer(body=b"<html>no</html>")], ids=["ok", "401", "page"]
)
def test_a_run_and_the_doctor_show_none_of_the_secrets_that_they_use(
    planted: LoopbackPublisher,
    tmp_path: Path,
    answer: Answer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    caplog.set_level(logging.DEBUG)
    planted.script(f"green_tripdata_{MONTH}.csv", then=answer)
    home = tmp_path / "dagster"
    home.mkdir()
    os.environ["DAGSTER_HOME"] = str(home)
    try:
        with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as instance:
            definitions = build_definitions(Settings.from_env())
            for job in ("green", "green_report"):
                result = definitions.resolve_job_def(job).execute_in_process(
                    instance=instance, partition_key=str(MONTH), raise_on_error=False
                )
            assert result.success == (answer == Answer())
        main(["--seconds", "5"])
    finally:
        del os.environ["DAGSTER_HOME"]

    authorization = {request.headers.get("Authorization") for request in planted.requests}
    assert authorization != {None}, "the password was not used"
    assert any(SECRET in request.query for request in planted.requests), "the token was not used"
    captured = capfd.readouterr()
    shown = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    shown |= {"log": caplog.text.encode(), "output": (captured.out + captured.err).encode()}
    assert result.run_id.encode() in b"".join(shown.values())
    assert "publisher" in captured.out
    secrets = [SECRET, OF_SINK, planted.key]  # type: ignore[attr-defined]
    assert seen(secrets, shown) == set()
    assert seen(secrets, {"a trap": f"x{SECRET}y".encode()}) == {"a trap"}
    record_property("planted secrets", len(secrets))
