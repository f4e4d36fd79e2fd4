"""Run the jobs of a deployment for a month, and read what every layer stores afterwards.

Layers are read with pyarrow and DuckDB, not with the package's own code, so that a bug in the package cannot go
unnoticed. Fault injection is in `faults/`.
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
    """The lake, the warehouse and the source of a deployment."""

    home: Path
    """The folder of the lake and the warehouse, unless their addresses are given."""
    source: str
    """A value of TAXI_SOURCE."""
    lake_address: str | None = None
    """A value of TAXI_LAKE; None means a folder in `home`."""
    warehouse_address: str | None = None
    """A value of TAXI_WAREHOUSE; None means a DuckDB file in `home`."""

    @property
    def lake(self) -> Path:
        return self.home / "lake"

    @property
    def warehouse(self) -> Path:
        return self.home / "warehouse.duckdb"

    @lru_cache(maxsize=4)  # noqa: B019  (there are few deployments)
    def definitions(self) -> TaxiDefinitions:
        """Return the definitions, built once with the environment of the first call."""
        return build_definitions(
            Settings(
                lake=self.lake_address or str(self.lake),  # type: ignore[arg-type]  # read by its validators
                warehouse=self.warehouse_address or f"duckdb:///{self.warehouse}",  # type: ignore[arg-type]
                source=self.source,
            )
        )

    def copy_to(self, home: Path) -> Deployment:
        """Copy all files, preserving modification times, and return the deployment of the copy."""
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
        cleaning: Mapping[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run a job in this process; errors of steps are not raised.

        Args:
            service: The name of a service, or of another job.
            month: The partition; None for a job without partitions.
            instance: The Dagster instance; a new one if not given.
            only: The keys of the assets to materialize; all assets of the job if empty.
            rules: The rules that cleaning applies; all rules of the service if not given.
            cleaning: Further run config of the cleaning step.
        """
        config = {**(cleaning or {}), **({} if rules is None else {"rules": list(rules)})}
        ops = {"ops": {f"clean_{service}": {"config": config}}} if config else {}
        with nullcontext(instance) if instance else dg.DagsterInstance.ephemeral() as used:
            return (
                self.definitions()
                .resolve_job_def(service)
                .execute_in_process(
                    instance=used,
                    partition_key=month,
                    asset_selection=[dg.AssetKey.from_user_string(key) for key in only] or None,
                    run_config=_QUIET | ops,
                    raise_on_error=False,
                )
            )

    def run_report(self, service: str, month: str) -> dg.ExecuteInProcessResult:
        """Run the report job of a service's month."""
        return self.run(f"{service}_report", month)

    def run_checks(self, service: str, month: str) -> dict[str, bool]:
        """Run only the checks of a service's month, without its assets, and return whether each passed, by name."""
        keys = [dg.AssetKey([layer, f"{service}_trips"]) for layer in ("clean", "warehouse")]
        job = dg.define_asset_job("only_checks", dg.AssetSelection.checks_for_assets(*keys))
        with dg.DagsterInstance.ephemeral() as instance:
            result = (
                dg.Definitions.merge(self.definitions(), dg.Definitions(jobs=[job]))
                .resolve_job_def("only_checks")
                .execute_in_process(
                    instance=instance, tags={"dagster/partition": month}, run_config=_QUIET, raise_on_error=False
                )
            )
        return check_results(result)


# --- results of a run -------------------------------------------------------------------------------------------------


def failure_messages(result: dg.ExecuteInProcessResult) -> list[str]:
    """Return the error message of each failed step."""
    texts = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            message = data.user_failure_data and data.user_failure_data.description
            texts.append(message or (data.error.to_string() if data.error else ""))
    return texts


