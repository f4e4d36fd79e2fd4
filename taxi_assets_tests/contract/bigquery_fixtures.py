"""Fixtures and helpers of the tests of the BigQuery warehouse."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from google.cloud import bigquery as google

from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.stores.bigquery import DATASET, PROJECT, open_warehouse
from taxi_assets_tests.contract.stores.gcs import open_lake
from taxi_assets_tests.trips import MONTH

if TYPE_CHECKING:
    from taxi_assets.storage.lake.gcs_lake import GcsLake
    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
    from taxi_assets_tests.google.bigquery import BigQuery, Job
    from taxi_assets_tests.google.cloud_storage import CloudStorage
    from taxi_assets_tests.google.service_account import ServiceAccount


@pytest.fixture(autouse=True)
def clients_wait_a_hundredth(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 100))


@pytest.fixture
def lake(cloud_storage: CloudStorage) -> GcsLake:
    return open_lake(cloud_storage.environment, cloud_storage.bucket)


@pytest.fixture
def warehouse(bigquery: BigQuery, service_account: ServiceAccount) -> BigQueryWarehouse:
    return open_warehouse(bigquery.environment, service_account.base64)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that this process has waited so far: a wait takes no time, and only adds to them."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    return now


def load(warehouse: BigQueryWarehouse, trips: ParquetPartition, run: str = "a-run") -> None:
    warehouse.replace_month(GREEN, MONTH, trips, run_id=run)


def loads(bigquery: BigQuery) -> list[Job]:
    """Return the jobs that loaded trips, in order."""
    return [job for job in bigquery.jobs if job.settings["destinationTable"]["tableId"].startswith("green_trips$")]


def make_dataset(warehouse: BigQueryWarehouse, location: str) -> None:
    with warehouse.api.get_client() as client:
        dataset = google.Dataset(f"{PROJECT}.{DATASET}")
        dataset.location = location
        client.create_dataset(dataset)
