"""`taxi_assets.scan`: any stored rows as a dataset, and one clear error for what is not stored."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import pytest

import taxi_assets
from taxi_assets.build import build_definitions, merge_definitions
from taxi_assets.errors import LakeObjectMissingError, ScanArgumentError, WarehouseTableMissingError
from taxi_assets.marts.mart import marts
from taxi_assets.settings import Settings
from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets.storage.lake_tables import lake_tables
from taxi_assets.storage.warehouse.duckdb import DuckDBWarehouse
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.green import GREEN
from taxi_assets_tests.trips import MONTH, publish_generated_month

if TYPE_CHECKING:
    from collections.abc import Callable

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets_tests.contract.stores import LakeBackend

MONTHS = [MONTH, MONTH.shift(1), MONTH.shift(2)]
NAMES = [str(month) for month in MONTHS]


def use(monkeypatch: pytest.MonkeyPatch, lake: Lake) -> Lake:
    """Set TAXI_LAKE to a lake."""
    monkeypatch.setenv("TAXI_LAKE", lake.uri("x").removesuffix("/x"))
    return lake


@pytest.fixture
def any_lake(lake_backend: LakeBackend, monkeypatch: pytest.MonkeyPatch) -> Lake:
    return use(monkeypatch, lake_backend.open())


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalLake:
    monkeypatch.setenv("TAXI_WAREHOUSE", f"duckdb:///{tmp_path}/warehouse.duckdb")
    lake = LocalLake(folder=str(tmp_path / "lake"))
    use(monkeypatch, lake)
    return lake


def publish_months(lake: Lake, months: list[Month] = MONTHS) -> None:
    for month in months:
        publish_generated_month(lake, month, 30, seed=month.number)


def months_of(dataset: Any) -> list[str]:
    """Return the months of all rows, in the order of the rows."""
    return list(
        dict.fromkeys(f"{day:%Y-%m}" for day in dataset.to_table(columns=["data_month"])["data_month"].to_pylist())
    )


# --- months -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(None, None, NAMES), (NAMES[1], None, NAMES[1:]), (None, NAMES[1], NAMES[:2]), (NAMES[1], NAMES[1], NAMES[1:2])],
)
def test_a_scan_has_the_months_between_its_bounds(
    any_lake: Lake, first: str | None, last: str | None, expected: list[str]
) -> None:
    publish_months(any_lake)
    trips = taxi_assets.scan("clean/green_trips", first, last)
    assert months_of(trips) == expected
    assert trips.schema == GREEN.arrow_schema
    assert trips.count_rows() == 30 * len(expected)


def test_a_filter_by_month_opens_no_file_of_another_month(any_lake: Lake) -> None:
    publish_months(any_lake)
    trips = taxi_assets.scan("clean/green_trips")
    any_lake.delete(f"clean/green_trips/{MONTHS[1]}.parquet")
    day = MONTHS[2].start
    assert trips.to_table(filter=pc.field("data_month") == day).num_rows == 30
    assert pl.scan_pyarrow_dataset(trips).filter(pl.col("data_month") == day).collect().height == 30
    with pytest.raises((LakeObjectMissingError, FileNotFoundError)):
        trips.to_table()


def test_a_month_that_is_not_stored_is_an_error_if_it_is_between_the_bounds(any_lake: Lake) -> None:
    publish_months(any_lake, [MONTHS[0], MONTHS[2]])
    for bounds in ((NAMES[0], NAMES[2]), (NAMES[0], None), (None, NAMES[2]), (NAMES[1], NAMES[1])):
        with pytest.raises(LakeObjectMissingError) as error:
            taxi_assets.scan("clean/green_trips", *bounds)
        assert error.value.problem == (
            f"clean/green_trips is not stored for {NAMES[1]} in {any_lake.uri('clean/green_trips')}."
        )
        assert error.value.remedy.endswith(f"Stored: {NAMES[0]}, {NAMES[2]}.")
    assert months_of(taxi_assets.scan("clean/green_trips")) == [NAMES[0], NAMES[2]]


def test_missing_months_are_named_as_ranges(lake: LocalLake) -> None:
    publish_months(lake)
    with pytest.raises(LakeObjectMissingError, match=r"for 2019-12 to 2020-09, 2021-01 to 2021-03 in"):
        taxi_assets.scan("clean/green_trips", "2019-12", "2021-03")


def test_an_asset_that_is_not_stored_names_the_lake_and_how_to_choose_another(any_lake: Lake) -> None:
    for asset, place in (
        ("clean/green_trips", "clean/green_trips"),
        ("marts/zone_day", "marts/zone_day"),
        ("reference/taxi_zones", "reference/taxi_zones.parquet"),
    ):
        with pytest.raises(LakeObjectMissingError) as error:
            taxi_assets.scan(asset)
        assert error.value.problem == f"{asset} is not stored in the lake: {any_lake.uri(place)} contains no file."
        assert "set TAXI_LAKE to the lake that contains it" in error.value.remedy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("clean/gren_trips",), r"There is no asset clean/gren_trips\. Use one of: clean/green_trips,"),
        (("green_trips",), r"There is no asset green_trips\. Use one of: clean/green_trips,"),
        (("mine/unknown",), r"There is no asset mine/unknown\. Use one of: clean/fhv_trips,"),
        (("",), r"There is no asset \. Use one of: "),
        (("../outside",), r"There is no asset \.\./outside\. Use one of: "),
        (
            ("raw/green_trips",),
            r"raw/green_trips is not stored as rows\. Scan clean/green_trips, quarantine/green_trips",
        ),
        (("views/duckdb",), r"views/duckdb is not stored as rows\. Scan an asset whose io_manager_key is"),
        (("clean/green_trips", "2020-1"), r"first='2020-1' is not a month\."),
        (("clean/green_trips", NAMES[2], NAMES[0]), r"The first month, 2020-12, is after the last, 2020-10\."),
        (("clean/green_trips", "2013-07"), r"clean/green_trips begins in 2013-08; 2013-07 is before that\."),
        (("marts/zone_day", None, "2008-12"), r"marts/zone_day begins in 2009-01; 2008-12 is before that\."),
        (("warehouse/green_trips", "2013-07"), r"warehouse/green_trips begins in 2013-08"),
        (
            ("reference/taxi_zones", "2021-01"),
            r"reference/taxi_zones has no partitions, so months cannot be selected\.",
        ),
        (("quality/month_quality", None, "2021-01"), r"quality/month_quality has no partitions"),
    ],
)
def test_arguments_that_name_no_rows_are_one_error(lake: LocalLake, arguments: tuple[str, ...], message: str) -> None:
    publish_months(lake)
    with pytest.raises(ScanArgumentError, match=message):
        taxi_assets.scan(*arguments)


# --- what is stored ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asset", [table.asset for table in lake_tables()])
def test_every_table_of_the_lake_can_be_scanned(any_lake: Lake, asset: str) -> None:
    table = next(table for table in lake_tables() if table.asset == asset)
    rows = pa.Table.from_pylist([{"data_month": MONTH.start}] if table.is_monthly else [{}], table.schema)
    table.publish(any_lake, rows, month=MONTH if table.is_monthly else None, replaces=None, run_id="a")
    scanned = taxi_assets.scan(asset)
    assert scanned.to_table() == rows
    assert scanned.schema == table.schema


@pytest.mark.parametrize("months", [(), ("2021-02",)])
def test_a_missing_comparison_is_explained_by_a_month_with_one_revision(
    lake: LocalLake, months: tuple[str, ...]
) -> None:
    table = next(table for table in lake_tables() if table.asset == "revisions/green_trips")
    if months:
        rows = pa.Table.from_pylist([{"data_month": MONTH.start}], table.schema)
        table.publish(lake, rows, month=MONTH, replaces=None, run_id="a")
    with pytest.raises(LakeObjectMissingError, match="A month with only one revision has no file"):
        taxi_assets.scan(table.asset, *months)


def test_each_row_of_a_monthly_file_has_the_month_of_the_file(lake: LocalLake) -> None:
    """The scan relies on it when it does not open the files of other months."""
    defs = build_definitions(Settings.from_env({"source": "sample"}))
    with dg.DagsterInstance.ephemeral() as instance:
        for job, month in (("reference", None), ("green", "2021-01"), ("marts", "2021-01")):
            assert defs.resolve_job_def(job).execute_in_process(partition_key=month, instance=instance).success
    folders = [table.asset for table in lake_tables() if table.is_monthly and list(lake.sizes_in(table.asset))]
    assert {"clean/green_trips", "quarantine/green_trips", *(f"marts/{name}" for name in marts())} <= set(folders)
    for folder in folders:
        (key,) = list(lake.sizes_in(folder))
        file = pyarrow.parquet.read_table(lake.uri(key))
        assert file["data_month"].unique().to_pylist() == [dt.date(2021, 1, 1)], folder
        assert taxi_assets.scan(folder).to_table() == file.replace_schema_metadata(None), folder


def test_trips_of_the_lake_and_of_the_warehouse_are_equal(lake: LocalLake, tmp_path: Path) -> None:
    warehouse = DuckDBWarehouse(file=str(tmp_path / "warehouse.duckdb"))
    for month in MONTHS:
        trips = publish_generated_month(lake, month, 30, seed=month.number)
        warehouse.replace_month(GREEN, month, trips, run_id="a")
    for bounds in ((), tuple(NAMES[:2]), (NAMES[2],)):
        in_lake, in_warehouse = (taxi_assets.scan(f"{layer}/green_trips", *bounds) for layer in ("clean", "warehouse"))
        assert in_lake.to_table() == in_warehouse.to_table()
    with pytest.raises(WarehouseTableMissingError, match=r"not stored for 2021-01 to 2021-02 in the table \"taxi\""):
        taxi_assets.scan("warehouse/green_trips", NAMES[1], "2021-02")
    with pytest.raises(WarehouseTableMissingError, match=r"yellow_trips is not loaded: .* set TAXI_WAREHOUSE"):
        taxi_assets.scan("warehouse/yellow_trips")


def bytes_read() -> int:
    """Return how many bytes this process has read, from files or pipes."""
    with open("/proc/self/io") as counters:  # noqa: PTH123
        return int(counters.readline().split()[1])


def test_the_sum_of_a_column_over_half_a_year_reads_only_that_column_and_is_exact(
    lake: LocalLake, tmp_path: Path
) -> None:
    warehouse = DuckDBWarehouse(file=str(tmp_path / "warehouse.duckdb"))
    months = [Month(2020, 1).shift(number) for number in range(6)]
    files = column = 0
    for month in months:
        trips = publish_generated_month(lake, month, 12_000, seed=month.number)
        warehouse.replace_month(GREEN, month, trips, run_id="a")
        footer = pyarrow.parquet.read_metadata(lake.uri(trips.key))
        files += trips.bytes
        place = footer.schema.names.index("total_amount")
        column += sum(footer.row_group(g).column(place).total_compressed_size for g in range(footer.num_row_groups))
        column += footer.serialized_size
    with warehouse.session():
        expected = warehouse.query_native("SELECT sum(total_amount) AS dollars FROM taxi.green_trips")["dollars"][
            0
        ].as_py()
    trips = taxi_assets.scan("clean/green_trips", "2020-01", "2020-06")
    lazy = pl.scan_pyarrow_dataset(trips).select(pl.col("total_amount").sum())
    before = bytes_read()
    total = lazy.collect().item()
    read = bytes_read() - before
    assert total == expected
    assert isinstance(total, Decimal)
    # A footer is read with the bytes before it, 64 KiB in all.
    assert read < column + len(months) * (64 << 10)
    assert read < files / 2


# --- your own assets --------------------------------------------------------------------------------------------------

MONTHLY = dg.MonthlyPartitionsDefinition("2020-10-01")  # with keys such as 2020-10-01
BOROUGHS = dg.StaticPartitionsDefinition(["Queens", "a/b #?%", "..", ".hidden"])
DAYS = dg.DailyPartitionsDefinition("2020-10-01", end_date="2020-10-04")


def own(name: str, partitions: Any = None, *, store: str = "lake_parquet") -> dg.AssetsDefinition:
    """Return an asset with a row, which has the partition key."""

    @dg.asset(
        key=["mine", name],
        partitions_def=partitions,
        io_manager_key=store,
        metadata={"partition_expr": "part"} if partitions is not None else None,
    )
    def asset() -> pd.DataFrame:
        context = dg.AssetExecutionContext.get()
        return pd.DataFrame({"part": [str(context.partition_key) if context.has_partition_key else "all"], "rows": [1]})

    return asset


@pytest.fixture
def materialize(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(asset: dg.AssetsDefinition, *partitions: str | None) -> None:
        defs = merge_definitions(build_definitions(Settings.from_env()), dg.Definitions(assets=[asset]))
        monkeypatch.setattr("taxi_assets.definitions.defs", defs)
        job = defs.resolve_implicit_job_def_def_for_assets([asset.key])
        assert job is not None
        with dg.DagsterInstance.ephemeral() as instance:
            for partition in partitions:
                result = job.execute_in_process(partition_key=partition, asset_selection=[asset.key], instance=instance)
                assert result.success

    assert lake.folder
    return run


def parts(dataset: Any) -> list[str]:
    return list(dataset.to_table(columns=["part"])["part"].to_pylist())


@pytest.mark.parametrize("store", ["lake_parquet", "warehouse_table"])
def test_own_months_are_selected_whatever_their_partition_keys(materialize: Callable[..., None], store: str) -> None:
    keys = ["2020-10-01", "2020-11-01", "2020-12-01"]
    materialize(own("months", MONTHLY, store=store), *keys)
    assert parts(taxi_assets.scan("mine/months")) == keys
    assert parts(taxi_assets.scan("mine/months", "2020-11", "2020-12")) == keys[1:]
    missing = LakeObjectMissingError if store == "lake_parquet" else WarehouseTableMissingError
    with pytest.raises(missing, match="mine/months is not stored for 2021-01 to 2021-02"):
        taxi_assets.scan("mine/months", "2020-12", "2021-02")
    with pytest.raises(ScanArgumentError, match="mine/months begins in 2020-10"):
        taxi_assets.scan("mine/months", "2020-09")


@pytest.mark.parametrize("store", ["lake_parquet", "warehouse_table"])
@pytest.mark.parametrize(
    ("partitions", "keys"),
    [(DAYS, ["2020-10-01", "2020-10-03"]), (BOROUGHS, ["Queens", "a/b #?%", "..", ".hidden"])],
    ids=["days", "static"],
)
def test_own_partitions_other_than_months_are_scanned_as_a_whole(
    materialize: Callable[..., None], partitions: Any, keys: list[str], store: str
) -> None:
    materialize(own("parts", partitions, store=store), *keys)
    assert parts(taxi_assets.scan("mine/parts")) == keys
    with pytest.raises(ScanArgumentError, match="mine/parts is not partitioned by month, so months cannot be selected"):
        taxi_assets.scan("mine/parts", "2020-10")


@pytest.mark.parametrize("store", ["lake_parquet", "warehouse_table"])
def test_an_own_asset_without_partitions_is_scanned(materialize: Callable[..., None], store: str) -> None:
    materialize(own("whole", store=store))
    with pytest.raises((LakeObjectMissingError, WarehouseTableMissingError), match="mine/whole"):
        taxi_assets.scan("mine/whole")
    materialize(own("whole", store=store), None)
    assert parts(taxi_assets.scan("mine/whole")) == ["all"]
    with pytest.raises(ScanArgumentError, match="mine/whole has no partitions"):
        taxi_assets.scan("mine/whole", "2020-10")


def test_files_of_partitions_that_an_asset_no_longer_has_are_not_scanned(materialize: Callable[..., None]) -> None:
    materialize(own("parts", MONTHLY), "2020-10-01")
    materialize(own("parts", DAYS), "2020-10-02", "2020-10-03")
    materialize(own("parts", BOROUGHS), "Queens")
    assert parts(taxi_assets.scan("mine/parts")) == ["Queens"]


def test_a_misspelled_own_asset_is_suggested(materialize: Callable[..., None]) -> None:
    materialize(own("night_trips"), None)
    with pytest.raises(ScanArgumentError, match=r"There is no asset mine/nigth_trips\. Use one of: mine/night_trips"):
        taxi_assets.scan("mine/nigth_trips")


def test_an_asset_of_another_project_is_found_by_its_files(
    materialize: Callable[..., None], monkeypatch: pytest.MonkeyPatch, lake: LocalLake
) -> None:
    materialize(own("months", dg.MonthlyPartitionsDefinition("2020-10", fmt="%Y-%m")), *NAMES)
    materialize(own("boroughs", BOROUGHS), "Queens", "a/b #?%")
    materialize(own("whole"), None)
    monkeypatch.setattr("taxi_assets.definitions.defs", build_definitions(Settings.from_env()))
    assert parts(taxi_assets.scan("mine/months", NAMES[1])) == NAMES[1:]
    assert sorted(parts(taxi_assets.scan("mine/boroughs"))) == ["Queens", "a/b #?%"]
    assert parts(taxi_assets.scan("mine/whole")) == ["all"]
    with pytest.raises(ScanArgumentError, match="mine/boroughs is not partitioned by month"):
        taxi_assets.scan("mine/boroughs", "2020-10")
    with lake.staging() as folder:
        pyarrow.parquet.write_table(pa.table({"x": [1]}), folder / "x")
        lake.publish(folder / "x", "mine/other_tool.parquet", replaces=None, run_id="a")
    with pytest.raises(ScanArgumentError, match="There is no asset mine/other_tool"):
        taxi_assets.scan("mine/other_tool")


# --- the package ------------------------------------------------------------------------------------------------------


def run_python(code: str, folder: Path, **environment: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_importing_the_package_imports_no_other_package(tmp_path: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); import taxi_assets; taxi_assets.scan;"
        "print({name.partition('.')[0] for name in sys.modules.keys() - before} - sys.stdlib_module_names)"
    )
    assert run_python(code, tmp_path).strip() == "{'taxi_assets'}"


def test_a_scan_of_the_lake_loads_no_definitions_and_no_engine(lake: LocalLake) -> None:
    publish_months(lake)
    code = (
        "import sys, taxi_assets; print(taxi_assets.scan('clean/green_trips').count_rows());"
        "print(sorted({'duckdb', 'polars', 'taxi_assets.definitions', 'google.cloud.storage'} & sys.modules.keys()))"
    )
    assert run_python(code, Path(lake.folder)).split("\n")[:2] == ["90", "[]"]
