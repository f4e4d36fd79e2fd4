"""The contract of the IO managers for assets of your own: the right rows of the right partition, or one clear error."""

import datetime as dt
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from functools import cache, partial
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest

from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake.objects import ParquetPartition
from taxi_assets_tests.contract.own_assets import MONTHS, PARTITIONS, ROWS, Platform, months_of, rows_of
from taxi_assets_tests.contract.stores import LakeBackend, WarehouseBackend
from taxi_assets_tests.contract.stores import bigquery as bigquery_store
from taxi_assets_tests.contract.stores import duckdb as duckdb_store
from taxi_assets_tests.contract.stores import postgres as postgres_store
from taxi_assets_tests.contract.stores.gcs import open_lake
from taxi_assets_tests.google.bigquery import BigQuery
from taxi_assets_tests.google.cloud_storage import CloudStorage

FIRST, SECOND, THIRD = MONTHS
BY_MONTH = {"partition_expr": "month"}
PUBLISHED_KINDS = ["duckdb", "duckdb_views", "postgres", "bigquery"]
READ_TYPES: dict[Any, Callable[[Any], pd.DataFrame]] = {
    pd.DataFrame: lambda frame: frame,
    pa.Table: lambda table: table.to_pandas(),
    pa.RecordBatchReader: lambda reader: reader.read_all().to_pandas(),
    pyarrow.dataset.Dataset: lambda dataset: dataset.to_table().to_pandas(),
    pl.DataFrame: lambda frame: frame.to_pandas(),
    pl.LazyFrame: lambda frame: frame.collect().to_pandas(),
    duckdb.DuckDBPyRelation: lambda relation: relation.df(),
}
WRITTEN_TYPES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas.DataFrame": lambda frame: frame,
    "pyarrow.Table": pa.Table.from_pandas,
    "pyarrow.RecordBatchReader": lambda frame: pa.Table.from_pandas(frame).to_reader(max_chunksize=2),
    "polars.DataFrame": pl.from_pandas,
    "polars.LazyFrame": lambda frame: pl.from_pandas(frame).lazy(),
}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture(scope="module")
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Platform]]:
    """A function that returns a platform on a kind of warehouse, with three months of trips, built once.

    BigQuery has its lake in a bucket, the others in a folder.
    """
    with ExitStack() as stack:

        @cache
        def platform(kind: str) -> Platform:
            folder = tmp_path_factory.mktemp(kind)
            match kind:
                case "postgres":
                    server = request.getfixturevalue("postgres_server")
                    url = stack.enter_context(postgres_store.database(server))
                    backend = postgres_store.backend(folder, url)
                case "bigquery":
                    storage = stack.enter_context(CloudStorage(versioning=True))
                    double = stack.enter_context(
                        BigQuery(storage_endpoint=storage.endpoint, project=bigquery_store.PROJECT)
                    )
                    patch = stack.enter_context(pytest.MonkeyPatch.context())
                    for name, value in {**storage.environment, **double.environment}.items():
                        patch.setenv(name, value)
                    lake = partial(open_lake, storage.environment, storage.bucket)
                    backend = bigquery_store.backend(double, request.getfixturevalue("service_account"), lake)
                case _:
                    local = partial(LocalLake, folder=str(folder / "lake"))
                    backend = duckdb_store.backend(folder, local, trip_views=kind == "duckdb_views")
            instance = stack.enter_context(dg.DagsterInstance.ephemeral())
            platform = Platform(backend.open_lake(), backend.open(), instance)
            platform.publish_months()
            return platform

        yield platform


@pytest.fixture(params=["duckdb", "postgres", "bigquery"])
def published_warehouse(request: pytest.FixtureRequest, published: Callable[[str], Platform]) -> Platform:
    """A platform on each warehouse, which has three months of trips. Tests do not change it."""
    return published(request.param)


