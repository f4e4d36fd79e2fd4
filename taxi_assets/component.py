"""The whole platform as a Dagster component, for use in another Dagster project.

docs/how-to/component.md explains how to add it to a project.
"""

from __future__ import annotations

from typing import Any

import dagster as dg
from pydantic import ConfigDict, Field

from taxi_assets.build import TaxiDefinitions, build_definitions
from taxi_assets.errors import SettingsError
from taxi_assets.settings import Settings


def _setting(name: str) -> Any:
    return Field(default=None, repr=False, description=Settings.model_fields[name].description)


class TaxiPipeline(dg.Component, dg.Resolvable, dg.Model):
    """New York's taxi trip records: every published month, from raw file to warehouse table, marts and reports.

    The attributes are the settings of the platform. A setting that is not given is read from its environment variable,
    such as TAXI_LAKE; without that, it has its default. Relative paths are relative to the project's folder.
    """

    # Numbers may also be texts, which a template can contain. `Settings` validates the values.
    source: str | None = _setting("source")
    service_sources: dict[str, str] | None = _setting("service_sources")
    lake: str | None = _setting("lake")
    warehouse: str | None = _setting("warehouse")
    catalog: str | None = _setting("catalog")
    catalog_keep_days: int | str | None = _setting("catalog_keep_days")
    google_credentials: str | None = _setting("google_credentials")
    schedule_cron: str | None = _setting("schedule_cron")
    schedule_timezone: str | None = _setting("schedule_timezone")
    switched_on: list[str] | str | None = _setting("switched_on")
    publication_interval_seconds: int | str | None = _setting("publication_interval_seconds")
    retry_delay_seconds: float | str | None = _setting("retry_delay_seconds")
    max_file_bytes: int | str | None = _setting("max_file_bytes")
    max_expansion_ratio: int | str | None = _setting("max_expansion_ratio")
    keep_revisions: int | str | None = _setting("keep_revisions")
    notify_urls: str | None = _setting("notify_urls")
    notify_success: bool | str | None = _setting("notify_success")
    owners: list[str] | str | None = _setting("owners")
    ui_url: str | None = _setting("ui_url")

    # Dagster converts texts such as "2021", the name of a folder, to numbers.
    model_config = ConfigDict(coerce_numbers_to_str=True)

    def build_defs(self, context: dg.ComponentLoadContext) -> TaxiDefinitions:
        """Return the definitions of the platform.

        Raises:
            SettingsError: An attribute or an environment variable has an invalid value.
        """
        given = {name: getattr(self, name) for name in self.model_fields_set}
        try:
            settings = Settings.from_env(given, project_root=context.project_root)
        except SettingsError as error:
            raise SettingsError(f"{_yaml_file(context)}:\n{error.problem}", remedy="") from None
        return build_definitions(settings)


def _yaml_file(context: dg.ComponentLoadContext) -> str:
    """Return the file that declares the component; its folder if it is declared in Python."""
    tree = getattr(context.component_decl, "source_tree", None)
    return str(tree.source_position_tree.position.filename if tree else context.project_root)
