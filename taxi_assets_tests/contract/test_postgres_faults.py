"""Faults on a Postgres server: the data that they leave, and error messages in one line without a password."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.errors import (
    PermanentError,
    TaxiAssetsError,
    TransientError,
    WarehouseBusyError,
    WarehouseConfigurationError,
    WarehouseUnreachableError,
)
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.storage.warehouse.postgres import PostgresWarehouse
from taxi_assets.storage.warehouse.postgres.session import open_session
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.contract.stores.postgres import (
    Server,
    connect,
    during_copy,
    lake,
    long_query,
    run,
    tables,
    warehouse,
    with_short_wait,
)
from taxi_assets_tests.contract.test_any_warehouse import NEXT_MONTH, ZONES, holds_exactly, replace_month
from taxi_assets_tests.table_rows import store_rows
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path


__all__ = ["lake", "warehouse"]

PASSWORD = "a-secret-of-this-test"  # noqa: S105  (of a role in a test database)


@pytest.fixture
def own_server(postgres_server: Server) -> Server:
    if postgres_server.process is None:
        pytest.skip("TAXI_TEST_POSTGRES names a server that the tests must not stop or configure")
    return postgres_server


# --- faults -----------------------------------------------------------------------------------------------------------


def one_line(error: TaxiAssetsError) -> str:
    text = str(error)
    assert "\n" not in text
    assert PASSWORD not in text + repr(error) + repr(error.__cause__)
    return text


@pytest.mark.parametrize("fault", ["restarted", "stopped at once", "killed", "its process killed"])
def test_a_server_that_fails_during_a_load_keeps_the_old_month_and_the_next_load_succeeds(
    own_server: Server, warehouse: PostgresWarehouse, lake: LocalLake, fault: str
) -> None:
    old, new = publish_generated_month(lake), publish_generated_month(lake, rows=3000, seed=1, layer="newer")
    replace_month(warehouse, old)
    faults: dict[str, Callable[[int], None]] = {
        "restarted": lambda _: own_server.restart(),
        "stopped at once": lambda _: own_server.stop("immediate"),
        "killed": lambda _: own_server.kill(),
        "its process killed": lambda pid: os.kill(pid, signal.SIGKILL),
    }
    try:
        with during_copy(faults[fault]), pytest.raises(WarehouseUnreachableError) as error:
            replace_month(warehouse, new)
        if fault in {"stopped at once", "killed"}:
            with pytest.raises(WarehouseUnreachableError) as gone:
                replace_month(warehouse, new)
            assert "server running" in one_line(gone.value)
    finally:
        own_server.start()
    assert warehouse.uri().partition("?schema")[0].partition("&schema")[0] in one_line(error.value)
    assert holds_exactly(warehouse, old)
    replace_month(warehouse, new)
    assert holds_exactly(warehouse, new)
    assert not {name for name in tables(warehouse) if "staged" in name}


def test_a_statement_timeout_of_the_database_does_not_cut_a_load_short(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    ((database,),) = run(warehouse.url, "SELECT current_database()")
    run(warehouse.url, f"ALTER DATABASE {database} SET statement_timeout = '100ms'")
    trips = publish_generated_month(lake)
    with during_copy(lambda _: time.sleep(0.3)):
        replace_month(warehouse, trips)
    assert holds_exactly(warehouse, trips)


def test_the_error_says_that_an_administrator_ended_the_session_during_the_copy(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    old = publish_generated_month(lake)
    replace_month(warehouse, old)

    def terminate(pid: int) -> None:
        run(warehouse.url, f"SELECT pg_terminate_backend({pid}, 10000)")

    with (
        during_copy(terminate),
        pytest.raises(WarehouseUnreachableError, match="due to administrator command") as error,
    ):
        replace_month(warehouse, publish_generated_month(lake, rows=3000, seed=1, layer="newer"))
    one_line(error.value)
    assert holds_exactly(warehouse, old)


def test_the_error_says_that_an_administrator_ended_the_waiting_session(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    old, new = publish_generated_month(lake), publish_generated_month(lake, rows=30, seed=1, layer="newer")
    replace_month(warehouse, old)

    def terminate() -> None:
        ends = time.monotonic() + 300
        waiting = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while not run(warehouse.url, waiting):
            assert time.monotonic() < ends

    administrator = threading.Thread(target=terminate)
    with long_query(warehouse, MONTH):
        administrator.start()
        with pytest.raises(WarehouseUnreachableError, match="due to administrator command") as error:
            replace_month(warehouse, new)
    administrator.join()
    one_line(error.value)
    assert holds_exactly(warehouse, old)


def test_session_timeouts_of_the_database_are_switched_off(warehouse: PostgresWarehouse) -> None:
    ((database,),) = run(warehouse.url, "SELECT current_database()")
    limits = run(
        warehouse.url,
        r"SELECT name FROM pg_settings WHERE name ~ '^(statement|transaction|idle\w*)_timeout$' AND context = 'user'",
    )
    assert {"statement_timeout", "idle_session_timeout"} <= {name for (name,) in limits}
    for (name,) in limits:
        run(warehouse.url, f"ALTER DATABASE {database} SET {name} = '5min'")
    with open_session(warehouse.url, wait_seconds=60) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [[name for (name,) in limits]])
        assert dict(cursor.fetchall()) == {name: "0" for (name,) in limits}


def test_an_abandoned_table_that_another_session_reads_does_not_block_other_months(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    trips = publish_generated_month(lake)
    replace_month(warehouse, trips)
    run(warehouse.url, "CREATE TABLE taxi.green_trips_2020_11_staged (LIKE taxi.green_trips)")
    with connect(warehouse.url) as dump, dump.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE taxi.green_trips_2020_11_staged IN ACCESS SHARE MODE")
        replace_month(with_short_wait(warehouse, 3600), trips)  # it would wait for an hour
    assert "green_trips_2020_11_staged" in tables(warehouse)
    replace_month(warehouse, trips)
    assert "green_trips_2020_11_staged" not in tables(warehouse)


def test_a_column_added_while_a_month_is_being_built_is_a_transient_error(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    old, new = publish_generated_month(lake), publish_generated_month(lake, rows=3000, seed=1, layer="newer")
    replace_month(warehouse, old)

    def gain(_pid: int) -> None:
        run(warehouse.url, "SET lock_timeout = '60s'", "ALTER TABLE taxi.green_trips ADD COLUMN since_now bigint")

    with during_copy(gain), pytest.raises(WarehouseBusyError, match="was changed") as error:
        replace_month(warehouse, new)
    assert "again" in error.value.remedy
    assert holds_exactly(warehouse, old)
    replace_month(warehouse, new)
    assert holds_exactly(warehouse, new)


def load_and_wait(url: str, folder: str, line: Connection) -> None:
    """Load the newer trips, and send the log message about its wait for a reader."""

    class PipeHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line.send(record.getMessage())

    dg.get_dagster_logger().addHandler(PipeHandler())
    dg.get_dagster_logger().setLevel("INFO")
    replace_month(
        PostgresWarehouse(url=url), ParquetPartition.get(LocalLake(folder=folder), f"newer/green_trips/{MONTH}")
    )


def test_the_staging_table_of_a_killed_load_is_dropped_by_the_next_load_of_any_month(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    old, new = publish_generated_month(lake), publish_generated_month(lake, rows=30, seed=1, layer="newer")
    replace_month(warehouse, old)
    with long_query(warehouse, MONTH), child_process(load_and_wait, warehouse.url, lake.folder) as other:
        assert "slow_report" in other.receive()
        other.kill()
    assert "green_trips_2020_10_staged" in tables(warehouse)
    assert holds_exactly(warehouse, old)
    wait_for_end_of_sessions(warehouse)
    replace_month(with_short_wait(warehouse, 20), publish_generated_month(lake, NEXT_MONTH), NEXT_MONTH)
    assert tables(warehouse) == {"green_trips", "green_trips_2020_10", "green_trips_2020_11", "loaded_months"}
    replace_month(warehouse, new)
    assert holds_exactly(warehouse, new)


def wait_for_end_of_sessions(warehouse: PostgresWarehouse) -> None:
    """Wait until the server has noticed that the client is gone."""
    ends = time.monotonic() + 300
    while run(warehouse.url, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'taxi_assets' LIMIT 1"):
        assert time.monotonic() < ends


def test_a_foreign_table_of_the_same_name_is_named_and_left_alone(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    run(warehouse.url, "CREATE SCHEMA taxi", "CREATE TABLE taxi.green_trips AS SELECT 1 AS theirs")
    with pytest.raises(PermanentError) as error:
        replace_month(warehouse, publish_generated_month(lake))
    assert "green_trips" in one_line(error.value)
    assert "ename or drop" in error.value.remedy
    assert run(warehouse.url, "TABLE taxi.green_trips") == [(1,)]
    assert warehouse.loaded_month(GREEN, MONTH) is None


# --- rejected connections and statements ------------------------------------------------------------------------------


@pytest.fixture
def role(own_server: Server, postgres_url: str) -> Iterator[str]:
    """Create a role that needs a password and has no privileges yet."""
    name = "with_password"
    run(own_server.url, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    yield name
    run(postgres_url, f"DROP OWNED BY {name}")
    run(own_server.url, f"DROP ROLE {name}")


def as_role(server: Server, warehouse: PostgresWarehouse, role: str) -> PostgresWarehouse:
    ((database,),) = run(warehouse.url, "SELECT current_database()")
    return PostgresWarehouse(url=server.url_of(database, role), wait_seconds=60)


def test_the_password_comes_from_the_environment_or_a_pgpass_file_and_no_error_quotes_it(
    own_server: Server,
    warehouse: PostgresWarehouse,
    lake: LocalLake,
    role: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = publish_generated_month(lake)
    replace_month(warehouse, old)
    run(warehouse.url, f"GRANT USAGE ON SCHEMA taxi TO {role}", f"GRANT SELECT ON ALL TABLES IN SCHEMA taxi TO {role}")
    limited = as_role(own_server, warehouse, role)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    for environment in ({}, {"PGPASSWORD": "another-secret"}):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(WarehouseConfigurationError, match="password") as error:
            replace_month(limited, old)
        assert "another-secret" not in one_line(error.value)
        assert "PGPASSWORD" in error.value.remedy
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert holds_exactly(limited, old)
    monkeypatch.delenv("PGPASSWORD")
    (tmp_path / "pgpass").write_text(f"*:*:*:{role}:{PASSWORD}\n")
    (tmp_path / "pgpass").chmod(0o600)
    assert holds_exactly(limited, old)
    assert PASSWORD not in repr(limited) + limited.uri()


def test_a_missing_privilege_is_named_with_its_grant_statement(
    own_server: Server, warehouse: PostgresWarehouse, lake: LocalLake, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips, limited = publish_generated_month(lake), as_role(own_server, warehouse, role)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)

    def grant_from_the_error() -> str:
        with pytest.raises(WarehouseConfigurationError, match="permission denied") as error:
            replace_month(limited, trips)
        assert "run: GRANT" in one_line(error.value)
        return error.value.remedy.partition("run: ")[2]

    assert "CREATE ON DATABASE" in grant_from_the_error()
    run(warehouse.url, "CREATE SCHEMA taxi")
    grant = grant_from_the_error()
    assert grant == 'GRANT USAGE, CREATE ON SCHEMA "taxi" TO "with_password";'
    run(warehouse.url, grant)
    replace_month(limited, trips)
    assert holds_exactly(limited, trips)

    run(warehouse.url, "DROP SCHEMA taxi CASCADE")
    run(warehouse.url, grant_from_the_error())
    replace_month(limited, trips)
    assert holds_exactly(limited, trips)


def test_a_table_of_another_role_can_be_read_but_not_replaced(
    own_server: Server, warehouse: PostgresWarehouse, lake: LocalLake, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = publish_generated_month(lake)
    replace_month(warehouse, old)
    run(warehouse.url, f"GRANT ALL ON SCHEMA taxi TO {role}", f"GRANT ALL ON ALL TABLES IN SCHEMA taxi TO {role}")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    limited = as_role(own_server, warehouse, role)
    with pytest.raises(WarehouseConfigurationError, match="must be owner of table") as error:
        replace_month(limited, publish_generated_month(lake, rows=5, layer="newer"))
    assert "owner" in one_line(error.value)
    assert holds_exactly(limited, old)


def test_a_database_or_a_role_that_does_not_exist_is_named(postgres_server: Server) -> None:
    with pytest.raises(WarehouseConfigurationError, match='database "no_such_one" does not exist') as error:
        PostgresWarehouse(url=postgres_server.url_of("no_such_one")).totals(GREEN, MONTH)
    assert "CREATE DATABASE" in one_line(error.value)
    with pytest.raises(WarehouseConfigurationError, match="no_such_role"):
        PostgresWarehouse(url=postgres_server.url_of("postgres", "no_such_role")).totals(GREEN, MONTH)


@pytest.mark.parametrize("url", ["postgresql://me@localhost/db?shema=taxi", "postgresql://me@localhost:port/db", "db"])
def test_an_invalid_url_is_rejected_in_one_line(url: str) -> None:
    with pytest.raises(WarehouseConfigurationError) as error:
        PostgresWarehouse(url=url).totals(GREEN, MONTH)
    assert "Correct the URL." in one_line(error.value)


def test_a_database_without_utf8_is_rejected(postgres_server: Server, postgres_url: str) -> None:
    name = postgres_url.partition("/test_")[2].partition("?")[0]
    run(postgres_url, f"CREATE DATABASE latin_{name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(WarehouseConfigurationError, match="a database in LATIN1"):
            store_rows(PostgresWarehouse(url=postgres_server.url_of(f"latin_{name}")), "taxi_zones", ZONES)
    finally:
        run(postgres_url, f"DROP DATABASE latin_{name}")


def test_an_unreachable_server_is_a_transient_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(TransientError, match="Connection refused") as error:
            PostgresWarehouse(url=f"postgresql://me@127.0.0.1:{port}/db").totals(GREEN, MONTH)
    assert isinstance(error.value, WarehouseUnreachableError)
    one_line(error.value)


def test_a_server_without_tls_is_rejected_if_the_url_requires_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            with server.accept()[0] as client:
                client.recv(8)
                client.sendall(b"N")  # no TLS here
                client.recv(1)

        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"postgresql://me@127.0.0.1:{server.getsockname()[1]}/db?sslmode=require"
        with pytest.raises(WarehouseConfigurationError, match="does not support SSL") as error:
            PostgresWarehouse(url=url).totals(GREEN, MONTH)
        thread.join()
    assert "sslmode" in error.value.remedy
    one_line(error.value)
