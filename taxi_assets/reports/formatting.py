"""Figures in words: how numbers, months, weekdays and changes are written wherever people read them."""

from __future__ import annotations

import calendar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decimal import Decimal

    from taxi_assets.tlc.month import Month

# Not calendar's own: those follow the machine's locale.
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
MINUS = "\N{MINUS SIGN}"
_DASH = "\N{EN DASH}"


def month_name(month: Month) -> str:
    """Such as January 2023."""
    return f"{MONTHS[month.number - 1]} {month.year}"


def short_month(month: Month) -> str:
    """Such as Jan 2023."""
    return f"{MONTHS[month.number - 1][:3]} {month.year}"


def day_name(month: Month, day: int) -> str:
    """Such as Friday 20 January."""
    return f"{WEEKDAYS[calendar.weekday(month.year, month.number, day)]} {day} {MONTHS[month.number - 1]}"


def hour_name(hour: int) -> str:
    """Such as 18:00-19:00, with the dash that ranges have."""
    return f"{hour:02d}:00{_DASH}{hour + 1:02d}:00"


def count(number: float) -> str:
    """Whole, with thousands separated; a decimal where it is small."""
    small = abs(number) < 10 and number != int(number)
    return _signed(f"{number:,.1f}" if small else f"{number:,.0f}")


def dollars(amount: Decimal | float, *, cents: bool = False) -> str:
    """Such as $1,234,567."""
    text = f"{abs(amount):,.{2 if cents else 0}f}"
    return f"{MINUS if amount < 0 else ''}${text}"


def percent(share: float, digits: int = 1) -> str:
    """Of a share between 0 and 1; what is not nothing is not shown as 0.0%."""
    least = 10 ** -(digits + 2)
    return f"<{least:.{digits}%}" if 0 < share < least else _signed(f"{share:.{digits}%}")


def signed_percent(share: float) -> str:
    """Whole, such as +5%: for an axis of changes."""
    return _with_sign(f"{share:+.0%}", "0%")


def change(now: float, before: float) -> str | None:
    """Such as +5.2%; None where there was nothing before."""
    if not before:
        return None
    return _with_sign(f"{(now - before) / abs(before):+,.1%}", "0.0%")


def change_of_share(now: float, before: float) -> str:
    """Such as +1.2 points: percentage points."""
    return _with_sign(f"{(now - before) * 100:+.1f}", "0.0") + " points"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Such as 1 row, 2,000 rows."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def _with_sign(text: str, zero: str) -> str:
    return zero if text.lstrip("+-") == zero else _signed(text)


def _signed(text: str) -> str:
    return text.replace("-", MINUS)
