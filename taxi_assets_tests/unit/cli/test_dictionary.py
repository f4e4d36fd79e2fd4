"""The data dictionary has everything that the schemas say."""

from __future__ import annotations

from taxi_assets.cli.docgen.data_dictionary import data_dictionary
from taxi_assets.tlc.services.registry import SERVICES


def test_it_names_every_column_and_rule_of_every_service() -> None:
    sections = data_dictionary().split("\n## ")
    for service in SERVICES.values():
        section = next(text for text in sections if text.startswith(service.table))
        assert all(f"| `{column.name}` |" in section for column in service.columns)
        assert all(f"| `{rule.name}` |" in section for rule in service.rules)


def test_every_column_has_a_description_and_every_quantity_a_unit() -> None:
    for service in SERVICES.values():
        for column in service.columns:
            assert column.description.endswith("."), column.name
            if column.type in {"decimal(12,2)", "decimal(12,3)", "double", "datetime"}:
                assert column.unit, column.name
