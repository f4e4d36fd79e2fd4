"""`make notify-test`: each notifier gets one message, and the output says whether it was delivered."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner, Result

from taxi_assets.cli.send_test_message import cli
from taxi_assets_tests.loopback_sinks import SECRET, HttpSink, MailSink


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TAXI_NOTIFY_URLS", "TAXI_UI_URL"):
        monkeypatch.delenv(name, raising=False)


def send(*urls: str, **variables: str) -> Result:
    return CliRunner().invoke(cli, env={"TAXI_NOTIFY_URLS": ",".join(urls)} | variables)


def test_each_notifier_gets_one_message_that_links_to_the_ui() -> None:
    with HttpSink() as web, MailSink() as mail:
        result = send(web.address, mail.address, TAXI_UI_URL="https://dagster.example.com")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "ok      Notifier number 1 of TAXI_NOTIFY_URLS (JSON) accepted the message.",
        "ok      Notifier number 2 of TAXI_NOTIFY_URLS (E-Mail) accepted the message.",
    ]
    ((posted,), (mailed,)) = web.messages, mail.messages
    assert posted["title"] == mailed["Subject"] == "Test message"
    assert posted["message"].endswith("nothing has failed.\nhttps://dagster.example.com")


def test_a_notifier_that_refuses_the_message_is_named_and_fails_the_command() -> None:
    with HttpSink(status=403) as refusing, HttpSink() as web:
        result = send(refusing.address, web.address)
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "FAILED  Notifier number 1 of TAXI_NOTIFY_URLS (JSON) did not accept the message.",
        "ok      Notifier number 2 of TAXI_NOTIFY_URLS (JSON) accepted the message.",
    ]
    assert len(web.messages) == 1
    assert SECRET not in result.output


@pytest.mark.parametrize("urls", [(), ("slack://incomplete",)])
def test_without_a_valid_setting_there_is_one_clear_error(urls: tuple[str, ...]) -> None:
    result = send(*urls)
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: .*TAXI_NOTIFY_URLS is not .*\. (Set it to|Use) URLs of .*\n", result.output)
