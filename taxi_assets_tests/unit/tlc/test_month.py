"""Months: their keys, their days, and arithmetic across years."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_assets.tlc.month import Month

MONTHS = st.builds(Month, st.integers(1, 9998), st.integers(1, 12))


@given(MONTHS)
def test_a_key_reads_back_as_the_same_month(month: Month) -> None:
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
def test_anything_else_than_a_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"[Mm]onth"):
        Month.parse(key)


@given(MONTHS)
def test_a_month_ends_where_the_next_one_starts(month: Month) -> None:
    assert month.end == month.shift(1).start
    assert month.start + dt.timedelta(days=month.days) == month.end
    assert month.start.day == 1
    assert month < month.shift(1)


@given(st.builds(Month, st.integers(1000, 3000), st.integers(1, 12)), st.integers(-500, 500))
def test_shifting_there_and_back_changes_nothing(month: Month, months: int) -> None:
    assert month.shift(months).shift(-months) == month


@pytest.mark.parametrize(
    ("month", "months", "shifted"),
    [("2021-01", -1, "2020-12"), ("2020-12", 1, "2021-01"), ("2021-03", -15, "2019-12"), ("2021-03", 0, "2021-03")],
)
def test_shifts_across_years(month: str, months: int, shifted: str) -> None:
    assert str(Month.parse(month).shift(months)) == shifted


@pytest.mark.parametrize(("month", "days"), [("2020-02", 29), ("2021-02", 28), ("2000-02", 29), ("2020-12", 31)])
def test_knows_how_many_days_it_has(month: str, days: int) -> None:
    assert Month.parse(month).days == days
