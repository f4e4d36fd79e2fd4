"""The BigQuery double's query jobs, seen through the official client."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests
from google.api_core import exceptions
from google.cloud import bigquery as google

from taxi_assets_tests.google.bigquery import BigQuery, JobFault
from taxi_assets_tests.google.bigquery_trips import (
    BY_MONTH,
    FEBRUARY,
    JANUARY,
    PROJECT,
    TABLE,
    ObjectServer,
    client_of,
    load_config,
    make_table,
    trips,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MEBIBYTE = 1 << 20


@pytest.fixture
def objects() -> Iterator[ObjectServer]:
    with ObjectServer() as objects:
        objects.contents["m.parquet"] = trips()
        yield objects


@pytest.fixture
def bigquery(objects: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQuery]:
    with BigQuery(storage_endpoint=objects.endpoint, rows_per_page=3) as bigquery:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery.endpoint)
        yield bigquery


@pytest.fixture
def client(bigquery: BigQuery, objects: ObjectServer) -> Iterator[Any]:
    """With two trips of January and three of February."""
    client = client_of()
    make_table(client)
    for month, fares in ((JANUARY, ("1.50", "-2.00")), (FEBRUARY, ("1", "2", "3"))):
        objects.contents["load.parquet"] = trips(month, fares)
        partition = f"{TABLE}${month:%Y%m}"
        client.load_table_from_uri("gs://lake/load.parquet", partition, job_config=load_config()).result()
    yield client
    client.close()
    assert bigquery.requests


def _all(client: Any, query: str, **options: Any) -> list[tuple[Any, ...]]:
    config = google.QueryJobConfig(**options)
    return [tuple(row) for row in client.query(query, job_config=config).result()]


# Reading


def test_a_month_is_counted_and_summed_by_named_parameters(client: Any) -> None:
    query = f"SELECT COUNT(*), SUM(Fare_Amount) AS fares FROM `{TABLE}` WHERE data_month = @month AND note IS NULL"
    month = google.ScalarQueryParameter("month", "DATE", FEBRUARY)
    rows = client.query(query, job_config=google.QueryJobConfig(query_parameters=[month])).result()
    assert [field.name for field in rows.schema] == ["f0_", "fares"]
    assert [field.field_type for field in rows.schema] == ["INTEGER", "NUMERIC"]
    assert [tuple(row) for row in rows] == [(1, Decimal(2))]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("INT64", -7),
        ("FLOAT64", 0.1),
        ("NUMERIC", Decimal("12345678901234567890.123456789")),
        ("STRING", "naïve ☂ 'quoted'"),
        ("BOOL", True),
        ("DATE", dt.date(2021, 2, 28)),
        ("DATETIME", dt.datetime(2021, 2, 28, 23, 59, 59, 999999)),  # noqa: DTZ001  (a DATETIME has no zone)
        ("TIMESTAMP", dt.datetime(2021, 2, 28, 23, 59, 59, 1, tzinfo=dt.UTC)),
        ("TIME", dt.time(7, 8, 9)),
        ("BYTES", b"\x00\xff"),
    ],
)
def test_parameters_and_results_keep_their_values(client: Any, kind: str, value: Any) -> None:
    parameters = [google.ScalarQueryParameter("x", kind, value), google.ScalarQueryParameter("none", kind, None)]
    rows = client.query("SELECT @x AS x", job_config=google.QueryJobConfig(query_parameters=parameters)).result()
    assert [row["x"] for row in rows] == [value]


@pytest.mark.usefixtures("client")
def test_values_are_represented_as_in_bigquery(bigquery: BigQuery) -> None:
    query = (
        "SELECT NUMERIC '2.500', CAST(0 AS NUMERIC), 100, CAST(1 AS FLOAT64), TRUE, DATETIME '2021-01-01 00:00:00', "
        "TIMESTAMP '2021-01-01 00:00:00+00', CAST('nan' AS FLOAT64), CAST('-inf' AS FLOAT64), CAST(NULL AS STRING)"
    )
    url = f"{bigquery.endpoint}/bigquery/v2/projects/{PROJECT}/queries"
    body = {"query": query, "useLegacySql": False, "formatOptions": {"useInt64Timestamp": True}}
    answer = requests.post(url, json=body, timeout=120)
    assert [cell["v"] for cell in answer.json()["rows"][0]["f"]] == [
        *("2.5", "0", "100", "1.0", "true", "2021-01-01T00:00:00", "1609459200000000", "NaN", "-Infinity", None)
    ]


def test_array_and_positional_parameters(client: Any) -> None:
    query = f"SELECT passengers FROM `{TABLE}` WHERE passengers IN UNNEST(@some) AND data_month = @month ORDER BY 1"
    some = google.ArrayQueryParameter("some", "INT64", [0, 2, 9])
    month = google.ScalarQueryParameter("month", "DATE", FEBRUARY)
    assert _all(client, query, query_parameters=[some, month]) == [(0,), (2,)]
    numbers = [google.ScalarQueryParameter(None, "INT64", number) for number in (2, 3)]
    assert _all(client, "SELECT ? * 10 + ?", query_parameters=numbers) == [(23,)]


def test_rows_keep_their_order_over_pages(client: Any, bigquery: BigQuery) -> None:
    assert _all(client, f"SELECT Fare_Amount FROM `{TABLE}` ORDER BY Fare_Amount DESC") == [
        *((Decimal(fare),) for fare in ("3", "2", "1.5", "1", "-2"))
    ]
    pages = [request.query.get("pageToken") for request in bigquery.requests if "/queries/" in request.path]
    assert pages[-1] == "3"
    rows = client.query(f"SELECT * FROM `{TABLE}`").result(page_size=1)
    assert (rows.total_rows, len(list(rows))) == (5, 5)


def test_all_columns_are_read_as_arrow_and_as_a_frame(client: Any) -> None:
    rows = client.query(f"SELECT * FROM trips.yellow AS y WHERE y.data_month = '{JANUARY}'").result()
    table = rows.to_arrow(create_bqstorage_client=False)
    assert table.column_names == ["data_month", "pickup_datetime", "Fare_Amount", "passengers", "note"]
    assert table["Fare_Amount"].to_pylist() == [Decimal("1.5"), Decimal(-2)]
    frame = client.list_rows(f"{TABLE}$202101").to_arrow(create_bqstorage_client=False).to_pandas()
    assert frame["note"].tolist() == ["Zoë", None]
    assert str(frame["pickup_datetime"].dtype) == "datetime64[us]"


def test_jobs_query_returns_the_rows(client: Any, bigquery: BigQuery) -> None:
    rows = client.query_and_wait(f"SELECT passengers FROM `{TABLE}` ORDER BY 1 DESC LIMIT 4")
    assert [tuple(row) for row in rows] == [(2,), (1,), (1,), (0,)]
    asked = [request.path for request in bigquery.requests if request.method == "POST"]
    assert asked[-1] == f"/bigquery/v2/projects/{PROJECT}/queries"


def test_results_can_be_read_as_a_table(client: Any) -> None:
    job = client.query("SELECT 1 AS one")
    job.result()
    assert [tuple(row) for row in client.list_rows(job.destination)] == [(1,)]


# External tables


def _external(uri: str = "gs://lake/m.parquet", schema: Any = ()) -> Any:
    external = google.ExternalConfig("PARQUET")
    external.source_uris, external.schema = [uri], schema
    return external


def test_a_parquet_object_is_queried_in_place(client: Any, objects: ObjectServer, bigquery: BigQuery) -> None:
    query = f"SELECT COUNT(*), SUM(l.Fare_Amount) FROM lake AS l JOIN `{TABLE}` USING (data_month, passengers)"
    assert _all(client, query, table_definitions={"lake": _external()}) == [(2, Decimal("-0.5"))]
    objects.contents["m.parquet"] = trips(fares=("5",))
    declared = _external(schema=[google.SchemaField("Fare_Amount", "NUMERIC")])
    assert _all(client, "SELECT * FROM lake", table_definitions={"lake": declared}) == [(Decimal(5),)]
    assert bigquery.sql("SELECT * FROM duckdb_views() WHERE view_name = 'lake'") == []


def test_a_missing_object_and_a_wrong_schema_fail_the_query(client: Any) -> None:
    with pytest.raises(exceptions.NotFound, match="Not found: URI gs://lake/none"):
        _all(client, "SELECT * FROM lake", table_definitions={"lake": _external("gs://lake/none")})
    declared = _external(schema=[google.SchemaField("note", "NUMERIC")])
    with pytest.raises(exceptions.BadRequest, match="Parquet column 'note'"):
        _all(client, "SELECT * FROM lake", table_definitions={"lake": declared})


# Cost


def test_bytes_are_counted_and_billed(client: Any) -> None:
    job = client.query(f"SELECT passengers FROM `{TABLE}`")
    job.result()
    # Five rows: DATE, DATETIME and INT64 of 8 bytes, NUMERIC of 16; three notes of 2 bytes and their length.
    assert job.total_bytes_processed == 5 * (8 + 8 + 16 + 8) + 2 * (2 + 4) + (2 + 1)
    assert job.total_bytes_billed == 10 * MEBIBYTE
    assert client.get_table(TABLE).num_bytes == job.total_bytes_processed


def test_a_query_over_its_limit_is_rejected(client: Any) -> None:
    message = re.escape(f"Query exceeded limit for bytes billed: 1000000. {10 * MEBIBYTE} or higher required.")
    # The client knows no such reason, so its error is a 500.
    with pytest.raises(exceptions.InternalServerError, match=message) as caught:
        _all(client, f"SELECT * FROM `{TABLE}`", maximum_bytes_billed=1_000_000)
    assert caught.value.errors[0]["reason"] == "bytesBilledLimitExceeded"
    assert len(_all(client, f"SELECT * FROM `{TABLE}`", maximum_bytes_billed=10 * MEBIBYTE)) == 5
    assert _all(client, "SELECT 1", maximum_bytes_billed=1) == [(1,)]


def test_a_dry_run_only_estimates(client: Any, bigquery: BigQuery) -> None:
    before = len(bigquery.jobs)
    config = google.QueryJobConfig(dry_run=True)
    job = client.query(f"SELECT * FROM `{TABLE}`", job_config=config)
    assert (job.state, job.total_bytes_processed > 0, len(bigquery.jobs)) == ("DONE", True, before)
    with pytest.raises(exceptions.BadRequest, match="Syntax error"):
        client.query("SELECT FROM WHERE", job_config=config)


# Into tables


def _into(partition: str, **options: Any) -> dict[str, Any]:
    wanted = {"destination": f"{PROJECT}.trips.marts{partition}", "write_disposition": "WRITE_TRUNCATE"}
    return wanted | {"time_partitioning": BY_MONTH} | options


MART = f"SELECT data_month, SUM(Fare_Amount) AS fares FROM `{TABLE}` WHERE data_month = '2021-01-01' GROUP BY 1"


def test_a_query_replaces_a_partition(client: Any, bigquery: BigQuery) -> None:
    for _ in range(2):
        assert _all(client, MART, **_into("$202101")) == [(JANUARY, Decimal("-0.5"))]
        _all(client, MART.replace("2021-01", "2021-02"), **_into("$202102"))
    assert sorted(bigquery.rows("trips.marts")) == [(JANUARY, Decimal("-0.5")), (FEBRUARY, Decimal(6))]
    with pytest.raises(exceptions.BadRequest, match="different partitions"):
        _all(client, MART, **_into("$202102"))
    with pytest.raises(exceptions.BadRequest, match="Incompatible table partitioning specification"):
        _all(client, MART, **_into("$202101", clustering_fields=["fares"]))
    with pytest.raises(exceptions.BadRequest, match="Field fares has changed type from NUMERIC to INTEGER"):
        _all(client, MART.replace("SUM(Fare_Amount)", "COUNT(*)"), **_into("$202101"))
    with pytest.raises(exceptions.Conflict, match="Already Exists"):
        _all(client, MART, **_into("$202101", write_disposition="WRITE_EMPTY"))
    assert len(bigquery.rows("trips.marts")) == 2


def test_views_are_created_read_and_replaced(client: Any) -> None:
    view = google.Table("taxi-project.trips.totals")
    view.view_query = f"SELECT data_month, SUM(Fare_Amount) AS fares FROM `{TABLE}` GROUP BY data_month"
    made = client.create_table(view)
    assert (made.table_type, [field.name for field in made.schema]) == ("VIEW", ["data_month", "fares"])
    assert _all(client, "SELECT fares FROM trips.totals ORDER BY data_month") == [(Decimal("-0.5"),), (Decimal(6),)]
    client.query(f"CREATE OR REPLACE VIEW trips.totals AS SELECT COUNT(*) AS trips FROM `{TABLE}`").result()
    assert _all(client, "SELECT * FROM trips.totals") == [(5,)]
    assert "COUNT(*)" in client.get_table("trips.totals").view_query
    client.delete_table("trips.totals")


def test_the_statements_of_the_pandas_io_manager(client: Any, bigquery: BigQuery) -> None:
    client.query("CREATE SCHEMA IF NOT EXISTS zones").result()
    client.query("CREATE SCHEMA IF NOT EXISTS zones").result()
    assert client.get_dataset("zones").location == "EU"
    deleted = client.query(f"DELETE FROM `{TABLE}` WHERE data_month >= '2021-02-01' AND passengers < 2").result()
    assert (deleted.num_dml_affected_rows, client.get_table(TABLE).num_rows) == (2, 3)
    window = "DATETIME(data_month) >= '2021-01-01 00:00:00' AND DATETIME(data_month) < '2021-02-01 00:00:00'"
    assert _all(client, f"SELECT COUNT(*) FROM `{TABLE}` WHERE\n{window}") == [(2,)]
    client.query(f"TRUNCATE TABLE `{TABLE}`").result()
    assert bigquery.rows("trips.yellow") == []
    with pytest.raises(exceptions.NotFound, match="Not found: Table"):
        client.query("TRUNCATE TABLE `taxi-project.trips.none`").result()
    client.query(f"DROP TABLE IF EXISTS `{TABLE}`").result()
    client.query(f"DROP TABLE IF EXISTS `{TABLE}`").result()
    with pytest.raises(exceptions.NotFound):
        client.get_table(TABLE)


# Mistakes


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("SELECT nothing FROM trips.yellow", exceptions.BadRequest, "Unrecognized name: nothing"),
        ("SELECT (1 FROM trips.yellow", exceptions.BadRequest, "Syntax error"),
        ("SELECT 1; SELECT 2", exceptions.BadRequest, "one statement"),
        ("SELECT @x", exceptions.BadRequest, "Query parameter 'x' not found"),
        ("SELECT * FROM yellow", exceptions.BadRequest, 'Table "yellow" must be qualified with a dataset'),
        ("SELECT * FROM `trips.yellow$202101`", exceptions.BadRequest, "decorators can't be used"),
        ("SELECT * FROM other.trips.yellow", exceptions.Forbidden, "Access Denied: Table other:trips.yellow"),
        (
            "SELECT * FROM trips.green",
            exceptions.NotFound,
            "Table taxi-project:trips.green was not found in location EU",
        ),
        ("SELECT * FROM taxis.green", exceptions.NotFound, "Dataset taxi-project:taxis was not found in location EU"),
        (
            "SELECT 1 FROM trips.yellow WHERE data_month >= '2021-01-01 00:00:00'",
            exceptions.BadRequest,
            'Could not cast literal "2021-01-01 00:00:00" to type DATE',
        ),
        ("SELECT 1 / CAST('x' AS INT64)", exceptions.BadRequest, "Could not convert"),
    ],
)
def test_an_invalid_query_fails_as_a_job(
    client: Any, bigquery: BigQuery, query: str, error: type[Exception], message: str
) -> None:
    job = client.query(query, job_retry=None)
    with pytest.raises(error, match=message):
        job.result()
    assert bigquery.jobs[-1].error is not None


def test_a_query_runs_where_the_data_is(client: Any) -> None:
    with pytest.raises(exceptions.NotFound, match="Dataset taxi-project:trips was not found in location US"):
        client.query(f"SELECT 1 FROM `{TABLE}`", location="US").result()


def test_names_resolve_to_the_default_dataset_and_to_common_table_expressions(client: Any) -> None:
    query = "WITH some AS (SELECT * FROM yellow LIMIT 2) SELECT COUNT(*) FROM some, (SELECT 1)"
    assert _all(client, query, default_dataset="taxi-project.trips") == [(2,)]


def test_queries_fail_and_wait_as_scripted(client: Any, bigquery: BigQuery) -> None:
    bigquery.script_job(JobFault("resourcesExceeded", "Too big."), JobFault(after_polls=2))
    with pytest.raises(exceptions.BadRequest, match="Too big"):
        client.query("SELECT 1", job_retry=None).result()
    job = client.query("SELECT 1 AS one")
    assert not job.done()
    assert [tuple(row) for row in job.result()] == [(1,)]
    bigquery.forbid("bigquery.tables.getData")
    with pytest.raises(exceptions.Forbidden, match=r"bigquery\.tables\.getData denied"):
        client.query(f"SELECT 1 FROM `{TABLE}`").result()
