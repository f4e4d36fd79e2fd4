"""Published columns are matched to canonical ones by name, in every layout."""

from __future__ import annotations

import random

import pytest

from taxi_assets.errors import ColumnMismatchError
from taxi_assets.tlc.readers.header import match_columns, normalize
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.services.yellow import YELLOW
from taxi_assets_tests.trip_files import LAYOUTS, service_of

HEADER = LAYOUTS["green 2019"].header.split(",")


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_matched_as_expected(name: str) -> None:
    layout = LAYOUTS[name]
    match = match_columns(SERVICES[service_of(name)], layout.header.split(","), label="")
    assert match.positions == {column: [index] for index, column in enumerate(layout.columns) if column}
    assert match.unknown == {index: "id" for index, column in enumerate(layout.columns) if not column}


@pytest.mark.parametrize("name", LAYOUTS)
def test_columns_that_a_layout_lacks_are_absent(name: str) -> None:
    service, layout = SERVICES[service_of(name)], LAYOUTS[name]
    match = match_columns(service, layout.header.split(","), label="")
    assert {*match.absent, *layout.columns} - {""} == {column.name for column in service.published_columns}
    assert set(match.absent).isdisjoint(layout.columns)


def test_spaces_quotes_case_and_a_byte_order_mark_do_not_matter() -> None:
    decorated = [f'\ufeff "{name.upper()}"\t' if index % 2 else f" '{name}'\r" for index, name in enumerate(HEADER)]
    assert match_columns(GREEN, decorated, label="").positions == match_columns(GREEN, HEADER, label="").positions


def test_order_does_not_matter() -> None:
    shuffled = random.Random(1).sample(HEADER, len(HEADER))  # noqa: S311  (no secret)
    straight = match_columns(GREEN, HEADER, label="").positions
    for canonical, (index,) in match_columns(GREEN, shuffled, label="").positions.items():
        assert shuffled[index] == HEADER[straight[canonical][0]]


def test_every_alias_is_normalized() -> None:
    for service in SERVICES.values():
        for column in service.columns:
            assert all(alias == normalize(alias) for alias in (column.name, *column.aliases))


def test_new_columns_are_reported_under_their_published_names() -> None:
    match = match_columns(GREEN, ["", *HEADER, " New_Fee", "", "new_fee"], label="")
    assert match.unknown == {0: "", len(HEADER) + 1: " New_Fee", len(HEADER) + 2: "", len(HEADER) + 3: "new_fee"}


def test_a_missing_required_column_is_named_along_with_unknown_columns() -> None:
    published = ["fare" if name == "fare_amount" else name for name in HEADER]
    with pytest.raises(ColumnMismatchError) as error:
        match_columns(GREEN, published, label="green 2020-10")
    assert str(error.value) == (
        "green 2020-10: the file has no column for fare_amount; unknown columns: 'fare'. Check that this is a green "
        "taxi file. If a column was renamed, add an alias in tlc/services/green.py or in a module that it imports. "
        "[ColumnMismatchError]"
    )


def test_an_optional_column_may_be_missing() -> None:
    published = [name for name in HEADER if name not in ("ehail_fee", "trip_type")]
    absent = match_columns(GREEN, published, label="").absent
    assert {"ehail_fee", "trip_type"} <= set(absent)


def test_two_columns_with_the_same_meaning_are_rejected() -> None:
    with pytest.raises(
        ColumnMismatchError, match=r"green 2020-10: the columns 'PULocationID', 'pickup_location_id' all match"
    ):
        match_columns(GREEN, [*HEADER, "pickup_location_id"], label="green 2020-10")


@pytest.mark.parametrize("published", [[""], ["<html>"], LAYOUTS["green 2019"].header.replace(",", ";").split(",")])
def test_a_file_without_a_header_is_rejected(published: list[str]) -> None:
    with pytest.raises(ColumnMismatchError, match="the file has no column for vendor_id, pickup_datetime"):
        match_columns(GREEN, published, label="green 2020-10")


def test_a_file_of_another_service_is_rejected() -> None:
    with pytest.raises(ColumnMismatchError, match="Check that this is a yellow taxi file"):
        match_columns(YELLOW, HEADER, label="yellow 2020-10")
    with pytest.raises(ColumnMismatchError, match="unknown columns: 'tpep_pickup_datetime', 'tpep_dropoff_datetime'"):
        match_columns(GREEN, LAYOUTS["yellow 2019"].header.split(","), label="green 2020-10")
