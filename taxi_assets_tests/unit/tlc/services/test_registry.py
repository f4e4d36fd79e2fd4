"""A service that the platform could not carry is refused when the code is loaded, with what it lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from taxi_assets.errors import ServiceDefinitionError
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Column, ColumnType
from taxi_assets.tlc.services.fhv import FHV
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.registry import SERVICES, validate_services

if TYPE_CHECKING:
    from taxi_assets.tlc.schema import Service


def without(service: Service, name: str) -> Service:
    return replace(service, columns=[column for column in service.columns if column.name != name])


def changed(service: Service, name: str, **changes: object) -> Service:
    columns = [replace(c, **changes) if c.name == name else c for c in service.columns]  # type: ignore[arg-type]  # as the caller says
    return replace(service, columns=columns)


def refused(*services: Service) -> str:
    with pytest.raises(ServiceDefinitionError) as error:
        validate_services(services)
    assert "docs/add-a-dataset.md" in error.value.remedy
    return error.value.problem


def test_a_service_is_found_by_its_name() -> None:
    assert validate_services([GREEN, FHV]) == {"green": GREEN, "fhv": FHV}


@pytest.mark.parametrize("name", ["", "Green", "2wheels", "e-bike", "grün", "a b"])
def test_a_name_that_cannot_be_a_table_s_is_refused(name: str) -> None:
    assert refused(replace(GREEN, name=name)) == (
        f"The service {name!r} cannot be carried: its name is not made of lower-case letters, digits and underscores."
    )


def test_two_services_of_one_name_are_refused() -> None:
    assert "there is another service of that name" in refused(GREEN, replace(FHV, name="green"))


@pytest.mark.parametrize("name", ["pickup_datetime", "dropoff_datetime", "pickup_hour", "data_month", "source_row"])
def test_a_column_that_every_service_has_is_missed(name: str) -> None:
    assert f"has no column {name} (" in refused(without(FHV, name))


def test_a_column_that_every_service_has_is_of_one_type() -> None:
    message = refused(changed(FHV, "dropoff_datetime", type=ColumnType.TEXT))
    assert message.endswith("it has no column dropoff_datetime (datetime), as every service has.")


def test_a_column_that_comes_twice_is_refused_by_name_and_by_alias() -> None:
    again = Column("sr_flag", ColumnType.TEXT, "Again.")
    assert refused(replace(FHV, columns=[*FHV.columns, again])).endswith(
        "more than one of its columns is called sr_flag."
    )
    alias = Column("base", ColumnType.TEXT, "Again.", aliases=("dispatching_base_number",))
    assert "is called dispatching_base_number" in refused(replace(FHV, columns=[*FHV.columns, alias]))


def test_a_column_that_nothing_computes_is_refused() -> None:
    speed = Column("speed", ColumnType.DEGREES, "Miles per hour.", derived=True)
    assert "nothing computes its derived column speed" in refused(replace(FHV, columns=[*FHV.columns, speed]))
    assert "its column pickup_hour is computed" in refused(changed(FHV, "pickup_hour", derived=False))


def test_where_money_is_charged_reversals_are_told_apart() -> None:
    assert "both total_amount and is_reversal, or neither" in refused(without(GREEN, "is_reversal"))
    assert "both total_amount and is_reversal, or neither" in refused(without(GREEN, "total_amount"))
    assert "its total_amount is not money" in refused(changed(GREEN, "total_amount", type=ColumnType.DEGREES))


@pytest.mark.parametrize("name", SERVICES)
def test_every_rule_of_a_service_finds_its_columns(name: str) -> None:
    service = SERVICES[name]
    batch = pa.RecordBatch.from_pylist([], schema=service.arrow_schema)
    for rule in service.rules:
        assert len(rule.is_violated(batch, Month(2021, 1))) == 0, rule.name
