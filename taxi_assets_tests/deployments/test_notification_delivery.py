"""A month that fails under a real daemon: each notifier gets one message, and no stored file contains a secret."""

from __future__ import annotations

import os
import shutil
import socket
from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deployments.processes import Deployment
from taxi_assets_tests.loopback_publisher import LoopbackPublisher
from taxi_assets_tests.loopback_sinks import SECRET, HttpSink, MailSink
from taxi_assets_tests.trips import MONTH

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

MISSING = MONTH.shift(-1)
UI = "https://dagster.example.com"


def ticks(deployment: Deployment) -> list[str]:
    """Return status and skip message of the sensor's completed ticks, newest first."""
    for state in deployment.instance.all_instigator_state():
        if state.instigator_name == "notify_failures":
            found = deployment.instance.get_ticks(state.instigator_origin_id, state.selector_id)
            return [f"{tick.status.value} {tick.skip_reason}" for tick in found if tick.is_completed]
    return []


def test_a_failed_month_is_reported_once_to_each_reachable_notifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        unreachable = f"json://127.0.0.1:{closed.getsockname()[1]}/{SECRET}"
    with HttpSink() as http_sink, MailSink() as mail_sink, LoopbackPublisher() as publisher:
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        monkeypatch.setenv("TAXI_SOURCE", publisher.base)
        monkeypatch.setenv("TAXI_LAKE", str(tmp_path / "lake"))
        monkeypatch.setenv("TAXI_WAREHOUSE", f"duckdb:///{tmp_path / 'w.duckdb'}")
        monkeypatch.setenv("TAXI_NOTIFY_URLS", f"{unreachable},{http_sink.address},{mail_sink.address}")
        monkeypatch.setenv("TAXI_UI_URL", UI)
        with dg.DagsterInstance.get() as instance:
            deployment = Deployment(home, publisher, dict(os.environ), instance)
            with deployment.running_daemon():
                deployment.wait_until(lambda: ticks(deployment))
                deployment.launch_runs(MISSING)
                deployment.wait_until(lambda: http_sink.messages and mail_sink.messages)
                # Wait for one more tick after the one that sent the message.
                deployment.wait_until(lambda: any("Sent" in tick for tick in ticks(deployment)[1:]))
            (failed,) = deployment.runs("FAILURE")
            history = ticks(deployment)
    assert [message["title"] for message in http_sink.messages] == [f"Run failed: green {MISSING}"]
    assert http_sink.messages[0]["message"].startswith(f"green {MISSING} is not published at http://")
    assert http_sink.messages[0]["message"].endswith(f"\n{UI}/runs/{failed.run_id}")
    assert [message["Subject"] for message in mail_sink.messages] == [f"Run failed: green {MISSING}"]
    assert [tick for tick in history if "Sent" in tick] == [
        (
            f"SKIPPED Sent: Run failed: green {MISSING}. "
            "Notifier number 1 of TAXI_NOTIFY_URLS (JSON) did not accept the message."
        )
    ]
    assert not [tick for tick in history if tick.startswith("FAILURE")]
    stored_files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in stored_files if b"did not accept the message" in path.read_bytes()]
    assert not [path for path in stored_files if SECRET.encode() in path.read_bytes()]