@pytest.fixture(params=["duckdb", "postgres", "bigquery"])
def warehouse_platform(request: pytest.FixtureRequest, instance: dg.DagsterInstance) -> Platform:
    """A platform on each warehouse. BigQuery loads from a bucket, the others from a folder."""
    backend: WarehouseBackend = request.getfixturevalue(f"{request.param}_warehouse")
    return Platform(backend.open_lake(), backend.open(), instance)


@pytest.fixture(params=["local", "gcs"])
def lake_platform(
    request: pytest.FixtureRequest, instance: dg.DagsterInstance, duckdb_warehouse: WarehouseBackend
) -> Platform:
    """A platform on each lake, with a warehouse in a DuckDB file."""
    backend: LakeBackend = request.getfixturevalue(f"{request.param}_lake")
    return Platform(backend.open(), duckdb_warehouse.open(), instance)


@pytest.fixture(
    params=[
        ("lake_parquet", "local"),
        ("lake_parquet", "gcs"),
        ("warehouse_table", "duckdb"),
        ("warehouse_table", "postgres"),
        ("warehouse_table", "bigquery"),
    ],
    ids=lambda store: store[1],
)
def store(
    request: pytest.FixtureRequest, instance: dg.DagsterInstance, duckdb_warehouse: WarehouseBackend
) -> tuple[str, Platform]:
    """An IO manager by name, and a platform on a lake or a warehouse on which it stores rows."""
    manager, kind = request.param
    if manager == "lake_parquet":
        lake: LakeBackend = request.getfixturevalue(f"{kind}_lake")
        return manager, Platform(lake.open(), duckdb_warehouse.open(), instance)
    backend: WarehouseBackend = request.getfixturevalue(f"{kind}_warehouse")
    return manager, Platform(backend.open_lake(), backend.open(), instance)


def upstream_key(layer: str) -> dg.AssetKey:
    return dg.AssetKey([layer, "green_trips"])


def monthly_rows(month: str) -> pd.DataFrame:
    """Return three rows of a month, with values of every kind and nulls."""
    start = dt.date.fromisoformat(f"{month}-01")
    return pd.DataFrame(
        {
            "month": [start] * 3,
            "place": ["Größe 🚕", None, ""],
            "trips": pd.array([1, None, 2**53 + 1], "Int64"),
            "share": [0.1, None, -1e-300],
            "dollars": [Decimal("12.34"), None, Decimal("-0.01")],
            "is_new": pd.array([True, None, False], "boolean"),
            "at": pd.Series(["2020-10-01T00:26:00.000001", None, "1999-12-31T23:59:59"], dtype="datetime64[us]"),
        }
    )


def monthly_asset(manager: str, rows: Callable[[str], Any] = monthly_rows, name: str = "revenue") -> Any:
    """Return an asset of months that an IO manager stores."""

    @dg.asset(key=["mine", name], partitions_def=PARTITIONS, io_manager_key=manager, metadata=BY_MONTH)
    def own(context: dg.AssetExecutionContext) -> Any:
        return rows(context.partition_key)

    return own


def reader_of(
    layer: str,
    type_: Any,
    found: list[Any],
    *,
    mapping: dg.PartitionMapping | None = None,
    partitions: dg.PartitionsDefinition[Any] | None = PARTITIONS,
    **input_metadata: Any,
) -> dg.AssetsDefinition:
    """Return an asset that reads green trips in a type, and puts what it gets into a list."""
    trips = dg.AssetIn(upstream_key(layer), partition_mapping=mapping, metadata=input_metadata)

    @dg.asset(key=["mine", "reader"], partitions_def=partitions, ins={"trips": trips})
    def reader(trips: type_) -> None:
        found.append(trips)

    return reader


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", WRITTEN_TYPES)
def test_a_run_replaces_its_partition_and_no_other(store: tuple[str, Platform], type_: str) -> None:
    manager, platform = store
    asset = monthly_asset(manager, lambda month: WRITTEN_TYPES[type_](monthly_rows(month)))
    for month in (FIRST, SECOND):
        platform.store(asset, month)
    fewer = monthly_asset(manager, lambda month: WRITTEN_TYPES[type_](monthly_rows(month).head(1)))
    platform.store(fewer, FIRST)
    assert rows_of(platform.load(asset, FIRST)) == rows_of(monthly_rows(str(FIRST)).head(1))
    assert rows_of(platform.load(asset, SECOND)) == rows_of(monthly_rows(str(SECOND)))


