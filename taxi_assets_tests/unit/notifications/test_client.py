"""Accepted values of TAXI_NOTIFY_URLS and TAXI_UI_URL, and the time limit for notifiers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import SecretStr

from taxi_assets.errors import SettingsError
from taxi_assets.notifications import client
from taxi_assets.notifications.client import Message, notify, parse_notify_urls
from taxi_assets.settings import Settings
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.loopback_sinks import SECRET, HttpSink, MailSink


def test_a_notifier_that_does_not_answer_is_abandoned_at_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 3)
    with HttpSink() as web, MailSink() as mail:
        web.answers.clear()
        message = Message("failure", "Something", "happened.")
        deliveries = notify(SecretStr(f"{web.address},{mail.address}"), message)
    assert [*map(str, deliveries)] == [
        "Notifier number 1 of TAXI_NOTIFY_URLS (JSON) did not answer within 3 seconds.",
        "Notifier number 2 of TAXI_NOTIFY_URLS (E-Mail) accepted the message.",
    ]
    assert len(mail.messages) == 1


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("json://a,json://b", 2),
        ("json://a , \n json://b ; ", 2),
        ("json://a mailto://u:p@example.com?to=a@example.com,b@example.com", 2),
        ("json://a/,b,c", 1),
    ],
)
def test_notifiers_are_separated_by_commas_or_spaces(value: str, number: int) -> None:
    assert len(parse_notify_urls(value)) == number


@pytest.mark.parametrize(
    ("value", "position"),
    [
        (SECRET, "Number 1 is unknown"),
        (f"json//{SECRET}", "Number 1 is unknown"),
        (f"{SECRET}, json://host", "Number 1 is unknown"),
        (f"json://host, slack://{SECRET}", "Number 2, slack://…, is unknown"),
        (f"json://host,jsno://{SECRET}\nnext", "Number 2, jsno://…, is unknown"),
    ],
)
def test_an_invalid_notifier_is_one_line_that_does_not_quote_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], value: str, position: str
) -> None:
    monkeypatch.setenv("TAXI_NOTIFY_URLS", value)
    with pytest.raises(SettingsError) as error:
        Settings.from_env()
    assert str(error.value).startswith(f"TAXI_NOTIFY_URLS is not accepted. {position}")
    message = capfd.readouterr()
    assert "\n" not in str(error.value)
    assert SECRET not in f"{error.value}{message.out}{message.err}"


def test_every_url_of_the_documentation_is_accepted_for_its_service() -> None:
    page = (REPOSITORY / "docs/how-to/notifications.md").read_text()
    rows = re.findall(r"^\| ([\w, ]+) \| `(\w+://\S+)` \|$", page, re.MULTILINE)
    notifiers: list[Any] = [*parse_notify_urls(", ".join(url for _, url in rows))]
    names = {service: notifier.service_name for (service, _), notifier in zip(rows, notifiers, strict=True)}
    assert names == {
        "Slack, webhook": "Slack",
        "Slack, bot": "Slack",
        "email": "E-Mail",
        "Gmail": "E-Mail",
        "Teams": "Power Automate / Workflows (for MSTeams)",
        "any HTTP service": "JSON",
    }
    _, bot, email, gmail, *_ = notifiers
    assert bot.channels == ["#taxi-alerts"]
    assert (email.smtp_host, email.port, email.secure_mode) == ("smtp.example.com", 587, "starttls")
    assert (email.user, [address for _, address in email.targets]) == (
        "alerts@example.com",
        ["one@example.com", "two@example.com"],
    )
    assert (gmail.smtp_host, gmail.user) == ("smtp.gmail.com", "alerts@gmail.com")


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_value_means_no_notifiers(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TAXI_NOTIFY_URLS", value)
    assert Settings.from_env().notify_urls is None


@pytest.mark.parametrize(
    ("value", "read"), [("https://host/", "https://host"), ("http://host:3000/dagster/", "http://host:3000/dagster")]
)
def test_a_ui_address_is_accepted_without_its_last_slash(
    monkeypatch: pytest.MonkeyPatch, value: str, read: str
) -> None:
    monkeypatch.setenv("TAXI_UI_URL", value)
    assert Settings.from_env().ui_url == read


@pytest.mark.parametrize("value", ["host", "ftp://host", "https://", "https://user:hunter2@host", "https://host?a=b"])
def test_an_invalid_ui_address_is_rejected(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TAXI_UI_URL", value)
    with pytest.raises(
        SettingsError, match=r"^TAXI_UI_URL=.* is not accepted\. Use the address of Dagster's UI"
    ) as error:
        Settings.from_env()
    assert "hunter2" not in str(error.value)
