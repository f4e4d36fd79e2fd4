"""Definitions with a lake that kills its own process, as a machine that runs out of memory would.

It kills every process that cleans green 2023-02. Of the processes that clean green 2023-01, it kills one at most: as if
it had run next to one that used up the memory.
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
    """A local lake that kills its process when certain months are published."""

    def publish(self, file: Path, key: str, *, replaces: str | None, run_id: str) -> None:
        marker = Path(self.folder, "has-killed")
        is_first = not marker.exists()
        if key == f"clean/green_trips/{ALWAYS_KILLED}.parquet" or (
            key == f"clean/green_trips/{KILLED_ONCE}.parquet" and is_first
        ):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().publish(file, key, replaces=replaces, run_id=run_id)


settings = Settings.from_env()
defs = build_definitions(
    settings, resources={"lake": KillingLake(folder=build_lake(settings).uri("raw").removesuffix("/raw"))}
)