def test_a_run_of_an_unpartitioned_asset_replaces_all_rows(store: tuple[str, Platform]) -> None:
    manager, platform = store
    for rows in (monthly_rows("2020-10"), monthly_rows("2020-11").head(1)):

        @dg.asset(key=["mine", "whole"], io_manager_key=manager)
        def whole() -> pd.DataFrame:
            return rows  # noqa: B023  (the asset runs at once)

        platform.store(whole)
        assert rows_of(platform.load(whole)) == rows_of(rows)


@pytest.mark.parametrize("partitions", ["daily", "weekly", "static", "numbers", "dynamic", "multi"])
def test_partitions_of_every_kind_are_replaced_one_by_one(store: tuple[str, Platform], partitions: str) -> None:
    manager, platform = store
    dynamic = dg.DynamicPartitionsDefinition(name="places")
    platform.instance.add_dynamic_partitions("places", ["Größe 🚕", "a/../b"])
    days = dg.DailyPartitionsDefinition("2020-10-01")
    places = dg.StaticPartitionsDefinition(["queens", "bronx"])
    definitions: dict[str, tuple[Any, Any, list[str]]] = {
        "daily": (days, "at", ["2020-10-01", "2020-10-02"]),
        "weekly": (dg.WeeklyPartitionsDefinition("2020-10-04"), "day", ["2020-10-04", "2020-10-11"]),
        "static": (places, "place", ["queens", "bronx"]),
        "numbers": (dg.StaticPartitionsDefinition(["1", "2"]), "number", ["1", "2"]),
        "dynamic": (dynamic, "place", ["Größe 🚕", "a/../b"]),
        "multi": (
            dg.MultiPartitionsDefinition({"day": days, "place": places}),
            {"day": "day", "place": "place"},
            ["2020-10-01|queens", "2020-10-01|bronx"],
        ),
    }
    definition, columns, (first, second) = definitions[partitions]

    def rows(key: str, values: list[int]) -> pd.DataFrame:
        is_day = partitions in {"daily", "weekly", "multi"}
        day = dt.date.fromisoformat(key.partition("|")[0]) if is_day else dt.date(2020, 10, 1)
        frame = pd.DataFrame({"value": values})
        at = dt.datetime.combine(day, dt.time(23, 59))
        return frame.assign(
            day=day,
            at=pd.Series([at] * len(values), dtype="datetime64[us]"),
            place=key.rpartition("|")[2],
            number=int(key) if key.isdigit() else 0,
        )

    def asset(values: list[int]) -> Any:
        @dg.asset(
            key=["mine", "parts"],
            partitions_def=definition,
            io_manager_key=manager,
            metadata={"partition_expr": columns},
        )
        def parts(context: dg.AssetExecutionContext) -> pd.DataFrame:
            return rows(context.partition_key, values)

        return parts

    for key, values in ((first, [1, 2]), (second, [3]), (first, [4])):
        platform.store(asset(values), key)
    assert platform.load(asset([]), first)["value"].tolist() == [4]
    assert platform.load(asset([]), second)["value"].tolist() == [3]


def test_a_partition_without_rows_is_stored_and_not_missing(store: tuple[str, Platform]) -> None:
    manager, platform = store
    asset = monthly_asset(manager, lambda month: monthly_rows(month).head(0 if month == str(FIRST) else 3))
    platform.store(asset, SECOND)
    platform.store(asset, FIRST)
    assert len(platform.load(asset, FIRST)) == 0
    assert len(platform.load(asset, SECOND)) == 3


