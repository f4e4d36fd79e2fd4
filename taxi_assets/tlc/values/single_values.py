"""Convert one text to a value, for values that cannot be converted as part of a whole column.

Each function returns None for a text that cannot be read.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from math import isfinite
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from taxi_assets.tlc.readers.numeric_columns import WHOLE_NUMBER
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Callable

SCALE = {ColumnType.MONEY: 2, ColumnType.MILES: 3}
"""The number of decimal places of decimal columns."""

MAXIMUM_DECIMAL_DIGITS = 12
"""The number of digits of decimal columns, including the decimal places."""

NULL_WORDS = frozenset({"nan", "null", "none", "nat", "<na>"})
"""Texts that tools write for a missing value, in lower case: pandas, Python, SQL."""

NULL_ESCAPE = r"\N"
"""The text that Postgres and MySQL write for a missing value."""

BOOLEANS = {"true": 1, "false": 0}
"""Texts that tools write for booleans, in lower case."""

_MINIMUM_INTEGER, _MAXIMUM_INTEGER = -(2**63), 2**63 - 1


def read_distinct(texts: Any, read: Callable[[str], Any], type_: Any) -> Any:
    """Read each distinct text once.

    Python would accept digits of any script, and numbers surrounded by form feeds, so such texts are not read.

    Args:
        texts: An Arrow array of strings without nulls.
        read: Returns the value of a text, or None if it cannot be read.
        type_: The Arrow type of the values.

    Returns:
        One value per text, null if it cannot be read.
    """
    encoded = texts.dictionary_encode()
    values = (read(t) if t.isascii() and t == t.strip() else None for t in encoded.dictionary.to_pylist())
    return pa.array(values, type_).take(encoded.indices)


def is_null_text(text: str) -> bool:
    """Return whether a text means a missing value."""
    return text == NULL_ESCAPE or text.lower() in NULL_WORDS


def read_integer(text: str) -> int | None:
    """Return a whole number of 64 bits. A fraction of zeros is allowed, an exponent is not. True is 1, False is 0."""
    match = WHOLE_NUMBER.fullmatch(text)
    value = int(match[1] + match[2]) if match else BOOLEANS.get(text.lower())
    return value if value is not None and _MINIMUM_INTEGER <= value <= _MAXIMUM_INTEGER else None


def decimal_reader(scale: int) -> Callable[[str], Decimal | None]:
    """Return a function that reads decimals and rounds them to `scale` places, half away from zero."""
    quantum = Decimal(1).scaleb(-scale)

    def read(text: str) -> Decimal | None:
        try:
            exact = Decimal(text)
            if exact.is_zero():
                return Decimal(0)
            # adjusted() comes first: quantizing 1E+400 would be slow or fail, and the value does not fit anyway.
            if not exact.is_finite() or exact.adjusted() >= MAXIMUM_DECIMAL_DIGITS or "_" in text:
                return None
            rounded = exact.quantize(quantum, ROUND_HALF_UP)
        except InvalidOperation:
            return None
        return rounded if rounded.adjusted() < MAXIMUM_DECIMAL_DIGITS - scale or rounded.is_zero() else None

    return read


def read_degrees(text: str) -> float | None:
    """Return a finite double."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and "_" not in text else None
