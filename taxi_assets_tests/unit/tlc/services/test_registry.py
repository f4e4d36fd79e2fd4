"""An invalid service definition is rejected when the code is loaded, with the cause."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from taxi_assets.errors import ServiceDefinitionError
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.revision_report import revision_columns
from taxi_assets.tlc.schema import Column, ColumnType
from taxi_assets.tlc.services.fhv import FHV
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.registry import SERVICES, validate_services

if TYPE_CHECKING:
    from taxi_assets.tlc.schema import Service


def without(service: Service, name: str) -> Service:
    return replace(service, columns=[column for column in service.columns if column.name != name])


def changed(service: Service, name: str, **changes: object) -> Service:
    columns = [replace(c, **changes) if c.name == name else c for c in service.columns]  # type: ignore[arg-type]  # the caller passes the right types
    return replace(service, columns=columns)


def rejection(*services: Service) -> str:
    with pytest.raises(ServiceDefinitionError) as error:
        validate_services(services)
    assert "docs/add-a-dataset.md" in error.value.remedy
    return error.value.problem


def test_a_service_is_found_by_its_name() -> None:
    assert validate_services([GREEN, FHV]) == {"green": GREEN, "fhv": FHV}


@pytest.mark.parametrize("name", ["", "Green", "2wheels", "e-bike", "grün", "a b"])
def test_a_name_that_cannot_be_a_table_name_is_rejected(name: str) -> None:
    assert rejection(replace(GREEN, name=name)) == (
        f"Invalid service definition {name!r}: the name must be lower-case letters, digits and underscores, and start "
        "with a letter."
    )


@pytest.mark.parametrize("name", ["file", "trips_file"])
def test_a_name_that_cannot_be_part_of_a_variable_is_rejected(name: str) -> None:
    with pytest.raises(ServiceDefinitionError, match="the name must not be file or end in _file"):
        validate_services([replace(GREEN, name=name)])


def test_two_services_with_the_same_name_are_rejected() -> None:
    assert "another service has the same name" in rejection(GREEN, replace(FHV, name="green"))


@pytest.mark.parametrize("name", ["pickup_datetime", "dropoff_datetime", "pickup_hour", "data_month", "source_row"])
def test_a_service_without_a_common_column_is_rejected(name: str) -> None:
    assert f"every service needs the columns {name} (" in rejection(without(FHV, name))


def test_a_common_column_of_another_type_is_rejected() -> None:
    message = rejection(changed(FHV, "dropoff_datetime", type=ColumnType.TEXT))
    assert message.endswith("every service needs the columns dropoff_datetime (datetime).")


def test_a_repeated_column_name_or_alias_is_rejected() -> None:
    repeated = Column("sr_flag", ColumnType.TEXT, "Repeated name.")
    assert rejection(replace(FHV, columns=[*FHV.columns, repeated])).endswith("more than one column is called sr_flag.")
    alias = Column("base", ColumnType.TEXT, "Repeated alias.", aliases=("dispatching_base_number",))
    assert "is called dispatching_base_number" in rejection(replace(FHV, columns=[*FHV.columns, alias]))


ADDED = [column.name for column in revision_columns(FHV) if column not in FHV.published_columns]
ADDED_NAMES = {*ADDED} - {column.name for column in FHV.published_columns} - {"data_month"}


@pytest.mark.parametrize(
    "name", [*sorted(ADDED_NAMES), "Change", "row", "total", "difference", "old_x", "new_x", "_row"]
)
def test_a_column_with_a_name_that_the_comparison_of_revisions_adds_is_rejected(name: str) -> None:
    column = Column(name, ColumnType.TEXT, "A published column.", aliases=("as published",))
    message = rejection(replace(FHV, columns=[*FHV.columns, column]))
    assert f"the comparison of revisions needs the column {name} for itself" in message
    assert "list the published one as an alias" in message


def test_the_tested_names_are_those_of_the_comparison() -> None:
    assert {"change", "row_count", "changed_column", "old_value", "new_value", "old_source_row"} < ADDED_NAMES


def test_a_derived_column_that_no_code_computes_is_rejected() -> None:
    speed = Column("speed", ColumnType.DEGREES, "Miles per hour.", derived=True)
    assert "no code computes the derived column speed" in rejection(replace(FHV, columns=[*FHV.columns, speed]))
    assert "pickup_hour is a computed column" in rejection(changed(FHV, "pickup_hour", derived=False))


def test_total_amount_and_is_reversal_require_each_other() -> None:
    assert "both total_amount and is_reversal, or neither" in rejection(without(GREEN, "is_reversal"))
    assert "both total_amount and is_reversal, or neither" in rejection(without(GREEN, "total_amount"))
    assert "total_amount must have the type ColumnType.MONEY" in rejection(
        changed(GREEN, "total_amount", type=ColumnType.DEGREES)
    )


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_the_columns_of_its_rules(name: str) -> None:
    service = SERVICES[name]
    batch = pa.RecordBatch.from_pylist([], schema=service.arrow_schema)
    for rule in service.rules:
        assert len(rule.is_violated(batch, Month(2021, 1))) == 0, rule.name