def check_results(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Return whether each check passed, by its name."""
    return {check.check_name: check.passed for check in result.get_asset_check_evaluations()}


def materializations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    """Return the materializations by asset."""
    events = [event.materialization for event in result.all_events if event.is_step_materialization]
    return {event.asset_key.to_user_string(): event for event in events}


def data_versions(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Return the data versions by asset."""
    return {key: (event.tags or {})["dagster/data_version"] for key, event in materializations(result).items()}


def metadata_value(result: dg.ExecuteInProcessResult, asset: str, name: str) -> Any:
    """Return one metadata value of an asset's materialization."""
    return materializations(result)[asset].metadata[name].value


# --- stored data ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParquetContent:
    """The content of a Parquet object of the lake, and the report in its footer."""

    sha256: str
    rows: int
    data_version: str
    """Identical in the clean and quarantine objects that one cleaning wrote."""
    raw_sha256: str
    source_rows: tuple[int, ...]


@dataclass(frozen=True)
class StoredMonth:
    """One month's data in every layer. A layer without the month is None or empty."""

    raw: Mapping[str, str]
    """SHA-256 digests of the raw files by extension. There is one file, unless something went wrong."""
    record: Mapping[str, Any] | None
    """The source record of the raw file, without the download time, and the inode and change time of a local file."""
    quarantine: ParquetContent | None
    clean: ParquetContent | None
    warehouse: tuple[tuple[Any, ...], ...]
    loaded: tuple[Any, ...] | None
    """The data version and the number of rows in the warehouse's ledger."""

    @property
    def is_consistent(self) -> bool:
        """Whether every layer stores the same version, without a lost row."""
        if self.record is None or self.clean is None or self.quarantine is None:
            return False
        clean, quarantine = self.clean, self.quarantine
        source_rows = sorted((*clean.source_rows, *quarantine.source_rows))
        return (
            self.raw == {self.record["format"]: self.record["sha256"]}
            and clean.raw_sha256 == quarantine.raw_sha256 == self.record["sha256"]
            and clean.data_version == quarantine.data_version
            and source_rows == list(range(1, self.record["rows"] + 1))
            and sorted(row[-1] for row in self.warehouse) == sorted(clean.source_rows)
            and self.loaded == (clean.data_version, clean.rows)
        )


def _comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a source record without the values that copies of a deployment do not share."""
    comparable = {name: value for name, value in record.items() if name != "fetched_at"}
    if record["url"].startswith("file:"):
        comparable["etag"] = "-".join(record["etag"].strip('"').split("-")[:2])
    return comparable


def read_stored_month(deployment: Deployment, service: str, month: str) -> StoredMonth:
    """Read a month from every layer without modifying anything.

    Raises an error if an object is incomplete.
    """

    def read(key: str) -> bytes | None:
        path = deployment.lake / key
        return path.read_bytes() if path.exists() else None

    rows, loaded = _read_warehouse(deployment.warehouse, f"{service}_trips", f"{month}-01")
    return build_stored_month(read, f"{service}_trips/{month}", rows, loaded)


def build_stored_month(
    read: Callable[[str], bytes | None],
    prefix: str,
    warehouse: tuple[tuple[Any, ...], ...],
    loaded: tuple[Any, ...] | None,
) -> StoredMonth:
    """Build the stored state of a month from any lake and warehouse.

    Args:
        read: Returns the bytes of a lake object by its key; None if there is no such object.
        prefix: The table and the month, such as "green_trips/2021-01".
        warehouse: The rows of the month, `source_row` last.
        loaded: The month's data version and number of rows in the warehouse's ledger.
    """
    raw = {
        extension: hashlib.sha256(content).hexdigest()
        for extension in ("csv.gz", "csv", "parquet", "zip")
        if (content := read(f"raw/{prefix}.{extension}")) is not None
    }
    record = read(f"raw/{prefix}.source.json")
    fields = None if record is None else json.loads(record)
    return StoredMonth(
        raw=raw,
        record=fields and _comparable(fields),
        quarantine=_parquet_content(read(f"quarantine/{prefix}.parquet")),
        clean=_parquet_content(read(f"clean/{prefix}.parquet")),
        warehouse=warehouse,
        loaded=loaded,
    )


def _parquet_content(content: bytes | None) -> ParquetContent | None:
    if content is None:
        return None
    with pyarrow.parquet.ParquetFile(io.BytesIO(content)) as file:
        table = file.read()
        report = json.loads(file.metadata.metadata[b"taxi_assets"])
    digest = hashlib.sha256(content).hexdigest()
    source_rows = tuple(table.column("source_row").to_pylist())
    return ParquetContent(digest, table.num_rows, report["data_version"], report["raw_sha256"], source_rows)


def _read_warehouse(file: Path, table: str, month: str) -> tuple[tuple[tuple[Any, ...], ...], tuple[Any, ...] | None]:
    """Return the month's rows, `source_row` last, and the month's row in `loaded_months`."""
    with tempfile.TemporaryDirectory() as folder:
        # Read a copy, because opening the file would replay its WAL and change it.
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


def stray_files(deployment: Deployment) -> list[str]:
    """Return files that should not remain after a run: in the lake outside its layers, or next to the warehouse."""
    strays = list((deployment.lake / ".staging").rglob("*"))
    for path in deployment.lake.rglob("*"):
        layer, *_ = path.relative_to(deployment.lake).parts
        if path.is_file() and layer not in {"raw", "clean", "quarantine", "reference", ".staging"}:
            strays.append(path)
    strays += [path for path in deployment.home.glob("*") if path not in {deployment.lake, deployment.warehouse}]
    return sorted(str(path.relative_to(deployment.home)) for path in strays)


def file_states(deployment: Deployment) -> dict[str, tuple[int, int, str]]:
    """Return inode, modification time (nanoseconds) and SHA-256 digest of every file, by path.

    A file that is not written again keeps all three.
    """
    files = [path for path in deployment.home.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(deployment.home)): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in files
    }
