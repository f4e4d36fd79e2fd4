"""Format numbers, months, weekdays and changes for readers."""

from __future__ import annotations

import calendar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decimal import Decimal

    from taxi_assets.tlc.month import Month

# The names of the module `calendar` depend on the locale of the machine.
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
MINUS = "\N{MINUS SIGN}"
_DASH = "\N{EN DASH}"


def month_name(month: Month) -> str:
    """Return the month's name, such as January 2023."""
    return f"{MONTHS[month.number - 1]} {month.year}"


def short_month(month: Month) -> str:
    """Return the month's short name, such as Jan 2023."""
    return f"{MONTHS[month.number - 1][:3]} {month.year}"


def day_name(month: Month, day: int) -> str:
    """Return a day's name, such as Friday 20 January."""
    return f"{WEEKDAYS[calendar.weekday(month.year, month.number, day)]} {day} {MONTHS[month.number - 1]}"


def hour_name(hour: int) -> str:
    """Return an hour of the day as a range with an en dash, such as 18:00-19:00."""
    return f"{hour:02d}:00{_DASH}{hour + 1:02d}:00"


def count(number: float) -> str:
    """Format a count with thousands separators; a fraction below 10 keeps one decimal."""
    small = abs(number) < 10 and number != int(number)
    return _signed(f"{number:,.1f}" if small else f"{number:,.0f}")


def dollars(amount: Decimal | float, *, cents: bool = False) -> str:
    """Format US dollars, such as $1,234,567, or with two decimals if `cents`."""
    text = f"{abs(amount):,.{2 if cents else 0}f}"
    return f"{MINUS if amount < 0 else ''}${text}"


def percent(share: float, digits: int = 1) -> str:
    """Format a share from 0 to 1 as percent. A share above 0 is never shown as 0."""
    least = 10 ** -(digits + 2)
    return f"<{least:.{digits}%}" if 0 < share < least else _signed(f"{share:.{digits}%}")


def signed_percent(share: float) -> str:
    """Format a change as a whole percentage with its sign, such as +5%, for the axis of a chart."""
    return _with_sign(f"{share:+.0%}", "0%")


def change(now: float, before: float) -> str | None:
    """Format a relative change, such as +5.2%. Return None if the value before was 0."""
    if not before:
        return None
    return _with_sign(f"{(now - before) / abs(before):+,.1%}", "0.0%")


def change_of_share(now: float, before: float) -> str:
    """Format the difference of two shares in percentage points, such as +1.2 points."""
    return _with_sign(f"{(now - before) * 100:+.1f}", "0.0") + " points"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Format a number with its noun, such as 1 row or 2,000 rows."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def _with_sign(text: str, zero: str) -> str:
    return zero if text.lstrip("+-") == zero else _signed(text)


def _signed(text: str) -> str:
    return text.replace("-", MINUS)
