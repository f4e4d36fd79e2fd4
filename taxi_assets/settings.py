"""What the environment says. The only module that reads it; everything else is handed values.

Nothing set means: everything embedded under `./data`, and TLC's published files.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Self
from zoneinfo import available_timezones

import dagster as dg
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from taxi_assets.addresses import (
    LakeAddress,
    WarehouseAddress,
    os_errors_as_value_errors,
    parse_lake_address,
    parse_warehouse_address,
)
from taxi_assets.automation.policies import DEFAULT_INTERVAL_SECONDS, MONTHLY
from taxi_assets.errors import SettingsError
from taxi_assets.tlc.sources.publishers import resolve_publisher
from taxi_assets.tlc.sources.validate_file import DEFAULT_LIMITS

# Shown in no way: the others are shown without what may be secret in them.
_SECRETS = {"TAXI_GOOGLE_CREDENTIALS", "TAXI_NOTIFY_URLS"}

_WEEK_SECONDS = 7 * 24 * 3600


class Settings(BaseSettings):
    """The addresses that make a deployment."""

    model_config = SettingsConfigDict(env_prefix="TAXI_", frozen=True, extra="ignore")

    # The texts are those of docs/settings.md.
    source: str = Field(
        default="auto",
        repr=False,  # it may hold a password
        description=(
            "Who publishes: `tlc`; `datatalksclub` (the CSV mirror); `auto` (the mirror where it has the month, "
            "else TLC); `sample` (generated, offline); or where files are: a folder, `file://…`, `http(s)://…`, "
            "`gs://bucket/prefix`."
        ),
    )
    lake: Annotated[LakeAddress, NoDecode] = Field(
        default="./data/lake",
        validate_default=True,
        description="The lake: a folder, or `gs://bucket/prefix`.",
    )
    warehouse: Annotated[WarehouseAddress, NoDecode] = Field(
        default="duckdb:///data/warehouse.duckdb",
        validate_default=True,
        description=(
            "The warehouse: `duckdb:///relative/path.duckdb` or `duckdb:////absolute/path.duckdb`, with "
            "`?schema=name`; `bigquery://project/dataset`, with `?location=EU&maximum_bytes_billed=…`; "
            "`postgresql://user@host:5432/database`, with `?schema=name&sslmode=…`."
        ),
    )
    google_credentials: SecretStr | None = Field(
        default=None,
        description=(
            "A service account's key file, or its content in base64. Unset: Google's application default credentials."
        ),
    )
    schedule_cron: str = Field(
        default=MONTHLY,
        description=(
            "When `green_monthly` and the others run, once they are switched on: a cron expression of five fields."
        ),
    )
    schedule_timezone: str = Field(
        default="UTC",
        description="The time zone of all schedules, such as `America/New_York`.",
    )
    publication_interval_seconds: int = Field(
        default=DEFAULT_INTERVAL_SECONDS,
        ge=1,
        le=_WEEK_SECONDS,
        description="Seconds between two looks of a publication sensor, from 1 to a week's.",
    )
    retry_delay_seconds: float = Field(
        default=30,
        ge=0,
        le=_WEEK_SECONDS,
        allow_inf_nan=False,
        description=(
            "Seconds before a step is tried again that failed for what may pass; doubled each time, three times."
        ),
    )
    max_file_bytes: int = Field(
        default=DEFAULT_LIMITS.max_bytes,
        ge=1,
        description=(
            "The largest file that is taken from a publisher, in bytes; a larger one is refused. Expanded, it may "
            "be eight times this."
        ),
    )
    max_expansion_ratio: int = Field(
        default=DEFAULT_LIMITS.max_expansion_ratio,
        ge=1,
        description="How many times its size a file may expand to; beyond that it is refused.",
    )
    notify_urls: SecretStr | None = Field(
        default=None,
        description=(
            "Who is told of failed runs, failed checks and overdue months: addresses as "
            "[Apprise](https://github.com/caronc/apprise) knows them, such as `slack://…`, `mailto://…`, "
            "`json://…`, with commas or spaces between; one message a failure, once it is not run again. Unset: "
            "nobody."
        ),
    )
    notify_success: bool = Field(default=False, description="Whether successes are told of, too.")
    ui_url: str | None = Field(
        default=None,
        description="Where the UI is, for links in messages, such as `https://dagster.example.com`.",
    )

    @classmethod
    def from_env(cls) -> Self:
        """Read `TAXI_LAKE` and the others; raises `SettingsError`, one line a mistake."""
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError("\n".join(map(_error_line, error.errors())), remedy="") from None

    @classmethod
    def unknown_variables(cls) -> list[str]:
        """What the environment says under this project's prefix that means nothing: most often a slip of the pen."""
        known = {f"TAXI_{name.upper()}" for name in cls.model_fields}
        # Images give secrets as files; tests have variables of their own.
        others = re.compile(r"TAXI_(TEST_\w+|\w+_FILE)")
        return sorted(
            name for name in os.environ if name.startswith("TAXI_") and name not in known and not others.fullmatch(name)
        )

    @property
    def google_key(self) -> dg.EnvVar | None:
        """The Google key for a resource, by the variable's name: Dagster looks it up at use, and shows no more."""
        return None if self.google_credentials is None else dg.EnvVar("TAXI_GOOGLE_CREDENTIALS")

    @property
    def publisher_source(self) -> str | dg.EnvVar:
        """The source for a resource: by the variable's name where it may hold a password, as for the Google key."""
        return self.source if _without_secrets(self.source) == self.source else dg.EnvVar("TAXI_SOURCE")

    @field_validator(
        "notify_success",
        "schedule_cron",
        "schedule_timezone",
        "publication_interval_seconds",
        "retry_delay_seconds",
        "max_file_bytes",
        "max_expansion_ratio",
        mode="before",
    )
    @classmethod
    def _read_empty_as_unset(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str) and not value.strip():
            return cls.model_fields[str(info.field_name)].default
        return value

    @field_validator("lake", mode="before")
    @classmethod
    def _read_lake(cls, value: object) -> object:
        return parse_lake_address(value.strip()) if isinstance(value, str) else value

    @field_validator("warehouse", mode="before")
    @classmethod
    def _read_warehouse(cls, value: object) -> object:
        return parse_warehouse_address(value.strip()) if isinstance(value, str) else value

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str) -> str:
        with os_errors_as_value_errors("Accepted is a publisher's name, a folder that exists, or an address."):
            resolve_publisher(value)
        return value

    @field_validator("google_credentials")
    @classmethod
    def _check_google_credentials(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        from taxi_assets.google_auth import read_service_account_key  # noqa: PLC0415  (Google's clients take a while to load)

        read_service_account_key(value.get_secret_value())
        return value

    @field_validator("notify_urls")
    @classmethod
    def _check_notify(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        from taxi_assets.notifications.client import parse_notify_urls  # noqa: PLC0415  (needed only where it is set)

        parse_notify_urls(value.get_secret_value())
        return value

    @field_validator("schedule_cron")
    @classmethod
    def _check_cron(cls, value: str) -> str:
        try:
            dg.ScheduleDefinition(name="any", job_name="any", cron_schedule=value)
        except dg.DagsterInvalidDefinitionError:
            accepted = f"Accepted is a cron expression of five fields, such as {MONTHLY} (at 5:00 on the first)."
            raise ValueError(accepted) from None
        return value

    @field_validator("schedule_timezone")
    @classmethod
    def _check_timezone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("Accepted is the name of a time zone, such as UTC or America/New_York.")
        return value

    @field_validator("ui_url")
    @classmethod
    def _read_ui_url(cls, value: str | None) -> str | None:
        address = (value or "").strip().rstrip("/")
        if address and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#@]*)?", address):
            raise ValueError("Accepted is where Dagster's UI is, such as https://dagster.example.com.")
        return address or None


def resolve_instance_value(value: object) -> str:
    """What a value in dagster.yaml stands for: itself, or the variable that it names; "" where that is not set."""
    return os.environ.get(str(value["env"]), "") if isinstance(value, dict) else str(value)


def _error_line(problem: Any) -> str:
    """What is wrong with one variable, in one line."""
    name = f"TAXI_{str(problem['loc'][0]).upper()}"
    value = str(problem["input"])
    secret = name in _SECRETS
    shown = _without_secrets(value)
    reason = str(problem.get("ctx", {}).get("error", problem["msg"])).replace(value, shown)
    return f"{name}{'' if secret else f'={shown!r}'} is not accepted. {' '.join(reason.split())}"


def _without_secrets(address: str) -> str:
    """An address without what stands before an @ (user, password) or after a ? (tokens); it may be malformed."""
    hidden = re.sub(r"^(\w+:/*)?.*@", r"\1…@", address, flags=re.DOTALL)
    return re.sub(r"([?#]).*", r"\1…", hidden, flags=re.DOTALL)
