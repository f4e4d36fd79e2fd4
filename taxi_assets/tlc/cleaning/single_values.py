"""Convert one text to a value, for values that pyarrow cannot convert as part of a whole column.

Each function returns None for a text that cannot be read.
"""

from __future__ import annotations

import datetime as dt
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from math import isfinite
from typing import TYPE_CHECKING, Any

from taxi_assets.tlc.readers.numeric_columns import WHOLE_NUMBER
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Callable

SCALE = {ColumnType.MONEY: 2, ColumnType.MILES: 3}
"""The number of decimal places of decimal columns."""

MAXIMUM_DECIMAL_DIGITS = 12
"""The number of digits of decimal columns, including the decimal places."""

_MAXIMUM_INTEGER = 2**63 - 1
_TIME_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M")


def read_value(type_: ColumnType, text: str) -> Any:
    """Return the value of a text in a column of this type, or None if it cannot be read."""
    # Python would accept digits of any script, and numbers surrounded by form feeds.
    return _READERS[type_](text) if text.isascii() and text == text.strip() else None


def read_integer(text: str) -> int | None:
    """Return a whole number of 64 bits. A fraction of zeros is allowed, an exponent is not."""
    match = WHOLE_NUMBER.fullmatch(text)
    value = int(match[1] + match[2]) if match else None
    return value if value is not None and abs(value) <= _MAXIMUM_INTEGER else None


def decimal_reader(scale: int) -> Callable[[str], Decimal | None]:
    """Return a function that reads decimals and rounds them to `scale` places, half away from zero."""
    quantum = Decimal(1).scaleb(-scale)

    def read(text: str) -> Decimal | None:
        try:
            exact = Decimal(text)
            # adjusted() comes first: quantizing 1E+400 would be slow or fail, and the value does not fit anyway.
            if not exact.is_finite() or exact.adjusted() >= MAXIMUM_DECIMAL_DIGITS or "_" in text:
                return None
            rounded = exact.quantize(quantum, ROUND_HALF_UP)
        except InvalidOperation:
            return None
        return rounded if rounded.adjusted() < MAXIMUM_DECIMAL_DIGITS - scale or rounded.is_zero() else None

    return read


def _read_datetime(text: str) -> dt.datetime | None:
    for format_ in _TIME_FORMATS:
        try:
            return dt.datetime.strptime(text.replace("T", " ", 1), format_)  # noqa: DTZ007  (local times have no zone)
        except ValueError:
            continue
    return None


def _read_degrees(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and "_" not in text else None


_READERS: dict[ColumnType, Callable[[str], Any]] = {
    ColumnType.INTEGER: read_integer,
    ColumnType.MONEY: decimal_reader(SCALE[ColumnType.MONEY]),
    ColumnType.MILES: decimal_reader(SCALE[ColumnType.MILES]),
    ColumnType.DATETIME: _read_datetime,
    ColumnType.DEGREES: _read_degrees,
    ColumnType.TEXT: str,
}
