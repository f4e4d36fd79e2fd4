"""The settings that decide when runs start, and when a failed step is retried. `Settings` inherits them.

Belongs here: these settings with their defaults and validators. Does not belong here: reading the environment
(`settings.py`).
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, field_validator
from pydantic_settings import NoDecode

from taxi_assets.automation.policies import (
    DEFAULT_INTERVAL_SECONDS,
    MONTHLY,
    require_cron,
    require_switchable,
    require_timezone,
)

_WEEK_SECONDS = 7 * 24 * 3600


class AutomationSettings(BaseModel):
    """The settings of schedules, sensors and retries."""

    schedule_cron: Annotated[str, AfterValidator(require_cron)] = Field(
        default=MONTHLY,
        description=(
            "When the monthly schedules run, such as `green_monthly`: a cron expression of five fields. Switch the "
            "schedules on in the UI, or with `TAXI_SWITCHED_ON`."
        ),
    )
    schedule_timezone: Annotated[str, AfterValidator(require_timezone)] = Field(
        default="UTC",
        description="The time zone of all schedules, such as `America/New_York`.",
    )
    switched_on: Annotated[frozenset[str], NoDecode] = Field(
        default="",
        validate_default=True,
        description=(
            "The names of schedules and publication sensors that are on from the start, such as "
            "`green_monthly,green_publication`. All others are off until you switch them on in the UI. What you switch "
            "in the UI takes precedence."
        ),
    )
    publication_interval_seconds: int = Field(
        default=DEFAULT_INTERVAL_SECONDS,
        ge=1,
        le=_WEEK_SECONDS,
        description="Seconds between two scans of a publication sensor, from 1 to 604800 (one week).",
    )
    retry_delay_seconds: float = Field(
        default=30,
        ge=0,
        le=_WEEK_SECONDS,
        allow_inf_nan=False,
        description=(
            "Seconds before a step is retried after a transient failure. A step is retried up to three times, and the "
            "delay doubles each time."
        ),
    )

    @field_validator("switched_on", mode="before")
    @classmethod
    def _read_names(cls, value: object) -> object:
        return frozenset(re.findall(r"[^\s,]+", value)) if isinstance(value, str) else value

    # In this form, and after the validator above, an error quotes the value as it was given.
    _check_names = field_validator("switched_on")(require_switchable)
