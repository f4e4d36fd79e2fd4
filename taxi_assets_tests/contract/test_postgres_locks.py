"""Locks on a Postgres server: readers, loads of other months, and loads of the same month."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from taxi_assets.errors import (
    WarehouseBusyError,
)
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets.storage.warehouse.postgres import PostgresWarehouse
from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.contract.stores.postgres import (
    connect,
    lake,
    long_query,
    run,
    tables,
    warehouse,
    with_short_wait,
)
from taxi_assets_tests.contract.test_any_warehouse import NARROW, NEXT_MONTH, holds_exactly, replace_month
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from taxi_assets.tlc.month import Month


__all__ = ["lake", "warehouse"]


# --- readers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [MONTH, NEXT_MONTH], ids=["of this month", "of another month"])
def test_a_swap_that_a_reader_blocks_fails_with_the_readers_name_and_succeeds_once_the_reader_is_gone(
    warehouse: PostgresWarehouse, lake: LocalLake, read: Month
) -> None:
    old, other = publish_generated_month(lake), publish_generated_month(lake, NEXT_MONTH)
    replace_month(warehouse, old)
    replace_month(warehouse, other, NEXT_MONTH)
    new = publish_generated_month(lake, rows=30, seed=1, layer="newer")
    with long_query(warehouse, read) as pid:
        with pytest.raises(WarehouseBusyError) as error:
            replace_month(with_short_wait(warehouse), new)
        assert re.search(rf"pid {pid} \(slow_report of \w+, idle in transaction, for \d+ s\)", error.value.problem)
        assert "2020-10" in error.value.problem
        assert holds_exactly(warehouse, old)
    assert "green_trips_2020_10_staged" not in tables(warehouse)
    replace_month(warehouse, new)
    assert holds_exactly(warehouse, new)
    assert holds_exactly(warehouse, other, NEXT_MONTH)


def test_a_schema_that_is_dropped_before_a_month_is_built_is_a_transient_error(
    warehouse: PostgresWarehouse, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips = publish_generated_month(lake)

    def drop(*_: object) -> None:
        run(warehouse.url, "DROP SCHEMA taxi CASCADE")

    with monkeypatch.context() as patch:
        patch.setattr("taxi_assets.storage.warehouse.postgres.drop_abandoned_tables", drop)
        with pytest.raises(WarehouseBusyError, match="was changed or dropped"):
            replace_month(warehouse, trips)
    replace_month(warehouse, trips)
    assert holds_exactly(warehouse, trips)


class LogWaiter(logging.Handler):
    """Sets an event when something is logged, and keeps the message."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.event = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()
        self.event.set()


@contextlib.contextmanager
def loading(warehouse: PostgresWarehouse, trips: ParquetPartition, month: Month = MONTH) -> Iterator[str]:
    """Load in another thread; yield the log message about its wait for a lock. The load must succeed in the end."""
    log, waiter = dg.get_dagster_logger(), LogWaiter()
    failures: list[BaseException] = []

    def load() -> None:
        try:
            replace_month(warehouse, trips, month)
        except BaseException as error:  # noqa: BLE001  (every error must reach the test)
            failures.append(error)

    thread = threading.Thread(target=load)
    log.addHandler(waiter)
    try:
        thread.start()
        assert waiter.event.wait(600)
        yield waiter.text
    finally:
        log.removeHandler(waiter)
        thread.join(600)
    assert not thread.is_alive()
    assert not failures


