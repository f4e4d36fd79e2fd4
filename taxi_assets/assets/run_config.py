"""Run config: the options of a single run, as Dagster's launchpad shows them."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import dagster as dg
from pydantic import Field, ValidationInfo, create_model, field_validator

from taxi_assets.tlc.cleaning.file_checks import DEFAULT_CHECKS
from taxi_assets.tlc.schema import Service


class _RunConfig(dg.Config):
    """Base class: a field that is null has its default.

    Dagster accepts null for every field that has a default. pydantic would fail the step, after the run has begun.
    """

    @field_validator("*", mode="before")
    @classmethod
    def _read_null_as_default(cls, value: object, info: ValidationInfo) -> object:
        return cls.model_fields[str(info.field_name)].default if value is None else value


class RawConfig(_RunConfig):
    """Options for downloading the file of a month."""

    force: bool = Field(
        default=False,
        description="Download the file even if the publisher reports that it has not changed. If its bytes are the "
        "same, downstream data stays as it is.",
    )
    skip_downstream_if_unchanged: bool = Field(
        default=False,
        description="End the run after this step if everything downstream already comes from the same bytes. This "
        "happens when a publisher serves an old file under a new ETag. Otherwise, or if the run also configures the "
        "clean step, the run continues: downstream assets are re-evaluated and rebuilt if needed.",
    )


class CleaningConfig(_RunConfig):
    """Options for cleaning the file of a month; `cleaning_config` returns the class of a service."""

    rules: Sequence[str]
    revision: str = Field(
        default="",
        description="Clean an older file of the month: the first digits of its SHA-256, in quotes. `make revisions` "
        "lists them. The month is then pinned: later runs clean the same file, and automation leaves the month alone, "
        'until a run with "present" releases it.',
    )
    allow_other_months: bool = Field(
        default=False,
        description="Clean the file even if less than half of its pickups are in the month.",
    )
    allow_same_file: bool = Field(
        default=False,
        description="Clean the file even if another month was built from a file with the same bytes.",
    )
    maximum_share_unreadable: float = Field(
        default=DEFAULT_CHECKS.maximum_share_unreadable,
        ge=0,
        le=1,
        description="The largest accepted share of rows that cannot be read, from 0 to 1: they have another number of "
        "fields than the header, or a value that cannot be read. Such rows go to quarantine.",
    )


def cleaning_config(service: Service) -> type[CleaningConfig]:
    """Return the run config class of a service's cleaning step, in which `rules` accepts only the service's rules.

    Dagster validates the names before the run begins, and completes them in the launchpad.
    """
    names = [rule.name for rule in service.rules]
    # Dagster's error for an unknown rule quotes the name of the enum, so the name lists the rules.
    enum_name = f"{service.name}_rule (one of: {', '.join(names)})"
    rule_names: Any = StrEnum(enum_name, {name: name for name in names})  # type: ignore[misc]  # built at run time
    described = "\n".join(f"- {rule.name}: {rule.description}" for rule in service.rules)
    return create_model(
        f"{service.name.capitalize()}CleaningConfig",
        __base__=CleaningConfig,
        __doc__=f"Options for cleaning a month of {service.title}.",
        rules=(
            list[rule_names],
            Field(
                default=names,
                validate_default=True,
                description="The rules to apply. A row that violates one of them goes to quarantine. With an empty "
                f"list, every row that can be read is kept. The rules are:\n{described}",
            ),
        ),
    )
