"""Concurrent runs of one month on a Postgres server, from a lake in a folder or a bucket: the newer run wins."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg2
import pytest

from taxi_assets.build import build_definitions
from taxi_assets.errors import LakeConflictError
from taxi_assets.settings import Settings
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.warehouse.postgres import PostgresWarehouse
from taxi_assets.storage.warehouse.postgres.swap import month_lock_key
from taxi_assets_tests.contract.stores.postgres import connect, during_copy, run, tables, with_short_wait
from taxi_assets_tests.contract.test_any_warehouse import holds_exactly, replace_month
from taxi_assets_tests.pipeline_harness import failure_messages
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets_tests.contract.stores import LakeBackend

CONNECT = "taxi_assets.storage.warehouse.postgres.session.psycopg2.connect"


@pytest.fixture(params=["local", "gcs"])
def lake(request: pytest.FixtureRequest) -> Lake:
    backend: LakeBackend = request.getfixturevalue(f"{request.param}_lake")
    return backend.open()


@pytest.fixture
def warehouse(postgres_url: str) -> PostgresWarehouse:
    return PostgresWarehouse(url=postgres_url, wait_seconds=60)


def test_a_month_is_loaded_and_replaced(warehouse: PostgresWarehouse, lake: Lake) -> None:
    for rows in (100, 30, 0):
        trips = publish_generated_month(lake, rows=rows, seed=rows)
        replace_month(warehouse, trips)
        assert holds_exactly(warehouse, trips)


def test_a_stalled_run_does_not_overwrite_the_month_of_a_newer_run(
    warehouse: PostgresWarehouse, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = publish_generated_month(lake, rows=50, seed=1)
    newer = older
    connect_now = psycopg2.connect

    def connect_late(**options: str) -> Any:
        nonlocal newer
        monkeypatch.setattr(CONNECT, connect_now)
        newer = publish_generated_month(lake, rows=70, seed=2)
        replace_month(warehouse, newer)
        return connect_now(**options)

    monkeypatch.setattr(CONNECT, connect_late)
    with pytest.raises(LakeConflictError, match="2020-10"):
        replace_month(warehouse, older)
    assert newer.rows == 70
    assert holds_exactly(warehouse, newer)


def test_a_month_that_is_replaced_in_the_lake_during_the_copy_is_not_swapped_in(
    warehouse: PostgresWarehouse, lake: Lake
) -> None:
    before = publish_generated_month(lake, rows=20, layer="before")
    replace_month(warehouse, before)
    older = publish_generated_month(lake, rows=50, seed=1)
    with (
        during_copy(lambda _: publish_generated_month(lake, rows=70, seed=2)),
        pytest.raises(LakeConflictError, match="2020-10"),
    ):
        replace_month(warehouse, older)
    assert holds_exactly(warehouse, before)
    assert "green_trips_2020_10_staged" not in tables(warehouse)


WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_a_step_that_finds_the_month_busy_is_retried_and_the_run_succeeds(
    warehouse: PostgresWarehouse, tmp_path: Path
) -> None:
    lake = LocalLake(folder=str(tmp_path / "lake"))
    trips = publish_generated_month(lake)
    settings = Settings(
        lake=str(tmp_path / "lake"),  # type: ignore[arg-type]  # read by its validators
        warehouse=warehouse.url,  # type: ignore[arg-type]
        retry_delay_seconds=0,
    )
    defs = build_definitions(settings, resources={"warehouse": with_short_wait(warehouse)})
    locked = threading.Event()

    def lock_the_month_for_one_attempt() -> None:
        key = month_lock_key("taxi", "green_trips", MONTH)
        with connect(warehouse.url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [key])
            locked.set()
            while not (waiting := run(warehouse.url, WAITING)):
                pass
            while run(warehouse.url, WAITING) == waiting:
                pass

    blocker = threading.Thread(target=lock_the_month_for_one_attempt, daemon=True)
    blocker.start()
    assert locked.wait(600)
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("green").execute_in_process(
            instance=instance,
            partition_key=str(MONTH),
            asset_selection=[dg.AssetKey(["warehouse", "green_trips"])],
            raise_on_error=False,
        )
    blocker.join(600)
    assert result.success, failure_messages(result)
    (retry,) = [event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_UP_FOR_RETRY]
    assert "is locked by" in str(retry.event_specific_data)
    assert holds_exactly(warehouse, trips)
