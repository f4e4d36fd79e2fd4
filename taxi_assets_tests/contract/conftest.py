"""Which stores the contract batteries run against: a new one is a module in `stores/`, and its name here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.contract.stores.bigquery import (
    bigquery,
    bigquery_by_upload_warehouse,
    bigquery_warehouse,
    service_account,
)
from taxi_assets_tests.contract.stores.duckdb import duckdb_from_bucket_warehouse, duckdb_warehouse
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

if TYPE_CHECKING:
    from taxi_assets_tests.contract.stores import LakeBackend, WarehouseBackend

__all__ = [
    "bigquery",
    "bigquery_by_upload_warehouse",
    "bigquery_warehouse",
    "cloud_storage",
    "duckdb_from_bucket_warehouse",
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
WAREHOUSES = ["duckdb", "duckdb_from_bucket", "bigquery", "bigquery_by_upload", "postgres"]
if PROJECT:
    LAKES.append("real_gcs")
    WAREHOUSES += ["real_bigquery", "real_bigquery_by_upload"]


@pytest.fixture(params=LAKES)
def lake_backend(request: pytest.FixtureRequest) -> LakeBackend:
    backend: LakeBackend = request.getfixturevalue(f"{request.param}_lake")
    return backend


@pytest.fixture(params=WAREHOUSES)
def warehouse_backend(request: pytest.FixtureRequest) -> WarehouseBackend:
    backend: WarehouseBackend = request.getfixturevalue(f"{request.param}_warehouse")
    return backend