def test_a_first_partition_without_rows_fixes_no_types(store: tuple[str, Platform]) -> None:
    manager, platform = store
    platform.store(monthly_asset(manager, lambda _: pd.DataFrame(columns=[*monthly_rows("2020-10")])), FIRST)
    platform.store(monthly_asset(manager), SECOND)
    assert len(platform.load(monthly_asset(manager), FIRST)) == 0
    assert rows_of(platform.load(monthly_asset(manager), SECOND)) == rows_of(monthly_rows(str(SECOND)))


def test_a_named_index_is_stored_as_a_column(store: tuple[str, Platform]) -> None:
    manager, platform = store
    asset = monthly_asset(manager, lambda month: monthly_rows(month).groupby("month")[["trips"]].sum())
    platform.store(asset, FIRST)
    assert platform.load(asset, FIRST)["month"].tolist() == [FIRST.start]


def test_the_materialization_has_columns_rows_and_place(store: tuple[str, Platform]) -> None:
    manager, platform = store
    result = platform.run(monthly_asset(manager), FIRST)
    (event,) = result.get_asset_materialization_events()
    found = event.materialization.metadata
    columns = found["dagster/column_schema"]
    assert isinstance(columns, dg.TableSchemaMetadataValue)
    assert [column.name for column in columns.schema.columns] == [*monthly_rows("2020-10")]
    assert found["dagster/partition_row_count"].value == 3
    place = "dagster/uri" if manager == "lake_parquet" else "dagster/table_name"
    assert "revenue" in str(found[place].value)
    assert "12.34" in str(found["preview"].value)


# --- wrong outputs ----------------------------------------------------------------------------------------------------

WRONG_VALUES = {
    "a text": (lambda _: "rows", "returned a value of type str"),
    "nothing": (lambda _: None, "returned a value of type NoneType"),
    "no columns": (lambda _: pd.DataFrame(), "returned rows without columns"),
    "an index without a name": (lambda _: pd.DataFrame({"a": [1]}, index=["x"]), "has an index without a name"),
    "a mixture": (lambda _: pd.DataFrame({"a": [1, "x"]}), "cannot be stored: .*column a"),
    "names that differ in case": (
        lambda _: pd.DataFrame({"a": [1], "A": [2]}),
        "the columns a and A have the same name",
    ),
    "nanoseconds": (
        lambda _: pd.DataFrame(
            {"month": dt.date(2020, 10, 1), "at": pd.to_datetime(["2020-10-01 00:00:00.000000001"])}
        ),
        "the column at .* cannot be stored as timestamp",
    ),
}


def test_a_value_that_cannot_be_stored_is_one_error_and_the_old_rows_stay(store: tuple[str, Platform]) -> None:
    manager, platform = store
    platform.store(monthly_asset(manager), FIRST)
    for kind, (rows, message) in WRONG_VALUES.items():
        assert re.search(message, platform.error(monthly_asset(manager, rows), FIRST)), kind
    assert len(platform.load(monthly_asset(manager), FIRST)) == 3


def test_a_handle_to_another_assets_file_is_refused(store: tuple[str, Platform]) -> None:
    manager, platform = store
    platform.publish_months()

    @dg.asset(
        key=["mine", "copied"],
        partitions_def=PARTITIONS,
        io_manager_key=manager,
        metadata={"partition_expr": "data_month"},
        ins={"trips": dg.AssetIn(upstream_key("clean"))},
    )
    def copied(trips: ParquetPartition) -> ParquetPartition:
        return trips

    message = platform.error(copied, FIRST)
    assert "Nothing has been stored" in message or "ParquetPartition" in message


OUTSIDE = {"2020-11-01": dt.date(2020, 11, 1), "null": None}


