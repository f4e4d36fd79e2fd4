"""Fixtures for the real Google Cloud: a project and a bucket for tests.

They are named by TAXI_TEST_GCP_PROJECT and TAXI_TEST_GCP_BUCKET. Datasets are created in TAXI_TEST_GCP_LOCATION, or in
the location of the bucket, and their names begin with TAXI_TEST_GCP_DATASETS. Credentials are TAXI_GOOGLE_CREDENTIALS,
or the application default credentials. Every test uses its own prefix and dataset, and removes them.

The real service cannot be made to fail, so faults are simulated in the client's connection.
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
class GoogleTarget:
    """The project, bucket and credentials of the tests. Passed to other processes, which do not have the variables."""

    project: str
    bucket: str
    location: str | None = None
    key: str | None = field(default=None, repr=False)


# Read at import: the tests themselves run without TAXI_ variables.
TARGET = GoogleTarget(
    project=os.environ.get("TAXI_TEST_GCP_PROJECT", ""),
    bucket=os.environ.get("TAXI_TEST_GCP_BUCKET", ""),
    location=os.environ.get("TAXI_TEST_GCP_LOCATION"),
    key=os.environ.get("TAXI_GOOGLE_CREDENTIALS"),
)
PROJECT = TARGET.project
_DATASETS = os.environ.get("TAXI_TEST_GCP_DATASETS", "taxi_test")


def open_lake(target: GoogleTarget, prefix: str) -> GcsLake:
    return GcsLake(
        storage=CloudStorageResource(project=target.project, credentials=target.key),
        bucket=target.bucket,
        prefix=prefix,
        timeout_seconds=20,
    )


def open_warehouse(target: GoogleTarget, location: str, dataset: str) -> BigQueryWarehouse:
    api = BigQueryClientResource(project=target.project, credentials=target.key, maximum_bytes_billed=10**9)
    return BigQueryWarehouse(api=api, project=target.project, dataset=dataset, location=location)


@cache
def location_of(target: GoogleTarget) -> str:
    """Return the configured location of datasets, or else the location of the bucket."""
    if target.location is not None:
        return target.location
    with _storage(target) as client:
        return str(client.get_bucket(target.bucket).location)


@contextmanager
def _storage(target: GoogleTarget) -> Iterator[storage.Client]:
    client = storage.Client(project=target.project, credentials=load_credentials(target.key))
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
    with _storage(TARGET) as client:
        for blob in client.list_blobs(TARGET.bucket, prefix=prefix, versions=True):
            blob.delete()


@pytest.fixture
def real_gcs_lake(real_gcs_prefix: str) -> LakeBackend:
    def break_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage.Blob, "upload_from_filename", _fail)

    def put(key: str) -> None:
        with _storage(TARGET) as client:
            client.bucket(TARGET.bucket).blob(f"{real_gcs_prefix}/{key}").upload_from_string(b"")

    return LakeBackend(
        open=partial(open_lake, TARGET, real_gcs_prefix),
        put=put,
        faults={"the upload": break_uploads},
        publish_error=LakeUnreachableError,
    )


@contextmanager
def backend(open_its_lake: Callable[[], Lake]) -> Iterator[WarehouseBackend]:
    dataset = f"{_DATASETS}_{uuid.uuid4().hex}"
    client = bigquery.Client(project=PROJECT, credentials=load_credentials(TARGET.key))

    def columns(table: str) -> dict[str, str | None]:
        return {field.name: field.description for field in client.get_table(f"{PROJECT}.{dataset}.{table}").schema}

    def break_commit(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bigquery.Client, "load_table_from_uri", _fail)
        monkeypatch.setattr(bigquery.Client, "load_table_from_file", _fail)

    def break_mart(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bigquery.Client, "query", _fail)

    yield WarehouseBackend(
        open=partial(open_warehouse, TARGET, location_of(TARGET), dataset),
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
    with backend(partial(open_lake, TARGET, real_gcs_prefix)) as real:
        yield real


@pytest.fixture
def real_bigquery_by_upload_warehouse(tmp_path: Path) -> Iterator[WarehouseBackend]:
    with backend(partial(LocalLake, folder=str(tmp_path / "lake"))) as real:
        yield real
