"""The generated sources.yml: names and types of each warehouse, true tests, and no file of the user is replaced.

`examples/dbt/tests/` runs its tests and its freshness queries with dbt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from click.testing import CliRunner

from taxi_assets.build import build_definitions
from taxi_assets.cli.dbt_sources import cli, sources_file
from taxi_assets.marts.mart import marts
from taxi_assets.settings import Settings
from taxi_assets.tlc.cleaning.clean_month import clean_month
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.documentation import BLOCKS
from taxi_assets_tests.trip_files import REAL, service_and_month, source_record

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

WAREHOUSES = {
    "duckdb": "duckdb:////a/warehouse.duckdb",
    "postgres": "postgresql://reader@127.0.0.1:1/nyc",
    "bigquery": "bigquery://my-project/nyc",
}
REAL_FILES = sorted(path for folder in ("first100", "months", "samples") for path in (REAL / folder).glob("*trip*"))


def source(address: str) -> dict[str, Any]:
    """Return the source that is generated for a warehouse."""
    (found,) = yaml.safe_load(sources_file(Settings.from_env({"warehouse": address})))["sources"]
    return dict(found)


def tables(address: str = WAREHOUSES["duckdb"]) -> dict[str, dict[str, Any]]:
    return {table["name"]: table for table in source(address)["tables"]}


def types(table: dict[str, Any]) -> dict[str, str]:
    return {column["name"]: column["data_type"] for column in table["columns"]}


def never_null(table: dict[str, Any]) -> set[str]:
    return {column["name"] for column in table["columns"] if "not_null" in column.get("data_tests", [])}


@pytest.mark.parametrize(
    ("address", "database", "schema"),
    [
        ("duckdb:////a/warehouse.duckdb", "warehouse", "taxi"),
        ("duckdb:////a/my.own file.db?schema=Raw_2", "my", "Raw_2"),
        ("duckdb:////a/main.duckdb?schema=main", "main_db", "main"),
        ("duckdb:////a/taxi.duckdb", "taxi", "taxi"),
        ("postgresql://reader@127.0.0.1:1/nyc?sslmode=disable&schema=Raw", "nyc", "Raw"),
        ("bigquery://example.com:project/nyc", "example.com:project", "nyc"),
    ],
)
def test_database_and_schema_are_those_of_the_warehouse(address: str, database: str, schema: str) -> None:
    generated = source(address)
    assert (generated["name"], generated["database"], generated["schema"]) == ("taxi", database, schema)
    assert set(generated["quoting"].values()) == {True}


@pytest.mark.parametrize("address", WAREHOUSES.values(), ids=WAREHOUSES)
def test_every_column_is_described_with_its_unit_and_typed(address: str) -> None:
    generated = tables(address)
    for service in SERVICES.values():
        described = {column["name"]: column["description"] for column in generated[service.table]["columns"]}
        assert described == {column.name: column.description_with_unit for column in service.columns}
    assert all(type_ for table in generated.values() for type_ in types(table).values())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("duckdb", ["bigint", "timestamp", "decimal(12,2)", "boolean", "varchar", "double"]),
        ("postgres", ["bigint", "timestamp without time zone", "numeric(12,2)", "boolean", "text", "double precision"]),
        ("bigquery", ["int64", "datetime", "numeric", "bool", "string", "float64"]),
    ],
)
def test_types_are_those_of_the_database(kind: str, expected: list[str]) -> None:
    generated = tables(WAREHOUSES[kind])
    columns = ("vendor_id", "pickup_datetime", "fare_amount", "is_reversal", "store_and_fwd_flag", "pickup_longitude")
    assert [types(generated["yellow_trips"])[name] for name in columns] == expected
    assert types(generated["zone_day_ratios"])["miles_per_trip"] == expected[-1]


@pytest.mark.parametrize(
    ("kind", "ledger", "condition"),
    [
        ("duckdb", "loaded_months", "table_name = 'green_trips'"),
        ("postgres", "loaded_months", "table_name = 'green_trips'"),
        ("bigquery", "green_trips_loads", "data_version is not null"),
    ],
)
def test_freshness_is_read_from_the_ledger_of_loads(kind: str, ledger: str, condition: str) -> None:
    config = tables(WAREHOUSES[kind])["green_trips"]["config"]
    assert f"'{ledger}'" in config["loaded_at_query"]
    assert config["loaded_at_query"].endswith(f"\nwhere {condition}\n")
    assert config["freshness"]["warn_after"] == {"count": 45, "period": "day"}


def test_every_table_and_view_has_the_key_of_the_asset_that_writes_it() -> None:
    keys = {name: "/".join(table["config"]["meta"]["dagster"]["asset_key"]) for name, table in tables().items()}
    of_marts = {name: f"marts/{mart.name}" for mart in marts().values() for name in (mart.name, *mart.views)}
    assert keys == of_marts | {
        **{service.table: f"warehouse/{service.table}" for service in SERVICES.values()},
        "taxi_zones": "reference/taxi_zones",
        "month_quality": "quality/month_quality",
    }
    graph = build_definitions(Settings()).resolve_asset_graph()
    assert set(keys.values()) <= {key.to_user_string() for key in graph.get_all_asset_keys()}


def test_a_required_column_may_be_null() -> None:
    required = {column.name for column in SERVICES["yellow"].columns if column.required}
    assert never_null(tables()["yellow_trips"]) & required == {"pickup_datetime"}


@pytest.mark.skipif(not REAL_FILES, reason="the real TLC files are missing: ../shared/data")
def test_a_column_that_is_tested_for_nulls_has_none_in_any_real_file(tmp_path: Path) -> None:
    generated, nullable = tables(), set()
    for path in REAL_FILES:
        name, month = service_and_month(path)
        service = SERVICES[name]
        cleaned = clean_month(path, source_record(path), service, month, service.rules, tmp_path)
        trips: pa.Table = pyarrow.parquet.read_table(cleaned.clean)
        with_nulls = {column for column in trips.column_names if trips[column].null_count}
        assert with_nulls & never_null(generated[service.table]) == set(), path.name
        nullable |= {f"{name}.{column}" for column in with_nulls}
    # The test would not notice much if real files had no nulls.
    assert {"green.vendor_id", "green.passenger_count", "fhv.dropoff_datetime"} <= nullable


def test_the_key_of_each_mart_is_unique() -> None:
    (test,) = tables(WAREHOUSES["bigquery"])["od_flows"]["data_tests"]
    assert test["unique"]["arguments"]["column_name"] == (
        "cast(data_month as string) || '|' || cast(service as string) || '|' || cast(pickup_borough as string) "
        "|| '|' || cast(dropoff_borough as string)"
    )


def test_the_code_of_the_how_to_page_is_that_of_the_example() -> None:
    page = [
        block for block in BLOCKS if block.document == "docs/how-to/dbt.md" and block.language not in {"bash", "sh"}
    ]
    example = REPOSITORY / "examples/dbt"
    code = [path.read_text() for name in ("dbt", "src") for path in (example / name).rglob("*.[psy]*")]
    assert [block.language for block in page] == ["sql", "python", "yaml"]
    for block in page:
        assert any(" ".join(block.text.split()) in " ".join(text.split()) for text in code), block.text


# --- the command ----------------------------------------------------------------------------------------------------


def write(output: Path, **variables: str) -> Result:
    return CliRunner().invoke(cli, ["--output", str(output)], env=variables)


def test_the_file_of_the_example_is_the_generated_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write(tmp_path / "sources.yml").exit_code == 0
    example = REPOSITORY / "examples/dbt/dbt/models/sources.yml"
    assert (tmp_path / "sources.yml").read_text() == example.read_text(), "Run `make dbt-sources`."
    assert [path.name for path in tmp_path.iterdir()] == ["sources.yml"], "The warehouse was opened."


@pytest.mark.parametrize("address", WAREHOUSES.values(), ids=WAREHOUSES)
def test_a_file_that_the_command_has_written_is_replaced(tmp_path: Path, address: str) -> None:
    output = tmp_path / "sources.yml"
    assert write(output).exit_code == 0
    assert write(output, TAXI_WAREHOUSE=address).exit_code == 0
    assert output.read_text() == sources_file(Settings.from_env({"warehouse": address}))


@pytest.mark.parametrize("content", [b"", b"version: 2\n", b"\xff\x00", b"\n# Generated by `python -m"])
def test_a_file_that_someone_else_has_written_is_kept(tmp_path: Path, content: bytes) -> None:
    output = tmp_path / "sources.yml"
    output.write_bytes(content)
    result = write(output)
    assert (result.exit_code, output.read_bytes()) == (1, content)
    assert f"Error: {output} was not written by this command, so it is not replaced." in result.output


@pytest.mark.parametrize("name", ["missing/sources.yml", ""])
def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path, name: str) -> None:
    result = write(tmp_path / name)
    assert result.exit_code == 1
    assert f"Error: {tmp_path / name} cannot be written: " in result.output


def test_an_invalid_setting_is_reported_in_one_line(tmp_path: Path) -> None:
    result = write(tmp_path / "sources.yml", TAXI_WAREHOUSE="mysql://host/db")
    assert result.exit_code == 1
    assert result.output.startswith("Error: TAXI_WAREHOUSE")
