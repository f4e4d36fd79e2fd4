"""Assets of your own keep every value, or get one clear error: nulls, names, keys, types, empty and changed tables."""

import datetime as dt
import re
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from taxi_assets_tests.contract.own_assets import MONTHS, Platform
from taxi_assets_tests.contract.test_any_io_manager import (
    WAREHOUSE_STORES,
    instance,
    lake_platform,
    monthly_asset,
    monthly_rows,
    store,
    warehouse_platform,
)

__all__ = ["instance", "lake_platform", "store", "warehouse_platform"]

FIRST, SECOND, _ = MONTHS


def whole(manager: str, value: Any, key: tuple[str, ...] = ("mine", "whole"), **options: Any) -> dg.AssetsDefinition:
    """Return an unpartitioned asset that returns a value."""

    def own() -> Any:
        return value

    asset: dg.AssetsDefinition = dg.asset(key=list(key), io_manager_key=manager, **options)(own)
    return asset


def load_range(platform: Platform, asset: dg.AssetsDefinition, first: str, last: str) -> Any:
    """Load consecutive partitions of an asset."""
    with platform.definitions(asset).get_asset_value_loader(instance=platform.instance) as loader:
        return loader.load_asset_value(asset.key, partition_key_range=dg.PartitionKeyRange(first, last))


# --- nulls ------------------------------------------------------------------------------------------------------------


def test_a_column_of_nulls_alone_has_all_its_rows(store: tuple[str, Platform]) -> None:
    manager, platform = store
    asset = whole(manager, pa.table({"a": [None, 1, None], "b": ["", None, "x"], "c": [1.5, None, None]}))
    platform.store(asset)
    for column, nulls in {"a": 2, "b": 1, "c": 2}.items():
        lazy = platform.load(asset, None, pl.LazyFrame)
        assert lazy.select(column).collect().height == 3
        assert lazy.filter(pl.col(column).is_null()).select(column).collect().height == nulls
    assert platform.load(asset, None, duckdb.DuckDBPyRelation).aggregate("count(*)").fetchall() == [(3,)]


def test_nan_and_null_stay_apart(store: tuple[str, Platform]) -> None:
    manager, platform = store
    asset = whole(manager, pa.table({"x": pa.array([float("nan"), None, 4.0])}))
    platform.store(asset)
    frame = platform.load(asset)
    values = pa.array(frame["x"]).to_pylist()
    assert [value for value in values if value is None] == [None]
    assert sum(value is not None and np.isnan(value) for value in values) == 1
    # As in an eager polars frame, NaN is greater than every number.
    assert platform.load(asset, None, pl.LazyFrame).filter(pl.col("x") > 3).collect().height == 2


# --- names ------------------------------------------------------------------------------------------------------------


@WAREHOUSE_STORES
@pytest.mark.parametrize("name", ["Green_Trips", "Loaded_Months", "Revenue", "a" * 64])
def test_a_name_that_databases_spell_differently_is_refused(store: tuple[str, Platform], name: str) -> None:
    manager, platform = store
    message = platform.error(whole(manager, monthly_rows("2020-10"), ("mine", name)))
    assert f"mine/{name}: {name!r} cannot be the name of a table in every database" in message


@pytest.mark.parametrize(
    "key", [("clean", "mine"), ("clean", "green_trips", "2020-10"), (".staging", "x"), ("..", "x"), ("raw", "x")]
)
def test_a_folder_of_the_platform_is_refused(lake_platform: Platform, key: tuple[str, ...]) -> None:
    message = lake_platform.error(whole("lake_parquet", monthly_rows("2020-10"), key))
    assert "would be stored in a folder of the lake that belongs to the platform" in message


@pytest.mark.parametrize("name", ["", "x" * 64, "nul\0"])
def test_a_column_name_that_cannot_be_stored_is_named(store: tuple[str, Platform], name: str) -> None:
    manager, platform = store
    message = platform.error(whole(manager, pa.table({"a": [1], name: [2]})))
    assert f"{name[:80]!r} cannot be the name of a column" in message


# --- partition keys ---------------------------------------------------------------------------------------------------


@WAREHOUSE_STORES
@pytest.mark.parametrize(
    ("keys", "value"),
    [(("1", "01"), 1), (("true", "TRUE"), True), (("2020-10-01", "20201001"), dt.date(2020, 10, 1))],
    ids=["integers", "booleans", "dates"],
)
def test_two_keys_never_mean_the_same_rows(store: tuple[str, Platform], keys: tuple[str, str], value: Any) -> None:
    manager, platform = store
    places = dg.StaticPartitionsDefinition(list(keys))
    asset = whole(manager, pa.table({"place": [value]}), partitions_def=places, metadata={"partition_expr": "place"})
    platform.store(asset, keys[0])
    assert f"The partition key {keys[1]!r} is not a value of the column place" in platform.error(asset, keys[1])
    assert len(platform.load(asset, keys[0])) == 1


