"""What the settings say, and the code that reads them: parts that nothing need be reached for.

Does not belong here: where trips are (`stores.py`, `warehouses.py`), and where history is (`instance.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from taxi_assets.errors import SettingsError
from taxi_assets.notifications.client import parse_notify_urls
from taxi_assets.settings import Settings

if TYPE_CHECKING:
    from taxi_assets.cli.doctor.check_runner import CheckRunner


def settings(_visit: CheckRunner) -> str:
    """All variables are accepted, and none is left over."""
    unknown = ", ".join(Settings.unknown_variables())
    wrong = (
        [f"{unknown} means nothing. Is it misspelt? deploy/profiles/local.env has all there are."] if unknown else []
    )
    try:
        names = sorted(f"TAXI_{name.upper()}" for name in Settings.from_env().model_fields_set)
    except SettingsError as error:
        raise SettingsError("\n".join([*wrong, error.problem]), remedy="") from None
    if wrong:
        raise SettingsError(*wrong, remedy="")
    return f"the environment says {', '.join(names)}" if names else "the environment says nothing: all is as by default"


def schedules(visit: CheckRunner) -> str:
    """When things happen by themselves."""
    settings = visit.settings()
    return (
        f"monthly at {settings.schedule_cron} ({settings.schedule_timezone}), looks at the publisher every "
        f"{settings.publication_interval_seconds} s, once switched on in the UI; what fails for a while is tried again after "
        f"{settings.retry_delay_seconds:g} s"
    )


def notifiers(visit: CheckRunner) -> str:
    """Who is told; they are not tried, which would tell them something."""
    settings = visit.settings()
    if settings.notify_urls is None:
        return "nobody is told: TAXI_NOTIFY_URLS is not set"
    names = [str(notifier.service_name) for notifier in parse_notify_urls(settings.notify_urls.get_secret_value())]
    of = "failures and successes" if settings.notify_success else "failures"
    return f"{', '.join(names)}: told of {of} (not tried), with links to {settings.ui_url or 'nowhere: no TAXI_UI_URL'}"


def code_location(visit: CheckRunner) -> str:
    """It loads."""
    visit.settings()
    from taxi_assets.definitions import defs  # noqa: PLC0415  (it reads the settings at once)

    dg.Definitions.validate_loadable(defs)
    found = defs.get_repository_def()
    return (
        f"taxi_assets.definitions: {len(found.asset_graph.get_all_asset_keys())} assets, {len(found.job_names)} jobs, "
        f"{len(found.schedule_defs)} schedules, {len(found.sensor_defs)} sensors"
    )
