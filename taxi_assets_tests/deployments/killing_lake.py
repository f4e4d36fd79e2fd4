"""Definitions with a lake that ends its own process by force: a double for a machine that runs out of memory.

It does so whenever green 2023-02 is cleaned; of green 2023-01 the first time only, as for one that was beside it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from taxi_assets.build import build_definitions, build_lake
from taxi_assets.settings import Settings
from taxi_assets.storage.lake.local_lake import LocalLake

ALWAYS_KILLED, KILLED_ONCE = "2023-02", "2023-01"


class KillingLake(LocalLake):
    def publish(self, file: Path, key: str, *, replaces: str | None, run_id: str) -> None:
        been_here = Path(self.folder, "been-here")
        first = not been_here.exists()
        if key == f"clean/green_trips/{ALWAYS_KILLED}.parquet" or (
            key == f"clean/green_trips/{KILLED_ONCE}.parquet" and first
        ):
            been_here.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().publish(file, key, replaces=replaces, run_id=run_id)


settings = Settings.from_env()
defs = build_definitions(
    settings, resources={"lake": KillingLake(folder=build_lake(settings).uri("raw").removesuffix("/raw"))}
)
