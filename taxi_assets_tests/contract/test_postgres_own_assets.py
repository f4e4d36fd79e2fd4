"""Own assets on a Postgres server: readers that wait for a table while a run replaces it."""

from __future__ import annotations

import io
import threading
from functools import partial
from typing import TYPE_CHECKING

import psycopg2
import psycopg2.extensions
import pytest
import tenacity

from taxi_assets_tests.contract.own_asset_runs import OwnStore, rows_of_version
from taxi_assets_tests.contract.stores.postgres import connect, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taxi_assets_tests.contract.stores import WarehouseBackend


@pytest.fixture
def store(postgres_warehouse: WarehouseBackend, tmp_path: Path) -> OwnStore:
    return OwnStore(
        "warehouse_table", "postgres", postgres_warehouse.open_lake, postgres_warehouse.open, tmp_path, None
    )


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Pause the COMMIT of a transaction that has locked the table; yield the events of the pause and of its end."""
    reached, resume = threading.Event(), threading.Event()

    class Connection(psycopg2.extensions.connection):  # type: ignore[misc]  # psycopg2 has no types
        def commit(self) -> None:
            with self.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'AccessExclusiveLock' "
                    "AND locktype = 'relation'"
                )
                has_locked = cursor.fetchone()[0] > 0
            if has_locked:
                reached.set()
                resume.wait(600)
            super().commit()

    monkeypatch.setattr(
        "taxi_assets.storage.warehouse.postgres.session.psycopg2.connect",
        partial(psycopg2.connect, connection_factory=Connection),
    )
    yield reached, resume
    resume.set()


def test_a_reader_that_waited_for_a_table_with_new_columns_gets_the_old_or_the_new_rows(
    store: OwnStore, postgres_url: str, paused: tuple[threading.Event, threading.Event]
) -> None:
    """COPY takes its snapshot before it waits for the table, which then has other rows under another id."""
    reached, resume = paused
    resume.set()
    store.store("own", 1)
    reached.clear()
    resume.clear()
    writer = threading.Thread(target=store.store, args=("own", 2))
    writer.start()
    assert reached.wait(600)
    found: list[int] = []

    def read() -> None:
        rows = io.StringIO()
        with connect(postgres_url) as connection, connection.cursor() as cursor:
            cursor.copy_expert("COPY (SELECT number FROM taxi.own) TO STDOUT", rows)
        found.append(len(rows.getvalue().splitlines()))

    reader = threading.Thread(target=read)
    reader.start()
    for trial in tenacity.Retrying(wait=tenacity.wait_fixed(0.02), stop=tenacity.stop_after_delay(600)):
        with trial:
            assert run(postgres_url, "SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0] == 1
    resume.set()
    reader.join(600)
    writer.join(600)
    assert found in [[rows_of_version(version).num_rows] for version in (1, 2)]
    assert store.find_version("own") == 2
