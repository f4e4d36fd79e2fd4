"""A clean month, rewritten with the encodings and pages of version 0.1. It shows how many bytes PLAIN costs.

Times and row numbers use DELTA_BINARY_PACKED, and pages have 20,000 rows. Only the file size is meaningful.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet

from benchmarks.measure import measure_here

_DELTA_COLUMNS = ("pickup_datetime", "dropoff_datetime", "source_row")
_ROW_GROUP = 131_072


def work(source: Path, target: Path) -> None:
    """Read the whole file, then write it with the earlier encodings."""
    table = pyarrow.parquet.read_table(source)
    pyarrow.parquet.write_table(
        table,
        target,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in table.column_names if name not in _DELTA_COLUMNS],
        column_encoding=dict.fromkeys(_DELTA_COLUMNS, "DELTA_BINARY_PACKED"),
        store_decimal_as_integer=True,
        write_statistics=[*_DELTA_COLUMNS, "pickup_date", "data_month"],
    )


if __name__ == "__main__":
    SOURCE, TARGET = map(Path, sys.argv[1:])
    measure_here(lambda: work(SOURCE, TARGET), written=[TARGET])
