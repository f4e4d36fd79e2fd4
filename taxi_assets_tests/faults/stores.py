"""Where runs are killed: the kinds of lake and warehouse, and how to look at each from outside.

A place holds one version of a month on every shelf; its publisher can offer the other one. Looked at is with the
engines' own clients, not with the package's code. Google's services are doubles (`taxi_assets_tests/google/`).
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copy
from typing import TYPE_CHECKING, Any

import duckdb
import tenacity

from taxi_assets.marts.mart import marts
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.stores.postgres import Server, connect, database
from taxi_assets_tests.faults.children import Child, Outcome, Plan
from taxi_assets_tests.faults.conftest import FILE, MONTH, SERVICE
from taxi_assets_tests.google.bigquery import BigQuery
from taxi_assets_tests.google.cloud_storage import CloudStorage
from taxi_assets_tests.google.service_account import ServiceAccount
from taxi_assets_tests.pipeline_harness import Deployment, StoredMonth, stored_month_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pytest

    from taxi_assets_tests.faults.conftest import Republished

_COLUMNS = ", ".join([*(column.name for column in GREEN.columns if column.name != "source_row"), "source_row"])
_TRIPS = f"SELECT {_COLUMNS} FROM taxi.green_trips WHERE data_month = DATE '{{}}-01' ORDER BY source_row"
# Without what BigQuery's ledger says of a month that is being replaced.
_NOTED = "SELECT data_version, row_count FROM taxi.{} WHERE data_month = DATE '{}-01' AND data_version IS NOT NULL"
_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'taxi'"

# The page says when the file was fetched.
_FETCHED = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC")

KINDS = ["duckdb", "postgres", "google"]

Rows = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Derived:
    """What is made of the trips: rows of marts and of the table of quality, digests of the report's files."""

    marts: Mapping[str, Rows]
    quality: Rows
    report: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """A deployment, and how to look at it without it."""

    deployment: Deployment
    versions: Republished
    environment: Mapping[str, str]
    """What a run needs in its environment."""
    select: Callable[[Sequence[str]], list[Rows]]
    """The rows of queries, in one transaction, where nobody writes."""
    query: Callable[[Sequence[str]], list[Rows]]
    """The same beside others who write, as any client of the engine finds them."""
    objects: Callable[[], Mapping[str, bytes]]
    """Everything in the lake, by key."""
    ledger: str = "loaded_months"
    google: tuple[CloudStorage, BigQuery] | None = None

    def offer(self, content: bytes) -> None:
        """Publish this version, under a time of its own: so that the same version is known by the same ETag."""
        file = Path(self.deployment.source, FILE)
        file.write_bytes(content)
        os.utime(file, (len(content), len(content)))

    def start(self, job: str = SERVICE, month: str | None = MONTH, **plan: Any) -> Child:
        """Start a run of a job in a process of its own."""
        return Child(self.deployment, job, month, Plan(environment=self.environment, **plan))

    def run(self, job: str = SERVICE, month: str | None = MONTH, **plan: Any) -> Outcome:
        """Run a job to its end, which must be a good one."""
        outcome = self.start(job, month, **plan).end()
        assert outcome.succeeded, outcome
        return outcome

    def look(self, month: str = MONTH) -> StoredMonth:
        """Every shelf, to its last row."""
        objects, (tables,) = self.objects(), self.select([_TABLES])
        held = {name for (name,) in tables}
        trips, notes = self.select(_of_trips(self.ledger, month)) if "green_trips" in held else ((), ())
        return stored_month_from(
            objects.get, f"{SERVICE}_trips/{month}", trips, notes[0] if len(notes) == 1 else notes or None
        )

    def read(self, month: str = MONTH) -> list[Rows]:
        """The trips of a month, and what is noted of them, beside others who write."""
        return self.query(_of_trips(self.ledger, month))

    def look_at_derived(self) -> Derived:
        """Marts, quality, report: all rows and files."""
        names = [*marts()]
        month = f"WHERE data_month = DATE '{MONTH}-01'"
        *of_marts, quality = self.select(
            [*(f"SELECT * FROM taxi.{name} {month}" for name in names), "SELECT * FROM taxi.month_quality"]
        )
        report = {
            key: hashlib.sha256(_FETCHED.sub(b"", content)).hexdigest()
            for key, content in self.objects().items()
            if key.startswith("reports/")
        }
        unordered = {name: tuple(sorted(rows, key=repr)) for name, rows in zip(names, of_marts, strict=True)}
        return Derived(unordered, tuple(sorted(quality, key=repr)), report)

    def names(self) -> set[str]:
        """Everything there is, by name: objects, tables, files. A run that has ended well leaves no other ones."""
        (tables,) = self.select([_TABLES])
        home = self.deployment.home
        files = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
        folders = {str(path) for path in home.rglob(".staging/*")}
        return {f"table {name}" for (name,) in tables} | {f"object {key}" for key in self.objects()} | files | folders


def _of_trips(ledger: str, month: str) -> list[str]:
    return [_TRIPS.format(month), _NOTED.format(ledger, month)]


@contextmanager
def place_of(kind: str, folder: Path, versions: Republished, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place of a kind, empty."""
    with ExitStack() as stack:
        match kind:
            case "duckdb":
                place = in_duckdb(folder, versions)
            case "postgres":
                place = in_postgres(folder, versions, request.getfixturevalue("postgres_server"))
            case _:
                place = in_google(folder, versions)
        yield stack.enter_context(place)


@contextmanager
def in_duckdb(folder: Path, versions: Republished) -> Iterator[Place]:
    """A lake in a folder, a DuckDB file."""
    deployment = _deployment(folder)

    def select(queries: Sequence[str]) -> list[Rows]:
        with tempfile.TemporaryDirectory() as there:
            # A copy: opening the file itself would already heal it.
            for path in (deployment.warehouse, deployment.warehouse.with_name(f"{deployment.warehouse.name}.wal")):
                if path.exists():
                    copy(path, there)
            with duckdb.connect(str(Path(there) / deployment.warehouse.name)) as connection:
                return [tuple(connection.execute(query).fetchall()) for query in queries]

    @tenacity.retry(retry=tenacity.retry_if_exception_type(duckdb.IOException), stop=tenacity.stop_after_delay(300))
    def query(queries: Sequence[str]) -> list[Rows]:
        with duckdb.connect(str(deployment.warehouse), read_only=True) as connection:
            return [tuple(connection.execute(query).fetchall()) for query in queries]

    yield Place(deployment, versions, {}, select, query, _files_of(deployment))


@contextmanager
def in_postgres(folder: Path, versions: Republished, server: Server) -> Iterator[Place]:
    """A lake in a folder, a database of its own on a server."""
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

        yield Place(deployment, versions, {}, select, select, _files_of(deployment))


@contextmanager
def in_google(folder: Path, versions: Republished) -> Iterator[Place]:
    """A bucket and a dataset of doubles."""
    with ExitStack() as stack:
        account = stack.enter_context(ServiceAccount())
        storage = stack.enter_context(CloudStorage(versioning=True))
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

        yield Place(
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
