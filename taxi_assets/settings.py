"""Settings of a deployment, from environment variables. Only this module reads the TAXI_* variables.

The component takes settings from YAML; a setting that is not given there is read from its variable.

Without any setting, lake and warehouse are stored under `./data`, and TLC's trip files are downloaded.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Self, get_args

import dagster as dg
from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.functional_validators import BeforeValidator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from taxi_assets.addresses import (
    LakeAddress,
    WarehouseAddress,
    anchor_path,
    is_service_link,
    os_errors_as_value_errors,
    parse_catalog_address,
    parse_lake_address,
    parse_ui_url,
    parse_warehouse_address,
    without_secrets,
)
from taxi_assets.automation.automation_settings import AutomationSettings
from taxi_assets.automation.policies import parse_kept_revisions
from taxi_assets.errors import SettingsError
from taxi_assets.metadata import require_owners
from taxi_assets.tlc.services.registry import require_service_name
from taxi_assets.tlc.sources.content_limits import DEFAULT_LIMITS
from taxi_assets.tlc.sources.publishers import PUBLISHERS, resolve_publisher

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping
    from pathlib import Path

    from pydantic.fields import FieldInfo

# Never shown. Other values are shown without the parts that may hold a secret.
_SECRETS = {"TAXI_GOOGLE_CREDENTIALS", "TAXI_NOTIFY_URLS"}

_SERVICE_SOURCE = "taxi_source_"  # in lower case, as pydantic-settings reads the names of variables
_DEFAULT_OWNERS = "team:taxi-data"


def _check_source(value: str) -> str:
    with os_errors_as_value_errors("Use the name of a publisher, an existing folder, or an address."):
        resolve_publisher(value)
    if without_secrets(value) != value:
        _require_variable(value, "TAXI_SOURCE")
    return value


_Source = Annotated[str, AfterValidator(_check_source)]
_ServiceName = Annotated[str, AfterValidator(require_service_name)]


class _Environment(EnvSettingsSource):
    """The environment variables, of which those that begin with TAXI_SOURCE_ are one setting."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value of a field, its name, and whether the value is JSON. An empty source counts as unset."""
        if field_name != "service_sources":
            return super().get_field_value(field, field_name)
        found = {
            name.removeprefix(_SERVICE_SOURCE): value
            for name, value in self.env_vars.items()
            if name.startswith(_SERVICE_SOURCE) and value and not name.endswith("_file")
            if not is_service_link(name.upper(), os.environ)
        }
        return found or None, field_name, False


