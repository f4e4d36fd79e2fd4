"""The real Google Cloud, where TAXI_TEST_GCP_PROJECT and TAXI_TEST_GCP_BUCKET name a project and a bucket for tests.

Datasets are made in TAXI_TEST_GCP_LOCATION, or where the bucket is. Credentials are TAXI_GOOGLE_CREDENTIALS, or
application default ones. Every test has a prefix and a dataset of its own, which it removes. What breaks there cannot
be asked of Google, so the client's connection is what breaks.
"""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING

import pytest
from google.cloud import bigquery, storage

from taxi_assets.errors import LakeUnreachableError, WarehouseUnreachableError
from taxi_assets.google_auth import load_credentials
from taxi_assets.resources.google import BigQueryClientResource, CloudStorageResource
from taxi_assets.storage.lake.gcs_lake import GcsLake
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
from taxi_assets_tests.contract.stores import LakeBackend, WarehouseBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from taxi_assets.storage.lake.base_lake import Lake


@dataclass(frozen=True)
class Place:
    """Where the tests are, and as whom; handed to other processes, which have none of the variables."""

    project: str
    bucket: str
    location: str | None = None
    key: str | None = field(default=None, repr=False)


# Read here, because tests run without any TAXI_ variable.
HERE = Place(
    project=os.environ.get("TAXI_TEST_GCP_PROJECT", ""),
    bucket=os.environ.get("TAXI_TEST_GCP_BUCKET", ""),
    location=os.environ.get("TAXI_TEST_GCP_LOCATION"),
    key=os.environ.get("TAXI_GOOGLE_CREDENTIALS"),
)
PROJECT = HERE.project


def open_lake(place: Place, prefix: str) -> GcsLake:
    return GcsLake(
        storage=CloudStorageResource(project=place.project, credentials=place.key),
        bucket=place.bucket,
        prefix=prefix,
        timeout_seconds=20,
    )


def open_warehouse(place: Place, location: str, dataset: str) -> BigQueryWarehouse:
    api = BigQueryClientResource(project=place.project, credentials=place.key, maximum_bytes_billed=10**9)
    return BigQueryWarehouse(api=api, project=place.project, dataset=dataset, location=location)


@cache
def location_of(place: Place) -> str:
    """Where datasets are made: as was asked for, else where the bucket is."""
    if place.location is not None:
        return place.location
    with _storage(place) as client:
        return str(client.get_bucket(place.bucket).location)


@contextmanager
def _storage(place: Place) -> Iterator[storage.Client]:
    client = storage.Client(project=place.project, credentials=load_credentials(place.key))
    try:
        yield client
    finally:
        client.close()


def _fail(*_args: object, **_named: object) -> None:
    raise ConnectionError("the network is down")


@pytest.fixture
def real_gcs_prefix() -> Iterator[str]:
    prefix = f"taxi-test-{uuid.uuid4().hex}"
    yield prefix
    with _storage(HERE) as client:
        for blob in client.list_blobs(HERE.bucket, prefix=prefix, versions=True):
            blob.delete()


@pytest.fixture
def real_gcs_lake(real_gcs_prefix: str) -> LakeBackend:
    def break_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage.Blob, "upload_from_filename", _fail)

    return LakeBackend(partial(open_lake, HERE, real_gcs_prefix), {"the upload": break_uploads}, LakeUnreachableError)


@contextmanager
def backend(open_its_lake: Callable[[], Lake]) -> Iterator[WarehouseBackend]:
    dataset = f"taxi_test_{uuid.uuid4().hex}"
    client = bigquery.Client(project=PROJECT, credentials=load_credentials(HERE.key))

    def columns(table: str) -> dict[str, str | None]:
        return {field.name: field.description for field in client.get_table(f"{PROJECT}.{dataset}.{table}").schema}

    def break_commit(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bigquery.Client, "load_table_from_uri", _fail)
        monkeypatch.setattr(bigquery.Client, "load_table_from_file", _fail)

    def break_mart(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bigquery.Client, "query", _fail)

    yield WarehouseBackend(
        open=partial(open_warehouse, HERE, location_of(HERE), dataset),
        open_lake=open_its_lake,
        columns=columns,
        break_commit=break_commit,
        break_mart=break_mart,
        types=("INTEGER", "STRING"),
        load_error=WarehouseUnreachableError,
    )
    client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)
    client.close()  # type: ignore[no-untyped-call]


@pytest.fixture
def real_bigquery_warehouse(real_gcs_prefix: str) -> Iterator[WarehouseBackend]:
    with backend(partial(open_lake, HERE, real_gcs_prefix)) as real:
        yield real


@pytest.fixture
def real_bigquery_by_upload_warehouse(tmp_path: Path) -> Iterator[WarehouseBackend]:
    with backend(partial(LocalLake, folder=str(tmp_path / "lake"))) as real:
        yield real
