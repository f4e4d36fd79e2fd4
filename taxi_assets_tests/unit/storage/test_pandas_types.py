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
    ("arrow", "values", "dtype"),
    [
        *(
            (arrow, [1, None], dtype)
            for arrow, dtype in [
                (pa.int8(), "Int8"),
                (pa.int16(), "Int16"),
                (pa.int32(), "Int32"),
                (pa.int64(), "Int64"),
                (pa.uint8(), "UInt8"),
                (pa.uint16(), "UInt16"),
                (pa.uint32(), "UInt32"),
                (pa.uint64(), "UInt64"),
            ]
        ),
        (pa.int64(), [2**62 + 1, None], "Int64"),
        (pa.bool_(), [True, None], "boolean"),
        (pa.string(), ["NA", None], "string"),
        (pa.large_string(), ["", None], "string"),
        (pa.decimal128(12, 2), [Decimal("-0.10"), None], "object"),
        (pa.date32(), [dt.date(2020, 10, 31), None], "object"),
        (pa.timestamp("us"), [dt.datetime(2009, 1, 1, 0, 0, 0, 1), None], "datetime64[us]"),  # noqa: DTZ001
        (pa.float64(), [-73.99, None], "float64"),
    ],
)
def test_columns_with_nulls_keep_their_type(arrow: Any, values: list[Any], dtype: str) -> None:
    column = to_frame(pa.table({"x": pa.array(values, arrow)}))["x"]
    assert str(column.dtype) == dtype
    assert column[0] == values[0]
    assert pd.isna(column[1])


def test_money_stays_exact() -> None:
    money = to_frame(pa.table({"x": pa.array([Decimal("0.10")] * 3, pa.decimal128(12, 2))}))["x"]
    assert sum(money) == Decimal("0.30")
    assert isinstance(money[0], Decimal)


def test_an_empty_table_keeps_its_types() -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.bool_()), ("d", pa.timestamp("us"))])
    dtypes = to_frame(schema.empty_table()).dtypes
    assert [str(dtype) for dtype in dtypes] == ["Int64", "string", "boolean", "datetime64[us]"]
