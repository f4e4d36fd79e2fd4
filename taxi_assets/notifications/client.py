"""Delivery of messages to the notifiers of `TAXI_NOTIFY_URLS`, through the library Apprise.

Belongs here: parsing the URLs, and delivering a message to each. Does not belong here: the text of a message, and when
it is sent (`automation/sensors/notification_sensors.py`).

The URLs contain tokens and passwords: no error and no log line quotes them.
"""

from __future__ import annotations

import logging
import re
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import apprise
    from pydantic import SecretStr

TIMEOUT_SECONDS = 10
"""Time limit for all notifiers. Dagster ends a sensor's tick after a minute.

Apprise itself allows each notifier four seconds to connect, and four to answer.
"""

_ACCEPTED = "Use URLs of the library Apprise, such as slack://…, mailto://… or json://…, separated by commas or spaces."
# A comma within a URL does not separate, as in Apprise. Unlike Apprise, this keeps parts that are not URLs.
_SEPARATOR = re.compile(r"[\s,;]+(?=[a-z0-9]+://)", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z0-9]{1,32}://", re.IGNORECASE)
_notifying = ContextVar("_notifying", default=False)


@dataclass(frozen=True)
class Message:
    """A notification, in plain text."""

    kind: Literal["failure", "warning", "success"]
    title: str
    body: str


def parse_notify_urls(text: str) -> apprise.Apprise:
    """Parse a value of `TAXI_NOTIFY_URLS`.

    Returns:
        The notifiers in the given order. Each has the tag `number-1`, `number-2` and so on.

    Raises:
        ValueError: A URL is not accepted. The message gives its position, and does not quote it.
    """
    import apprise  # noqa: PLC0415  (takes almost 0.5 s to import, and most deployments have no notifier)

    for library in ("apprise", "urllib3.connectionpool"):
        logging.getLogger(library).addFilter(_may_be_logged)
    notifiers = apprise.Apprise(asset=apprise.AppriseAsset(app_id="taxi_assets", app_desc="taxi_assets"))
    for number, url in enumerate(_SEPARATOR.split(text.strip(" \t\r\n,;")), start=1):
        notifier = apprise.Apprise.instantiate(url, asset=notifiers.asset, tag=f"number-{number}")
        if notifier is None:
            scheme = _SCHEME.match(url)
            position = f"Number {number}{f', {scheme[0]}…,' if scheme else ''}"
            raise ValueError(
                f"{position} is unknown, incomplete, or needs a library that is not installed. {_ACCEPTED}"
            )
        notifiers.add(notifier)
    return notifiers


@dataclass(frozen=True)
class Delivery:
    """The outcome of sending a message to one notifier.

    Attributes:
        number: The position of its URL, from 1.
        service: The name of its service, such as Slack.
        problem: Why the message was not delivered, such as "did not accept the message"; None if it was.
    """

    number: int
    service: str
    problem: str | None

    def __str__(self) -> str:
        outcome = self.problem or "accepted the message"
        return f"Notifier number {self.number} of TAXI_NOTIFY_URLS ({self.service}) {outcome}."


def notify(urls: SecretStr, message: Message) -> list[Delivery]:
    """Send a message to all notifiers at the same time.

    Args:
        urls: A valid value of `TAXI_NOTIFY_URLS`.
        message: The message to send.

    Returns:
        The outcome for each notifier, in the order of the URLs. Failed deliveries raise no error.
    """
    import apprise  # noqa: PLC0415  (see above)

    notifiers = parse_notify_urls(urls.get_secret_value())
    token = _notifying.set(True)  # Apprise copies the context to its threads
    try:
        result = notifiers.notify(
            title=message.title, body=message.body, notify_type=message.kind, body_format=apprise.NotifyFormat.TEXT,
            timeout=TIMEOUT_SECONDS,
        )  # fmt: skip
    finally:
        _notifying.reset(token)
    with closing(result):
        return sorted((_delivery(one) for one in result), key=lambda delivery: delivery.number)


def _delivery(result: apprise.NotifyResult) -> Delivery:
    timed_out = result.status == type(result.status).TIMEOUT
    problem = f"did not answer within {TIMEOUT_SECONDS} seconds" if timed_out else "did not accept the message"
    (tag,) = result.tag
    return Delivery(int(tag.removeprefix("number-")), result.name, None if result else problem)


def _may_be_logged(record: logging.LogRecord) -> bool:
    """Return whether a log line is free of URLs: not from Apprise, and not from a request that Apprise sends."""
    return record.name != "apprise" and not _notifying.get()
