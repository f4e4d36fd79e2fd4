"""The stores on which the contract tests run. To add one, write a module in `stores/`, and add its name here."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets_tests.contract.stores import bigquery as bigquery_store
from taxi_assets_tests.contract.stores import duckdb as duckdb_store
from taxi_assets_tests.contract.stores import postgres as postgres_store
from taxi_assets_tests.contract.stores import real_google
from taxi_assets_tests.contract.stores.bigquery import (
    bigquery,
    bigquery_by_upload_warehouse,
    bigquery_warehouse,
    service_account,
)
from taxi_assets_tests.contract.stores.duckdb import (
    duckdb_from_bucket_warehouse,
    duckdb_views_from_bucket_warehouse,
    duckdb_views_warehouse,
    duckdb_warehouse,
)
from taxi_assets_tests.contract.stores.gcs import cloud_storage, gcs_lake
from taxi_assets_tests.contract.stores.local import local_lake
from taxi_assets_tests.contract.stores.postgres import postgres_server, postgres_url, postgres_warehouse
from taxi_assets_tests.contract.stores.real_google import (
    PROJECT,
    real_bigquery_by_upload_warehouse,
    real_bigquery_warehouse,
    real_gcs_lake,
    real_gcs_prefix,
)
from taxi_assets_tests.google.bigquery import BigQuery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxi_assets_tests.contract.stores import LakeBackend, WarehouseBackend

__all__ = [
    "bigquery",
    "bigquery_by_upload_warehouse",
    "bigquery_warehouse",
    "cloud_storage",
    "duckdb_from_bucket_warehouse",
    "duckdb_views_from_bucket_warehouse",
    "duckdb_views_warehouse",
    "duckdb_warehouse",
    "gcs_lake",
    "local_lake",
    "postgres_server",
    "postgres_url",
    "postgres_warehouse",
    "real_bigquery_by_upload_warehouse",
    "real_bigquery_warehouse",
    "real_gcs_lake",
    "real_gcs_prefix",
    "service_account",
]

LAKES = ["local", "gcs"]
ENGINES = ["duckdb", "duckdb_views", "bigquery", "postgres"]
WAREHOUSES = [
    *("duckdb", "duckdb_from_bucket", "duckdb_views", "duckdb_views_from_bucket"),
    *("bigquery", "bigquery_by_upload", "postgres"),
]
if PROJECT:
    LAKES.append("real_gcs")
    ENGINES.append("real_bigquery")
    WAREHOUSES += ["real_bigquery", "real_bigquery_by_upload"]


@pytest.fixture(params=LAKES)
def lake_backend(request: pytest.FixtureRequest) -> LakeBackend:
    backend: LakeBackend = request.getfixturevalue(f"{request.param}_lake")
    return backend


@pytest.fixture(params=WAREHOUSES)
def warehouse_backend(request: pytest.FixtureRequest) -> WarehouseBackend:
    backend: WarehouseBackend = request.getfixturevalue(f"{request.param}_warehouse")
    return backend


@pytest.fixture(scope="module", params=ENGINES)
def shared_warehouse(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WarehouseBackend]:
    """A warehouse that the tests of a module share, with a local lake. Each test uses tables with other names."""
    folder = tmp_path_factory.mktemp("warehouse")
    lake = partial(LocalLake, folder=str(folder / "lake"))
    match request.param:
        case "duckdb" | "duckdb_views":
            yield duckdb_store.backend(folder, lake, trip_views=request.param == "duckdb_views")
        case "postgres":
            with postgres_store.database(request.getfixturevalue("postgres_server")) as url:
                yield postgres_store.backend(folder, url)
        case "bigquery":
            account = request.getfixturevalue("service_account")
            with (
                BigQuery(project=bigquery_store.PROJECT) as double,
                pytest.MonkeyPatch.context() as patch,
            ):
                for name, value in double.environment.items():
                    patch.setenv(name, value)
                yield bigquery_store.backend(double, account, lake)
        case _:
            with real_google.backend(lake) as backend:
                yield backend
