"""Formats of numbers, names and changes."""

from __future__ import annotations

from decimal import Decimal

import pytest

from taxi_assets.reports import formatting
from taxi_assets.tlc.month import Month


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formatting.count(1234567), "1,234,567"),
        (formatting.count(3.2258), "3.2"),
        (formatting.count(-12345), "\N{MINUS SIGN}12,345"),
        (formatting.dollars(Decimal("1408651.32")), "$1,408,651"),
        (formatting.dollars(Decimal("-0.5"), cents=True), "\N{MINUS SIGN}$0.50"),
        (formatting.percent(0.1926), "19.3%"),
        (formatting.percent(0.00001, 2), "<0.01%"),
        (formatting.percent(0.0, 2), "0.00%"),
        (formatting.change(105.2, 100), "+5.2%"),
        (formatting.change(95, 100), "\N{MINUS SIGN}5.0%"),
        (formatting.change(100.001, 100), "0.0%"),
        (formatting.change(5, 0), None),
        (formatting.change_of_share(0.193, 0.195), "\N{MINUS SIGN}0.2 points"),
        (formatting.change_of_share(0.195, 0.195), "0.0 points"),
        (formatting.hour_name(23), "23:00\N{EN DASH}24:00"),
        (formatting.day_name(Month(2023, 1), 20), "Friday 20 January"),
        (formatting.month_name(Month(2023, 1)), "January 2023"),
        (formatting.counted(1, "row"), "1 row"),
        (formatting.counted(2000, "row"), "2,000 rows"),
    ],
)
def test_values_are_formatted_for_readers(written: str | None, expected: str | None) -> None:
    assert written == expected