@WAREHOUSE_STORES
def test_a_year_of_days_is_read_in_order_by_one_query(
    store: tuple[str, Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, platform = store
    days = dg.DailyPartitionsDefinition("2020-10-01")
    keys = [f"2020-10-{day:02}" for day in range(1, 6)]
    for key in reversed(keys):
        rows = pa.table({"day": [dt.date.fromisoformat(key)]})
        asset = whole(manager, rows, partitions_def=days, metadata={"partition_expr": "day"})
        platform.store(asset, key)
    queries: list[str] = []
    read_rows = type(platform.warehouse).read_rows

    def spy(warehouse: Any, name: str, *args: Any, **options: Any) -> Any:
        queries.append(name)
        return read_rows(warehouse, name, *args, **options)

    monkeypatch.setattr(type(platform.warehouse), "read_rows", spy)
    found = load_range(platform, asset, keys[0], keys[-1])
    assert [str(day) for day in found["day"]] == keys
    assert queries == ["whole"]


# --- tables that change -----------------------------------------------------------------------------------------------


@WAREHOUSE_STORES
def test_an_empty_result_does_not_fix_the_type_of_later_ones(store: tuple[str, Platform]) -> None:
    manager, platform = store
    for value in (pd.DataFrame({"x": []}, dtype=object), pd.DataFrame({"x": [None]}), pd.DataFrame({"x": [1]})):
        platform.store(whole(manager, value))
    assert platform.load(whole(manager, None))["x"].tolist() == [1]
    columns = {"month": pd.Series([], dtype=object), "n": pd.Series([], dtype="int64")}
    for rows in (pd.DataFrame(columns), monthly_rows(str(FIRST))[["month"]].assign(n=None)):
        platform.store(monthly_asset(manager, lambda _, rows=rows: rows), FIRST)  # type: ignore[misc]
    platform.store(monthly_asset(manager, lambda month: monthly_rows(month)[["month"]].assign(n=7)), SECOND)
    assert platform.load(monthly_asset(manager), SECOND)["n"].tolist() == [7] * 3
    assert len(platform.load(monthly_asset(manager), FIRST)) == 3


@WAREHOUSE_STORES
def test_partitions_are_missing_after_the_table_was_replaced_as_a_whole(store: tuple[str, Platform]) -> None:
    manager, platform = store
    partitioned = monthly_asset(manager, name="whole")
    platform.store(partitioned, FIRST)
    platform.store(whole(manager, monthly_rows(str(SECOND))))
    with pytest.raises(dg.Failure, match="does not contain mine/whole for 2020-10"):
        platform.load(partitioned, FIRST)
    assert "was stored without partitions" in platform.error(partitioned, FIRST)
    assert len(platform.load(whole(manager, None))) == 3


# --- values -----------------------------------------------------------------------------------------------------------

CHANGED = {
    "a date and a time": ([dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 12)], "dates, times without a zone"),  # noqa: DTZ001
    "a time with a zone and one without": (
        [dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC), dt.datetime(2020, 1, 1, 12)],  # noqa: DTZ001
        "times with a zone, times without a zone",
    ),
    "text and bytes": (["a", b"b"], "bytes, texts"),
    "an integer of 71 bits": ([2**70], "cannot be stored"),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_values_that_pyarrow_would_change_are_refused(store: tuple[str, Platform], kind: str) -> None:
    manager, platform = store
    values, message = CHANGED[kind]
    assert re.search(message, platform.error(whole(manager, pd.DataFrame({"x": pd.Series(values, dtype=object)}))))


def test_row_numbers_in_any_order_are_not_stored(store: tuple[str, Platform]) -> None:
    manager, platform = store
    frame = pd.DataFrame({"n": [5, 6, 7]})
    platform.store(whole(manager, pd.concat([frame.query("n > 5"), frame]).sort_values("n", ascending=False)))
    found = platform.load(whole(manager, None))
    assert [*found] == ["n"]
    assert sorted(found["n"]) == [5, 6, 6, 7, 7]


def test_python_objects_in_polars_are_refused(store: tuple[str, Platform]) -> None:
    manager, platform = store
    assert "has the type Object" in platform.error(whole(manager, pl.DataFrame({"x": [object()]}, strict=False)))


def test_types_that_cannot_be_combined_are_named(lake_platform: Platform) -> None:
    platform = lake_platform
    platform.store(monthly_asset("lake_parquet", lambda _: pa.table({"n": [1]})), FIRST)
    platform.store(monthly_asset("lake_parquet", lambda _: pa.table({"n": [1.5]})), SECOND)
    with pytest.raises(dg.Failure, match="the column n has type double in it, and int64 in them"):
        load_range(platform, monthly_asset("lake_parquet"), str(FIRST), str(SECOND))


@WAREHOUSE_STORES
def test_a_text_of_three_megabytes_is_read_back(store: tuple[str, Platform]) -> None:
    manager, platform = store
    platform.store(whole(manager, pa.table({"text": ["x" * 3_000_000, "y"]})))
    assert sorted(map(len, platform.load(whole(manager, None))["text"])) == [1, 3_000_000]


# --- how an asset is asked for ----------------------------------------------------------------------------------------


def test_a_partitioned_asset_is_not_loaded_without_a_partition(store: tuple[str, Platform]) -> None:
    manager, platform = store
    platform.store(monthly_asset(manager), FIRST)
    with pytest.raises(dg.Failure, match=r"mine/revenue is partitioned, but no partition is given\. Name one with"):
        platform.load(monthly_asset(manager))


def test_an_unpartitioned_asset_is_not_loaded_by_partition(store: tuple[str, Platform]) -> None:
    manager, platform = store
    platform.store(whole(manager, monthly_rows("2020-10")))
    with pytest.raises(dg.Failure, match=r"mine/whole is not partitioned, so it cannot be loaded as [dD]ict"):
        platform.load(whole(manager, None), None, dict[str, pd.DataFrame])


def test_the_value_of_an_op_is_refused(warehouse_platform: Platform) -> None:
    @dg.op(out=dg.Out(io_manager_key="warehouse_table"))
    def number() -> pd.DataFrame:
        return monthly_rows("2020-10")

    @dg.job(resource_defs=warehouse_platform.resources)
    def numbers() -> None:
        number()

    result = numbers.execute_in_process(raise_on_error=False)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert "store and load assets only, not values of ops" in str(failure.step_failure_data.user_failure_data)
