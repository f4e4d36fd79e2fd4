"""The BigQuery double's datasets, tables, partitions and pages, seen through the official client."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import bigquery as google

from taxi_assets_tests.google.bigquery import BigQuery
from taxi_assets_tests.google.bigquery_trips import (
    PROJECT,
    SCHEMA,
    TABLE,
    ObjectServer,
    client_of,
    load_config,
    make_table,
    trips,
)


def _load(client: Any, objects: ObjectServer, **options: Any) -> Any:
    objects.contents["m.parquet"] = trips(**options)
    config = load_config()
    return client.load_table_from_uri("gs://lake/m.parquet", f"{TABLE}$202101", job_config=config).result()


# Datasets


def test_a_dataset_keeps_its_location_and_labels(client: Any) -> None:
    dataset = google.Dataset(f"{PROJECT}.trips")
    dataset.location, dataset.labels, dataset.description = "europe-west3", {"team": "taxi"}, "Trips."
    client.create_dataset(dataset)
    found = client.get_dataset("trips")
    assert (found.location, found.labels, found.description) == ("europe-west3", {"team": "taxi"}, "Trips.")
    assert [one.dataset_id for one in client.list_datasets()] == ["trips"]


@pytest.mark.usefixtures("table")
def test_a_dataset_is_created_only_once(client: Any) -> None:
    with pytest.raises(exceptions.Conflict, match=f"Already Exists: Dataset {PROJECT}:trips"):
        client.create_dataset("trips")
    assert client.create_dataset("trips", exists_ok=True).location == "EU"


def test_a_missing_dataset_is_not_found(client: Any) -> None:
    with pytest.raises(exceptions.NotFound, match=f"Not found: Dataset {PROJECT}:trips") as caught:
        client.get_dataset("trips")
    assert caught.value.errors[0]["reason"] == "notFound"
    with pytest.raises(exceptions.NotFound, match="Not found: Dataset"):
        client.create_table(google.Table(TABLE, SCHEMA))


@pytest.mark.usefixtures("table")
def test_a_dataset_with_tables_is_deleted_only_with_its_contents(client: Any) -> None:
    with pytest.raises(exceptions.BadRequest, match="still in use"):
        client.delete_dataset("trips")
    client.delete_dataset("trips", delete_contents=True)
    with pytest.raises(exceptions.NotFound):
        client.get_dataset("trips")


@pytest.mark.usefixtures("table")
def test_a_dataset_cannot_be_moved(client: Any) -> None:
    dataset = client.get_dataset("trips")
    dataset.description = "All trips."
    assert client.update_dataset(dataset, ["description"]).description == "All trips."
    dataset._properties["location"] = "US"  # noqa: SLF001  (the client itself doesn't offer it)
    with pytest.raises(exceptions.BadRequest, match="location"):
        client.update_dataset(dataset, ["location"])


# Tables


@pytest.mark.usefixtures("table")
def test_a_table_keeps_its_declared_properties(client: Any, bigquery: BigQuery) -> None:
    found = client.get_table(TABLE)
    assert [(field.name, field.field_type, field.mode) for field in found.schema] == [
        ("data_month", "DATE", "REQUIRED"),
        ("pickup_datetime", "DATETIME", "NULLABLE"),
        ("Fare_Amount", "NUMERIC", "NULLABLE"),
        ("passengers", "INTEGER", "NULLABLE"),
        ("note", "STRING", "NULLABLE"),
    ]
    assert found.schema[0].description == "The month of the file."
    assert (found.time_partitioning.type_, found.time_partitioning.field) == ("MONTH", "data_month")
    assert (found.clustering_fields, found.labels) == (["pickup_datetime"], {"service": "yellow"})
    assert (found.description, found.num_rows, found.location) == ("Yellow trips.", 0, "EU")
    assert bigquery.table("trips", "yellow")["clustering"] == {"fields": ["pickup_datetime"]}
    assert [one.table_id for one in client.list_tables("trips")] == ["yellow"]


@pytest.mark.usefixtures("table")
def test_a_table_is_created_only_once(client: Any) -> None:
    with pytest.raises(exceptions.Conflict, match=rf"Already Exists: Table {PROJECT}:trips\.yellow"):
        client.create_table(google.Table(TABLE, SCHEMA))


@pytest.mark.usefixtures("table")
def test_a_missing_table_is_not_found(client: Any) -> None:
    for ask in (client.get_table, client.delete_table):
        with pytest.raises(exceptions.NotFound, match=rf"Not found: Table {PROJECT}:trips\.green"):
            ask("trips.green")
    with pytest.raises(exceptions.NotFound):
        client.delete_table("trips.green$202101")


@pytest.mark.usefixtures("table")
def test_no_table_is_created_with_a_decorator(client: Any) -> None:
    with pytest.raises(exceptions.BadRequest, match="Table decorators cannot be used"):
        client.create_table(google.Table(f"{TABLE}$202101", SCHEMA))


@pytest.mark.parametrize(
    ("schema", "partitioning", "clustering", "message"),
    [
        ([("a", "INT64")], "b", [], "cannot be found in the schema"),
        ([("a", "STRING")], "a", [], "must be of type"),
        ([("a", "DATE")], "a", ["z"], "Invalid field: z"),
        ([("a", "FLOAT64")], None, ["a"], "Clustering is not supported"),
        ([(name, "DATE") for name in "abcde"], None, list("abcde"), "more than 4"),
        ([("a", "DATE"), ("A", "DATE")], None, [], "Duplicate field name"),
        ([("a", "WORD")], None, [], "WORD is not a valid value"),
        ([("a b", "DATE")], None, [], "Invalid field name"),
    ],
)
@pytest.mark.usefixtures("table")
def test_an_invalid_table_is_rejected(
    client: Any, schema: Any, partitioning: str | None, clustering: list[str], message: str
) -> None:
    wanted = google.Table("taxi-project.trips.other", [google.SchemaField(*field) for field in schema])
    if partitioning:
        wanted.time_partitioning = google.TimePartitioning("MONTH", field=partitioning)
    wanted.clustering_fields = clustering or None
    with pytest.raises(exceptions.BadRequest, match=message):
        client.create_table(wanted)
    assert [one.table_id for one in client.list_tables("trips")] == ["yellow"]


def test_a_patch_adds_nullable_columns_and_descriptions(
    client: Any, table: Any, objects: ObjectServer, bigquery: BigQuery
) -> None:
    _load(client, objects)
    tip = google.SchemaField("tip_amount", "NUMERIC", description="US dollars.")
    table = client.get_table(TABLE)
    table.schema = [google.SchemaField("data_month", "DATE", description="Month."), *SCHEMA[1:], tip]
    changed = client.update_table(table, ["schema"])
    assert [changed.schema[0].mode, changed.schema[0].description] == ["NULLABLE", "Month."]
    assert changed.schema[-1].description == "US dollars."
    assert [row[-1] for row in bigquery.rows("trips.yellow")] == [None, None]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (SCHEMA[:-1], "Field note is missing in new schema"),
        ([*SCHEMA[:-1], google.SchemaField("note", "INT64")], "Field note has changed type from STRING to INTEGER"),
        ([*SCHEMA[:-1], google.SchemaField("note", "STRING", "REQUIRED")], "changed mode from NULLABLE to REQUIRED"),
        ([*SCHEMA, google.SchemaField("tip", "NUMERIC", "REQUIRED")], "Cannot add required fields"),
    ],
)
def test_other_changes_of_the_schema_are_rejected(client: Any, table: Any, schema: Any, message: str) -> None:
    table.schema = schema
    expected = rf"Provided Schema does not match Table {PROJECT}:trips\.yellow\. .*{message}"
    with pytest.raises(exceptions.BadRequest, match=expected):
        client.update_table(table, ["schema"])
    assert len(client.get_table(TABLE).schema) == len(SCHEMA)


def test_labels_are_patched_one_by_one(client: Any, table: Any) -> None:
    table.labels = {"service": None, "month": "all"}
    assert client.update_table(table, ["labels"]).labels == {"month": "all"}


def test_a_patch_of_a_changed_table_is_rejected(client: Any, table: Any, objects: ObjectServer) -> None:
    _load(client, objects)
    table.description = "Too late."
    with pytest.raises(exceptions.PreconditionFailed):
        client.update_table(table, ["description"])


def test_partitioning_does_not_change_but_clustering_may(client: Any, table: Any) -> None:
    table.clustering_fields = ["note"]
    table = client.update_table(table, ["clustering_fields"])
    assert table.clustering_fields == ["note"]
    table.time_partitioning = google.TimePartitioning("DAY", field="data_month")
    with pytest.raises(exceptions.BadRequest, match="Cannot change partitioning/clustering spec"):
        client.update_table(table, ["time_partitioning"])


# Partitions


@pytest.mark.usefixtures("table")
def test_a_partition_is_described_listed_and_deleted_by_its_decorator(
    client: Any, objects: ObjectServer, bigquery: BigQuery
) -> None:
    _load(client, objects)
    january, february = client.get_table(f"{TABLE}$202101"), client.get_table(f"{TABLE}$202102")
    assert (january.num_rows, february.num_rows) == (2, 0)
    assert [row["passengers"] for row in client.list_rows(f"{TABLE}$202101")] == [0, 1]
    assert list(client.list_rows(f"{TABLE}$202102")) == []
    client.delete_table(f"{TABLE}$202102")
    assert len(bigquery.rows("trips.yellow")) == 2
    client.delete_table(f"{TABLE}$202101")
    assert bigquery.rows("trips.yellow") == []
    assert client.get_table(TABLE).labels == {"service": "yellow"}


@pytest.mark.parametrize("partition", ["2021", "20210101", "202113", "january"])
@pytest.mark.usefixtures("table")
def test_a_decorator_must_fit_the_partitioning(client: Any, partition: str) -> None:
    with pytest.raises(exceptions.BadRequest, match="partition"):
        client.get_table(f"{TABLE}${partition}")


def test_rows_are_paged(objects: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with BigQuery(storage_endpoint=objects.endpoint, rows_per_page=2) as bigquery:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery.endpoint)
        with contextlib.closing(client_of()) as client:
            make_table(client)
            _load(client, objects, fares=("1", "2", "3", "4", "5"))
            rows = client.list_rows(TABLE, selected_fields=[SCHEMA[3]])
            assert [tuple(row) for row in rows] == [(0,), (1,), (2,), (3,), (4,)]
            assert rows.total_rows == 5
            assert [row[3] for row in client.list_rows(TABLE, start_index=3)] == [3, 4]
            assert [row[3] for row in client.list_rows(TABLE, max_results=1)] == [0]
        assert [one.query.get("pageToken") for one in bigquery.requests if one.path.endswith("/data")][:3] == [
            None,
            "2",
            "4",
        ]
