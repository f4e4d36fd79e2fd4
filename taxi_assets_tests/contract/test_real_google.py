"""Whether the batteries ran on the real Google Cloud: they do where a project for tests is named."""

from __future__ import annotations

import pytest

from taxi_assets_tests.contract.conftest import LAKES, WAREHOUSES
from taxi_assets_tests.contract.stores.real_google import PROJECT


def test_the_batteries_run_on_the_real_service_too() -> None:
    if PROJECT is None:
        pytest.skip("TAXI_TEST_GCP_PROJECT is not set: the doubles stand for Google (docs/google-cloud.md)")
    assert "real_gcs" in LAKES
    assert "real_bigquery" in WAREHOUSES
