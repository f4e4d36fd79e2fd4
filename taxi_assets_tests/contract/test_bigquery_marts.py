"""Marts in BigQuery: the job into a partition, its cost limit, its retries, and the views."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from taxi_assets.errors import (
    ConcurrentUpdateError,
    WarehouseConfigurationError,
    WarehouseSchemaError,
    WarehouseTableMissingError,
    WarehouseUnreachableError,
)
from taxi_assets.marts.mart import marts, read_mart
from taxi_assets.resources.google import BigQueryClientResource
from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.bigquery_fixtures import clients_wait_a_hundredth, lake, warehouse
from taxi_assets_tests.contract.mart_trips import ZONES
from taxi_assets_tests.contract.stores.bigquery import DATASET, PROJECT
from taxi_assets_tests.google.bigquery import Fault, JobFault
from taxi_assets_tests.table_rows import store_rows
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Callable

    from taxi_assets.storage.lake.gcs_lake import GcsLake
    from taxi_assets_tests.google.bigquery import BigQuery, Job
    from taxi_assets_tests.google.service_account import ServiceAccount

__all__ = ["clients_wait_a_hundredth", "lake", "warehouse"]

MART = marts()["od_flows"]


@pytest.fixture
def loaded(warehouse: BigQueryWarehouse, lake: GcsLake) -> BigQueryWarehouse:
    """Return the warehouse with a month of green and the zones."""
    warehouse.replace_month(GREEN, MONTH, publish_generated_month(lake), run_id="a-run")
    store_rows(warehouse, "taxi_zones", ZONES)
    return warehouse


def compute(warehouse: BigQueryWarehouse, run: str = "a-run") -> int:
    return warehouse.replace_mart(MART, MONTH, [GREEN], run_id=run)


def _destination(job: Job) -> str:
    """Return the table that the job writes; empty for a statement that changes rows."""
    return str(job.settings.get("destinationTable", {}).get("tableId", ""))


def jobs_of(bigquery: BigQuery) -> list[Job]:
    """Return the jobs that computed months of the mart."""
    return [job for job in bigquery.jobs if _destination(job).startswith("od_flows$")]


def test_a_month_is_one_query_job_into_its_partition(loaded: BigQueryWarehouse, bigquery: BigQuery) -> None:
    assert compute(loaded) == len(bigquery.rows("taxi.od_flows")) > 0
    (job,) = jobs_of(bigquery)
    assert job.kind == "query"
    assert job.settings["destinationTable"]["tableId"] == "od_flows$202010"
    assert (job.settings["writeDisposition"], job.settings["createDisposition"]) == ("WRITE_TRUNCATE", "CREATE_NEVER")
    assert job.settings["maximumBytesBilled"] == str(10**9)
    assert job.configuration["labels"] == {"managed-by": "taxi_assets", "mart": "od_flows", "month": "2020-10"}
    assert job.id.startswith("taxi_assets-od_flows-202010-")


def test_the_table_is_partitioned_by_month_and_clustered_by_the_rest_of_its_key(
    loaded: BigQueryWarehouse, bigquery: BigQuery
) -> None:
    compute(loaded)
    table = bigquery.table(DATASET, "od_flows")
    assert table["timePartitioning"] == {"type": "MONTH", "field": "data_month"}
    assert table["clustering"] == {"fields": ["service", "pickup_borough", "dropoff_borough"]}
    assert table["labels"] == {"managed-by": "taxi_assets", "mart": "od_flows"}
    assert table["description"] == MART.description
    assert {field["mode"] for field in table["schema"]["fields"]} == {"NULLABLE"}


def test_a_key_of_many_columns_clusters_by_the_first_four(loaded: BigQueryWarehouse, bigquery: BigQuery) -> None:
    key = ["data_month", "service", "pickup_date", "pickup_hour", "pickup_isodow", "pickup_location_id"]
    columns = ", ".join(key)
    sql = f"SELECT {columns}, SUM(trips) AS trips FROM all_trips GROUP BY {columns}"
    mart = read_mart("fine", f"/*\ndescription: Fine.\nkey: [{columns}]\nmeasures: [trips]\n*/\n{sql}")
    assert loaded.replace_mart(mart, MONTH, [GREEN], run_id="a-run") > 1
    assert bigquery.table(DATASET, "fine")["clustering"] == {"fields": key[1:5]}


def test_a_job_that_fails_for_a_transient_reason_is_retried(loaded: BigQueryWarehouse, bigquery: BigQuery) -> None:
    bigquery.script_job(JobFault(reason="backendError"), kind="query", destination="$")
    assert compute(loaded) > 0
    assert [job.error is None for job in jobs_of(bigquery)] == [False, True]


def test_a_job_that_keeps_failing_leaves_the_old_month(loaded: BigQueryWarehouse, bigquery: BigQuery) -> None:
    compute(loaded)
    old = bigquery.rows("taxi.od_flows")
    bigquery.script_job(*[JobFault(reason="backendError", writes_first=True)] * 4, kind="query", destination="$")
    with pytest.raises(WarehouseUnreachableError, match="failed"):
        compute(loaded, "another-run")
    assert bigquery.rows("taxi.od_flows") == old


def test_a_lost_answer_does_not_write_the_month_twice(loaded: BigQueryWarehouse, bigquery: BigQuery) -> None:
    bigquery.script(Fault(reset=True, after=True), method="POST", path="/jobs")
    rows = compute(loaded)
    assert len(bigquery.rows("taxi.od_flows")) == rows > 0


def test_a_retry_computes_the_month_from_the_current_trips(
    loaded: BigQueryWarehouse, bigquery: BigQuery, lake: GcsLake
) -> None:
    compute(loaded)
    loaded.replace_month(GREEN, MONTH, publish_generated_month(lake, rows=37, seed=3), run_id="b-run")
    compute(loaded)
    assert bigquery.sql("SELECT sum(timed_trips) FROM taxi.od_flows") == [(37 - 7,)]  # every fifth is a reversal


@pytest.mark.usefixtures("loaded")
def test_a_query_over_the_cost_limit_is_rejected_and_costs_nothing(
    bigquery: BigQuery, service_account: ServiceAccount
) -> None:
    api = BigQueryClientResource(project=PROJECT, credentials=service_account.base64, maximum_bytes_billed=1)
    limited = BigQueryWarehouse(api=api, project=PROJECT, dataset=DATASET)
    with pytest.raises(WarehouseConfigurationError, match="bytes billed") as error:
        compute(limited)
    assert "maximum_bytes_billed" in error.value.remedy
    assert bigquery.rows("taxi.od_flows") == []
    with pytest.raises(WarehouseConfigurationError, match="bytes billed"):
        limited.read_portable_frame("SELECT COUNT(*) AS n FROM taxi_zones")


def test_a_view_is_updated_only_if_it_differs(loaded: BigQueryWarehouse, bigquery: BigQuery) -> None:
    def writes() -> int:
        return sum(request.method in {"PATCH", "PUT"} for request in bigquery.requests)

    compute(loaded)
    assert bigquery.table(DATASET, "od_flows_ratios")["type"] == "VIEW"
    before = writes()
    compute(loaded, "another-run")
    assert writes() == before
    mart = dataclasses.replace(MART, sql=MART.sql.replace("AS share_of_pickups", "AS share"))
    loaded.replace_mart(mart, MONTH, [GREEN], run_id="a-run")
    assert writes() == before + 1
    assert "`share`" in bigquery.table(DATASET, "od_flows_ratios")["view"]["query"]


def test_a_table_with_the_name_of_a_view_is_left_alone(loaded: BigQueryWarehouse, bigquery: BigQuery) -> None:
    store_rows(loaded, "od_flows_ratios", ZONES)
    with pytest.raises(WarehouseSchemaError, match="od_flows_ratios` is a table"):
        compute(loaded)
    assert len(bigquery.rows("taxi.od_flows_ratios")) == len(ZONES)


def test_a_missing_dataset_or_table_is_named(warehouse: BigQueryWarehouse) -> None:
    with pytest.raises(WarehouseTableMissingError, match="no dataset taxi"):
        warehouse.read_portable_frame("SELECT COUNT(*) AS n FROM taxi_zones")
    with pytest.raises(WarehouseTableMissingError, match=r"The table `taxi-project\.taxi\."):
        compute(warehouse)


def test_a_mart_or_frame_whose_inputs_changed_during_its_job_is_an_error(
    loaded: BigQueryWarehouse,
) -> None:
    def fails_after_the_job() -> Callable[[], None]:
        calls: list[str] = []

        def check() -> None:
            calls.append("check")
            if len(calls) == 2:
                raise ConcurrentUpdateError("Another run has loaded trips.", remedy="Run it again.")

        return check

    with pytest.raises(ConcurrentUpdateError):
        loaded.replace_mart(MART, MONTH, [GREEN], run_id="a-run", require_inputs_unchanged=fails_after_the_job())
    with pytest.raises(ConcurrentUpdateError):
        store_rows(loaded, "month_quality", ZONES, require_inputs_unchanged=fails_after_the_job())
