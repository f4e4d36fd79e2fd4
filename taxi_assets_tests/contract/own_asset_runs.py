"""An own asset whose rows have versions, and runs of it in other processes, which can be killed."""

import datetime as dt
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import dagster as dg
import pyarrow as pa

from taxi_assets.storage.lake.base_lake import Lake
from taxi_assets.storage.warehouse.base_warehouse import Warehouse
from taxi_assets.storage.warehouse.duckdb import connections
from taxi_assets_tests.contract.own_assets import PARTITIONS, Platform
from taxi_assets_tests.faults.crash_points import report_crash_points
from taxi_assets_tests.pipeline_harness import failure_messages

_ROWS = 200


@dataclass(frozen=True)
class OwnStore:
    """An IO manager on one store. Can be pickled."""

    manager: str
    kind: str
    open_lake: Callable[[], Lake]
    open_warehouse: Callable[..., Warehouse]
    home: Path
    """The folder that contains everything that processes of this machine store."""
    crash_points: str | None
    """The crash points of `faults/crash_points.py` that processes report; None for Google's test doubles."""

    @contextmanager
    def platform(self) -> Iterator[Platform]:
        """Open the store with a new Dagster instance."""
        with dg.DagsterInstance.ephemeral() as instance:
            yield Platform(self.open_lake(), self.open_warehouse(), instance)

    def asset(self, name: str, version: int, *, partitioned: bool) -> dg.AssetsDefinition:
        """Return an asset that returns the rows of a version, by month or as a whole."""
        if partitioned:

            @dg.asset(
                key=["mine", name],
                partitions_def=PARTITIONS,
                io_manager_key=self.manager,
                metadata={"partition_expr": "month"},
            )
            def by_month(context: dg.AssetExecutionContext) -> pa.Table:
                return rows_of_version(version, context.partition_key)

            return by_month

        @dg.asset(key=["mine", name], io_manager_key=self.manager)
        def whole() -> pa.Table:
            return rows_of_version(version)

        return whole

    def store(self, name: str, version: int, month: str | None = None) -> None:
        """Materialize a version in this process; the run must succeed."""
        with self.platform() as platform:
            platform.store(self.asset(name, version, partitioned=month is not None), month)

    def find_version(self, name: str, month: str | None = None) -> int | None:
        """Return the version that a reader sees; None if it gets the error that the rows are missing.

        Fails if the rows are a mixture, are incomplete, or are there twice.
        """
        with self.platform() as platform:
            try:
                found = platform.load(self.asset(name, 0, partitioned=month is not None), month, pa.Table)
            except dg.Failure as error:
                if re.search(r"does not (exist|contain)", str(error.description)):
                    return None
                raise
        return version_of(found, month)


def rows_of_version(version: int, month: str = "2020-10") -> pa.Table:
    """Return the rows of a version: their number, their values and their columns differ from other versions."""
    rows = _ROWS + version
    return pa.table(
        {
            "month": pa.array([dt.date.fromisoformat(f"{month}-01")] * rows),
            "version": [version] * rows,
            "number": range(rows),
            "place": [f"Größe {number}" for number in range(rows)],
            f"only_in_{version}": [version / 2] * rows,
        }
    )


def version_of(found: pa.Table, month: str | None = None) -> int:
    """Return the version of rows that a reader got; fail if they are not exactly the rows of one version."""
    rows = [{name: value for name, value in row.items() if value is not None} for row in found.to_pylist()]
    assert rows, "no rows"
    version = int(rows[0]["version"])
    assert sorted(rows, key=lambda row: row["number"]) == rows_of_version(version, month or "2020-10").to_pylist()
    return version


@dataclass(frozen=True)
class Run:
    """A run of an asset in another process."""

    store: OwnStore
    name: str
    version: int
    month: str | None
    dies_at: int | None = None
    """The number of the crash point at which the process kills itself."""
    waits_for_start: bool = False
    """Whether the process sends a message when it is ready, and waits for one before it starts the run."""
    rounds: int = 1
    """The number of runs, each of the same version."""


@dataclass(frozen=True)
class Outcome:
    """The end of a run in another process that has not been killed."""

    failures: list[str]
    crash_points: list[str]


def run_in_child(run: Run, pipe: Connection) -> None:
    """Run an asset in this process; send an `Outcome`."""
    temporary = run.store.home / "tmp"
    temporary.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = str(temporary)
    tempfile.tempdir = None  # read TMPDIR again
    reached: list[str] = []

    def on_reached(name: str) -> None:
        reached.append(name)
        if len(reached) - 1 == run.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with run.store.platform() as platform:
        asset = run.store.asset(run.name, run.version, partitioned=run.month is not None)
        if run.waits_for_start:
            pipe.send("ready")
            pipe.recv()
        failures: list[str] = []
        for _ in range(run.rounds):
            if run.store.crash_points is None:
                result = platform.run(asset, run.month)
            else:
                with report_crash_points(run.store.crash_points, run.store.home, on_reached):
                    result = platform.run(asset, run.month)
            failures += failure_messages(result)
            assert result.success or failures
    connections.close_idle()
    pipe.send(Outcome(failures, reached))
