"""The whole chain of a service for a month: running it, and looking at what then stands on every shelf.

Belongs here: what tests of more than one module need. Shelves are read by pyarrow and DuckDB, not by the package's own
code, so that a mistake in the one cannot hide in the other. Does not belong here: ways to fail (`faults/`).
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pyarrow.parquet

from taxi_assets.build import TaxiDefinitions, build_definitions
from taxi_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Deployment:
    """A lake and a warehouse in a folder of their own, or elsewhere, and who publishes (as in TAXI_SOURCE)."""

    home: Path
    source: str
    lake_address: str | None = None
    """As in TAXI_LAKE; None: a folder of `home`."""
    warehouse_address: str | None = None
    """As in TAXI_WAREHOUSE; None: a DuckDB file in `home`."""

    @property
    def lake(self) -> Path:
        return self.home / "lake"

    @property
    def warehouse(self) -> Path:
        return self.home / "warehouse.duckdb"

    @lru_cache(maxsize=4)  # noqa: B019  (few; a code location keeps its definitions as well)
    def definitions(self) -> TaxiDefinitions:
        """With the environment of the first call."""
        return build_definitions(
            Settings(
                lake=self.lake_address or str(self.lake),  # type: ignore[arg-type]  # read by its validators
                warehouse=self.warehouse_address or f"duckdb:///{self.warehouse}",  # type: ignore[arg-type]
                source=self.source,
            )
        )

    def copy_to(self, home: Path) -> Deployment:
        """The same, elsewhere: times and all."""
        if self.home.exists():
            shutil.copytree(self.home, home, dirs_exist_ok=True)
        return Deployment(home, self.source)

    def run(
        self,
        service: str,
        month: str | None,
        *,
        instance: dg.DagsterInstance | None = None,
        only: Sequence[str] = (),
        rules: Sequence[str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run a month of a service's job, or of another by name; `only` these assets, with these rules, if given.

        None for a job that has no months.
        """
        cleaning = {} if rules is None else {"ops": {f"clean_{service}": {"config": {"rules": list(rules)}}}}
        with nullcontext(instance) if instance else dg.DagsterInstance.ephemeral() as used:
            return (
                self.definitions()
                .resolve_job_def(service)
                .execute_in_process(
                    instance=used,
                    partition_key=month,
                    asset_selection=[dg.AssetKey.from_user_string(key) for key in only] or None,
                    run_config=_QUIET | cleaning,
                    raise_on_error=False,
                )
            )

    def report(self, service: str, month: str) -> dg.ExecuteInProcessResult:
        """Run the job that draws a service's month, in this process."""
        return self.run(f"{service}_report", month)

    def check(self, service: str, month: str) -> dict[str, bool]:
        """Run the checks of a service's month alone, without any asset: which of them passed."""
        keys = [dg.AssetKey([layer, f"{service}_trips"]) for layer in ("clean", "warehouse")]
        job = dg.define_asset_job("look", dg.AssetSelection.checks_for_assets(*keys))
        with dg.DagsterInstance.ephemeral() as instance:
            result = (
                dg.Definitions.merge(self.definitions(), dg.Definitions(jobs=[job]))
                .resolve_job_def("look")
                .execute_in_process(
                    instance=instance, tags={"dagster/partition": month}, run_config=_QUIET, raise_on_error=False
                )
            )
        return checks(result)


# --- what a run said --------------------------------------------------------------------------------------------------


def failures(result: dg.ExecuteInProcessResult) -> list[str]:
    """What every failed step said, one text a step."""
    texts = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            message = data.user_failure_data and data.user_failure_data.description
            texts.append(message or (data.error.to_string() if data.error else ""))
    return texts


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Which checks passed."""
    return {check.check_name: check.passed for check in result.get_asset_check_evaluations()}


def materializations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    """By asset."""
    events = [event.materialization for event in result.all_events if event.is_step_materialization]
    return {event.asset_key.to_user_string(): event for event in events}


def data_versions(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """By asset."""
    return {key: (event.tags or {})["dagster/data_version"] for key, event in materializations(result).items()}


def message(result: dg.ExecuteInProcessResult, asset: str, name: str) -> Any:
    """A piece of metadata of an asset's materialization."""
    return materializations(result)[asset].metadata[name].value


# --- what stands where ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Half:
    """A Parquet object: its bytes, rows, and what its footer says of the pair it belongs to."""

    sha256: str
    rows: int
    pair: str
    raw_sha256: str
    source_rows: tuple[int, ...]


