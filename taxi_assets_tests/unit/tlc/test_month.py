"""Months: keys, days, and arithmetic across years."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_assets.tlc.month import Month

MONTHS = st.builds(Month, st.integers(1, 9998), st.integers(1, 12))


@given(MONTHS)
def test_a_key_is_parsed_to_the_same_month(month: Month) -> None:
    assert Month.parse(str(month)) == month


@pytest.mark.parametrize(
    "key",
    [
        "",
        "2021",
        "2021-1",
        "2021-00",
        "2021-13",
        "2021-01-01",
        " 2021-01",
        "2021-01\n",
        "21-01",
        "\N{FULLWIDTH DIGIT TWO}021-01",
    ],
)
def test_a_malformed_key_is_rejected(key: str) -> None:
    with pytest.raises(ValueError, match=r"[Mm]onth"):
        Month.parse(key)


@given(MONTHS)
def test_a_month_ends_where_the_next_one_starts(month: Month) -> None:
    assert month.end == month.shift(1).start
    assert month.start + dt.timedelta(days=month.days) == month.end
    assert month.start.day == 1
    assert month < month.shift(1)


@given(st.builds(Month, st.integers(1000, 3000), st.integers(1, 12)), st.integers(-500, 500))
def test_a_shift_forth_and_back_gives_the_same_month(month: Month, months: int) -> None:
    assert month.shift(months).shift(-months) == month


@pytest.mark.parametrize(
    ("month", "months", "shifted"),
    [("2021-01", -1, "2020-12"), ("2020-12", 1, "2021-01"), ("2021-03", -15, "2019-12"), ("2021-03", 0, "2021-03")],
)
def test_a_shift_crosses_years(month: str, months: int, shifted: str) -> None:
    assert str(Month.parse(month).shift(months)) == shifted


@pytest.mark.parametrize(("month", "days"), [("2020-02", 29), ("2021-02", 28), ("2000-02", 29), ("2020-12", 31)])
def test_a_month_has_the_right_number_of_days(month: str, days: int) -> None:
    assert Month.parse(month).days == days
