"""The preconditions for running the contract tests on the real Google Cloud, if a project for tests is named."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.contract.stores.real_google import TARGET, GoogleTarget, location_of, open_lake, open_warehouse
from taxi_assets_tests.google.bigquery_files import are_colocated

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from taxi_assets.storage.lake.gcs_lake import GcsLake
    from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse


def test_the_test_bucket_and_the_test_datasets_have_compatible_locations() -> None:
    if not TARGET.project:
        pytest.skip("TAXI_TEST_GCP_PROJECT is not set: the tests use doubles instead of Google (docs/google-cloud.md)")
    bucket = location_of(dataclasses.replace(TARGET, location=None))
    assert are_colocated(bucket, location_of(TARGET))


def send_addresses(lake: Callable[[], GcsLake], warehouse: Callable[[], BigQueryWarehouse], pipe: Connection) -> None:
    opened = warehouse()
    pipe.send((lake().uri("key"), lake().storage.credentials, opened.uri(), opened.location, opened.api.credentials))


def test_another_process_opens_the_same_stores_without_the_variables() -> None:
    target = GoogleTarget("a-project", "a-bucket", key="a-key")
    with child_process(
        send_addresses, partial(open_lake, target, "a-prefix"), partial(open_warehouse, target, "EU", "trips")
    ) as other:
        addresses = other.receive()
        assert other.wait_for_exit() == 0
    assert addresses == ("gs://a-bucket/a-prefix/key", "a-key", "bigquery://a-project/trips", "EU", "a-key")