class Settings(AutomationSettings, BaseSettings):
    """The settings of a deployment: where data comes from, where it is stored, and what runs when."""

    model_config = SettingsConfigDict(env_prefix="TAXI_", frozen=True, extra="ignore")

    # `make docs` writes the descriptions to docs/settings.md.
    source: _Source = Field(
        default="auto",
        repr=False,  # it may hold a password
        description=(
            "The publisher of the trip files: `tlc`; `datatalksclub` (a mirror with CSV files); `auto` (the mirror for "
            "the months that it has, otherwise TLC); `sample` (generated data, needs no network); or the location of "
            "your own files: a folder, `file://…`, `http(s)://…` or `gs://bucket/prefix`."
        ),
    )
    service_sources: Annotated[dict[_ServiceName, _Source], NoDecode] = Field(
        default={},
        repr=False,  # as for `source`
        description=(
            "The publisher of one service, such as `TAXI_SOURCE_GREEN`, in the same form. It takes precedence over "
            "`TAXI_SOURCE` and over the publisher that the definition of the service names."
        ),
    )
    lake: Annotated[LakeAddress, NoDecode] = Field(
        default="./data/lake",
        validate_default=True,
        description="Where the lake is stored: in a folder, or in a bucket, `gs://bucket/prefix`.",
    )
    warehouse: Annotated[WarehouseAddress, NoDecode] = Field(
        default="duckdb:///data/warehouse.duckdb",
        validate_default=True,
        description=(
            "Where the warehouse is stored: `duckdb:///relative/path.duckdb` or `duckdb:////absolute/path.duckdb`, "
            "optionally with `?schema=name&trips=views` (trips are then views over Parquet files instead of tables); "
            "`bigquery://project/dataset`, optionally with "
            "`?location=EU&maximum_bytes_billed=…`; `postgresql://user@host:5432/database`, optionally with "
            "`?schema=name&sslmode=…`."
        ),
    )
    catalog: Annotated[str | None, AfterValidator(parse_catalog_address)] = Field(
        default=None,
        description=(
            "The Iceberg catalog in which each month of trips and marts is registered: `sqlite:///relative/path.db` or "
            "`sqlite:////absolute/path.db`; the address of a REST catalog or a Hive metastore; `glue` or `bigquery`. "
            "See [Iceberg](how-to/iceberg.md). If not set, there are no Iceberg tables."
        ),
    )
    catalog_keep_days: int | None = Field(
        default=None,
        ge=1,
        description=(
            "How many days `make iceberg-cleanup` keeps a snapshot of an Iceberg table after a newer one has replaced "
            "it. If not set, it keeps all snapshots."
        ),
    )
    google_credentials: SecretStr | None = Field(
        default=None,
        description=(
            "The key of a Google service account: the path of the key file, or its content in base64. If not set, "
            "Google's application default credentials are used."
        ),
    )
    max_file_bytes: int = Field(
        default=DEFAULT_LIMITS.max_bytes,
        ge=1,
        description=(
            "The largest file that is downloaded, in bytes. A larger file fails its run. A decompressed file may have "
            "up to eight times this size."
        ),
    )
    max_expansion_ratio: int = Field(
        default=DEFAULT_LIMITS.max_expansion_ratio,
        ge=1,
        description=(
            "The largest ratio of a file's decompressed size to its compressed size. A file with a larger ratio fails "
            "its run."
        ),
    )
    keep_revisions: Annotated[int | None, BeforeValidator(parse_kept_revisions)] = Field(
        default="all",
        validate_default=True,
        description=(
            "How many older [revisions](how-to/revisions.md) of a month are kept when its file is replaced by other "
            "bytes: `all`, or a number. With `0`, none is kept. A revision that a month is pinned to is always kept."
        ),
    )
    notify_urls: SecretStr | None = Field(
        default=None,
        description=(
            "Where alerts about failed runs (including runs that fail a blocking check) and overdue months are sent: "
            "[Apprise](https://github.com/caronc/apprise) addresses such as `slack://…`, `mailto://…` or `json://…`, "
            "separated by commas or spaces. Reports each failed run once, unless Dagster will retry it; failures found "
            "in one tick share a message. If not set, no alerts are sent."
        ),
    )
    notify_success: bool = Field(default=False, description="Also send a message about successful runs.")
    owners: Annotated[tuple[str, ...], NoDecode] = Field(
        default=_DEFAULT_OWNERS,
        validate_default=True,
        description=(
            "The owners of all assets, shown in Dagster's UI: email addresses, and teams such as `team:taxi-data`, "
            "separated by commas."
        ),
    )
    ui_url: Annotated[str | None, AfterValidator(parse_ui_url)] = Field(
        default=None,
        description="The address of Dagster's UI, such as `https://dagster.example.com`. Alerts link to it.",
    )

    @classmethod
    def from_env(cls, given: Mapping[str, object] | None = None, *, project_root: Path | None = None) -> Self:
        """Read the settings from the environment, except those that are given.

        Args:
            given: Settings by name. They take precedence over the environment.
            project_root: The folder that relative paths are relative to; by default, the working directory.

        Raises:
            SettingsError: A variable or a given setting has an invalid value, or a variable that begins with TAXI_ is
                not a setting. The message has one line for each.
        """
        values: dict[str, Any] = {**(given or {}), "project_root": project_root}
        lines = [_unknown_line(name, cls.model_fields) for name in cls._unknown_variables()]
        try:
            settings = cls(**values)
        except ValidationError as error:
            lines += [_error_line(line, values) for line in error.errors()]
        if lines:
            raise SettingsError("\n".join(lines), remedy="") from None
        return settings

    @classmethod
    def _unknown_variables(cls) -> list[str]:
        known = {variable_of(name) for name in cls.model_fields}
        # Images read secrets from TAXI_…_FILE, the tests TAXI_TEST_…; a source of an unknown service is refused later.
        others = re.compile(r"(?!TAXI_).+|TAXI_(TEST_\w+|\w+_FILE|SOURCE_\w+)")
        found = (name for name in os.environ if name not in known and not others.fullmatch(name))
        return sorted(name for name in found if not is_service_link(name, os.environ))

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where values come from: the settings that are given, then the environment."""
        return init_settings, _Environment(settings_cls)

    @property
    def google_key(self) -> str | dg.EnvVar | None:
        """The Google key, for a resource; as a variable name, so that Dagster never stores or shows a key."""
        if self.google_credentials is None:
            return None
        value = self.google_credentials.get_secret_value()
        return _variable_that_holds(value, "TAXI_GOOGLE_CREDENTIALS") or value

    @property
    def publisher_source(self) -> str | dg.EnvVar:
        """The source, for a resource; as a variable name if the value may hold a password, as for `google_key`."""
        return _hide_secret(self.source, "TAXI_SOURCE")

    @property
    def publisher_service_sources(self) -> dict[str, str | dg.EnvVar]:
        """The sources of single services, for a resource; see `publisher_source`."""
        return {
            name: _hide_secret(value, f"TAXI_SOURCE_{name.upper()}") for name, value in self.service_sources.items()
        }

    @model_validator(mode="before")
    @classmethod
    def _anchor_relative_paths(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Make relative paths absolute if the folder that they are relative to is given."""
        root = values.pop("project_root", None)
        if root is None:
            return values
        with_defaults = {name: cls.model_fields[name].default for name in ("lake", "warehouse")} | values
        return {name: _anchor(name, value, root) for name, value in with_defaults.items()}

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_none(cls, value: object, info: ValidationInfo) -> object:
        if value is None and cls.model_fields[str(info.field_name)].default is not None:
            raise ValueError("It has no value. Perhaps its environment variable is not set.")
        return value

    @field_validator(
        "notify_success",
        *AutomationSettings.model_fields.keys() - {"switched_on"},
        "catalog_keep_days",
        "max_file_bytes",
        "max_expansion_ratio",
        "keep_revisions",
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

    @field_validator("owners", mode="before")
    @classmethod
    def _split_owners(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [owner.strip() for owner in value.split(",") if owner.strip()] or [_DEFAULT_OWNERS]

    @field_validator("google_credentials")
    @classmethod
    def _check_google_credentials(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        from taxi_assets.google_auth import read_service_account_key  # noqa: PLC0415  (slow to import)

        read_service_account_key(value.get_secret_value())
        if not os.path.isfile(value.get_secret_value()):  # noqa: PTH113  (False for a long text)
            _require_variable(value.get_secret_value(), "TAXI_GOOGLE_CREDENTIALS")
        return value

    @field_validator("notify_urls")
    @classmethod
    def _check_notify_urls(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        from taxi_assets.notifications.client import parse_notify_urls  # noqa: PLC0415  (slow to import)

        parse_notify_urls(value.get_secret_value())
        return value

    # In this form, and after the validators above, an error quotes the value as it was given.
    _check_owners = field_validator("owners")(require_owners)


def variable_of(setting: str) -> str:
    """Return the environment variable of a setting."""
    return "TAXI_SOURCE_<SERVICE>" if setting == "service_sources" else f"TAXI_{setting.upper()}"


def _unknown_line(variable: str, settings: Iterable[str]) -> str:
    known = [variable_of(name) for name in settings]
    near = get_close_matches(variable, known, 1, cutoff=0.8)
    return f"{variable} is not a setting. {f'Did you mean {near[0]}?' if near else 'See docs/settings.md.'}"


def _error_line(error: Any, given: Container[str]) -> str:
    """Return one line that names the variable or the given setting, its value and the reason."""
    setting, *key = map(str, error["loc"])
    variable = variable_of(setting).replace("<SERVICE>", "".join(key[:1]).upper())
    value = str(error["input"])
    is_secret = variable in _SECRETS or error["input"] is None or key[1:] == ["[key]"]
    shown = without_secrets(value)
    raised = error.get("ctx", {}).get("error")  # by a validator of this package
    reason = str(raised or _accepted_values(setting) or error["msg"]).replace(value, shown)
    name = ".".join([setting, *key[:1]]) if setting in given else variable
    return f"{name}{'' if is_secret else f'={shown!r}'} is not accepted. {' '.join(reason.split())}"


def _accepted_values(setting: str) -> str | None:
    """Return which values a setting accepts if it is a number or a switch; otherwise None."""
    field = Settings.model_fields[setting]
    types = {field.annotation, *get_args(field.annotation)}
    if bool in types:
        return "Write true or false."
    if not types & {int, float}:
        return None
    least, most = (next((getattr(b, n) for b in field.metadata if hasattr(b, n)), None) for n in ("ge", "le"))
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    unset = " Or do not set it." if field.default is None else ""
    return f"Write a {'whole number' if int in types else 'number'} {limits}.{unset}"


def _anchor(setting: str, value: object, root: Path) -> object:
    """Return the value of a setting; if it is a relative path, as a path in the folder `root`."""
    if setting == "service_sources" and isinstance(value, dict):
        return {service: _anchor("source", source, root) for service, source in value.items()}
    if not isinstance(value, str):
        return value
    path = anchor_path(value, root)
    is_path = {
        "source": value not in PUBLISHERS,
        "lake": True,
        "warehouse": value.strip().lower().startswith("duckdb:"),
        "catalog": value.strip().lower().startswith("sqlite:"),
        "google_credentials": os.path.isfile(path),  # noqa: PTH113  (False for a long text)
    }
    return path if is_path.get(setting, False) else value


def _variable_that_holds(value: str, preferred: str) -> dg.EnvVar | None:
    """Return the environment variable that a value comes from, directly or through a template in YAML."""
    return next((dg.EnvVar(name) for name in (preferred, *os.environ) if os.environ.get(name) == value), None)


def _hide_secret(source: str, preferred: str) -> str | dg.EnvVar:
    return source if without_secrets(source) == source else _variable_that_holds(source, preferred) or source


def _require_variable(value: str, preferred: str) -> None:
    """Refuse a secret that no environment variable holds, because Dagster would store and show it."""
    if _variable_that_holds(value, preferred) is None:
        raise ValueError("It contains a secret. Put it into an environment variable, and write {{ env.NAME }} here.")