@dataclass(frozen=True)
class Shelves:
    """All that is held of a month. None, or nothing, where a shelf does not hold it."""

    raw: Mapping[str, str]
    """Digests of the published file, by its ending: one, unless something went wrong."""
    record: Mapping[str, Any] | None
    """What is known of it; without the time."""
    quarantine: Half | None
    clean: Half | None
    warehouse: tuple[tuple[Any, ...], ...]
    loaded: tuple[Any, ...] | None
    """The data version, and the rows, that the warehouse says it holds."""

    @property
    def agree(self) -> bool:
        """Whether every shelf holds the same version, with no row lost."""
        if self.record is None or self.clean is None or self.quarantine is None:
            return False
        pair = (self.record["sha256"], self.clean.pair)
        rows = sorted((*self.clean.source_rows, *self.quarantine.source_rows))
        return (
            self.raw == {self.record["format"]: self.record["sha256"]}
            and pair == (self.clean.raw_sha256, self.clean.pair) == (self.quarantine.raw_sha256, self.quarantine.pair)
            and rows == list(range(1, self.record["rows"] + 1))
            and sorted(row[-1] for row in self.warehouse) == sorted(self.clean.source_rows)
            and self.loaded == (self.clean.pair, self.clean.rows)
        )


def look(deployment: Deployment, service: str, month: str) -> Shelves:
    """Read everything of a month, to its last row; raises where an object is not whole. Changes nothing."""

    def read(key: str) -> bytes | None:
        path = deployment.lake / key
        return path.read_bytes() if path.exists() else None

    rows, loaded = _look_into_warehouse(deployment.warehouse, f"{service}_trips", f"{month}-01")
    return shelves_of(read, f"{service}_trips/{month}", rows, loaded)


def shelves_of(
    read: Callable[[str], bytes | None],
    prefix: str,
    warehouse: tuple[tuple[Any, ...], ...],
    loaded: tuple[Any, ...] | None,
) -> Shelves:
    """The same of any lake, whose objects `read` gives by key, and of what a warehouse was found to hold."""
    raw = {
        ending: hashlib.sha256(content).hexdigest()
        for ending in ("csv.gz", "csv", "parquet")
        if (content := read(f"raw/{prefix}.{ending}")) is not None
    }
    record = read(f"raw/{prefix}.source.json")
    known = None if record is None else json.loads(record)
    return Shelves(
        raw=raw,
        record=known and {name: value for name, value in known.items() if name != "fetched_at"},
        quarantine=_half(read(f"quarantine/{prefix}.parquet")),
        clean=_half(read(f"clean/{prefix}.parquet")),
        warehouse=warehouse,
        loaded=loaded,
    )


def _half(content: bytes | None) -> Half | None:
    if content is None:
        return None
    with pyarrow.parquet.ParquetFile(io.BytesIO(content)) as file:
        table = file.read()
        report = json.loads(file.metadata.metadata[b"taxi_assets"])
    digest = hashlib.sha256(content).hexdigest()
    source_rows = tuple(table.column("source_row").to_pylist())
    return Half(digest, table.num_rows, report["data_version"], report["raw_sha256"], source_rows)


def _look_into_warehouse(
    file: Path, table: str, month: str
) -> tuple[tuple[tuple[Any, ...], ...], tuple[Any, ...] | None]:
    """The month's rows, `source_row` last, and the month's line in `loaded_months`."""
    with tempfile.TemporaryDirectory() as folder:
        # A copy: opening the file itself would already heal it.
        for path in (file, file.with_name(f"{file.name}.wal")):
            if path.exists():
                shutil.copy(path, folder)
        with duckdb.connect(str(Path(folder) / file.name)) as connection:
            tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
            if table not in tables:
                return (), None
            rows = connection.execute(
                f"SELECT * EXCLUDE (source_row), source_row FROM taxi.{table} WHERE data_month = ? ORDER BY source_row",
                [month],
            ).fetchall()
            loaded = connection.execute(
                "SELECT data_version, row_count FROM taxi.loaded_months WHERE table_name = ? AND data_month = ?",
                [table, month],
            ).fetchall()
    return tuple(rows), (tuple(loaded[0]) if len(loaded) == 1 else tuple(loaded) or None)


def leftovers(deployment: Deployment) -> list[str]:
    """Files and folders of the lake that are no object on a shelf, and what DuckDB has not tidied away."""
    strays = list((deployment.lake / ".staging").rglob("*"))
    for path in deployment.lake.rglob("*"):
        layer, *_ = path.relative_to(deployment.lake).parts
        if path.is_file() and layer not in {"raw", "clean", "quarantine", "reference", ".staging"}:
            strays.append(path)
    strays += [path for path in deployment.home.glob("*") if path not in {deployment.lake, deployment.warehouse}]
    return sorted(str(path.relative_to(deployment.home)) for path in strays)


def footprints(deployment: Deployment) -> dict[str, tuple[int, int, str]]:
    """Inode, time and digest of every object and of the warehouse's file: equal as long as nothing is written."""
    files = [path for path in deployment.home.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(deployment.home)): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in files
    }
