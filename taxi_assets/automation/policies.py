"""Policies that many definitions share: default times, retries of failed steps, and freshness.

Belongs here: the values and policies that `build.py` applies, and the defaults of `settings.py`. Does not belong here:
retries of whole runs, which `publication/decision.py` and `dagster.yaml` define.
"""

from __future__ import annotations

import datetime as dt
import re
import sys
from zoneinfo import available_timezones

import dagster as dg

from taxi_assets.tlc.services.registry import SERVICES

MONTHLY = "0 5 1 * *"
"""Default cron expression of the monthly schedules: at 05:00 on the first day of the month."""
DAILY = "30 5 * * *"
"""Cron expression of the daily schedules.

They run 30 minutes after the default monthly time, to avoid a duplicate request.
"""
DEFAULT_INTERVAL_SECONDS = 3600
"""Default time between two ticks of a publication sensor."""

FRESHNESS_WARN_DAYS = 45
FRESHNESS_FAIL_DAYS = 62

_MAX_RETRIES = 3


def switchable_names() -> list[str]:
    """Return the names of the schedules and sensors that are off unless a setting or a user switches them on."""
    of_services = [f"{service}_{kind}" for service in SERVICES for kind in ("monthly", "daily", "publication")]
    return [*of_services, "publication_daily"]


def require_cron(value: str) -> str:
    """Return a cron expression; raise a `ValueError` if it is not valid."""
    try:
        dg.ScheduleDefinition(name="any", job_name="any", cron_schedule=value)
    except dg.DagsterInvalidDefinitionError:
        fix = f"Use a cron expression of five fields, such as {MONTHLY} (at 5:00 on the first of each month)."
        raise ValueError(fix) from None
    return value


def require_timezone(value: str) -> str:
    """Return the name of a time zone; raise a `ValueError` if there is none of this name."""
    if value not in available_timezones():
        raise ValueError("Use the name of a time zone, such as UTC or America/New_York.")
    return value


def require_switchable(names: frozenset[str]) -> frozenset[str]:
    """Return the names; raise a `ValueError` if one of them cannot be switched on."""
    known = switchable_names()
    if unknown := sorted(names - set(known)):
        raise ValueError(f"There is no {unknown[0]!r}. Use {', '.join(known)}.")
    return names


def parse_kept_revisions(value: object) -> int | None:
    """Return how many older revisions of a month are kept, None for "all"; raise a `ValueError` for other values."""
    text = str(value).strip().lower()
    if text == "all":
        return None
    if not re.fullmatch("[0-9]{1,6}", text):
        raise ValueError("Use all, or the number of older revisions to keep, such as 0 or 3.")
    return int(text)


class _RetryUnlessInterrupted(dg.RetryPolicy):
    """A retry policy that does not retry a step that was interrupted.

    Dagster's own policy treats an interrupt as a failure. A run that a person terminates, or interrupts with Ctrl-C,
    would then wait, retry the step, and load its month after all.
    """

    def calculate_delay(self, attempt_num: int) -> float:
        """Return the seconds to wait before the next attempt; raise the interrupt again if one is being handled."""
        handled = sys.exception()
        if handled is not None and not isinstance(handled, Exception):
            raise handled
        return super().calculate_delay(attempt_num)


def retry_policy(delay: float) -> dg.RetryPolicy:
    """Return the retry policy for steps that use a network.

    A step is retried three times. Permanent errors are not retried: see `step_failures.py`.

    Args:
        delay: Seconds before the first retry. Each further retry waits twice as long, with some jitter.
    """
    return _RetryUnlessInterrupted(
        max_retries=_MAX_RETRIES, delay=delay, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
    )


def freshness_policy() -> dg.FreshnessPolicy:
    """Return the freshness policy of monthly assets: a warning after 45 days, a failure after 62.

    It assumes that one month is loaded per month. The publication check asks the publisher instead.
    """
    return dg.FreshnessPolicy.time_window(
        fail_window=dt.timedelta(days=FRESHNESS_FAIL_DAYS), warn_window=dt.timedelta(days=FRESHNESS_WARN_DAYS)
    )
