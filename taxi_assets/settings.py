"""What the environment says. The only module that reads it; everything else is handed values.

Nothing set means: everything embedded under `./data`, and TLC's published files.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

import dagster as dg
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from taxi_assets.addresses import LakeAddress, WarehouseAddress, one_line_for, read_lake, read_warehouse
from taxi_assets.errors import SettingsError
from taxi_assets.tlc.publishers import publisher_from


class Settings(BaseSettings):
    """The addresses that make a deployment."""

    model_config = SettingsConfigDict(env_prefix="TAXI_", frozen=True, extra="ignore")

    lake: Annotated[LakeAddress, NoDecode] = Field(default="./data/lake", validate_default=True)
    warehouse: Annotated[WarehouseAddress, NoDecode] = Field(
        default="duckdb:///data/warehouse.duckdb", validate_default=True
    )
    source: str = Field(default="auto", repr=False)  # may hold a password
    google_credentials: SecretStr | None = None

    @classmethod
    def from_env(cls) -> Self:
        """Read `TAXI_LAKE` and the others; raises `SettingsError`, one line a mistake."""
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError("\n".join(map(_line, error.errors())), remedy="") from None

    @property
    def google_key(self) -> dg.EnvVar | None:
        """The Google key for a resource, by the variable's name: Dagster looks it up at use, and shows no more."""
        return None if self.google_credentials is None else dg.EnvVar("TAXI_GOOGLE_CREDENTIALS")

    @field_validator("lake", mode="before")
    @classmethod
    def _read_lake(cls, value: object) -> object:
        return read_lake(value.strip()) if isinstance(value, str) else value

    @field_validator("warehouse", mode="before")
    @classmethod
    def _read_warehouse(cls, value: object) -> object:
        return read_warehouse(value.strip()) if isinstance(value, str) else value

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str) -> str:
        with one_line_for("Accepted is a publisher's name, a folder that exists, or an address."):
            publisher_from(value)
        return value

    @field_validator("google_credentials")
    @classmethod
    def _check_google_credentials(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        from taxi_assets.google_cloud import read_key  # noqa: PLC0415  (Google's clients take a while to load)

        read_key(value.get_secret_value())
        return value


def _line(problem: Any) -> str:
    """What is wrong with one variable, in one line."""
    name = f"TAXI_{str(problem['loc'][0]).upper()}"
    value = str(problem["input"])
    secret = name == "TAXI_GOOGLE_CREDENTIALS"
    shown = _without_secrets(value)
    reason = str(problem.get("ctx", {}).get("error", problem["msg"])).replace(value, shown)
    return f"{name}{'' if secret else f'={shown!r}'} is not accepted. {' '.join(reason.split())}"


def _without_secrets(address: str) -> str:
    """An address without what stands before an @ (user, password) or after a ? (tokens); it may be malformed."""
    hidden = re.sub(r"^(\w+:/*)?.*@", r"\1…@", address, flags=re.DOTALL)
    return re.sub(r"([?#]).*", r"\1…", hidden, flags=re.DOTALL)