def test_readers_wait_at_most_one_attempt_and_see_the_old_month_until_the_swap(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    old, new = publish_generated_month(lake), publish_generated_month(lake, rows=30, seed=1, layer="newer")
    replace_month(warehouse, old)
    waits: list[float] = []
    rows = set()
    with connect(warehouse.url) as reader, reader.cursor() as cursor, contextlib.ExitStack() as slow:
        pid = slow.enter_context(long_query(warehouse, MONTH))
        with loading(warehouse, new) as message:
            assert f"pid {pid} (slow_report" in message
            while max(waits, default=0) < 0.1:  # until one of the load's attempts was in the way
                started = time.monotonic()
                cursor.execute("SELECT count(*) FROM taxi.green_trips WHERE data_month = '2020-10-01'")
                waits.append(time.monotonic() - started)
                rows.add(cursor.fetchone()[0])
            assert rows == {100}
            slow.close()
    assert max(waits) < 10 * warehouse.lock_timeout
    assert holds_exactly(warehouse, new)


def test_a_transaction_older_than_the_swap_does_not_see_an_empty_month(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    replace_month(warehouse, publish_generated_month(lake))
    new = publish_generated_month(lake, rows=30, seed=1, layer="newer")
    with connect(warehouse.url) as reader, reader.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT 1")
        replace_month(warehouse, new)
        cursor.execute("SELECT count(*) FROM taxi.green_trips WHERE data_month = '2020-10-01'")
        assert cursor.fetchone()[0] == 30


def test_the_first_load_of_a_month_does_not_wait_for_readers(warehouse: PostgresWarehouse, lake: LocalLake) -> None:
    replace_month(warehouse, publish_generated_month(lake))
    trips = publish_generated_month(lake, NEXT_MONTH)
    with long_query(warehouse, MONTH):
        replace_month(with_short_wait(warehouse), trips, NEXT_MONTH)
        assert holds_exactly(warehouse, trips, NEXT_MONTH)


def test_a_new_column_that_a_reader_blocks_is_added_once_the_reader_is_gone(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    narrow = publish_generated_month(lake, service=NARROW)
    warehouse.replace_month(NARROW, MONTH, narrow, run_id="a run")
    wide = publish_generated_month(lake, NEXT_MONTH)
    with long_query(warehouse, MONTH) as pid, pytest.raises(WarehouseBusyError, match=f"pid {pid} "):
        replace_month(with_short_wait(warehouse), wide, NEXT_MONTH)
    replace_month(warehouse, wide, NEXT_MONTH)
    assert holds_exactly(warehouse, wide, NEXT_MONTH)


def test_a_month_that_another_load_has_locked_is_busy_and_the_error_names_that_load(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    replace_month(warehouse, publish_generated_month(lake))
    new = publish_generated_month(lake, rows=30, seed=1, layer="newer")
    with contextlib.ExitStack() as slow:
        slow.enter_context(long_query(warehouse, MONTH))
        with loading(warehouse, new):
            ((pid,),) = run(warehouse.url, "SELECT pid FROM pg_stat_activity WHERE application_name = 'taxi_assets'")
            with pytest.raises(WarehouseBusyError) as error:
                replace_month(with_short_wait(warehouse, 0.3), new)
            assert error.value.problem.startswith(
                f'green 2020-10 in "taxi"."green_trips" is locked by pid {pid} (taxi_assets'
            )
            slow.close()
    assert holds_exactly(warehouse, new)


# --- several loads at once --------------------------------------------------------------------------------------------


def load_twice(url: str, folder: str, month: Month, line: Connection) -> None:
    trips = ParquetPartition.get(LocalLake(folder=folder), f"clean/green_trips/{month}")
    line.send("ready")
    line.recv()
    for _ in range(2):
        replace_month(PostgresWarehouse(url=url, wait_seconds=60), trips, month)


def test_eight_processes_that_create_the_tables_and_load_overlapping_months_all_succeed(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    trips = {
        month: publish_generated_month(lake, month, rows=500) for month in (MONTH, NEXT_MONTH, NEXT_MONTH.shift(1))
    }
    months = [[*trips][number % 3] for number in range(8)]
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(child_process(load_twice, warehouse.url, lake.folder, month)) for month in months
        ]
        assert [one.receive() for one in children] == ["ready"] * 8
        for one in children:
            one.send()
        assert [one.wait_for_exit() for one in children] == [0] * 8
    assert all(holds_exactly(warehouse, trips[month], month) for month in trips)
    assert not {name for name in tables(warehouse) if "staged" in name}


def test_the_staging_table_of_a_running_load_is_not_dropped_by_another_load(
    warehouse: PostgresWarehouse, lake: LocalLake
) -> None:
    replace_month(warehouse, publish_generated_month(lake))
    new, other = (
        publish_generated_month(lake, rows=30, seed=1, layer="newer"),
        publish_generated_month(lake, NEXT_MONTH),
    )
    with contextlib.ExitStack() as slow:
        slow.enter_context(long_query(warehouse, MONTH))
        with loading(warehouse, new):
            replace_month(with_short_wait(warehouse), other, NEXT_MONTH)
            assert "green_trips_2020_10_staged" in tables(warehouse)
            slow.close()
    assert holds_exactly(warehouse, new)
    assert holds_exactly(warehouse, other, NEXT_MONTH)
