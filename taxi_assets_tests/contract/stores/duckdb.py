"""The warehouse in a DuckDB file, with a lake in a folder and in a bucket, and with trips as tables and as views."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse, connections
from taxi_assets_tests.contract.stores import WarehouseBackend
from taxi_assets_tests.contract.stores.gcs import open_lake

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets_tests.google.cloud_storage import CloudStorage


class _FailingConnection:
    """A DuckDB connection whose commit fails after it has written trips, a mart or rows of an asset."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._has_written = False

    def execute(self, query: str, *args: Any) -> Any:
        self._has_written |= query.startswith("INSERT") and ("loaded_months" in query or "stored_partitions" in query)
        self._has_written |= query.startswith("CREATE OR REPLACE") or ' BY NAME SELECT "' in query
        return self._connection.execute(query, *args)

    def commit(self) -> None:
        if self._has_written:
            raise OSError(28, "No space left on device")
        self._connection.commit()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def backend(folder: Path, open_lake_of_warehouse: Callable[[], Lake], *, trip_views: bool = False) -> WarehouseBackend:
    file = folder / "warehouse.duckdb"

    def columns(table: str) -> dict[str, str | None]:
        with duckdb.connect(file) as connection:
            query = "SELECT column_name, comment FROM duckdb_columns() WHERE schema_name = 'taxi' AND table_name = ?"
            return dict(connection.execute(query, [table]).fetchall())

    def break_commit(monkeypatch: pytest.MonkeyPatch) -> None:
        connections.close_idle()
        connect = duckdb.connect
        monkeypatch.setattr(duckdb, "connect", lambda *args, **named: _FailingConnection(connect(*args, **named)))

    return WarehouseBackend(
        open=partial(DuckDBWarehouse, file=str(file), trip_views=trip_views, wait_seconds=60),
        open_lake=open_lake_of_warehouse,
        columns=columns,
        break_commit=break_commit,
        break_mart=break_commit,
        types=("BIGINT", "VARCHAR"),
    )


@pytest.fixture
def duckdb_warehouse(tmp_path: Path) -> WarehouseBackend:
    return backend(tmp_path, partial(LocalLake, folder=str(tmp_path / "lake")))


@pytest.fixture
def duckdb_from_bucket_warehouse(tmp_path: Path, cloud_storage: CloudStorage) -> WarehouseBackend:
    return backend(tmp_path, partial(open_lake, cloud_storage.environment, cloud_storage.bucket))


@pytest.fixture
def duckdb_views_warehouse(tmp_path: Path) -> WarehouseBackend:
    return backend(tmp_path, partial(LocalLake, folder=str(tmp_path / "lake")), trip_views=True)


@pytest.fixture
def duckdb_views_from_bucket_warehouse(tmp_path: Path, cloud_storage: CloudStorage) -> WarehouseBackend:
    return backend(tmp_path, partial(open_lake, cloud_storage.environment, cloud_storage.bucket), trip_views=True)
