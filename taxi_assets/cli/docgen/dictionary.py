"""The data dictionary: every column and rule of every service, as Markdown, from the schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxi_assets.cli.docgen import table
from taxi_assets.tlc.cleaning.quarantine import QUARANTINE_COLUMNS
from taxi_assets.tlc.rules import READING_REASONS
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.zones import ZONE_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taxi_assets.tlc.schema import Column, Service

_HEAD = """# Data dictionary

Written by `make docs` from the schemas in `taxi_assets/tlc/services/`; do not edit.

Names, types and units are the same in the clean Parquet, in the warehouse, and for every month since the service's
first. *Published as* lists the names a column has had in files, whatever their case and spaces. A column that a
month's file does not have is null. Times are New York wall-clock times, without zone.
"""


def data_dictionary() -> str:
    """The whole document."""
    parts = [_HEAD, *(_service(service) for service in SERVICES.values()), _quarantine(), _zones()]
    return "\n".join(parts)


def _service(service: Service) -> str:
    rules = [(f"`{rule.name}`", rule.description) for rule in service.rules]
    return "\n".join(
        [
            f"## {service.table}\n",
            f"{service.title}: {service.description}. First month: {service.first_month}.\n",
            _columns(service.columns),
            "\nRules; a row that breaks one goes to quarantine:\n",
            table(["rule", "meaning"], rules),
            "",
        ]
    )


def _quarantine() -> str:
    reasons = [(f"`{name}`", meaning) for name, meaning in READING_REASONS.items()]
    return "\n".join(
        [
            "## quarantine\n",
            "The same for every service. Besides the rules above, these are reasons that no run can switch off:\n",
            table(["reason", "meaning"], reasons),
            "",
            _columns(QUARANTINE_COLUMNS),
            "",
        ]
    )


def _zones() -> str:
    return "\n".join(["## taxi_zones\n", "TLC's 265 zones.\n", _columns(ZONE_COLUMNS), ""])


def _columns(columns: Iterable[Column]) -> str:
    rows = [(f"`{c.name}`", str(c.type), c.unit or "", c.description, _published(c), _span(c)) for c in columns]
    return table(["column", "type", "unit", "description", "published as", "in files"], rows)


def _published(column: Column) -> str:
    return "(computed)" if column.derived else ", ".join(column.aliases)


def _span(column: Column) -> str:
    words = [f"from {column.since}" if column.since else "", f"to {column.until}" if column.until else ""]
    return " ".join(filter(None, words))
