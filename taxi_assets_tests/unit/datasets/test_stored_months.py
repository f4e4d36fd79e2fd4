from __future__ import annotations

import pytest

from taxi_assets.datasets.stored_months import Bounds, list_months
from taxi_assets.errors import ScanArgumentError
from taxi_assets.tlc.month import Month


def months(*keys: str) -> list[Month]:
    return [Month.parse(key) for key in keys]


STORED = months("2020-11", "2020-12", "2021-02")


@pytest.mark.parametrize(
    ("first", "last", "selected"),
    [
        (None, None, ["2020-11", "2020-12", "2021-02"]),
        ("2020-12", "2021-01", ["2020-12", "2021-01"]),
        ("2020-12", None, ["2020-12", "2021-01", "2021-02"]),
        ("2021-03", None, ["2021-03"]),
        (None, "2020-12", ["2020-11", "2020-12"]),
        (None, "2020-10", ["2020-10"]),
    ],
)
def test_bounds_select_every_month_between_them(first: str | None, last: str | None, selected: list[str]) -> None:
    assert Bounds.parse(first, last).select(STORED) == months(*selected)


@pytest.mark.parametrize("value", ["2021-1", "2021", "2021-13", "january", "", 202101])
def test_a_bound_that_is_not_a_month_is_named(value: str) -> None:
    with pytest.raises(ScanArgumentError, match=r"^last=.* is not a month\. Write a month as text"):
        Bounds.parse(None, value)


def test_bounds_in_the_wrong_order_are_an_error() -> None:
    with pytest.raises(ScanArgumentError, match="The first month, 2021-02, is after the last, 2021-01"):
        Bounds.parse("2021-02", "2021-01")


def test_neighboring_months_are_listed_as_a_range() -> None:
    assert list_months(months("2020-11", "2020-12", "2021-01", "2021-03", "2021-05", "2021-06")) == (
        "2020-11 to 2021-01, 2021-03, 2021-05 to 2021-06"
    )