@pytest.mark.parametrize("store", [("warehouse_table", k) for k in ("duckdb", "postgres", "bigquery")], indirect=True)
def test_rows_outside_the_partition_are_an_error_before_anything_is_replaced(store: tuple[str, Platform]) -> None:
    manager, platform = store
    platform.store(monthly_asset(manager), FIRST)
    for shown, date in OUTSIDE.items():
        frame = monthly_rows("2020-10").assign(trips=0)
        frame.loc[1, "month"] = date
        message = platform.error(monthly_asset(manager, lambda _: frame), FIRST)  # noqa: B023  (the asset runs at once)
        assert message.startswith(
            f"mine/revenue 2020-10: row 2 has month {shown}, which is outside the partition (month from 2020-10-01 to "
            "before 2020-11-01). Nothing has been stored."
        )
        assert message.endswith("[RowsOutsidePartitionError]")
    assert rows_of(platform.load(monthly_asset(manager), FIRST)) == rows_of(monthly_rows("2020-10"))


WAREHOUSE_STORES = pytest.mark.parametrize(
    "store",
    [("warehouse_table", kind) for kind in ("duckdb", "postgres", "bigquery")],
    indirect=True,
    ids=lambda s: s[1],
)


@WAREHOUSE_STORES
def test_a_new_column_is_added_and_a_missing_one_is_null(store: tuple[str, Platform]) -> None:
    manager, platform = store
    platform.store(monthly_asset(manager), FIRST)
    platform.store(monthly_asset(manager, lambda month: monthly_rows(month)[["month"]].assign(extra=7)), SECOND)
    assert platform.load(monthly_asset(manager), FIRST)["extra"].isna().all()
    second = platform.load(monthly_asset(manager), SECOND)
    assert second["extra"].tolist() == [7, 7, 7]
    assert second["trips"].isna().all()


@WAREHOUSE_STORES
def test_a_changed_type_is_refused_and_the_old_rows_stay(store: tuple[str, Platform]) -> None:
    manager, platform = store
    platform.store(monthly_asset(manager), FIRST)
    message = platform.error(monthly_asset(manager, lambda month: monthly_rows(month).assign(trips="many")), FIRST)
    assert "Column trips of" in message
    assert "has type int64; the asset mine/revenue returned string. Nothing has been replaced." in message
    assert rows_of(platform.load(monthly_asset(manager), FIRST)) == rows_of(monthly_rows("2020-10"))


@WAREHOUSE_STORES
def test_a_column_of_nulls_fits_every_type(store: tuple[str, Platform]) -> None:
    manager, platform = store
    platform.store(monthly_asset(manager), FIRST)
    platform.store(monthly_asset(manager, lambda month: monthly_rows(month).assign(trips=None, place=None)), SECOND)
    assert platform.load(monthly_asset(manager), SECOND)["trips"].isna().all()


@WAREHOUSE_STORES
def test_a_table_is_never_shared_by_two_assets(store: tuple[str, Platform]) -> None:
    manager, platform = store
    platform.store(monthly_asset(manager), FIRST)

    @dg.asset(key=["other", "revenue"], io_manager_key=manager)
    def revenue() -> pd.DataFrame:
        return monthly_rows("2020-10")

    message = platform.error(revenue)
    assert message.startswith("other/revenue would replace the table")
    assert "which stores the asset mine/revenue. Rename the asset" in message
    assert len(platform.load(monthly_asset(manager), FIRST)) == 3


@pytest.mark.parametrize("table", ["green_trips", "zone_day", "taxi_zones", "loaded_months", "stored_partitions"])
def test_a_table_of_the_platform_is_never_replaced(published_warehouse: Platform, table: str) -> None:
    platform = published_warehouse

    @dg.asset(key=["mine", table], io_manager_key="warehouse_table")
    def own() -> pd.DataFrame:
        return monthly_rows("2020-10")

    assert f"mine/{table} would replace the table {table}, which belongs to" in platform.error(own)


