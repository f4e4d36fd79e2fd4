"""Deployments on each kind of store, with readers that do not use the code of this package.

Every layer of a deployment has one version of a month; the publisher can publish the other one. Readers use the clients
of the engines. Google's services are test doubles (`taxi_assets_tests/google/`).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copy
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow.parquet
import tenacity

from taxi_assets.marts.mart import marts
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.stores.postgres import Server, connect, database
from taxi_assets_tests.faults.child_runs import ChildRun, Outcome, Plan
from taxi_assets_tests.faults.conftest import FILE, MONTH, SERVICE
from taxi_assets_tests.google.bigquery import BigQuery
from taxi_assets_tests.google.cloud_storage import CloudStorage
from taxi_assets_tests.google.service_account import ServiceAccount
from taxi_assets_tests.pipeline_harness import Deployment, StoredMonth, build_stored_month

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pytest

    from taxi_assets_tests.faults.conftest import Republished

_COLUMNS = ", ".join([*(column.name for column in GREEN.columns if column.name != "source_row"), "source_row"])
_TRIPS = f"SELECT {_COLUMNS} FROM taxi.green_trips WHERE data_month = DATE '{{}}-01' ORDER BY source_row"
# Without rows of months that are being replaced: only BigQuery's ledger has such rows.
_LEDGER = "SELECT data_version, row_count FROM taxi.{} WHERE data_month = DATE '{}-01' AND data_version IS NOT NULL"
_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'taxi'"

# The page shows the time of the download, which differs between runs.
_FETCH_TIME = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC")

_DIGEST = re.compile(r"(?<=/)[0-9a-f]{12}(?=\.)")
"""The name of a revision in the folder of its month."""

KINDS = ["duckdb", "duckdb_views", "postgres", "google"]

Rows = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class DerivedData:
    """Data computed from the trips: rows of marts and of the quality table, digests of report files."""

    marts: Mapping[str, Rows]
    quality: Rows
    report: Mapping[str, str]
    copies: Mapping[str, Rows]
    """The rows of marts and of the quality table in the lake."""


@dataclass(frozen=True)
class ObservedDeployment:
    """A deployment, and independent readers of its stores."""

    deployment: Deployment
    versions: Republished
    environment: Mapping[str, str]
    """Environment variables for a run."""
    query_idle: Callable[[Sequence[str]], list[Rows]]
    """Return the rows of queries, in one transaction, while no run is writing."""
    query_during_writes: Callable[[Sequence[str]], list[Rows]]
    """Return the rows of queries while runs are writing, as any client of the engine sees them."""
    objects: Callable[[], Mapping[str, bytes]]
    """Return all objects in the lake, by key."""
    ledger: str = "loaded_months"
    google: tuple[CloudStorage, BigQuery] | None = None

    def publish(self, content: bytes) -> None:
        """Publish this version. Its file time depends on its size, so that a version always has the same ETag."""
        file = Path(self.deployment.source, FILE)
        file.write_bytes(content)
        os.utime(file, (len(content), len(content)))

    def start(self, job: str = SERVICE, month: str | None = MONTH, **plan: Any) -> ChildRun:
        """Start a run of a job in a child process."""
        return ChildRun(self.deployment, job, month, Plan(environment=self.environment, **plan))

    def run(self, job: str = SERVICE, month: str | None = MONTH, **plan: Any) -> Outcome:
        """Run a job, which must succeed."""
        outcome = self.start(job, month, **plan).wait()
        assert outcome.succeeded, outcome
        return outcome

    def read_layers(self, month: str = MONTH) -> StoredMonth:
        """Read every layer of a month completely."""
        objects, (tables,) = self.objects(), self.query_idle([_TABLES])
        existing = {name for (name,) in tables}
        trips, ledger_rows = (
            self.query_idle(_trips_queries(self.ledger, month)) if "green_trips" in existing else ((), ())
        )
        return build_stored_month(
            objects.get,
            f"{SERVICE}_trips/{month}",
            trips,
            ledger_rows[0] if len(ledger_rows) == 1 else ledger_rows or None,
        )

    def read_during_writes(self, month: str = MONTH) -> list[Rows]:
        """Read the trips of a month and its ledger rows while runs are writing."""
        return self.query_during_writes(_trips_queries(self.ledger, month))

    def read_derived(self) -> DerivedData:
        """Read all rows of marts and quality, and all files of reports."""
        names = [*marts()]
        month = f"WHERE data_month = DATE '{MONTH}-01'"
        *mart_rows, quality = self.query_idle(
            [*(f"SELECT * FROM taxi.{name} {month}" for name in names), "SELECT * FROM taxi.month_quality"]
        )
        report = {
            key: hashlib.sha256(_FETCH_TIME.sub(b"", content)).hexdigest()
            for key, content in self.objects().items()
            if key.startswith("reports/")
        }
        unordered = {name: tuple(sorted(rows, key=repr)) for name, rows in zip(names, mart_rows, strict=True)}
        return DerivedData(unordered, tuple(sorted(quality, key=repr)), report, self.read_copies())

    def read_copies(self) -> dict[str, Rows]:
        """Read the rows of marts and of the quality table that are in the lake."""
        keys = {name: f"marts/{name}/{MONTH}.parquet" for name in marts()}
        keys["month_quality"] = "quality/month_quality.parquet"
        objects = self.objects()
        return {
            name: tuple(sorted((tuple(row.values()) for row in _parquet_rows(objects[key])), key=repr))
            for name, key in keys.items()
            if key in objects
        }

    def inventory(self) -> set[str]:
        """Return the names of all objects, tables and files. A successful run leaves no other ones.

        Revisions are numbered, because their names depend on which version is the present one.
        """
        (tables,) = self.query_idle([_TABLES])
        home = self.deployment.home
        files = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
        folders = {str(path) for path in home.rglob(".staging/*")}
        names = {f"table {name}" for (name,) in tables} | {f"object {key}" for key in self.objects()} | files | folders
        kinds = Counter(_DIGEST.sub("<digest>", name) for name in names)
        return {f"{name} {number}" for name, count in kinds.items() for number in range(count)}


def _parquet_rows(content: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
    return rows


def _trips_queries(ledger: str, month: str) -> list[str]:
    return [_TRIPS.format(month), _LEDGER.format(ledger, month)]


@contextmanager
def observed_deployment(
    kind: str, folder: Path, versions: Republished, request: pytest.FixtureRequest
) -> Iterator[ObservedDeployment]:
    """Create an empty deployment on a kind of store."""
    with ExitStack() as stack:
        match kind:
            case "duckdb" | "duckdb_views":
                observed = observed_on_duckdb(folder, versions, options="?trips=views" if kind != "duckdb" else "")
            case "postgres":
                observed = observed_on_postgres(folder, versions, request.getfixturevalue("postgres_server"))
            case _:
                observed = observed_on_google(folder, versions)
        yield stack.enter_context(observed)


@contextmanager
def observed_on_duckdb(folder: Path, versions: Republished, *, options: str = "") -> Iterator[ObservedDeployment]:
    """Create a deployment with a lake in a folder and a DuckDB file."""
    address = {"warehouse_address": f"duckdb:///{folder / 'home' / 'warehouse.duckdb'}{options}"} if options else {}
    deployment = _deployment(folder, **address)

    def select(queries: Sequence[str]) -> list[Rows]:
        with tempfile.TemporaryDirectory() as copies:
            # Read a copy, because opening the original would replay its write-ahead log.
            for path in (deployment.warehouse, deployment.warehouse.with_name(f"{deployment.warehouse.name}.wal")):
                if path.exists():
                    copy(path, copies)
            with duckdb.connect(str(Path(copies) / deployment.warehouse.name)) as connection:
                return [tuple(connection.execute(query).fetchall()) for query in queries]

    @tenacity.retry(retry=tenacity.retry_if_exception_type(duckdb.IOException), stop=tenacity.stop_after_delay(300))
    def query(queries: Sequence[str]) -> list[Rows]:
        with duckdb.connect(str(deployment.warehouse), read_only=True) as connection:
            return [tuple(connection.execute(query).fetchall()) for query in queries]

    yield ObservedDeployment(deployment, versions, {}, select, query, _files_of(deployment))


@contextmanager
def observed_on_postgres(folder: Path, versions: Republished, server: Server) -> Iterator[ObservedDeployment]:
    """Create a deployment with a lake in a folder and a new database on a server."""
    with database(server) as url:
        deployment = _deployment(folder, warehouse_address=url)

        def select(queries: Sequence[str]) -> list[Rows]:
            found: list[Rows] = []
            with connect(url) as connection, connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '300s'")
                cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                for query in queries:
                    cursor.execute(query)
                    found.append(tuple(cursor.fetchall()))
            return found

        yield ObservedDeployment(deployment, versions, {}, select, select, _files_of(deployment))


@contextmanager
def observed_on_google(folder: Path, versions: Republished) -> Iterator[ObservedDeployment]:
    """Create a deployment on test doubles of Cloud Storage and BigQuery."""
    with ExitStack() as stack:
        account = stack.enter_context(ServiceAccount())
        storage = stack.enter_context(CloudStorage(versioning=True, location="EU"))
        bigquery = stack.enter_context(BigQuery(storage_endpoint=storage.endpoint))
        temporary = folder / "home" / "tmp"
        temporary.mkdir(parents=True)
        environment = {
            **storage.environment,
            **bigquery.environment,
            "TAXI_GOOGLE_CREDENTIALS": account.base64,
            "TAXI_RETRY_DELAY_SECONDS": "0",
            "TMPDIR": str(temporary),
        }
        deployment = _deployment(
            folder,
            lake_address=f"gs://{storage.bucket}/nyc",
            warehouse_address=f"bigquery://{bigquery.project}/taxi?location=EU",
        )

        def objects() -> dict[str, bytes]:
            return {key.removeprefix("nyc/"): storage.object(key) for key in storage.objects()}

        def select(queries: Sequence[str]) -> list[Rows]:
            return [tuple(bigquery.sql(query)) for query in queries]

        yield ObservedDeployment(
            deployment,
            versions,
            environment,
            select,
            select,
            objects,
            ledger="green_trips_loads",
            google=(storage, bigquery),
        )


def _deployment(folder: Path, **addresses: str) -> Deployment:
    (folder / "published").mkdir(parents=True)
    (folder / "home").mkdir(exist_ok=True)
    return Deployment(folder / "home", str(folder / "published"), **addresses)


def _files_of(deployment: Deployment) -> Callable[[], Mapping[str, bytes]]:
    def objects() -> dict[str, bytes]:
        return {
            str(path.relative_to(deployment.lake)): path.read_bytes()
            for path in deployment.lake.rglob("*")
            if path.is_file() and not path.is_relative_to(deployment.lake / ".staging")
        }

    return objects
