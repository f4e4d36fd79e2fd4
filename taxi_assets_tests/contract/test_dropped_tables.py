"""A table that someone has dropped: its partitions are missing, and any asset can create it again."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
import duckdb
import pandas as pd
import pytest

from taxi_assets.storage.warehouse.bigquery import BigQueryWarehouse
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse
from taxi_assets.storage.warehouse.postgres import PostgresWarehouse
from taxi_assets_tests.contract.own_assets import MONTHS, PARTITIONS, Platform
from taxi_assets_tests.contract.stores.postgres import run

if TYPE_CHECKING:
    from taxi_assets_tests.contract.stores import WarehouseBackend

FIRST, SECOND, THIRD = MONTHS


@pytest.fixture(params=["duckdb", "postgres", "bigquery"])
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    backend: WarehouseBackend = request.getfixturevalue(f"{request.param}_warehouse")
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(backend.open_lake(), backend.open(), instance)


def drop_table(platform: Platform, name: str) -> None:
    """Drop a table without this package."""
    warehouse = platform.warehouse
    if isinstance(warehouse, DuckDBWarehouse):
        with duckdb.connect(warehouse.file) as connection:
            connection.execute(f"DROP TABLE {warehouse.schema_name}.{name}")
    elif isinstance(warehouse, PostgresWarehouse):
        run(warehouse.url, f"DROP TABLE {warehouse.schema_name}.{name}")
    else:
        assert isinstance(warehouse, BigQueryWarehouse)
        with warehouse.client("dropping a table") as client:
            client.delete_table(f"{warehouse.project}.{warehouse.dataset}.{name}")


def monthly(value: object, prefix: str = "mine") -> dg.AssetsDefinition:
    """Return an asset with one row per month, or without rows if the value is None."""

    @dg.asset(
        key=[prefix, "revenue"],
        partitions_def=PARTITIONS,
        io_manager_key="warehouse_table",
        metadata={"partition_expr": "month"},
    )
    def revenue(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return pd.DataFrame({"month": [context.partition_key], "value": [value]}).head(0 if value is None else 1)

    return revenue


def test_the_partitions_of_a_dropped_table_are_missing(platform: Platform) -> None:
    for month in (FIRST, SECOND):
        platform.store(monthly(1), month)
    drop_table(platform, "revenue")
    with pytest.raises(dg.Failure, match="does not exist"):
        platform.load(monthly(1), FIRST)

    platform.store(monthly("text"), SECOND)  # with another type, as the error about changed types advises
    assert platform.load(monthly("text"), SECOND)["value"].tolist() == ["text"]
    with pytest.raises(dg.Failure, match="does not contain mine/revenue for 2020-10"):
        platform.load(monthly("text"), FIRST)


def test_another_asset_can_take_the_name_of_a_dropped_table(platform: Platform) -> None:
    platform.store(monthly(1), FIRST)
    assert "Or drop the table first." in platform.error(monthly(2, "other"), FIRST)
    drop_table(platform, "revenue")
    platform.store(monthly(2, "other"), FIRST)
    assert platform.load(monthly(2, "other"), FIRST)["value"].tolist() == [2]


def test_a_partition_that_never_had_rows_is_not_missing_without_a_table(platform: Platform) -> None:
    platform.store(monthly(None), FIRST)
    platform.store(monthly(1), SECOND)
    drop_table(platform, "revenue")
    assert len(platform.load(monthly(None), FIRST)) == 0
    platform.store(monthly(1), THIRD)
    assert len(platform.load(monthly(None), FIRST)) == 0
    with pytest.raises(dg.Failure, match="does not contain mine/revenue for 2020-11"):
        platform.load(monthly(1), SECOND)
