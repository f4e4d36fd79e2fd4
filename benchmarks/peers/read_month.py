"""A read of a loaded month into a frame, by `load_asset_value` or in another way.

The second call in a process is measured, because the first one imports packages. `python objects` converts the same
rows to decimals and texts that are Python objects, as pandas does by default.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.parquet

from benchmarks.measure import measure_here
from taxi_assets.build import build_definitions
from taxi_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

_MONTH, _TABLE = "2021-01", "yellow_trips"


def main(method: str, folder: Path) -> None:
    """Measure one way to read the month in a folder with `lake` and `warehouse.duckdb`."""
    file = folder / "lake" / "clean" / _TABLE / f"{_MONTH}.parquet"
    settings = Settings(lake=str(folder / "lake"), warehouse=f"duckdb:///{folder}/warehouse.duckdb")  # type: ignore[arg-type]  # read by its validators
    definitions = build_definitions(settings)
    ways: dict[str, Callable[[], object]] = {
        "warehouse": lambda: definitions.load_asset_value(f"warehouse/{_TABLE}", partition_key=_MONTH),
        "clean": lambda: definitions.load_asset_value(f"clean/{_TABLE}", partition_key=_MONTH),
        "objects": lambda: pyarrow.parquet.read_table(file).to_pandas(),
        "polars": lambda: pl.read_parquet(file),
    }
    ways[method]()
    measure_here(ways[method])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
