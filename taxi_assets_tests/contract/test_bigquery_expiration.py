"""Tables of the BigQuery warehouse never expire, whatever the defaults of the dataset are."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from google.cloud import bigquery as google

from taxi_assets.errors import WarehouseConfigurationError
from taxi_assets.marts.mart import marts
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.bigquery_fixtures import clients_wait_a_hundredth, lake, load, warehouse
from taxi_assets_tests.contract.mart_trips import ZONES
from taxi_assets_tests.contract.stores.bigquery import DATASET, PROJECT
from taxi_assets_tests.contract.test_any_warehouse import NEXT_MONTH, holds_exactly
from taxi_assets_tests.google.bigquery import BigQuery, Fault
from taxi_assets_tests.table_rows import store_rows
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from taxi_assets.storage.lake.gcs_lake import GcsLake
    from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse

__all__ = ["clients_wait_a_hundredth", "lake", "warehouse"]

DAY = 24 * 3600 * 1000


def make_dataset(warehouse: BigQueryWarehouse, **defaults: int) -> None:
    with warehouse.api.get_client() as client:
        dataset = google.Dataset(f"{PROJECT}.{DATASET}")
        for name, value in defaults.items():
            setattr(dataset, name, value)
        client.create_dataset(dataset)


def replace_all(warehouse: BigQueryWarehouse, lake: GcsLake) -> None:
    """Write every kind of table: trips, ledgers, a mart with its view, and a table of an asset."""
    load(warehouse, publish_generated_month(lake))
    store_rows(warehouse, "taxi_zones", ZONES)
    warehouse.replace_mart(marts()["od_flows"], MONTH, [GREEN], run_id="a-run")


def update(warehouse: BigQueryWarehouse, table: str, *, days: int | None = None, expires: object = None) -> None:
    with warehouse.api.get_client() as client:
        found = client.get_table(f"{PROJECT}.{DATASET}.{table}")
        partitioning = found.time_partitioning
        if days is not None:
            partitioning.expiration_ms = days * DAY
            found.time_partitioning = partitioning
            client.update_table(found, ["time_partitioning"])
        else:
            found.expires = expires
            client.update_table(found, ["expires"])


@pytest.mark.parametrize(
    "defaults",
    [
        {"default_partition_expiration_ms": 90 * DAY},
        {"default_table_expiration_ms": 90 * DAY},
        {"default_partition_expiration_ms": 90 * DAY, "default_table_expiration_ms": 90 * DAY},
    ],
    ids=["of partitions", "of tables", "of both"],
)
def test_defaults_of_the_dataset_do_not_apply_to_any_table(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, defaults: dict[str, int]
) -> None:
    make_dataset(warehouse, **defaults)
    replace_all(warehouse, lake)
    replace_all(warehouse, lake)
    with warehouse.api.get_client() as client:
        names = {table.table_id for table in client.list_tables(DATASET)}
    assert {"green_trips", "green_trips_loads", "od_flows", "od_flows_ratios", "taxi_zones"} <= names
    for name in names:
        table = bigquery.table(DATASET, name)
        assert "expirationTime" not in table, name
        assert "expirationMs" not in table.get("timePartitioning", {}), name
    assert holds_exactly(warehouse, publish_generated_month(lake))


@pytest.mark.parametrize("table", ["green_trips_loads", "taxi_zones", "od_flows"])
def test_a_run_that_ends_before_it_removes_the_expiration_is_completed_by_the_next_one(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, table: str
) -> None:
    make_dataset(warehouse, default_table_expiration_ms=90 * DAY)
    bigquery.script(Fault(reason="accessDenied"), method="PATCH", path=f"/{table}")
    with pytest.raises(WarehouseConfigurationError):
        replace_all(warehouse, lake)
    assert "expirationTime" in bigquery.table(DATASET, table)
    replace_all(warehouse, lake)
    assert "expirationTime" not in bigquery.table(DATASET, table)


@pytest.mark.parametrize("table", ["green_trips", "green_trips_loads", "od_flows"])
def test_a_table_whose_partitions_expire_is_refused_with_the_statement_that_fixes_it(
    warehouse: BigQueryWarehouse, lake: GcsLake, table: str
) -> None:
    replace_all(warehouse, lake)
    update(warehouse, table, days=36_500)
    with pytest.raises(WarehouseConfigurationError) as error:
        replace_all(warehouse, lake)
    name = f"`{PROJECT}.{DATASET}.{table}`"
    assert (
        error.value.problem == f"{name} has an expiration: BigQuery deletes each partition 36500 days after its date."
    )
    assert error.value.remedy == (
        f"Run: ALTER TABLE {name} SET OPTIONS (partition_expiration_days = NULL). Then materialize the rows again that "
        "BigQuery has deleted already."
    )


@pytest.mark.parametrize("table", ["green_trips", "green_trips_loads", "od_flows"])
def test_a_table_whose_months_have_all_been_deleted_by_its_expiration_is_refused(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, table: str
) -> None:
    replace_all(warehouse, lake)
    bigquery.catalog.get(DATASET, table).created -= DAY
    update(warehouse, table, days=1)
    assert bigquery.table(DATASET, table)["numRows"] == "0"
    with pytest.raises(WarehouseConfigurationError, match=r"has an expiration.* Then materialize the rows again"):
        replace_all(warehouse, lake)


def test_a_month_that_bigquery_has_deleted_counts_as_not_loaded(warehouse: BigQueryWarehouse, lake: GcsLake) -> None:
    empty = publish_generated_month(lake, NEXT_MONTH, rows=0)
    warehouse.replace_month(GREEN, NEXT_MONTH, empty, run_id="a-run")
    load(warehouse, publish_generated_month(lake))
    assert warehouse.loaded_month(GREEN, MONTH) is not None
    update(warehouse, "green_trips", days=1)
    assert warehouse.loaded_month(GREEN, MONTH) is None
    assert warehouse.loaded_month(GREEN, NEXT_MONTH) is not None


@pytest.mark.parametrize("answer", [Fault(status=503, after=True), Fault(reset=True, after=True)], ids=["503", "reset"])
def test_a_lost_answer_to_the_removal_of_an_expiration_is_no_error(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, answer: Fault
) -> None:
    """The repeated request has the old etag, so BigQuery answers 412."""
    make_dataset(warehouse, default_table_expiration_ms=90 * DAY)
    bigquery.script(answer, method="PATCH", path="/taxi_zones")
    store_rows(warehouse, "taxi_zones", ZONES)
    assert "expirationTime" not in bigquery.table(DATASET, "taxi_zones")


def test_a_table_of_an_asset_that_expires_is_refused(warehouse: BigQueryWarehouse) -> None:
    store_rows(warehouse, "taxi_zones", ZONES)
    update(warehouse, "taxi_zones", expires=dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
    with pytest.raises(
        WarehouseConfigurationError, match=r"deletes all rows on 2100-01-01\. Run: ALTER TABLE .*expirat"
    ):
        store_rows(warehouse, "taxi_zones", ZONES)


def test_in_the_sandbox_the_error_says_to_enable_billing(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    """The message is from https://github.com/PostHog/posthog/pull/63670."""
    make_dataset(warehouse, default_partition_expiration_ms=60 * DAY)
    message = (
        "Billing has not been enabled for this project. Enable billing at https://console.cloud.google.com/billing."
    )
    bigquery.script(Fault(reason="billingNotEnabled", message=message), method="PATCH")
    with pytest.raises(WarehouseConfigurationError) as error:
        load(warehouse, publish_generated_month(lake))
    assert error.value.remedy.startswith("Link a billing account to the project")
