"""Where measuring takes place: the months, folders that are gone afterwards, and what is made once for all rounds."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import REPOSITORY, Figures, run
from benchmarks.months import MONTH, Months, record_of, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Bench:
    """See the module. `folder` is removed at the end; `months` are kept."""

    months: Months
    folder: Path
    _made: dict[str, Path] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def in_folder(cls, folder: Path, scale: float) -> Iterator[Bench]:
        """On the disk where the months are."""
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as name:
            yield cls(Months(folder, scale), Path(name))

    @contextmanager
    def place(self) -> Iterator[Path]:
        """An empty folder for one measurement."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            yield Path(name)

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """A folder that `make` fills, the first time that it is asked for."""
        if name not in self._made:
            folder = self.folder / name
            folder.mkdir(parents=True)
            make(folder)
            self._made[name] = folder
        return self._made[name]


def note_record(source: Path, folder: Path) -> None:
    """What a download would have left beside the file."""
    (folder / "record.json").write_text(record_of(source, rows_of(source)).model_dump_json())


def settings(bench: Bench, home: Path, source: Path) -> dict[str, str]:
    """The environment of a deployment in a folder. Its history exists already: making one is no part of a run."""
    dagster = home / "dagster"
    if not dagster.exists():
        shutil.copytree(bench.once("instance", _make_instance), dagster)
    return {
        "DAGSTER_HOME": str(dagster),
        "TAXI_SOURCE": str(source),
        "TAXI_LAKE": str(home / "lake"),
        "TAXI_WAREHOUSE": f"duckdb:///{home / 'warehouse.duckdb'}",
    }


def _make_instance(folder: Path) -> None:
    shutil.copy(REPOSITORY / "dagster.yaml", folder)
    look = "import dagster as dg; i = dg.DagsterInstance.get(); i.get_runs(limit=1); i.get_latest_materialization_event"
    asset = "(dg.AssetKey('any')); i.all_instigator_state(); i.dispose()"
    run(["-c", look + asset], environment={"DAGSTER_HOME": str(folder)})


def materialize(bench: Bench, home: Path, source: Path, selection: str, *, partition: str = str(MONTH)) -> Figures:
    """`dagster asset materialize`, with all that comes with it."""
    command = ["-m", "dagster", "asset", "materialize", "-m", "taxi_assets.definitions", "--select", selection]
    if partition:
        command += ["--partition", partition]
    written = [home / "lake", home / "warehouse.duckdb"]
    return run(command, environment=settings(bench, home, source), written=written)
