"""Cost limits, permissions and credentials of the BigQuery warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlglot

from taxi_assets.errors import (
    WarehouseConfigurationError,
)
from taxi_assets.resources.google import BigQueryClientResource
from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
from taxi_assets.tlc.cleaning.report import NO_ROWS
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.bigquery_fixtures import (
    clients_wait_a_hundredth,
    lake,
    load,
    warehouse,
)
from taxi_assets_tests.contract.stores.bigquery import DATASET, PROJECT, open_warehouse
from taxi_assets_tests.contract.test_any_warehouse import NEXT_MONTH, holds_exactly
from taxi_assets_tests.google.bigquery import BigQuery, JobFault
from taxi_assets_tests.google.service_account import ServiceAccount
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Callable

    from taxi_assets.storage.lake.gcs_lake import GcsLake

__all__ = ["clients_wait_a_hundredth", "lake", "warehouse"]


def with_cost_limit(account: ServiceAccount, limit: int) -> BigQueryWarehouse:
    api = BigQueryClientResource(project=PROJECT, credentials=account.base64, maximum_bytes_billed=limit)
    return BigQueryWarehouse(api=api, project=PROJECT, dataset=DATASET)


def test_every_query_has_a_cost_limit_and_exceeding_it_is_a_permanent_error(
    bigquery: BigQuery, service_account: ServiceAccount, lake: GcsLake
) -> None:
    trips = publish_generated_month(lake)
    warehouse = with_cost_limit(service_account, 123_456_789)
    load(warehouse, trips)
    assert holds_exactly(warehouse, trips)
    queries = [job for job in bigquery.jobs if job.kind == "query"]
    assert queries  # of `holds_exactly`
    assert {job.settings.get("maximumBytesBilled") for job in queries} == {"123456789"}
    tiny = with_cost_limit(service_account, 1)
    uses: list[Callable[[], object]] = [
        lambda: tiny.totals(GREEN, MONTH),
        lambda: tiny.read_month(GREEN, MONTH),
    ]
    for use in uses:
        with pytest.raises(
            WarehouseConfigurationError, match=r"limit for bytes billed: 1\..*Raise maximum_bytes_billed"
        ):
            use()


def test_loading_a_month_costs_one_query_of_its_amounts_and_row_numbers(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    load(warehouse, publish_generated_month(lake))
    load(warehouse, publish_generated_month(lake, rows=90, seed=1), "another-run")
    assert [job.kind for job in bigquery.jobs] == ["load", "load", "query", "load"] * 2
    for job in bigquery.jobs:
        if job.kind == "query":
            query = sqlglot.parse_one(job.settings["query"], read="bigquery")
            columns = {column.name for column in query.find_all(sqlglot.exp.Column)}
            assert columns == {*GREEN.money_columns, "source_row", "data_month"}
            assert "maximumBytesBilled" in job.settings


@pytest.mark.parametrize(
    ("permission", "role"),
    [
        ("bigquery.datasets.create", "BigQuery User (roles/bigquery.user) on taxi-project."),
        ("bigquery.datasets.get", "BigQuery Data Editor (roles/bigquery.dataEditor) on the dataset taxi."),
        ("bigquery.tables.create", "BigQuery Data Editor (roles/bigquery.dataEditor) on the dataset taxi."),
        ("bigquery.tables.updateData", "BigQuery Data Editor (roles/bigquery.dataEditor) on the dataset taxi."),
        ("bigquery.jobs.create", "BigQuery Job User (roles/bigquery.jobUser) on the project taxi-project."),
        ("storage.objects.get", "Storage Object User (roles/storage.objectUser) on the lake's bucket."),
        ("storage.buckets.get", "Legacy Bucket Reader (roles/storage.legacyBucketReader) on the lake's bucket."),
    ],
)
def test_a_missing_permission_is_one_line_with_the_role_that_grants_it(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, permission: str, role: str
) -> None:
    trips = publish_generated_month(lake)
    if permission.startswith("storage."):
        message = f"Access Denied: Permission '{permission}' denied on resource."
        bigquery.script_job(JobFault("accessDenied", message), kind="load", destination="green_trips$")
    bigquery.forbid(permission)
    with pytest.raises(WarehouseConfigurationError) as error:
        load(warehouse, trips)
    line = str(error.value)
    assert line.startswith("green 2020-10 cannot be loaded into `taxi-project.taxi.green_trips`: 403 Access Denied")
    assert permission in line
    assert error.value.remedy.endswith(role)
    assert "\n" not in line


def test_reading_without_permission_names_the_role_too(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    load(warehouse, publish_generated_month(lake))
    bigquery.forbid("bigquery.tables.getData")
    uses: list[Callable[[], object]] = [
        lambda: warehouse.loaded_month(GREEN, MONTH),
        lambda: warehouse.totals(GREEN, MONTH),
        lambda: warehouse.read_month(GREEN, MONTH),
        lambda: warehouse.read_month(GREEN, MONTH, rows=1),
    ]
    for use in uses:
        with pytest.raises(WarehouseConfigurationError, match=r"bigquery\.tables\.getData.*roles/bigquery\.dataEditor"):
            use()


def test_a_missing_project_is_named_and_reading_creates_no_dataset(
    bigquery: BigQuery, service_account: ServiceAccount, lake: GcsLake
) -> None:
    api = BigQueryClientResource(
        project="no-such-project", credentials=service_account.base64, maximum_bytes_billed=10**9
    )
    warehouse = BigQueryWarehouse(api=api, project="no-such-project", dataset=DATASET)
    assert warehouse.totals(GREEN, NEXT_MONTH) == NO_ROWS
    assert all(request.method == "GET" for request in bigquery.requests)
    with pytest.raises(WarehouseConfigurationError, match=r"no-such-project.*: 404 .* Check TAXI_WAREHOUSE\."):
        load(warehouse, publish_generated_month(lake))


def test_a_rejected_key_is_one_line(bigquery: BigQuery) -> None:
    with ServiceAccount(refuses=True) as account:
        warehouse = open_warehouse(bigquery.environment, account.base64)
        with pytest.raises(
            WarehouseConfigurationError, match=r"does not accept the credentials \(invalid_grant: .*Set TAXI_"
        ):
            warehouse.totals(GREEN, MONTH)
