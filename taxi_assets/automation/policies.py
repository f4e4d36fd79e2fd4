"""How often things happen by themselves, where settings do not say otherwise; and what is tried again, and when."""

from __future__ import annotations

import datetime as dt
import sys

import dagster as dg

MONTHLY = "0 5 1 * *"
DAILY = "30 5 * * *"
"""Not with the monthly one: on the first, both would ask for the same month."""
DEFAULT_INTERVAL_SECONDS = 3600
"""Between two looks of a publication sensor."""

_MAX_RETRIES = 3


class _RetryUnlessInterrupted(dg.RetryPolicy):
    """A retry policy that lets go of a run that is ended: Dagster's own takes an interrupt for one more failure.

    With it, a run that a person terminates, or interrupts with Ctrl-C, would wait, try again, and load its month.
    """

    def calculate_delay(self, attempt_num: int) -> float:
        """Of the next try; raises what interrupts the run, while that is being handled."""
        handled = sys.exception()
        if handled is not None and not isinstance(handled, Exception):
            raise handled
        return super().calculate_delay(attempt_num)


def retry_policy(delay: float) -> dg.RetryPolicy:
    """For steps that use a network; a failure that cannot pass says so itself, and is not tried again."""
    return _RetryUnlessInterrupted(
        max_retries=_MAX_RETRIES, delay=delay, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
    )


def freshness_policy() -> dg.FreshnessPolicy:
    """A month comes every month, give or take; only the check on the published months knows what is really there."""
    return dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(days=62), warn_window=dt.timedelta(days=45))
