"""The lake in a bucket of the fake Cloud Storage."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from taxi_assets.resources.google import CloudStorageResource
from taxi_assets.storage.lake.gcs_lake import GcsLake
from taxi_assets_tests.contract.stores import LakeBackend
from taxi_assets_tests.google.cloud_storage import CloudStorage, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture
def cloud_storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudStorage]:
    """A bucket with versioning, as deploy/gcp creates it."""
    with CloudStorage(versioning=True) as storage:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        yield storage


def open_lake(environment: Mapping[str, str], bucket: str) -> GcsLake:
    """Return a client of the bucket, in this or another process."""
    os.environ.update(environment)
    return GcsLake(storage=CloudStorageResource(), bucket=bucket, prefix="nyc/taxi", timeout_seconds=20)


@pytest.fixture
def gcs_lake(cloud_storage: CloudStorage) -> LakeBackend:
    def reject(_monkeypatch: pytest.MonkeyPatch) -> None:
        cloud_storage.script(Fault(status=400, message="Invalid argument."), method="POST", path="/upload/")

    def forbid(_monkeypatch: pytest.MonkeyPatch) -> None:
        cloud_storage.script(Fault(status=403, message="The account is disabled."), method="POST", path="/upload/")

    return LakeBackend(
        open=partial(open_lake, cloud_storage.environment, cloud_storage.bucket),
        put=lambda key: cloud_storage.put(f"nyc/taxi/{key}", b""),
        faults={"the upload is rejected": reject, "the upload is forbidden": forbid},
    )
