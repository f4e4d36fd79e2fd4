"""Choose the CSV columns that can be parsed directly as numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from taxi_assets.tlc.schema import Column

WHOLE_NUMBER = re.compile(r"([+-]?)0*(\d{1,19})(\.0*)?", re.ASCII)
"""Matches the text of a whole number: its sign and its digits, without leading zeros and a zero fraction."""

_PARSED_AS_FLOAT = {ColumnType.MONEY, ColumnType.MILES, ColumnType.DEGREES}


def numeric_type(column: Column) -> Any | None:
    """Return the numeric type that a CSV parser may use for a column, or None if it must parse the column as text.

    `values.parse_column` returns the same values for these numbers as for their text.
    """
    if column.type in _PARSED_AS_FLOAT:
        return pa.float64()
    has_numeric_codes = any(map(WHOLE_NUMBER.fullmatch, column.codes))
    return pa.int64() if column.type is ColumnType.INTEGER and not has_numeric_codes else None
