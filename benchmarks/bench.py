"""Folders and input files for measurements."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import REPOSITORY, Measurement, measure
from benchmarks.months import MONTH, Months, row_count, source_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Bench:
    """Input files, and a temporary folder that is deleted at the end."""

    months: Months
    folder: Path
    _prepared: dict[str, Path] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def in_folder(cls, folder: Path, scale: float) -> Iterator[Bench]:
        """Create a bench with its temporary folder on the disk of the input files."""
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as name:
            yield cls(Months(folder, scale), Path(name))

    @contextmanager
    def temporary_folder(self) -> Iterator[Path]:
        """Yield an empty folder for one measurement."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            yield Path(name)

    def prepared_folder(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return a folder that all rounds share; `make` fills it on the first call."""
        if name not in self._prepared:
            folder = self.folder / name
            folder.mkdir(parents=True)
            make(folder)
            self._prepared[name] = folder
        return self._prepared[name]


def write_source_record(source: Path, folder: Path) -> None:
    """Write the record that a download would have written next to the file."""
    (folder / "record.json").write_text(source_record(source, row_count(source)).model_dump_json())


def deployment_environment(bench: Bench, home: Path, source: Path) -> dict[str, str]:
    """Return the environment of a deployment in a folder. Its Dagster instance exists, so that no run creates it."""
    dagster = home / "dagster"
    if not dagster.exists():
        shutil.copytree(bench.prepared_folder("instance", _make_instance), dagster)
    return {
        "DAGSTER_HOME": str(dagster),
        "TAXI_SOURCE": str(source),
        "TAXI_LAKE": str(home / "lake"),
        "TAXI_WAREHOUSE": f"duckdb:///{home / 'warehouse.duckdb'}",
    }


def _make_instance(folder: Path) -> None:
    shutil.copy(REPOSITORY / "dagster.yaml", folder)
    code = "import dagster as dg; i = dg.DagsterInstance.get(); i.get_runs(limit=1); i.get_latest_materialization_event"
    asset = "(dg.AssetKey('any')); i.all_instigator_state(); i.dispose()"
    measure(["-c", code + asset], environment={"DAGSTER_HOME": str(folder)})


def materialize(bench: Bench, home: Path, source: Path, selection: str, *, partition: str = str(MONTH)) -> Measurement:
    """Measure `dagster asset materialize`, including its start."""
    command = ["-m", "dagster", "asset", "materialize", "-m", "taxi_assets.definitions", "--select", selection]
    if partition:
        command += ["--partition", partition]
    written = [home / "lake", home / "warehouse.duckdb"]
    return measure(command, environment=deployment_environment(bench, home, source), written=written)
