"""What the environment says. The only module that reads it; everything else is handed values.

Nothing set means: everything embedded under `./data`, and TLC's published files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from taxi_assets.errors import SettingsError
from taxi_assets.tlc.publishers import public_url, publisher_from

_SCHEMA_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"


class LakeAddress(BaseModel):
    """Where the lake stands: a folder, absolute."""

    model_config = ConfigDict(frozen=True)

    folder: Path


class WarehouseAddress(BaseModel):
    """Where the warehouse stands: a DuckDB file, absolute, and the schema within it."""

    model_config = ConfigDict(frozen=True)

    file: Path
    schema_name: str = Field(default="taxi", pattern=_SCHEMA_NAME)


class Settings(BaseSettings):
    """The addresses that make a deployment."""

    model_config = SettingsConfigDict(env_prefix="TAXI_", frozen=True, extra="ignore")

    lake: Annotated[LakeAddress, NoDecode] = Field(default="./data/lake", validate_default=True)
    warehouse: Annotated[WarehouseAddress, NoDecode] = Field(
        default="duckdb:///data/warehouse.duckdb", validate_default=True
    )
    source: str = "auto"

    @classmethod
    def from_env(cls) -> Self:
        """Read `TAXI_LAKE`, `TAXI_WAREHOUSE` and `TAXI_SOURCE`; raises `SettingsError`, one line a mistake."""
        try:
            return cls()
        except ValidationError as error:
            lines = []
            for problem in error.errors():
                variable = f"TAXI_{str(problem['loc'][0]).upper()}"
                reason = str(problem.get("ctx", {}).get("error", problem["msg"]))
                lines.append(f"{variable}={public_url(str(problem['input']))!r} is not accepted. {reason}")
            raise SettingsError("\n".join(lines), remedy="") from None

    @field_validator("lake", mode="before")
    @classmethod
    def _read_lake(cls, value: object) -> LakeAddress:
        accepted = "Accepted is a folder, such as ./data/lake."
        if isinstance(value, LakeAddress):
            return value
        text = str(value).strip()
        if not text:
            raise ValueError(f"It is empty. {accepted}")
        if "://" in text:
            raise ValueError(accepted)
        folder = Path(text).expanduser().absolute()
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"It is a file. {accepted}")
        return LakeAddress(folder=folder)

    @field_validator("warehouse", mode="before")
    @classmethod
    def _read_warehouse(cls, value: object) -> WarehouseAddress:
        accepted = (
            "Accepted is duckdb:///relative/path.duckdb or duckdb:////absolute/path.duckdb, "
            "with ?schema=name if you like."
        )
        if isinstance(value, WarehouseAddress):
            return value
        parts = urlsplit(str(value).strip())
        query = dict(parse_qsl(parts.query))
        path = parts.path.removeprefix("/")
        if parts.scheme != "duckdb" or parts.netloc or not path or query.keys() - {"schema"}:
            raise ValueError(accepted)
        file = Path(path).expanduser().absolute()
        if file.is_dir():
            raise ValueError(f"It is a folder. {accepted}")
        try:
            return WarehouseAddress(file=file, **({"schema_name": query["schema"]} if "schema" in query else {}))
        except ValidationError:
            raise ValueError("A schema name has letters, digits and underscores, and starts with no digit.") from None

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str) -> str:
        publisher_from(value)
        return value
