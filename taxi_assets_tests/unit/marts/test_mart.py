"""Reading a mart from its file, and the errors of an invalid file."""

from __future__ import annotations

import pytest

from taxi_assets.errors import MartDefinitionError
from taxi_assets.marts.mart import GLOSSARY, marts, read_mart, read_marts
from taxi_assets.tlc.schema import ColumnType

HEADER = """/*
description: |
  Trips by day.

  And more.
key: [data_month, service, pickup_date]
columns:
  rush: {type: integer, description: Trips in the rush hour., unit: trips}
measures: [trips, revenue]
*/
"""
SQL = "SELECT data_month, service, pickup_date, 1 AS rush, SUM(trips) AS trips, SUM(revenue) AS revenue FROM all_trips"


def test_a_mart_is_read_from_its_file() -> None:
    mart = read_mart("busy", HEADER + SQL)
    assert (mart.name, mart.description) == ("busy", "Trips by day.\n\nAnd more.")
    assert [column.name for column in mart.columns] == [
        *("data_month", "service", "pickup_date", "rush", "trips", "revenue")
    ]
    assert list(mart.key) == ["data_month", "service", "pickup_date"]
    assert list(mart.measures) == ["trips", "revenue"]
    own = mart.columns[3]
    assert (own.type, own.description_with_unit) == (ColumnType.INTEGER, "Trips in the rush hour. [trips]")
    assert mart.columns[4] == GLOSSARY["trips"]
    assert mart.sql == SQL


def test_a_mart_counts_only_services_that_record_the_columns_it_needs() -> None:
    names = {name: [service.name for service in mart.services] for name, mart in marts().items()}
    assert names["zone_day"] == ["yellow", "green", "fhv", "fhvhv"]
    assert names["payment_mix"] == ["yellow", "green"]


def test_a_changed_definition_has_a_new_version() -> None:
    mart = read_mart("busy", HEADER + SQL)
    assert mart.version == read_mart("busy", HEADER + SQL).version
    assert mart.version != read_mart("busy", HEADER + SQL + " WHERE trips > 0").version
    assert mart.version != read_mart("busy", HEADER.replace("Trips in the", "In the") + SQL).version


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SQL, "does not begin with a header"),
        ("/* description: without end", "does not begin with a header"),
        (HEADER.replace("key: [", "key: [[") + SQL, "not valid YAML"),
        (HEADER.replace("description: |", "described: |") + SQL, "described: Extra inputs are not permitted"),
        (HEADER.replace("key: [data_month, service, pickup_date]", "key: []") + SQL, "key: "),
        (HEADER.replace("type: integer", "type: number") + SQL, "number is not one of integer"),
        (HEADER.replace("[trips, revenue]", "[trips, profit]") + SQL, "does not describe profit"),
        ("/*\n*/" + SQL, "not valid"),
        (HEADER.replace("measures:", "needs: [payment_typ]\nmeasures:") + SQL, "needs payment_typ, which all_trips"),
        (HEADER.replace("measures:", "counts: few\nmeasures:") + SQL, "counts: "),
    ],
)
def test_an_invalid_header_is_an_error_that_names_the_file(text: str, message: str) -> None:
    with pytest.raises(MartDefinitionError) as error:
        read_mart("busy", text)
    assert error.value.problem.startswith("marts/sql/busy.sql: ")
    assert message in error.value.problem
    assert "\n" not in error.value.problem
    assert "marts/mart.py" in error.value.remedy


def test_measures_of_all_trips_are_reconciled_unless_the_mart_counts_some() -> None:
    assert list(read_mart("busy", HEADER + SQL).reconciled_measures) == ["trips", "revenue"]
    with_own = HEADER.replace("[trips, revenue]", "[rush, trips]")
    assert list(read_mart("busy", with_own + SQL).reconciled_measures) == ["trips"]
    in_its_own_sense = with_own.replace("rush:", "trips:")
    assert list(read_mart("busy", in_its_own_sense.replace("[rush, ", "[") + SQL).reconciled_measures) == []
    of_some = HEADER.replace("measures:", "counts: some\nmeasures:")
    assert list(read_mart("busy", of_some + SQL).reconciled_measures) == []
    assert list(read_mart("busy", of_some + SQL).measures) == ["trips", "revenue"]


# --- names ------------------------------------------------------------------------------------------------------------

VIEW = "; CREATE VIEW {} AS SELECT trips FROM busy"
TAKEN = [
    *("yellow_trips", "green_trips", "fhv_trips", "fhvhv_trips", "all_trips"),
    *("taxi_zones", "month_quality", "loaded_months", "green_trips_loads", "some_loads", "green_trips_2023_01"),
]


@pytest.mark.parametrize("taken", TAKEN)
def test_a_mart_or_view_cannot_have_the_name_of_another_table(taken: str) -> None:
    for name, view in ((taken, "busy_ratios"), ("busy", taken)):
        with pytest.raises(MartDefinitionError, match=f"{taken} is the name of another table") as error:
            read_mart(name, HEADER + SQL + VIEW.format(view))
        assert error.value.problem.startswith(f"marts/sql/{name}.sql: ")


@pytest.mark.parametrize("name", ["Busy", "busy-days", "2busy", "größe", "busy.days"])
def test_a_name_whose_case_an_engine_changes_is_rejected(name: str) -> None:
    with pytest.raises(MartDefinitionError, match="is not made of lower-case letters"):
        read_mart(name, HEADER + SQL)


def test_two_marts_or_views_cannot_have_the_same_name() -> None:
    busy, other = HEADER + SQL, HEADER + SQL + VIEW.format("ratios")
    assert list(read_marts({"busy": busy, "other": other})) == ["busy", "other"]
    for texts, owner in (
        ({"busy": other, "ratios": busy}, "ratios"),
        ({"busy": busy, "ratios": other}, "ratios"),
        ({"busy": other, "other": other}, "busy"),
        ({"other": other + VIEW.format("ratios")}, "other"),
    ):
        with pytest.raises(
            MartDefinitionError, match=f"view ratios has the name of a table or view of marts/sql/{owner}.sql"
        ):
            read_marts(texts)


@pytest.mark.parametrize("name", marts())
def test_every_mart_and_every_column_has_a_description(name: str) -> None:
    mart = marts()[name]
    assert mart.description
    assert mart.key[0] == "data_month"
    assert set(mart.measures) <= {column.name for column in mart.columns}
    assert all(column.description.endswith(".") for column in mart.columns)
