"""Who is told: the notifiers of `TAXI_NOTIFY_URLS`, each of them an address that the library Apprise knows.

Belongs here: from text to notifiers, and handing them a message. What a message says, and when one is sent, is
`automation/sensors/notification_sensors.py`. Addresses hold tokens and passwords: whatever goes wrong, none of them is quoted.
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

# A tick of a sensor ends after a minute. Apprise itself gives each notifier four seconds to connect, four to answer.
TIMEOUT_SECONDS = 10

_ACCEPTED = (
    "Accepted are addresses as the library Apprise knows them, such as slack://…, mailto://… or json://…, with a "
    "comma or a space between them."
)
# As Apprise itself splits: a comma within an address stays. Unlike it, this loses nothing that is no address.
_SEPARATOR = re.compile(r"[\s,;]+(?=[a-z0-9]+://)", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z0-9]{1,32}://", re.IGNORECASE)
_notifying = ContextVar("_telling", default=False)


@dataclass(frozen=True)
class Message:
    """Plain text."""

    kind: Literal["failure", "warning", "success"]
    title: str
    body: str


def parse_notify_urls(text: str) -> apprise.Apprise:
    """The notifiers that a text names, tagged by their number; a `ValueError` names the first that is not accepted."""
    import apprise  # noqa: PLC0415  (takes almost half a second to load, and most deployments have no notifier)

    for library in ("apprise", "urllib3.connectionpool"):
        logging.getLogger(library).addFilter(_may_be_logged)
    notifiers = apprise.Apprise(asset=apprise.AppriseAsset(app_id="taxi_assets", app_desc="taxi_assets"))
    for number, address in enumerate(_SEPARATOR.split(text.strip(" \t\r\n,;")), start=1):
        notifier = apprise.Apprise.instantiate(address, asset=notifiers.asset, tag=f"number-{number}")
        if notifier is None:
            scheme = _SCHEME.match(address)
            which = f"Number {number}{f', {scheme[0]}…,' if scheme else ''}"
            raise ValueError(f"{which} is unknown, incomplete, or needs a library that is not installed. {_ACCEPTED}")
        notifiers.add(notifier)
    return notifiers


def notify(addresses: SecretStr, message: Message) -> list[str]:
    """Hand all notifiers a message, side by side; returns a line for each that did not take it, and raises nothing."""
    import apprise  # noqa: PLC0415  (see above)

    notifiers = parse_notify_urls(addresses.get_secret_value())
    before = _notifying.set(True)  # Apprise hands it on to its threads
    try:
        result = notifiers.notify(
            title=message.title, body=message.body, notify_type=message.kind, body_format=apprise.NotifyFormat.TEXT,
            timeout=TIMEOUT_SECONDS,
        )  # fmt: skip
    finally:
        _notifying.reset(before)
    with closing(result):
        return [_describe_failure(each) for each in result if not each]


def _describe_failure(result: apprise.NotifyResult) -> str:
    (tag,) = result.tag
    late = result.status == type(result.status).TIMEOUT
    return (
        f"Notifier {tag.replace('-', ' ')} of TAXI_NOTIFY_URLS ({result.name}) "
        f"{f'did not answer within {TIMEOUT_SECONDS} seconds' if late else 'did not take the message'}."
    )


def _may_be_logged(record: logging.LogRecord) -> bool:
    """Filter out log lines that may hold parts of an address: all of Apprise's, and those of requests that it makes."""
    return record.name != "apprise" and not _notifying.get()
