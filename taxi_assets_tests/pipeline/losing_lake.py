"""Definitions with a lake that loses a row, to simulate a disk fault.

The lake stores the quarantine of green 2023-02 without its first row, but with the original footer. Cleaning has
verified the file before, so only the blocking check after it can find the loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.parquet

from taxi_assets.build import build_definitions, build_lake
from taxi_assets.settings import Settings
from taxi_assets.storage.lake.local_lake import LocalLake

if TYPE_CHECKING:
    from pathlib import Path

MONTH = "2023-02"


class LosingLake(LocalLake):
    def publish(self, file: Path, key: str, *, replaces: str | None, run_id: str) -> None:
        if key == f"quarantine/green_trips/{MONTH}.parquet":
            table = pyarrow.parquet.read_table(file)
            footer = pyarrow.parquet.read_metadata(file).metadata
            pyarrow.parquet.write_table(table.slice(1).replace_schema_metadata(footer), file)
        super().publish(file, key, replaces=replaces, run_id=run_id)


settings = Settings.from_env()
defs = build_definitions(
    settings, resources={"lake": LosingLake(folder=build_lake(settings).uri("raw").removesuffix("/raw"))}
)
