"""Check the settings, and that the code location loads with them. These checks need no network.

Does not belong here: stores of trips (`stores.py`, `warehouses.py`), and Dagster's history of runs (`instance.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.notifications.client import parse_notify_urls
from taxi_assets.settings import Settings, variable_of

if TYPE_CHECKING:
    from taxi_assets.cli.doctor.check_runner import CheckRunner


def settings(_checks: CheckRunner) -> str:
    """Check that all values are valid and no variable is unknown; return the names of the set variables."""
    found = Settings.from_env()
    of_services = [f"TAXI_SOURCE_{service.upper()}" for service in found.service_sources]
    names = sorted([*map(variable_of, found.model_fields_set - {"service_sources"}), *of_services])
    return f"set: {', '.join(names)}" if names else "no TAXI_* variables are set; using the defaults"


def schedules(checks: CheckRunner) -> str:
    """Return when schedules, sensors and retries run."""
    settings = checks.settings()
    switched_on = ", ".join(sorted(settings.switched_on)) or "none"
    return (
        f"monthly at {settings.schedule_cron} ({settings.schedule_timezone}), sensors every "
        f"{settings.publication_interval_seconds} s, if switched on (from the start: {switched_on}); steps that fail "
        f"for a transient reason are retried after {settings.retry_delay_seconds:g} s"
    )


def notifiers(checks: CheckRunner) -> str:
    """Return the notifiers. They are not tried, because that would send a message."""
    settings = checks.settings()
    if settings.notify_urls is None:
        return "none: TAXI_NOTIFY_URLS is not set"
    names = [str(notifier.service_name) for notifier in parse_notify_urls(settings.notify_urls.get_secret_value())]
    events = "failures and successes" if settings.notify_success else "failures"
    links = f"links to {settings.ui_url}" if settings.ui_url else "no links, because TAXI_UI_URL is not set"
    return f"{', '.join(names)}: notified of {events} (not tried), with {links}"


def code_location(checks: CheckRunner) -> str:
    """Check that Dagster can load the definitions; return how many there are."""
    checks.settings()
    from taxi_assets.definitions import defs  # noqa: PLC0415  (it reads the settings when it is imported)

    dg.Definitions.validate_loadable(defs)
    found = defs.get_repository_def()
    return (
        f"taxi_assets.definitions: {len(found.asset_graph.get_all_asset_keys())} assets, {len(found.job_names)} jobs, "
        f"{len(found.schedule_defs)} schedules, {len(found.sensor_defs)} sensors"
    )
