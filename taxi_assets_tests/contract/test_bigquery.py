"""The BigQuery warehouse beyond the common contract: its tables, its jobs and their locations."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from google.cloud import bigquery as google

from taxi_assets.errors import (
    WarehouseBusyError,
    WarehouseConfigurationError,
    WarehouseSchemaError,
)
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.warehouse.bigquery.tables import LEDGER_SCHEMA, schema_from_service
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.contract.bigquery_fixtures import (
    clients_wait_a_hundredth,
    lake,
    load,
    loads,
    make_dataset,
    warehouse,
)
from taxi_assets_tests.contract.stores.bigquery import DATASET, PROJECT, open_warehouse
from taxi_assets_tests.contract.test_any_warehouse import ZONES, holds_exactly
from taxi_assets_tests.google.bigquery import BigQuery, Fault
from taxi_assets_tests.table_rows import store_rows
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from pathlib import Path

    from taxi_assets.storage.lake.gcs_lake import GcsLake
    from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
    from taxi_assets_tests.google.cloud_storage import CloudStorage
    from taxi_assets_tests.google.service_account import ServiceAccount

__all__ = ["clients_wait_a_hundredth", "lake", "warehouse"]


def test_a_table_is_partitioned_by_published_month_clustered_labeled_and_described(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    load(warehouse, publish_generated_month(lake))
    table = bigquery.table(DATASET, "green_trips")
    assert table["timePartitioning"] == {"type": "MONTH", "field": "data_month"}
    assert table["clustering"] == {"fields": ["pickup_datetime", "pickup_location_id"]}
    assert table["labels"] == {"managed-by": "taxi_assets", "service": "green"}
    assert table["description"].startswith("Green")
    assert all(field["description"] for field in table["schema"]["fields"])


def test_other_clients_find_a_table_by_its_unquoted_name(warehouse: BigQueryWarehouse) -> None:
    store_rows(warehouse, "taxi_zones", ZONES)
    name = warehouse.unquoted_name("taxi_zones")
    assert name == f"{PROJECT}.{DATASET}.taxi_zones"
    rows = warehouse.query_native(f"SELECT count(*) AS trips FROM `{name}`")
    assert rows.column("trips").to_pylist() == [len(ZONES)]


def test_a_month_is_one_load_job_from_the_lakes_object_into_its_partition(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    trips = publish_generated_month(lake)
    load(warehouse, trips)
    (job,) = loads(bigquery)
    table = bigquery.table(DATASET, "green_trips")
    assert job.settings["destinationTable"]["tableId"] == "green_trips$202010"
    assert job.settings["sourceUris"] == [trips.uri]
    assert job.settings["writeDisposition"] == "WRITE_TRUNCATE"
    assert job.settings["createDisposition"] == "CREATE_NEVER"
    assert job.settings["timePartitioning"] == table["timePartitioning"]
    assert job.settings["clustering"] == table["clustering"]
    types = {field["name"]: field["type"] for field in job.settings["schema"]["fields"]}
    assert list(types) == [column.name for column in GREEN.columns]
    assert {types[name] for name in GREEN.money_columns} == {types["trip_distance"]} == {"NUMERIC"}
    assert (types["pickup_datetime"], types["data_month"]) == ("DATETIME", "DATE")
    assert job.configuration["labels"] == {"managed-by": "taxi_assets", "service": "green", "month": "2020-10"}


def test_no_trip_passes_through_this_process_on_its_way_from_bucket_to_table(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, cloud_storage: CloudStorage
) -> None:
    trips = publish_generated_month(lake, rows=60_000)
    cloud_storage.requests.clear()
    load(warehouse, trips)
    assert max(len(request.body_bytes) for request in bigquery.requests) < 10_000 < trips.bytes
    own = [r for r in cloud_storage.requests if "gcloud-python" in r.headers.get("User-Agent", "")]
    assert own
    assert sum(request.sent_bytes for request in own) < trips.bytes / 4  # the footer


def test_from_a_folder_the_trips_are_uploaded_in_the_load_job(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, tmp_path: Path
) -> None:
    trips = publish_generated_month(LocalLake(folder=str(tmp_path)))
    load(warehouse, trips)
    (job,) = loads(bigquery)
    assert "sourceUris" not in job.settings
    assert holds_exactly(warehouse, trips)


def test_metadata_is_patched_only_if_it_differs_and_labels_of_users_stay(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    trips = publish_generated_month(lake)
    load(warehouse, trips)
    with warehouse.api.get_client() as client:
        table = client.get_table(f"{PROJECT}.{DATASET}.green_trips")
        table.labels["team"] = "cabs"
        client.update_table(table, ["labels"])
    bigquery.requests.clear()
    load(warehouse, trips, "another-run")
    assert not [request for request in bigquery.requests if request.method == "PATCH"]
    assert bigquery.table(DATASET, "green_trips")["labels"]["team"] == "cabs"


@pytest.mark.parametrize("fault", [Fault(status=503, after=True), Fault(status=412, reason="conditionNotMet")])
def test_a_concurrent_schema_update_of_another_run_is_not_an_error(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery, fault: Fault
) -> None:
    trips = publish_generated_month(lake)
    load(warehouse, trips)
    columns = [dataclasses.replace(c, description="New.") if c.name == "vendor_id" else c for c in GREEN.columns]
    bigquery.script(fault, method="PATCH")
    warehouse.replace_month(dataclasses.replace(GREEN, columns=columns), MONTH, trips, run_id="another-run")
    fields = bigquery.table(DATASET, "green_trips")["schema"]["fields"]
    assert fields[0]["description"] == "New."


def test_a_schema_that_other_runs_keep_updating_is_a_transient_error(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    trips = publish_generated_month(lake)
    load(warehouse, trips)
    columns = [dataclasses.replace(c, description="New.") if c.name == "vendor_id" else c for c in GREEN.columns]
    service = dataclasses.replace(GREEN, columns=columns)
    conflict = Fault(status=412, reason="conditionNotMet", message="Precondition check failed.")
    bigquery.script(*[conflict] * 4, method="PATCH")
    warehouse.replace_month(service, MONTH, trips, run_id="another-run")
    assert bigquery.table(DATASET, "green_trips")["schema"]["fields"][0]["description"] == "New."
    bigquery.script(*[conflict] * 5, method="PATCH")
    with pytest.raises(
        WarehouseBusyError, match=r"green_trips` could not be updated: other runs changed it .*Try again later"
    ):
        load(warehouse, trips, "a-third-run")


def test_a_month_without_rows_is_a_deleted_partition_with_a_ledger_row(
    warehouse: BigQueryWarehouse, lake: GcsLake, bigquery: BigQuery
) -> None:
    load(warehouse, publish_generated_month(lake))
    empty = publish_generated_month(lake, rows=0)
    load(warehouse, empty, "another-run")
    assert len(loads(bigquery)) == 1
    deletions = [request.path.rpartition("/")[2] for request in bigquery.requests if request.method == "DELETE"]
    assert deletions == ["green_trips$202010"]  # the ledger row is replaced, not deleted
    assert holds_exactly(warehouse, empty)


LAYOUTS = {
    "not partitioned": (None, ["pickup_datetime", "pickup_location_id"], "not partitioned by time"),
    "by day": (("DAY", "data_month"), ["pickup_datetime", "pickup_location_id"], "partitioned by DAY of data_month"),
    "by another column": (
        ("MONTH", "pickup_datetime"),
        ["pickup_datetime", "pickup_location_id"],
        "partitioned by MONTH of pickup_datetime",
    ),
    "not clustered": (("MONTH", "data_month"), None, "and not clustered"),
    "clustered otherwise": (("MONTH", "data_month"), ["vendor_id"], "and clustered by vendor_id"),
}


@pytest.mark.parametrize("rows", [20, 0])
@pytest.mark.parametrize(("parts", "clusters", "message"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_table_with_another_layout_is_rejected_and_not_changed(
    warehouse: BigQueryWarehouse,
    lake: GcsLake,
    bigquery: BigQuery,
    rows: int,
    parts: tuple[str, str] | None,
    clusters: list[str] | None,
    message: str,
) -> None:
    make_dataset(warehouse, "US")
    table = google.Table(f"{PROJECT}.{DATASET}.green_trips", schema_from_service(GREEN)[:-1])
    table.time_partitioning = None if parts is None else google.TimePartitioning(parts[0], field=parts[1])
    table.clustering_fields = clusters
    with warehouse.api.get_client() as client:
        client.create_table(table)
    before = bigquery.table(DATASET, "green_trips")
    with pytest.raises(WarehouseSchemaError) as error:
        load(warehouse, publish_generated_month(lake, rows=rows))
    assert error.value.problem.startswith(f"`{PROJECT}.{DATASET}.green_trips` is ")
    assert message in error.value.problem
    assert error.value.remedy == "Rename or drop the old table, then load its months again."
    assert bigquery.table(DATASET, "green_trips") == before
    assert not [request for request in bigquery.requests if request.method in {"PATCH", "DELETE"}]


def test_an_older_ledger_counts_as_empty_and_gains_its_new_columns_before_trips_are_loaded(
    warehouse: BigQueryWarehouse, lake: GcsLake
) -> None:
    make_dataset(warehouse, "US")
    ledger = google.Table(f"{PROJECT}.{DATASET}.green_trips_loads", LEDGER_SCHEMA[:2])
    ledger.time_partitioning = google.TimePartitioning("MONTH", field="data_month")
    with warehouse.api.get_client() as client:
        client.create_table(ledger)
    assert warehouse.loaded_month(GREEN, MONTH) is None
    trips = publish_generated_month(lake)
    load(warehouse, trips)
    assert holds_exactly(warehouse, trips)


# --- locations --------------------------------------------------------------------------------------------------------


def test_a_dataset_is_created_and_used_in_the_configured_location(
    bigquery: BigQuery, service_account: ServiceAccount, lake: GcsLake, cloud_storage: CloudStorage
) -> None:
    cloud_storage.location = "europe-west6"
    trips = publish_generated_month(lake)
    warehouse = open_warehouse(bigquery.environment, service_account.base64, location="europe-west6")
    load(warehouse, trips)
    assert holds_exactly(warehouse, trips)
    assert {job.location for job in bigquery.jobs} == {"europe-west6"}


def test_an_existing_dataset_is_used_in_its_own_location(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, lake: GcsLake, cloud_storage: CloudStorage
) -> None:
    cloud_storage.location = "EU"
    make_dataset(warehouse, "EU")
    trips = publish_generated_month(lake)
    load(warehouse, trips)
    assert holds_exactly(warehouse, trips)
    assert {job.location for job in bigquery.jobs} == {"EU"}


def test_a_dataset_in_another_location_is_rejected(
    warehouse: BigQueryWarehouse, bigquery: BigQuery, service_account: ServiceAccount, lake: GcsLake
) -> None:
    make_dataset(warehouse, "US")
    with pytest.raises(WarehouseConfigurationError) as error:
        load(open_warehouse(bigquery.environment, service_account.base64, location="EU"), publish_generated_month(lake))
    assert str(error.value) == (
        f"The dataset {PROJECT}.{DATASET} is in US, but TAXI_WAREHOUSE has the location EU. "
        "Set location=US, or use another dataset: a dataset cannot be moved. [WarehouseConfigurationError]"
    )


def test_a_bucket_in_an_incompatible_location_is_an_error_that_names_both(
    warehouse: BigQueryWarehouse, lake: GcsLake, cloud_storage: CloudStorage
) -> None:
    make_dataset(warehouse, "EU")
    cloud_storage.location = "us-east1"
    with pytest.raises(WarehouseConfigurationError) as error:
        load(warehouse, publish_generated_month(lake))
    assert "different locations: source: us-east1, destination: EU" in error.value.problem
    assert error.value.remedy.startswith("Create the dataset in the location of the bucket")
