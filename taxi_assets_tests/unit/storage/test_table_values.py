"""The conversion of values that assets return to rows of a table."""

from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pytest

from taxi_assets.storage.table_values import open_rows


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (["1.5", "-0.25"], pa.decimal128(38, 9)),
        (["123456789012345678901234567890.5"], pa.decimal128(31, 1)),  # too large for nine places
        (["0.0123456789"], pa.decimal128(10, 10)),
    ],
)
def test_decimal_objects_are_stored_exactly(values: list[str], type_: pa.DataType) -> None:
    decimals = [Decimal(value) for value in values]
    rows = open_rows(pd.DataFrame({"amount": decimals}), "mine/amounts")
    stored = pa.Table.from_batches(rows.batches, rows.schema)
    assert stored.schema.field("amount").type == type_
    assert stored["amount"].to_pylist() == decimals
