"""Frames in BigQuery: unpartitioned tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd
import pytest

from taxi_assets.build import TaxiDefinitions, build_definitions
from taxi_assets.settings import Settings
from taxi_assets_tests.contract.bigquery_fixtures import (
    clients_wait_a_hundredth,
    lake,
    make_dataset,
    warehouse,
)
from taxi_assets_tests.contract.stores.bigquery import DATASET
from taxi_assets_tests.contract.test_any_warehouse import ZONES
from taxi_assets_tests.google.bigquery import BigQuery, Fault, JobFault
from taxi_assets_tests.pipeline_harness import failure_messages
from taxi_assets_tests.table_rows import store_rows

if TYPE_CHECKING:
    from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
    from taxi_assets_tests.google.cloud_storage import CloudStorage
    from taxi_assets_tests.google.service_account import ServiceAccount

__all__ = ["clients_wait_a_hundredth", "lake", "warehouse"]


@pytest.fixture
def definitions(
    cloud_storage: CloudStorage, bigquery: BigQuery, service_account: ServiceAccount, monkeypatch: pytest.MonkeyPatch
) -> TaxiDefinitions:
    cloud_storage.location = "EU"
    monkeypatch.setenv("TAXI_LAKE", f"gs://{cloud_storage.bucket}/nyc")
    monkeypatch.setenv("TAXI_WAREHOUSE", f"bigquery://{bigquery.project}/{DATASET}?location=EU")
    monkeypatch.setenv("TAXI_SOURCE", "sample")
    monkeypatch.setenv("TAXI_GOOGLE_CREDENTIALS", service_account.base64)
    return build_definitions(Settings.from_env())


def materialize_zones(definitions: TaxiDefinitions) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return definitions.resolve_job_def("reference").execute_in_process(instance=instance, raise_on_error=False)


def zones_of(definitions: TaxiDefinitions) -> pd.DataFrame:
    frame = definitions.load_asset_value("reference/taxi_zones")
    assert isinstance(frame, pd.DataFrame)
    return frame.sort_values("location_id", ignore_index=True)


def test_zones_are_read_back_with_their_names_and_types(definitions: TaxiDefinitions, bigquery: BigQuery) -> None:
    result = materialize_zones(definitions)
    assert result.success, failure_messages(result)
    expected = result.output_for_node("reference__taxi_zones").sort_values("location_id", ignore_index=True)
    frame = zones_of(definitions)
    pd.testing.assert_frame_equal(frame, expected)
    assert {name: str(type_) for name, type_ in frame.dtypes.items()} == {
        "location_id": "int64[pyarrow]",
        "borough": "string[pyarrow]",
        "zone": "string[pyarrow]",
        "service_zone": "string[pyarrow]",
    }
    fields = bigquery.table(DATASET, "taxi_zones")["schema"]["fields"]
    assert [field["name"] for field in fields] == list(frame.columns)
    assert all(field["description"] for field in fields)
    assert all(job.settings.get("maximumBytesBilled") for job in bigquery.jobs if job.kind == "query")


def test_a_failed_write_of_zones_leaves_the_old_ones(definitions: TaxiDefinitions, bigquery: BigQuery) -> None:
    assert materialize_zones(definitions).success
    old = zones_of(definitions)
    bigquery.script_job(JobFault("invalid", "No.", writes_first=True), kind="load", destination="taxi_zones")
    (message,) = failure_messages(materialize_zones(definitions))
    assert message == "taxi_zones cannot be written: 400 No. Check TAXI_WAREHOUSE. [WarehouseConfigurationError]"
    pd.testing.assert_frame_equal(zones_of(definitions), old)


def test_reading_a_missing_frame_names_the_asset_to_materialize(definitions: TaxiDefinitions) -> None:
    with pytest.raises(
        dg.Failure,
        match=r"taxi_zones` of reference/taxi_zones does not exist in .*\. Materialize reference/taxi_zones first\.",
    ):
        zones_of(definitions)


def test_a_frame_whose_inputs_may_change_is_written_and_read_back(definitions: TaxiDefinitions) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for job, month in (("green", "2020-10"), ("quality", None)):
            result = definitions.resolve_job_def(job).execute_in_process(
                instance=instance, partition_key=month, raise_on_error=False
            )
            assert result.success, failure_messages(result)
    quality = definitions.load_asset_value("quality/month_quality")
    assert isinstance(quality, pd.DataFrame)
    assert [*quality[quality["reason"] == "all"]["service"]] == ["green"]


def test_a_frame_is_written_in_the_location_of_the_dataset(warehouse: BigQueryWarehouse, bigquery: BigQuery) -> None:
    make_dataset(warehouse, "EU")
    store_rows(warehouse, "taxi_zones", ZONES)
    assert {job.location for job in bigquery.jobs} == {"EU"}


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
def test_times_of_every_pandas_unit_are_read_back(warehouse: BigQueryWarehouse, unit: str) -> None:
    times = pd.to_datetime(["2020-10-01 00:26:00.123", "NaT"])
    store_rows(warehouse, "seen", pd.DataFrame({"at": times.astype(f"datetime64[{unit}]")}))
    expected = pd.DataFrame({"at": times.astype("timestamp[us][pyarrow]")})
    pd.testing.assert_frame_equal(warehouse.read_frame("seen"), expected)


def test_a_frame_whose_job_insertion_was_not_answered_is_written_once(
    warehouse: BigQueryWarehouse, bigquery: BigQuery
) -> None:
    bigquery.script(Fault(status=503, after=True), method="POST", path="/jobs")
    store_rows(warehouse, "taxi_zones", ZONES)
    pd.testing.assert_frame_equal(warehouse.read_frame("taxi_zones"), ZONES)
    assert len([job for job in bigquery.jobs if job.kind == "load"]) == 1
