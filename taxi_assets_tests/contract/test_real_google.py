"""Whether the batteries can run on the real Google Cloud: they do where a project for tests is named."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import pytest

from taxi_assets_tests.contract.stores import child_process
from taxi_assets_tests.contract.stores.real_google import HERE, Place, location_of, open_lake, open_warehouse

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from taxi_assets.storage.lake.gcs_lake import GcsLake
    from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse


def test_bigquery_can_load_from_the_bucket_for_tests_where_the_datasets_are_made() -> None:
    if not HERE.project:
        pytest.skip("TAXI_TEST_GCP_PROJECT is not set: the doubles stand for Google (docs/google-cloud.md)")
    bucket = location_of(dataclasses.replace(HERE, location=None))
    assert bucket.upper().startswith(location_of(HERE).upper())  # EUROPE-WEST6 is in EUROPE-WEST6, and in EU


def say_where(lake: Callable[[], GcsLake], warehouse: Callable[[], BigQueryWarehouse], line: Connection) -> None:
    opened = warehouse()
    line.send((lake().uri("key"), lake().storage.credentials, opened.uri(), opened.location, opened.api.credentials))


def test_another_process_opens_what_this_one_was_told_by_variables() -> None:
    place = Place("a-project", "a-bucket", key="a-key")
    with child_process(
        say_where, partial(open_lake, place, "a-prefix"), partial(open_warehouse, place, "EU", "trips")
    ) as other:
        message = other.receive()
        assert other.wait_for_exit() == 0
    assert message == ("gs://a-bucket/a-prefix/key", "a-key", "bigquery://a-project/trips", "EU", "a-key")
