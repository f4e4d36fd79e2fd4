"""What the environment says. The only module that reads it; everything else is handed values.

Nothing set means: everything embedded under `./data`, and TLC's published files.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from taxi_assets.errors import SettingsError
from taxi_assets.tlc.publishers import publisher_from

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCHEMA_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"
_DUCKDB = re.compile(r"duckdb:///(?P<path>[^?#]+)(\?schema=(?P<schema>[^&#]*))?", re.IGNORECASE)


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
    source: str = Field(default="auto", repr=False)  # may hold a password

    @classmethod
    def from_env(cls) -> Self:
        """Read `TAXI_LAKE`, `TAXI_WAREHOUSE` and `TAXI_SOURCE`; raises `SettingsError`, one line a mistake."""
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError("\n".join(map(_line, error.errors())), remedy="") from None

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
        folder = _absolute(text, accepted)
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
        address = _DUCKDB.fullmatch(str(value).strip())
        if address is None:
            raise ValueError(accepted)
        schema = address["schema"]
        if schema is not None and not re.fullmatch(_SCHEMA_NAME, schema):
            raise ValueError(
                f"{schema!r} is no schema name: one has letters, digits and underscores, and starts with no digit."
            )
        file = _absolute(address["path"], accepted)
        if file.is_dir():
            raise ValueError(f"It is a folder. {accepted}")
        return WarehouseAddress(file=file) if schema is None else WarehouseAddress(file=file, schema_name=schema)

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str) -> str:
        with _one_line_for("Accepted is a publisher's name, a folder that exists, or an address."):
            publisher_from(value)
        return value


@contextmanager
def _one_line_for(accepted: str) -> Iterator[None]:
    """What the file system says of a path that nothing could ever stand at becomes a `ValueError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no such user's home
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise ValueError(f"{reason}. {accepted}") from None


def _absolute(text: str, accepted: str) -> Path:
    with _one_line_for(accepted):
        path = Path(text).expanduser().absolute()
        with suppress(FileNotFoundError):
            path.stat()
    return path


def _line(problem: Any) -> str:
    """What is wrong with one variable, in one line."""
    value = str(problem["input"])
    shown = _without_secrets(value)
    reason = str(problem.get("ctx", {}).get("error", problem["msg"])).replace(value, shown)
    return f"TAXI_{str(problem['loc'][0]).upper()}={shown!r} is not accepted. {' '.join(reason.split())}"


def _without_secrets(address: str) -> str:
    """An address without what stands before an @ (user, password) or after a ? (tokens); it may be malformed."""
    hidden = re.sub(r"^(\w+:/*)?.*@", r"\1…@", address, flags=re.DOTALL)
    return re.sub(r"([?#]).*", r"\1…", hidden, flags=re.DOTALL)
