"""The BigQuery double's load jobs, seen through the official client."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest
from google.api_core import exceptions
from google.cloud import bigquery as google

from taxi_assets_tests.google.bigquery import BigQuery, Fault, JobFault
from taxi_assets_tests.google.bigquery_trips import (
    FEBRUARY,
    JANUARY,
    PROJECT,
    SCHEMA,
    TABLE,
    ObjectServer,
    load_config,
    make_table,
    trips,
)
from taxi_assets_tests.google.load_jobs import KEY, URI, Load, load, objects

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["load", "objects"]

pytestmark = pytest.mark.usefixtures("table")


def _fares(bigquery: BigQuery) -> list[tuple[str, str]]:
    rows = bigquery.sql('SELECT data_month, Fare_Amount FROM trips.yellow ORDER BY 1, "Fare_Amount"')
    return [(str(month)[:7], str(fare.normalize())) for month, fare in rows]


# Replacing a month


def test_a_month_is_replaced_and_its_neighbors_stay(load: Load, objects: ObjectServer, bigquery: BigQuery) -> None:
    objects.contents[KEY] = trips(FEBRUARY, ("7",))
    load(f"{TABLE}$202102").result()
    for fares in (("1", "2"), ("3",)):
        objects.contents[KEY] = trips(JANUARY, fares)
        job = load().result()
        assert (job.output_rows, job.input_files, job.state) == (len(fares), 1, "DONE")
    assert _fares(bigquery) == [("2021-01", "3"), ("2021-02", "7")]


def test_values_are_read_back_unchanged(load: Load, client: Any) -> None:
    load().result()
    assert [tuple(row) for row in client.list_rows(TABLE)] == [
        (JANUARY, dt.datetime(2021, 1, 5, 7, 8, 9), Decimal("1.5"), 0, "Zoë"),  # noqa: DTZ001  (local time)
        (JANUARY, dt.datetime(2021, 1, 5, 7, 8, 9), Decimal(-2), 1, None),  # noqa: DTZ001
    ]


def test_rows_of_another_month_are_rejected_and_nothing_changes(
    load: Load, objects: ObjectServer, bigquery: BigQuery
) -> None:
    load().result()
    objects.contents[KEY] = trips(FEBRUARY)
    with pytest.raises(exceptions.BadRequest, match="different partitions rather than destination partition 202101"):
        load().result()
    assert len(_fares(bigquery)) == 2
    assert bigquery.jobs[-1].error is not None
    assert bigquery.jobs[-1].error["reason"] == "invalid"


def test_write_append_and_write_empty(load: Load, bigquery: BigQuery) -> None:
    load(write_disposition="WRITE_EMPTY").result()
    load(write_disposition="WRITE_APPEND").result()
    assert len(_fares(bigquery)) == 4
    with pytest.raises(exceptions.Conflict, match=r"Already Exists: Table taxi-project:trips\.yellow"):
        load(write_disposition="WRITE_EMPTY").result()
    assert len(_fares(bigquery)) == 4


def test_without_a_decorator_the_whole_table_is_replaced_with_its_schema(
    load: Load, objects: ObjectServer, client: Any, bigquery: BigQuery
) -> None:
    load().result()
    objects.contents[KEY] = trips(FEBRUARY, ("5",), note=None)
    load(TABLE, schema=SCHEMA[:-1]).result()
    assert _fares(bigquery) == [("2021-02", "5")]
    assert [field.name for field in client.get_table(TABLE).schema] == [field.name for field in SCHEMA[:-1]]
    assert client.get_table(TABLE).labels == {"service": "yellow"}


def test_a_load_may_create_its_table(load: Load, client: Any) -> None:
    with pytest.raises(exceptions.NotFound, match=r"Not found: Table taxi-project:trips\.new"):
        load("trips.new$202101", create_disposition="CREATE_NEVER").result()
    load("trips.new$202101").result()
    made = client.get_table("trips.new")
    assert (made.num_rows, made.clustering_fields, made.time_partitioning.type_) == (2, ["pickup_datetime"], "MONTH")
    with pytest.raises(exceptions.BadRequest, match="Partitioning specification must be provided"):
        load("trips.newer$202101", time_partitioning=None, clustering_fields=None).result()


def test_a_failed_load_creates_no_table(load: Load, objects: ObjectServer, client: Any) -> None:
    objects.contents[KEY] = trips(FEBRUARY)
    with pytest.raises(exceptions.BadRequest, match="different partitions"):
        load("trips.new$202101").result()
    with pytest.raises(exceptions.NotFound):
        client.get_table("trips.new")


# Layout and schema


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"clustering_fields": None}, r"interval\(type:month,field:data_month\)"),
        ({"clustering_fields": ["note"]}, r"interval\(type:month,field:data_month\) clustering\(note\)"),
        ({"time_partitioning": None}, r"clustering\(pickup_datetime\)"),
        (
            {"time_partitioning": google.TimePartitioning("DAY", field="data_month")},
            r"interval\(type:day,field:data_month\) clustering\(pickup_datetime\)",
        ),
    ],
)
def test_another_layout_is_rejected(load: Load, options: dict[str, Any], given: str) -> None:
    expected = r"interval\(type:month,field:data_month\) clustering\(pickup_datetime\)"
    message = (
        f"Incompatible table partitioning specification. Expects partitioning specification {expected}, "
        f"but input partitioning specification is {given}$"
    )
    with pytest.raises(exceptions.BadRequest, match=message):
        load(**options).result()


def test_a_load_without_a_layout_uses_the_tables(load: Load, bigquery: BigQuery) -> None:
    load(time_partitioning=None, clustering_fields=None).result()
    assert len(_fares(bigquery)) == 2


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([*SCHEMA, google.SchemaField("tip", "NUMERIC")], r"Cannot add fields \(field: tip\)"),
        (SCHEMA[:-1], "Field note is missing in new schema"),
        ([*SCHEMA[:-1], google.SchemaField("note", "INT64")], "Field note has changed type from STRING to INTEGER"),
        (
            [google.SchemaField("data_month", "DATE"), *SCHEMA[1:]],
            "Field data_month has changed mode from REQUIRED to NULLABLE",
        ),
    ],
)
def test_another_schema_is_rejected(load: Load, objects: ObjectServer, schema: Any, message: str) -> None:
    objects.contents[KEY] = trips(note=None)
    with pytest.raises(exceptions.BadRequest, match=rf"Provided Schema does not match Table .*yellow\. {message}"):
        load(schema=schema).result()


def test_fields_are_added_if_the_job_allows_it(load: Load, client: Any, bigquery: BigQuery) -> None:
    options = ["ALLOW_FIELD_ADDITION", "ALLOW_FIELD_RELAXATION"]
    relaxed = [google.SchemaField("data_month", "DATE"), *SCHEMA[1:], google.SchemaField("tip", "NUMERIC")]
    load(schema=relaxed, schema_update_options=options).result()
    schema = client.get_table(TABLE).schema
    assert (schema[0].mode, schema[0].description) == ("NULLABLE", "The month of the file.")
    assert [row[-1] for row in bigquery.rows("trips.yellow")] == [None, None]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"Fare_Amount": pa.array(["1.50", "x"])}, "Parquet column 'Fare_Amount' has type BYTE_ARRAY .* NUMERIC"),
        ({"passengers": pa.array([1.0, 2.0])}, "Parquet column 'passengers' has type DOUBLE .* INT64"),
        (
            {"pickup_datetime": pa.array([dt.datetime(2021, 1, 1, tzinfo=dt.UTC)] * 2, pa.timestamp("us", "UTC"))},
            "Parquet column 'pickup_datetime' has type INT64 .* DATETIME",
        ),
        ({"extra": pa.array([1, 2])}, "No such field: extra"),
        ({"data_month": pa.array([JANUARY, None])}, "Required column value .* is missing: data_month"),
        ({"data_month": None}, "Required column value .* is missing: data_month"),
    ],
)
def test_a_file_with_other_columns_is_rejected(
    load: Load, objects: ObjectServer, bigquery: BigQuery, columns: Any, message: str
) -> None:
    objects.contents[KEY] = trips(**columns)
    with pytest.raises(exceptions.BadRequest, match=message):
        load().result()
    assert bigquery.rows("trips.yellow") == []


def test_columns_are_matched_by_name_and_missing_ones_are_null(
    load: Load, objects: ObjectServer, bigquery: BigQuery
) -> None:
    count = pa.array([7, 8], pa.int64())
    objects.contents[KEY] = trips(passengers=None, note=None, PASSENGERS=count)
    load().result()
    assert [row[2:] for row in bigquery.rows("trips.yellow")] == [(Decimal("1.5"), 7, None), (Decimal(-2), 8, None)]


def test_timestamps_are_datetimes_unless_adjusted_to_utc(load: Load, objects: ObjectServer, client: Any) -> None:
    moment = pa.array([dt.datetime(2021, 1, 1, 12, tzinfo=dt.UTC)] * 2, pa.timestamp("us", "UTC"))
    objects.contents[KEY] = trips(seen=moment)
    load("trips.derived", schema=None).result()
    types = {field.name: field.field_type for field in client.get_table("trips.derived").schema}
    assert (types["pickup_datetime"], types["seen"], types["Fare_Amount"]) == ("DATETIME", "TIMESTAMP", "NUMERIC")
    assert [row["seen"] for row in client.list_rows("trips.derived")] == [
        dt.datetime(2021, 1, 1, 12, tzinfo=dt.UTC)
    ] * 2


def test_a_file_that_is_not_parquet_is_rejected(load: Load, objects: ObjectServer) -> None:
    objects.contents[KEY] = b"<html>"
    with pytest.raises(exceptions.BadRequest, match=r"not in Parquet format\. File: gs://lake/clean/yellow 2021-01"):
        load().result()


# ObjectServer


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (404, exceptions.NotFound, f"Not found: URI {URI}"),
        (403, exceptions.Forbidden, "'storage.objects.get' denied"),
        (503, exceptions.InternalServerError, "Retrying may solve the problem"),
    ],
)
def test_an_object_that_cannot_be_read_fails_the_job(
    load: Load, objects: ObjectServer, status: int, error: type[Exception], message: str
) -> None:
    objects.contents[KEY] = status
    job = load()
    with pytest.raises(error, match=message):
        job.result()


def test_the_object_is_read_when_the_job_runs(load: Load, objects: ObjectServer, bigquery: BigQuery) -> None:
    job = load()
    objects.contents[KEY] = trips(fares=("9",))
    job.result()
    bigquery.script_job(JobFault(before_run=lambda: objects.contents.update({KEY: trips(fares=("8", "8", "8"))})))
    assert load(write_disposition="WRITE_APPEND").result().output_rows == 3
    assert [fare for _, fare in _fares(bigquery)] == ["8", "8", "8", "9"]


# Uploads


@pytest.mark.parametrize("size", ["known", "unknown"])
def test_a_file_is_uploaded_in_the_job(client: Any, bigquery: BigQuery, size: str) -> None:
    content = trips()
    job = client.load_table_from_file(
        io.BytesIO(content),
        f"{TABLE}$202101",
        size=len(content) if size == "known" else None,
        job_id=f"upload-{size}",
        job_config=load_config(),
    )
    assert (job.job_id, job.result().output_rows) == (f"upload-{size}", 2)
    assert bigquery.requests[-2].path == f"/upload/bigquery/v2/projects/{PROJECT}/jobs"
    assert content in bigquery.requests[-2].body_bytes


def test_an_upload_continues_after_a_fault(client: Any, bigquery: BigQuery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("google.cloud.bigquery.client._DEFAULT_CHUNKSIZE", 256 << 10)
    monkeypatch.setattr("google.resumable_media.requests._request_helpers.time.sleep", lambda _: None)
    fares = tuple(str(number * 7919 % 100_003) for number in range(200_000))
    content = trips(fares=fares)
    assert len(content) > 512 << 10
    bigquery.script(Fault(status=503), method="PUT", path="/upload/")
    job = client.load_table_from_file(io.BytesIO(content), f"{TABLE}$202101", job_config=load_config())
    assert job.result().output_rows == 200_000
    assert [one.method for one in bigquery.requests if one.path.startswith("/upload/")].count("PUT") >= 4


@pytest.mark.filterwarnings("ignore:Loading pandas DataFrame into BigQuery will require:FutureWarning")
@pytest.mark.filterwarnings("ignore:Loading DataFrames via google-cloud-bigquery:PendingDeprecationWarning")
def test_a_frame_is_loaded_and_read(client: Any) -> None:
    zones = pd.DataFrame({"zone": ["Newark", "Jamaica Bay"], "zone_id": [1, 2]})
    client.load_table_from_dataframe(zones, "trips.zones").result()
    client.load_table_from_dataframe(zones, "trips.zones").result()
    assert [tuple(row) for row in client.list_rows("trips.zones")] == [("Newark", 1), ("Jamaica Bay", 2)] * 2


# JSON


def test_json_is_loaded_into_a_partition(client: Any, bigquery: BigQuery) -> None:
    row = {"DATA_MONTH": "2021-01-01", "Fare_Amount": "1.25", "passengers": 3, "pickup_datetime": "2021-01-01 10:00:00"}
    client.load_table_from_json([row], f"{TABLE}$202101", job_config=load_config(source_format=None)).result()
    assert bigquery.rows("trips.yellow") == [
        (JANUARY, dt.datetime(2021, 1, 1, 10), Decimal("1.25"), 3, None)  # noqa: DTZ001  (local time)
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"data_month": "2021-01-01", "tip": 1}, "No such field: tip"),
        ({"data_month": "2021-01-01", "passengers": "two"}, "Could not convert value .* Field: passengers; Value: two"),
        ({"data_month": "January"}, "Could not convert value .* Field: data_month"),
        ({"passengers": 1}, "Required column value"),
        ([1], "not an object"),
    ],
)
def test_json_with_other_fields_is_rejected(client: Any, bigquery: BigQuery, line: Any, message: str) -> None:
    config = load_config(source_format="NEWLINE_DELIMITED_JSON")
    file = io.BytesIO(json.dumps(line).encode())
    with pytest.raises(exceptions.BadRequest, match=message):
        client.load_table_from_file(file, f"{TABLE}$202101", job_config=config).result()
    assert bigquery.rows("trips.yellow") == []


# The bucket


@pytest.mark.parametrize(
    ("bucket", "dataset", "message"),
    [
        ("EU", "EU", None),
        ("EUROPE-WEST4", "EU", None),
        ("EUR4", "EU", None),
        ("NAM4", "us-central1", None),
        ("US-CENTRAL1", "US", None),
        ("EUROPE-WEST6", "europe-west6", None),
        ("EUROPE-WEST6", "EU", "source: europe-west6, destination: EU"),
        ("US", "EU", "source: US, destination: EU"),
        ("EU", "europe-west4", "source: EU, destination: europe-west4"),
        ("ASIA1", "US", "source: ASIA1, destination: US"),
    ],
)
def test_bucket_and_dataset_must_be_in_compatible_locations(
    objects: ObjectServer, client: Any, bucket: str, dataset: str, message: str | None
) -> None:
    client.delete_dataset("trips", delete_contents=True)
    make_table(client, dataset)
    objects.location = bucket
    external = google.ExternalConfig("PARQUET")
    external.source_uris = [URI]
    config = google.QueryJobConfig(table_definitions={"lake": external})
    jobs: list[Callable[[], Any]] = [
        lambda: client.load_table_from_uri(URI, f"{TABLE}$202101", job_config=load_config(), location=dataset),
        lambda: client.query("SELECT COUNT(*) FROM lake", job_config=config, location=dataset),
    ]
    for start in jobs:
        if message is None:
            start().result()
        else:
            with pytest.raises(exceptions.BadRequest, match=f"Cannot read and write in different locations: {message}"):
                start().result()


def test_a_job_needs_permission_to_read_the_bucket(load: Load, objects: ObjectServer) -> None:
    objects.contents[""] = 403
    with pytest.raises(exceptions.Forbidden, match=r"does not have storage\.buckets\.get access to the Google Cloud"):
        load().result()