@WAREHOUSE_STORES
def test_a_partitioned_table_needs_the_name_of_its_column(store: tuple[str, Platform]) -> None:
    manager, platform = store

    @dg.asset(key=["mine", "unnamed"], partitions_def=PARTITIONS, io_manager_key=manager)
    def unnamed(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return monthly_rows(context.partition_key)

    assert 'Add it to the asset: metadata={"partition_expr": "pickup_date"}' in platform.error(unnamed, FIRST)

    @dg.asset(
        key=["mine", "expression"],
        partitions_def=PARTITIONS,
        io_manager_key=manager,
        metadata={"partition_expr": "DATE(at)"},
    )
    def expression(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return monthly_rows(context.partition_key)

    assert "partition_expr is 'DATE(at)', which is not the name of a column" in platform.error(expression, FIRST)
    wrong = monthly_asset(manager, lambda month: monthly_rows(month).rename(columns={"month": "m"}))
    assert "the rows have no column month, which the metadata partition_expr names" in platform.error(wrong, FIRST)


def test_a_file_of_another_asset_is_never_replaced(lake_platform: Platform) -> None:
    platform = lake_platform
    platform.store(monthly_asset("lake_parquet"), FIRST)

    @dg.asset(key=["mine", "revenue", str(FIRST)], io_manager_key="lake_parquet")
    def same_place() -> pd.DataFrame:
        return monthly_rows("2020-11")

    message = platform.error(same_place)
    assert "would replace" in message
    assert "which the asset mine/revenue has stored" in message
    assert rows_of(platform.load(monthly_asset("lake_parquet"), FIRST)) == rows_of(monthly_rows("2020-10"))


@pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`")
def test_a_run_of_several_partitions_replaces_each_of_them_in_a_warehouse(warehouse_platform: Platform) -> None:
    platform = warehouse_platform

    @dg.asset(
        key=["mine", "range"],
        partitions_def=PARTITIONS,
        io_manager_key="warehouse_table",
        metadata=BY_MONTH,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def several(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return pd.concat([monthly_rows(key) for key in context.partition_keys])

    result = dg.materialize(
        [several],
        resources=platform.resources,
        instance=platform.instance,
        tags={"dagster/asset_partition_range_start": str(FIRST), "dagster/asset_partition_range_end": str(SECOND)},
    )
    assert result.success
    for month in (FIRST, SECOND):
        assert rows_of(platform.load(several, month)) == rows_of(monthly_rows(str(month)))


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["clean-duckdb", "clean-bigquery", *(f"warehouse-{kind}" for kind in PUBLISHED_KINDS)])
def upstream(request: pytest.FixtureRequest, published: Callable[[str], Platform]) -> tuple[str, Platform]:
    """A layer, and a platform on a lake or warehouse that has three months of it. Tests only read it."""
    layer, kind = request.param.split("-")
    return layer, published(kind)


def months_before(start: int, end: int) -> dg.TimeWindowPartitionMapping:
    return dg.TimeWindowPartitionMapping(start_offset=start, end_offset=end)


def test_the_month_before_is_read_if_the_partition_mapping_says_so(upstream: tuple[str, Platform]) -> None:
    layer, platform = upstream
    found: list[pd.DataFrame] = []
    platform.store(reader_of(layer, pd.DataFrame, found, mapping=months_before(-1, -1)), THIRD)
    assert months_of(found) == [str(SECOND)]
    assert len(found[0]) == ROWS[SECOND]


def test_several_months_arrive_in_their_order(upstream: tuple[str, Platform]) -> None:
    layer, platform = upstream
    found: list[pd.DataFrame] = []
    platform.store(reader_of(layer, pd.DataFrame, found, mapping=months_before(-2, 0)), THIRD)
    assert months_of(found) == [str(month) for month in MONTHS]
    assert len(found[0]) == sum(ROWS.values())
    # Trips keep the order of the published file.
    assert found[0].groupby("data_month")["source_row"].is_monotonic_increasing.all()


def test_several_months_arrive_one_by_one_in_a_dictionary(upstream: tuple[str, Platform]) -> None:
    layer, platform = upstream
    found: list[dict[str, pd.DataFrame]] = []
    platform.store(reader_of(layer, dict[str, pd.DataFrame], found, mapping=months_before(-2, 0)), THIRD)
    assert {key: (months_of(frame), len(frame)) for key, frame in found[0].items()} == {
        str(month): ([str(month)], rows) for month, rows in ROWS.items()
    }


def test_a_day_reads_the_month_that_contains_it(upstream: tuple[str, Platform]) -> None:
    layer, platform = upstream
    found: list[pd.DataFrame] = []
    days = dg.DailyPartitionsDefinition("2020-10-01")
    platform.store(reader_of(layer, pd.DataFrame, found, partitions=days), f"{SECOND}-05")
    assert months_of(found) == [str(SECOND)]


def test_an_unpartitioned_asset_reads_all_months(upstream: tuple[str, Platform]) -> None:
    layer, platform = upstream
    found: list[pd.DataFrame] = []
    reader = reader_of(layer, pd.DataFrame, found, partitions=None, allow_missing_partitions=True)
    platform.store(reader)
    assert months_of(found) == [str(month) for month in MONTHS]


def test_missing_months_are_one_error_that_names_them(upstream: tuple[str, Platform]) -> None:
    layer, platform = upstream
    reader = reader_of(layer, pd.DataFrame, [], mapping=months_before(-2, 0))
    message = platform.error(reader, FIRST)
    assert f"{layer}/green_trips" in message
    assert "2020-08, 2020-09" in message
    assert "allow_missing_partitions" in message


def test_missing_months_are_left_out_if_the_input_allows_it(upstream: tuple[str, Platform]) -> None:
    layer, platform = upstream
    found: list[pd.DataFrame] = []
    reader = reader_of(layer, pd.DataFrame, found, mapping=months_before(-2, 0), allow_missing_partitions=True)
    platform.store(reader, FIRST)
    assert months_of(found) == [str(FIRST)]


@pytest.mark.parametrize("type_", READ_TYPES, ids=lambda type_: type_.__name__)
def test_an_input_gets_the_type_that_it_asks_for(upstream: tuple[str, Platform], type_: Any) -> None:
    layer, platform = upstream
    found: list[Any] = []
    totals: list[Any] = []
    mapping = months_before(-1, 0)
    trips = dg.AssetIn(upstream_key(layer), partition_mapping=mapping)

    @dg.asset(key=["mine", "reader"], partitions_def=PARTITIONS, ins={"trips": trips})
    def reader(trips: type_) -> None:
        found.append(isinstance(trips, type_))
        frame = READ_TYPES[type_](trips)
        totals.append((len(frame), sum(Decimal(str(value)) for value in frame["total_amount"])))

    platform.store(reader, SECOND)
    expected = [ParquetPartition.get(platform.lake, f"clean/green_trips/{month}").to_pandas() for month in MONTHS[:2]]
    assert found == [True]
    assert totals == [(ROWS[FIRST] + ROWS[SECOND], sum(frame["total_amount"].sum() for frame in expected))]


@pytest.mark.parametrize("type_", [pyarrow.dataset.Dataset, pl.LazyFrame, duckdb.DuckDBPyRelation])
def test_a_lazy_input_reads_only_the_columns_that_are_asked_for(
    published_warehouse: Platform, type_: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = published_warehouse
    read: list[list[str]] = []
    read_rows = type(platform.warehouse).read_rows

    def spy(warehouse: Any, name: str, columns: Any, *args: Any, **options: Any) -> Any:
        read.append([*columns])
        return read_rows(warehouse, name, columns, *args, **options)

    monkeypatch.setattr(type(platform.warehouse), "read_rows", spy)
    counts: list[int] = []

    @dg.asset(key=["mine", "lazy"], partitions_def=PARTITIONS, ins={"trips": dg.AssetIn(upstream_key("warehouse"))})
    def lazy(trips: type_) -> None:
        counts.append(len(read))
        if isinstance(trips, pl.LazyFrame):
            counts.append(trips.filter(pl.col("source_row") > 5).select("source_row").collect().height)
        elif isinstance(trips, duckdb.DuckDBPyRelation):
            counts.append(len(trips.filter("source_row > 5").select("source_row").fetchall()))
        else:
            only = pyarrow.dataset.field("source_row") > 5
            counts.append(trips.to_table(columns=["source_row"], filter=only).num_rows)

    platform.store(lazy, FIRST)
    assert counts == [0, ROWS[FIRST] - 5]
    assert read == [["source_row"]]


def test_a_type_that_cannot_be_loaded_is_an_error_before_the_assets_code_runs(upstream: tuple[str, Platform]) -> None:
    layer, platform = upstream
    found: list[Any] = []
    message = platform.error(reader_of(layer, bytes, found), FIRST)
    assert message.startswith(f"{layer}/green_trips cannot be loaded as bytes. Annotate the input with one of:")
    assert found == []


def test_a_mart_that_was_not_computed_for_a_month_is_missing(published_warehouse: Platform) -> None:
    platform = published_warehouse

    @dg.asset(key=["mine", "from_mart"], partitions_def=PARTITIONS, ins={"mart": dg.AssetIn(["marts", "zone_day"])})
    def from_mart(mart: pd.DataFrame) -> None:
        raise AssertionError(mart)

    assert "marts/zone_day" in platform.error(from_mart, FIRST)


def test_own_rows_can_be_read_by_the_next_own_asset(store: tuple[str, Platform]) -> None:
    manager, platform = store
    asset = monthly_asset(manager)
    for month in (FIRST, SECOND):
        platform.store(asset, month)
    found: list[pa.Table] = []

    @dg.asset(
        key=["mine", "next"],
        partitions_def=PARTITIONS,
        ins={"rows": dg.AssetIn(asset.key, partition_mapping=months_before(-1, 0))},
    )
    def following(rows: pa.Table) -> None:
        found.append(rows)

    platform.store(following, SECOND, asset)
    expected = rows_of(pd.concat([monthly_rows(str(FIRST)), monthly_rows(str(SECOND))]))
    assert rows_of(found[0].to_pandas(types_mapper=pd.ArrowDtype)) == expected


def test_other_tools_tables_can_be_read(duckdb_warehouse: WarehouseBackend, instance: dg.DagsterInstance) -> None:
    """A table that dbt or a person has created is not in the ledger."""
    platform = Platform(duckdb_warehouse.open_lake(), duckdb_warehouse.open(), instance)
    platform.publish_months()
    with duckdb.connect(str(platform.warehouse.file)) as connection:  # type: ignore[attr-defined]
        connection.execute(
            "CREATE TABLE taxi.of_dbt AS SELECT DATE '2020-10-01' AS month, 'x' AS place, 1::UTINYINT AS n"
        )

    @dg.asset(key=["dbt", "of_dbt"], partitions_def=PARTITIONS, io_manager_key="warehouse_table", metadata=BY_MONTH)
    def of_dbt() -> pd.DataFrame:
        return monthly_rows("2020-10")

    assert platform.load(of_dbt, FIRST)["place"].tolist() == ["x"]
    with pytest.raises(dg.Failure, match="does not contain dbt/of_dbt for 2020-11"):
        platform.load(of_dbt, SECOND)
    assert "was not created by an asset of this platform" in platform.error(of_dbt, FIRST)
