"""Published columns are matched to canonical ones by name, in every layout."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from taxi_assets.errors import ColumnMismatchError
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.readers.header import match_columns
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.services.yellow import YELLOW
from taxi_assets_tests.trip_files import LAYOUTS, month_of, service_of

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = LAYOUTS["green 2019"].header.split(",")
OCTOBER = Month(2020, 10)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_matched_as_expected(name: str) -> None:
    layout = LAYOUTS[name]
    match = match_columns(SERVICES[service_of(name)], layout.header.split(","), label="", month=month_of(name))
    assert match.positions == {column: [index] for index, column in enumerate(layout.columns) if column}
    assert match.unknown == {index: "id" for index, column in enumerate(layout.columns) if not column}


@pytest.mark.parametrize("name", LAYOUTS)
def test_columns_that_a_layout_lacks_are_absent(name: str) -> None:
    service, layout = SERVICES[service_of(name)], LAYOUTS[name]
    match = match_columns(service, layout.header.split(","), label="", month=month_of(name))
    assert {*match.absent, *layout.columns} - {""} == {column.name for column in service.published_columns}
    assert set(match.absent).isdisjoint(layout.columns)


def test_spaces_quotes_case_and_a_byte_order_mark_do_not_matter() -> None:
    decorated = [f'\ufeff "{name.upper()}"\t' if index % 2 else f" '{name}'\r" for index, name in enumerate(HEADER)]
    assert (
        match_columns(GREEN, decorated, label="", month=OCTOBER).positions
        == match_columns(GREEN, HEADER, label="", month=OCTOBER).positions
    )


def test_order_does_not_matter() -> None:
    shuffled = random.Random(1).sample(HEADER, len(HEADER))  # noqa: S311  (no secret)
    straight = match_columns(GREEN, HEADER, label="", month=OCTOBER).positions
    for canonical, (index,) in match_columns(GREEN, shuffled, label="", month=OCTOBER).positions.items():
        assert shuffled[index] == HEADER[straight[canonical][0]]


@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: name.replace("PU", "pu_").replace("DO", "do_").replace("ID", "_id"),
        str.upper,
        lambda name: name.replace("_", " ").title(),
        lambda name: name.replace("_", ""),
    ],
)
def test_case_spaces_and_underscores_do_not_matter(renamed: Callable[[str], str]) -> None:
    expected = match_columns(GREEN, HEADER, label="", month=OCTOBER)
    assert match_columns(GREEN, [renamed(name) for name in HEADER], label="", month=OCTOBER) == expected


def test_new_columns_are_reported_under_their_published_names() -> None:
    match = match_columns(GREEN, ["", *HEADER, " New_Fee", "", "new_fee"], label="", month=OCTOBER)
    assert match.unknown == {0: "", len(HEADER) + 1: " New_Fee", len(HEADER) + 2: "", len(HEADER) + 3: "new_fee"}


def test_a_missing_required_column_is_named_along_with_unknown_columns() -> None:
    published = ["fare" if name == "fare_amount" else name for name in HEADER]
    with pytest.raises(ColumnMismatchError) as error:
        match_columns(GREEN, published, label="green 2020-10", month=OCTOBER)
    assert str(error.value) == (
        "green 2020-10: the file has no column for fare_amount; unknown columns: 'fare'. Check that this is a green "
        "taxi file. If a column was renamed, add an alias in tlc/services/green.py or in a module that it imports. "
        "[ColumnMismatchError]"
    )


def test_an_optional_column_may_be_missing() -> None:
    published = [name for name in HEADER if name != "ehail_fee"]
    absent = match_columns(GREEN, published, label="", month=OCTOBER).absent
    assert "ehail_fee" in absent


@pytest.mark.parametrize("name", ["PULocationID", "congestion_surcharge", "trip_type"])
def test_a_column_that_files_of_the_month_have_must_not_be_missing(name: str) -> None:
    published = ["renamed_by_a_tool" if column == name else column for column in HEADER]
    with pytest.raises(ColumnMismatchError, match="unknown columns: 'renamed_by_a_tool'"):
        match_columns(GREEN, published, label="green 2020-10", month=OCTOBER)


def test_a_month_before_taxi_zones_has_coordinates_or_zones() -> None:
    layout = LAYOUTS["green 2013"]
    without = [name for name in layout.header.split(",") if "itude" not in name]
    month = Month(2014, 1)
    with pytest.raises(ColumnMismatchError, match="no column for pickup_longitude, pickup_latitude"):
        match_columns(GREEN, without, label="green 2014-01", month=month)
    assert (
        "pickup_location_id"
        in match_columns(GREEN, [*without, "PULocationID", "DOLocationID"], label="", month=month).positions
    )


def test_columns_with_one_name_in_different_case_are_merged() -> None:
    match = match_columns(GREEN, [*HEADER, "Fare_Amount"], label="", month=OCTOBER)
    assert match.positions["fare_amount"] == [HEADER.index("fare_amount"), len(HEADER)]


def test_two_columns_with_the_same_meaning_are_rejected() -> None:
    with pytest.raises(
        ColumnMismatchError, match=r"green 2020-10: the columns 'PULocationID', 'pickup_location_id' all match"
    ):
        match_columns(GREEN, [*HEADER, "pickup_location_id"], label="green 2020-10", month=OCTOBER)


@pytest.mark.parametrize("published", [[""], ["<html>"], LAYOUTS["green 2019"].header.replace(",", ";").split(",")])
def test_a_file_without_a_header_is_rejected(published: list[str]) -> None:
    with pytest.raises(ColumnMismatchError, match="the file has no column for vendor_id, pickup_datetime"):
        match_columns(GREEN, published, label="green 2020-10", month=OCTOBER)


def test_a_file_of_another_service_is_rejected() -> None:
    with pytest.raises(ColumnMismatchError, match="Check that this is a yellow taxi file"):
        match_columns(YELLOW, HEADER, label="yellow 2020-10", month=OCTOBER)
    with pytest.raises(ColumnMismatchError, match="unknown columns: 'tpep_pickup_datetime', 'tpep_dropoff_datetime'"):
        match_columns(GREEN, LAYOUTS["yellow 2019"].header.split(","), label="green 2020-10", month=OCTOBER)
