"""The real Google Cloud, where TAXI_TEST_GCP_PROJECT and TAXI_TEST_GCP_BUCKET name a project and a bucket for tests.

Credentials are TAXI_GOOGLE_CREDENTIALS, or application default ones. Every test has a prefix and a dataset of its own,
which it removes. What breaks there cannot be asked of Google, so the client's connection is what breaks.
"""

from __future__ import annotations

import os
import uuid
from functools import partial
from typing import TYPE_CHECKING

import pytest
from google.cloud import bigquery, storage

from taxi_assets.errors import LakeUnreachableError, WarehouseUnreachableError
from taxi_assets.google_cloud import credentials
from taxi_assets.google_resources import BigQueryClientResource, CloudStorageResource
from taxi_assets.storage.bigquery import BigQueryWarehouse
from taxi_assets.storage.gcs_lake import GcsLake
from taxi_assets_tests.contract.stores import LakeBackend, WarehouseBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

# Read here, because tests run without any TAXI_ variable.
PROJECT = os.environ.get("TAXI_TEST_GCP_PROJECT")
_BUCKET = os.environ.get("TAXI_TEST_GCP_BUCKET", "")
_KEY = os.environ.get("TAXI_GOOGLE_CREDENTIALS")


def open_lake(prefix: str) -> GcsLake:
    return GcsLake(
        storage=CloudStorageResource(project=PROJECT, credentials=_KEY),
        bucket=_BUCKET,
        prefix=prefix,
        patience_seconds=20,
    )


def open_warehouse(dataset: str) -> BigQueryWarehouse:
    api = BigQueryClientResource(project=PROJECT, credentials=_KEY, maximum_bytes_billed=10**9)
    return BigQueryWarehouse(api=api, project=PROJECT, dataset=dataset)


def _fail(*_args: object, **_named: object) -> None:
    raise ConnectionError("the network is down")


@pytest.fixture
def real_gcs_prefix() -> Iterator[str]:
    prefix = f"taxi-test-{uuid.uuid4().hex}"
    yield prefix
    client = storage.Client(project=PROJECT, credentials=credentials(_KEY))
    for blob in client.list_blobs(_BUCKET, prefix=prefix, versions=True):
        blob.delete()
    client.close()


@pytest.fixture
def real_gcs_lake(real_gcs_prefix: str) -> LakeBackend:
    def break_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage.Blob, "upload_from_filename", _fail)

    return LakeBackend(partial(open_lake, real_gcs_prefix), {"the upload": break_uploads}, LakeUnreachableError)


@pytest.fixture
def real_bigquery_warehouse(real_gcs_prefix: str) -> Iterator[WarehouseBackend]:
    dataset = f"taxi_test_{uuid.uuid4().hex}"
    client = bigquery.Client(project=PROJECT, credentials=credentials(_KEY))

    def columns(table: str) -> dict[str, str | None]:
        return {field.name: field.description for field in client.get_table(f"{PROJECT}.{dataset}.{table}").schema}

    def break_commit(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bigquery.Client, "load_table_from_uri", _fail)
        monkeypatch.setattr(bigquery.Client, "load_table_from_file", _fail)

    yield WarehouseBackend(
        open=partial(open_warehouse, dataset),
        open_lake=partial(open_lake, real_gcs_prefix),
        columns=columns,
        break_commit=break_commit,
        types=("INTEGER", "STRING"),
        broken=WarehouseUnreachableError,
    )
    client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)
    client.close()
