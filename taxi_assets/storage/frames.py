"""pandas frames with the types that were meant: integers stay integers where values are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping

_NULLABLE: Mapping[Any, Any] = {
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype(),
}


def to_frame(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as a frame: nullable integers, booleans and strings; money as exact `Decimal`."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_NULLABLE.get)
    return frame
