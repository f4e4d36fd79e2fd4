"""Decide which columns of a CSV file may be parsed as numbers at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from taxi_assets.tlc.schema import Column

WHOLE_NUMBER = re.compile(r"([+-]?)0*(\d{1,19})(\.0*)?", re.ASCII)
_PARSED_AS_FLOAT = {ColumnType.MONEY, ColumnType.MILES, ColumnType.DEGREES}


def numeric_type(column: Column) -> Any | None:
    """What a CSV parser may read the column's text as; None where only the text tells what is meant.

    `parse` makes of these numbers what it makes of their text.
    """
    if column.type in _PARSED_AS_FLOAT:
        return pa.float64()
    means_no_number = not any(map(WHOLE_NUMBER.fullmatch, column.codes))
    return pa.int64() if column.type is ColumnType.INTEGER and means_no_number else None
