"""Conversion of Arrow tables to pandas DataFrames: values and types stay exact, with and without nulls."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from taxi_assets.storage.pandas_types import to_frame


@pytest.mark.parametrize(
    ("arrow", "values"),
    [
        *((arrow, [1, None]) for arrow in (pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32())),
        (pa.int64(), [2**62 + 1, None]),
        (pa.uint64(), [2**63 + 1, None]),
        (pa.bool_(), [True, None]),
        (pa.string(), ["NA", None]),
        (pa.large_string(), ["", None]),
        (pa.decimal128(12, 2), [Decimal("-0.10"), None]),
        (pa.date32(), [dt.date(2020, 10, 31), None]),
        (pa.timestamp("us"), [dt.datetime(2009, 1, 1, 0, 0, 0, 1), None]),  # noqa: DTZ001
        (pa.float64(), [-73.99, None]),
    ],
)
def test_columns_stay_in_arrow_memory_with_their_type_and_nulls(arrow: Any, values: list[Any]) -> None:
    column = to_frame(pa.table({"x": pa.array(values, arrow)}))["x"]
    assert column.dtype == pd.ArrowDtype(arrow)
    assert column[0] == values[0]
    assert pd.isna(column[1])


def test_money_stays_exact() -> None:
    money = to_frame(pa.table({"x": pa.array([Decimal("0.10")] * 3, pa.decimal128(12, 2))}))["x"]
    assert sum(money) == Decimal("0.30")
    assert isinstance(money[0], Decimal)


def test_an_empty_table_keeps_its_types() -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.bool_()), ("d", pa.timestamp("us"))])
    assert [*to_frame(schema.empty_table()).dtypes] == [pd.ArrowDtype(type_) for type_ in schema.types]
