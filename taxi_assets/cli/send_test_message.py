"""`python -m taxi_assets.cli.send_test_message`: send one test message to each notifier of `TAXI_NOTIFY_URLS`.

`make notify-test` calls this command. It prints one line per notifier, and exits with code 1 if one did not accept it.
"""

from __future__ import annotations

import sys

import click

from taxi_assets.errors import SettingsError
from taxi_assets.notifications.client import Message, notify
from taxi_assets.settings import Settings

_TITLE = "Test message"
_BODY = "taxi_assets can notify you here. `make notify-test` sent this message; nothing has failed."


@click.command()
def cli() -> None:
    """Send one test message to each notifier of TAXI_NOTIFY_URLS, and print whether it was delivered."""
    settings = Settings.from_env()
    if settings.notify_urls is None:
        raise SettingsError(
            "There is no notifier: TAXI_NOTIFY_URLS is not set.",
            remedy="Set it to URLs of the library Apprise; docs/how-to/notifications.md has the forms for Slack, email "
            "and Teams.",
        )
    link = f"\n{settings.ui_url}" if settings.ui_url else ""
    deliveries = notify(settings.notify_urls, Message("success", _TITLE, f"{_BODY}{link}"))
    for delivery in deliveries:
        click.echo(f"{'FAILED' if delivery.problem else 'ok    '}  {delivery}")
    if any(delivery.problem for delivery in deliveries):
        sys.exit(1)


if __name__ == "__main__":
    cli()
