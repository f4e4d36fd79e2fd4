"""Marts in BigQuery: what the job into a partition is, what it may cost, and what becomes of one that breaks off."""

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
from taxi_assets_tests.trips import MONTH, published_month

if TYPE_CHECKING:
    from collections.abc import Callable

    from taxi_assets.storage.lake.gcs_lake import GcsLake
    from taxi_assets_tests.google.bigquery import BigQuery, Job
    from taxi_assets_tests.google.service_account import ServiceAccount

__all__ = ["clients_wait_a_hundredth", "lake", "warehouse"]

MART = marts()["od_flows"]


@pytest.fixture
def loaded(warehouse: BigQueryWarehouse, lake: GcsLake) -> BigQueryWarehouse:
    """With a month of green, and the zones."""
    warehouse.replace_month(GREEN, MONTH, published_month(lake), run_id="a-run")
    warehouse.replace_frame("taxi_zones", ZONES, {})
    return warehouse


def make(warehouse: BigQueryWarehouse, run: str = "a-run") -> int:
    return warehouse.replace_mart(MART, MONTH, [GREEN], run_id=run)


def jobs_of(bigquery: BigQuery) -> list[Job]:
    """Those that made months of the mart."""
    return [job for job in bigquery.jobs if job.settings["destinationTable"]["tableId"].startswith("od_flows$")]


def test_a_month_is_one_query_job_into_its_partition(loaded: BigQueryWarehouse, bigquery: BigQuery) -> None:
    assert make(loaded) == len(bigquery.rows("taxi.od_flows")) > 0
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
    make(loaded)
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


def test_a_job_that_fails_for_a_reason_that_may_pass_is_tried_again(
    loaded: BigQueryWarehouse, bigquery: BigQuery
) -> None:
    bigquery.script_job(JobFault(reason="backendError"), kind="query", destination="$")
    assert make(loaded) > 0
    assert [job.error is None for job in jobs_of(bigquery)] == [False, True]


def test_a_job_that_goes_on_failing_leaves_the_old_month(loaded: BigQueryWarehouse, bigquery: BigQuery) -> None:
    make(loaded)
    old = bigquery.rows("taxi.od_flows")
    bigquery.script_job(*[JobFault(reason="backendError", writes_first=True)] * 4, kind="query", destination="$")
    with pytest.raises(WarehouseUnreachableError, match="failed"):
        make(loaded, "another-run")
    assert bigquery.rows("taxi.od_flows") == old


def test_a_lost_answer_makes_no_second_month(loaded: BigQueryWarehouse, bigquery: BigQuery) -> None:
    bigquery.script(Fault(reset=True, after=True), method="POST", path="/jobs")
    rows = make(loaded)
    assert len(bigquery.rows("taxi.od_flows")) == rows > 0


def test_another_attempt_of_a_run_makes_the_month_of_the_trips_that_are_there_now(
    loaded: BigQueryWarehouse, bigquery: BigQuery, lake: GcsLake
) -> None:
    make(loaded)
    loaded.replace_month(GREEN, MONTH, published_month(lake, rows=37, seed=3), run_id="b-run")
    make(loaded)
    assert bigquery.sql("SELECT sum(timed_trips) FROM taxi.od_flows") == [(37 - 7,)]  # every fifth is a reversal


@pytest.mark.usefixtures("loaded")
def test_a_month_that_would_cost_too_much_is_refused_and_costs_nothing(
    bigquery: BigQuery, service_account: ServiceAccount
) -> None:
    api = BigQueryClientResource(project=PROJECT, credentials=service_account.base64, maximum_bytes_billed=1)
    thrifty = BigQueryWarehouse(api=api, project=PROJECT, dataset=DATASET)
    with pytest.raises(WarehouseConfigurationError, match="bytes billed") as error:
        make(thrifty)
    assert "maximum_bytes_billed" in error.value.remedy
    assert bigquery.rows("taxi.od_flows") == []
    with pytest.raises(WarehouseConfigurationError, match="bytes billed"):
        thrifty.read_portable_frame("SELECT COUNT(*) AS n FROM taxi_zones")


def test_a_view_is_written_only_when_it_is_another(loaded: BigQueryWarehouse, bigquery: BigQuery) -> None:
    def writes() -> int:
        return sum(request.method in {"PATCH", "PUT"} for request in bigquery.requests)

    make(loaded)
    assert bigquery.table(DATASET, "od_flows_ratios")["type"] == "VIEW"
    before = writes()
    make(loaded, "another-run")
    assert writes() == before
    mart = dataclasses.replace(MART, sql=MART.sql.replace("AS share_of_pickups", "AS share"))
    loaded.replace_mart(mart, MONTH, [GREEN], run_id="a-run")
    assert writes() == before + 1
    assert "`share`" in bigquery.table(DATASET, "od_flows_ratios")["view"]["query"]


def test_a_table_where_a_view_should_be_is_left_alone(loaded: BigQueryWarehouse, bigquery: BigQuery) -> None:
    loaded.replace_frame("od_flows_ratios", ZONES, {})
    with pytest.raises(WarehouseSchemaError, match="od_flows_ratios` is a table"):
        make(loaded)
    assert len(bigquery.rows("taxi.od_flows_ratios")) == len(ZONES)


def test_a_dataset_or_a_table_that_is_not_there_is_named(warehouse: BigQueryWarehouse) -> None:
    with pytest.raises(WarehouseTableMissingError, match="no dataset taxi"):
        warehouse.read_portable_frame("SELECT COUNT(*) AS n FROM taxi_zones")
    with pytest.raises(WarehouseTableMissingError, match=r"no table `taxi-project\.taxi\."):
        make(warehouse)


def test_a_mart_or_a_frame_that_another_run_has_made_newer_while_its_job_ran_is_told_to_be_made_once_more(
    loaded: BigQueryWarehouse,
) -> None:
    def second_look() -> Callable[[], None]:
        looks: list[str] = []

        def look() -> None:
            looks.append("look")
            if len(looks) == 2:
                raise ConcurrentUpdateError("Another run was here.", remedy="Look again.")

        return look

    with pytest.raises(ConcurrentUpdateError):
        loaded.replace_mart(MART, MONTH, [GREEN], run_id="a-run", require_inputs_unchanged=second_look())
    with pytest.raises(ConcurrentUpdateError):
        loaded.replace_frame("month_quality", ZONES, {}, require_inputs_unchanged=second_look())
