"""Fixtures for the BigQuery warehouse on the BigQuery double: it loads from a bucket, or uploads from a folder."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from taxi_assets.errors import WarehouseConfigurationError
from taxi_assets.resources.google import BigQueryClientResource
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
from taxi_assets_tests.contract.stores import WarehouseBackend
from taxi_assets_tests.contract.stores.gcs import open_lake
from taxi_assets_tests.google.bigquery import BigQuery, JobFault
from taxi_assets_tests.google.service_account import ServiceAccount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets_tests.google.cloud_storage import CloudStorage

PROJECT, DATASET = "taxi-project", "taxi"


@pytest.fixture(scope="session")
def service_account() -> Iterator[ServiceAccount]:
    with ServiceAccount() as account:
        yield account


@pytest.fixture
def bigquery(cloud_storage: CloudStorage, monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQuery]:
    with BigQuery(storage_endpoint=cloud_storage.endpoint, project=PROJECT) as double:
        for name, value in double.environment.items():
            monkeypatch.setenv(name, value)
        yield double


def open_warehouse(
    environment: Mapping[str, str], key: str, *, timeout_seconds: float = 30, **options: Any
) -> BigQueryWarehouse:
    """Open the warehouse. The environment is set first, so that other processes can call this, too."""
    os.environ.update(environment)
    api = BigQueryClientResource(
        project=PROJECT, credentials=key, maximum_bytes_billed=10**9, timeout_seconds=timeout_seconds
    )
    return BigQueryWarehouse(api=api, project=PROJECT, dataset=DATASET, **options)


def backend(bigquery: BigQuery, account: ServiceAccount, open_its_lake: Callable[[], Lake]) -> WarehouseBackend:
    def columns(table: str) -> dict[str, str | None]:
        fields = bigquery.table(DATASET, table)["schema"]["fields"]
        return {field["name"]: field.get("description") for field in fields}

    def break_commit(_monkeypatch: pytest.MonkeyPatch) -> None:
        fault = JobFault(reason="invalid", message="The disk is full.", writes_first=True)
        for destination in ("green_trips$", "taxi_zones"):  # a month or a frame, not the ledger
            bigquery.script_job(fault, kind="load", destination=destination)

    def break_mart(_monkeypatch: pytest.MonkeyPatch) -> None:
        fault = JobFault(reason="invalid", message="The disk is full.", writes_first=True)
        bigquery.script_job(fault, kind="query", destination="$")

    return WarehouseBackend(
        open=partial(open_warehouse, bigquery.environment, account.base64),
        open_lake=open_its_lake,
        columns=columns,
        break_commit=break_commit,
        break_mart=break_mart,
        types=("INTEGER", "STRING"),
        load_error=WarehouseConfigurationError,
    )


@pytest.fixture
def bigquery_warehouse(
    bigquery: BigQuery, service_account: ServiceAccount, cloud_storage: CloudStorage
) -> WarehouseBackend:
    environment, bucket = cloud_storage.environment, cloud_storage.bucket
    return backend(bigquery, service_account, partial(open_lake, environment, bucket))


@pytest.fixture
def bigquery_by_upload_warehouse(
    bigquery: BigQuery, service_account: ServiceAccount, tmp_path: Path
) -> WarehouseBackend:
    return backend(bigquery, service_account, partial(LocalLake, folder=str(tmp_path / "lake")))
