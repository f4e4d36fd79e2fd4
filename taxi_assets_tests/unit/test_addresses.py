"""Parsing of addresses, and errors that list the accepted forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taxi_assets.addresses import (
    LAKE_FORMS,
    WAREHOUSE_FORMS,
    BigQueryAddress,
    BucketAddress,
    DuckDBAddress,
    FolderAddress,
    PostgresAddress,
    parse_lake_address,
    parse_warehouse_address,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- lakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "folder"),
    [("lake", "lake"), ("./deep/er", "deep/er"), ("env=prod/a b", "env=prod/a b"), ("what?[*]#x", "what?[*]#x")],
)
def test_a_relative_lake_becomes_absolute(here: Path, text: str, folder: str) -> None:
    assert parse_lake_address(text) == FolderAddress(here / folder)


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        ("gs://taxi-lake", "taxi-lake", ""),
        ("gs://taxi-lake/", "taxi-lake", ""),
        ("gs://taxi_lake.example.org/nyc/taxi/", "taxi_lake.example.org", "nyc/taxi"),
        ("GS://taxi-lake/NYC", "taxi-lake", "NYC"),
    ],
)
def test_a_gcs_address_is_a_bucket_and_a_prefix_without_surrounding_slashes(
    text: str, bucket: str, prefix: str
) -> None:
    assert parse_lake_address(text) == BucketAddress(bucket, prefix)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("gs://", "Its bucket name is missing or invalid"),
        ("gs:///prefix", "Its bucket name is missing or invalid"),
        ("gs://Taxi-Lake", "Its bucket name is missing or invalid"),
        ("gs://my bucket/x", "Its bucket name is missing or invalid"),
        ("gs://user:word@bucket/x", "Its bucket name is missing or invalid"),
        ("gs://bucket?x", "Its bucket name is missing or invalid"),
        ("gs://bucket/a//b", "Its prefix contains an empty segment"),
        ("gs://bucket/a/../b", "Its prefix contains an empty segment"),
        ("gs://bucket/./a", "Its prefix contains an empty segment"),
        ("gs://bucket/a*", "Its prefix contains an empty segment"),
        ("gs://bucket/a#b", "Its prefix contains an empty segment"),
        ("gs://bucket/a b", "Its prefix contains an empty segment"),
        ("gs:/bucket/prefix", "Use "),
        ("gs:bucket", "Use "),
        ("s3://bucket", "Use "),
    ],
)
def test_an_invalid_lake_address_is_rejected_with_the_accepted_forms(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        parse_lake_address(text)
    assert str(error.value).endswith(LAKE_FORMS)


# --- warehouses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "file", "schema"),
    [
        ("duckdb:///rel.duckdb", "rel.duckdb", "taxi"),
        ("duckdb:///./rel/w.duckdb", "rel/w.duckdb", "taxi"),
        ("duckdb:///{here}/abs.duckdb", "abs.duckdb", "taxi"),
        ("duckdb:///w.duckdb?schema=nyc_2", "w.duckdb", "nyc_2"),
        ("DuckDB:///w.duckdb?schema=_T", "w.duckdb", "_T"),
        ("duckdb:///w.duckdb?trips=tables&schema=nyc", "w.duckdb", "nyc"),
        ("duckdb:///~/w.duckdb", "home/w.duckdb", "taxi"),
        ("duckdb:///a b%20c.db", "a b%20c.db", "taxi"),
        ("duckdb:///100%/c#1/w#.duckdb?schema=nyc", "100%/c#1/w#.duckdb", "nyc"),
    ],
)
def test_a_duckdb_address_is_a_file_and_a_schema(
    here: Path, monkeypatch: pytest.MonkeyPatch, text: str, file: str, schema: str
) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    assert parse_warehouse_address(text.format(here=here)) == DuckDBAddress(here / file, schema)


@pytest.mark.parametrize("options", ["trips=views", "schema=taxi&trips=views", "trips=views&schema=taxi"])
def test_trips_in_a_duckdb_file_can_be_views(here: Path, options: str) -> None:
    address = parse_warehouse_address(f"duckdb:///w.duckdb?{options}")
    assert address == DuckDBAddress(here / "w.duckdb", "taxi", trip_views=True)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("bigquery://taxi-project/taxi", BigQueryAddress("taxi-project", "taxi")),
        ("BigQuery://taxi-project/NYC_2", BigQueryAddress("taxi-project", "NYC_2")),
        ("bigquery://example.org:taxi-project/taxi", BigQueryAddress("example.org:taxi-project", "taxi")),
        ("bigquery://taxi-project/taxi?location=europe-west6", BigQueryAddress("taxi-project", "taxi", "europe-west6")),
        (
            "bigquery://taxi-project/taxi?maximum_bytes_billed=5&location=EU",
            BigQueryAddress("taxi-project", "taxi", "EU", 5),
        ),
    ],
)
def test_a_bigquery_address_is_a_project_and_a_dataset_with_a_location_and_a_limit(
    text: str, address: BigQueryAddress
) -> None:
    assert parse_warehouse_address(text) == address


@pytest.mark.parametrize(
    ("text", "url", "schema"),
    [
        ("postgresql://taxi@host:5432/nyc", "postgresql://taxi@host:5432/nyc", "taxi"),
        ("postgres://host/nyc?schema=trips", "postgresql://host/nyc", "trips"),
        (
            "postgresql://taxi@host/nyc?sslmode=verify-full&schema=trips&sslrootcert=/ca.pem",
            "postgresql://taxi@host/nyc?sslmode=verify-full&sslrootcert=%2Fca.pem",
            "trips",
        ),
        (
            "postgresql://host/nyc?passfile=/run/pgpass&sslkey=/run/key",
            "postgresql://host/nyc?passfile=%2Frun%2Fpgpass&sslkey=%2Frun%2Fkey",
            "taxi",
        ),
        ("postgresql:///nyc?host=/run/postgresql", "postgresql:///nyc?host=%2Frun%2Fpostgresql", "taxi"),
        ("postgresql://taxi@[::1]:5432/nyc", "postgresql://taxi@[::1]:5432/nyc", "taxi"),
    ],
)
def test_a_postgres_address_is_a_libpq_url_and_a_schema(text: str, url: str, schema: str) -> None:
    assert parse_warehouse_address(text) == PostgresAddress(url, schema)


@pytest.mark.parametrize("text", ["postgresql:", "postgresql://taxi@host", "postgresql://host/", "postgres://h/nyc#x"])
def test_a_postgres_address_without_a_database_is_rejected_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(ValueError, match="It is not of the form postgresql://host/database") as error:
        parse_warehouse_address(text)
    assert str(error.value).endswith(WAREHOUSE_FORMS)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://taxi:hunter2@host/nyc",
        "postgresql://taxi:hun@ter2@host/nyc",
        "postgresql://taxi@host/nyc?password=hunter2",
        "postgresql://taxi@host/nyc?schema=x&sslpassword=hunter2",
        "postgresql://taxi@host/nyc?PassWord=hunter2",
        "postgresql://taxi@host/nyc?pass%77ord=hunter2",
        "postgresql://taxi@host/nyc?oauth_client_secret=hunter2",
        "postgresql://taxi@host/nyc?scram_client_key=hunter2",
        "postgresql://taxi@host/nyc?SCRAM_server_key=hunter2",
    ],
)
def test_an_address_with_a_secret_is_rejected_and_the_secret_is_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="PGPASSWORD") as error:
        parse_warehouse_address(text)
    assert "ter2" not in str(error.value)


@pytest.mark.parametrize("schema", ["pg_catalog", "PG_temp", "information_schema", "1st", "my-taxi", ""])
@pytest.mark.parametrize("address", ["postgresql://host/nyc?schema=", "duckdb:///w.duckdb?schema="])
def test_an_invalid_or_reserved_schema_name_is_rejected(address: str, schema: str) -> None:
    with pytest.raises(ValueError, match=f"'{schema}' is not a valid schema name"):
        parse_warehouse_address(address + schema)


def test_a_bigquery_address_has_a_default_limit() -> None:
    address = parse_warehouse_address("bigquery://taxi-project/taxi")
    assert isinstance(address, BigQueryAddress)
    assert address.maximum_bytes_billed == 100_000_000_000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *(
            (text, "Its project or dataset is missing or invalid")
            for text in (
                "bigquery:",
                "bigquery:taxi-project/taxi",
                "bigquery://taxi-project",
                "bigquery://taxi-project/",
                "bigquery://taxi-project/my-dataset",
                "bigquery://taxi-project/taxi/trips",
                "bigquery://Taxi-Project/taxi",
                "bigquery:///taxi",
                "bigquery://user:word@taxi-project/taxi",
                "bigquery://[",
                "bigquery://taxi-project/taxi#part",
            )
        ),
        ("bigquery://taxi-project/taxi?location=E U", "'E U' is not a BigQuery location"),
        ("bigquery://taxi-project/taxi?location=", "'' is not a BigQuery location"),
        *(
            (
                f"bigquery://taxi-project/taxi?maximum_bytes_billed={limit}",
                f"'{limit}' is not a valid maximum_bytes_billed",
            )
            for limit in ("", "0", "-1", "1.5", "1e9", "9" * 5000)
        ),
        *(
            (f"bigquery://taxi-project/taxi?{options}", "Use ")
            for options in ("place=EU", "location", "location=EU&location=US", "token=x")
        ),
        ("mysql://host/taxi", "Use "),
        ("duckdb:///w.duckdb?trips=view", "'view' is not a valid value of trips: use tables or views"),
        ("duckdb:///w.duckdb?trips=", "'' is not a valid value of trips"),
        ("duckdb:///w.duckdb?trips=views&trips=tables", "Use "),
        ("duckdb:///w.duckdb?", "Use "),
        ("duckdb:///why?.duckdb", "A path with a question mark cannot be written in an address: rename it."),
        ("duckdb:///why?.duckdb?schema=x", "After the question mark, only schema=name and trips=views are accepted"),
    ],
)
def test_an_invalid_warehouse_address_is_rejected_with_the_accepted_forms(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        parse_warehouse_address(text)
    assert str(error.value).endswith(WAREHOUSE_FORMS)


@pytest.mark.parametrize(
    "text",
    [
        "bigquery://user:hunter2@\N{DOUBLE-STRUCK CAPITAL C}/taxi",
        "bigquery://taxi-project/taxi?password=hunter2",
        "gs://u:hunter2@b",
    ],
)
def test_the_error_quotes_no_secret(text: str) -> None:
    with pytest.raises(ValueError, match="Use ") as error:
        (parse_lake_address if text.startswith("gs") else parse_warehouse_address)(text)
    assert "hunter2" not in str(error.value)


def test_equivalent_addresses_are_equal() -> None:
    assert parse_lake_address("gs://bucket/x") == parse_lake_address("gs://bucket/x/")
    assert parse_lake_address("gs://bucket/x") != parse_lake_address("gs://bucket/y")
