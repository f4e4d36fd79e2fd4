"""Five full months as published by TLC, from raw to warehouse: no row and no cent is lost."""

from __future__ import annotations

import csv
import gzip
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd
import pyarrow.parquet
import pytest

from taxi_assets.addresses import DuckDBAddress, FolderAddress
from taxi_assets.build import TaxiDefinitions, build_definitions
from taxi_assets.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

MONTHS = {
    "2013-08": ("green_tripdata_2013-08.csv", 7_623),
    "2020-10": ("green_tripdata_2020-10.csv.gz", 95_120),
    "2023-01": ("green_tripdata_2023-01.parquet", 68_211),
    "2023-02": ("green_tripdata_2023-02.parquet", 64_809),
    "2024-01": ("green_tripdata_2024-01.parquet", 56_551),
}
CENT = Decimal("0.01")


@pytest.fixture(scope="module")
def loaded(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TaxiDefinitions:
    """Return definitions whose lake and warehouse hold all five months."""
    home = tmp_path_factory.mktemp("months")
    settings = Settings(
        lake=FolderAddress(folder=home / "lake"),
        warehouse=DuckDBAddress(file=home / "warehouse.duckdb"),
        source=str(data / "months"),
    )
    defs = build_definitions(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_job_def("green")
        for month in MONTHS:
            assert job.execute_in_process(instance=instance, partition_key=month).success
    return defs


def published_totals(path: Path) -> list[Decimal]:
    """Return the total_amount of every row, read without the package's own code."""
    if path.suffix == ".parquet":
        values = [repr(v) for v in pyarrow.parquet.read_table(path, columns=["total_amount"])[0].to_pylist()]
    else:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            rows = [row for row in csv.reader(file) if row]
        position = [name.strip().lower() for name in rows[0]].index("total_amount")
        values = [row[position] for row in rows[1:]]
    return [Decimal(value).quantize(CENT, ROUND_HALF_UP) for value in values]


@pytest.mark.parametrize("month", MONTHS)
def test_no_row_and_no_cent_is_lost(loaded: TaxiDefinitions, data: Path, month: str) -> None:
    name, rows = MONTHS[month]
    totals = published_totals(data / "months" / name)
    assert len(totals) == rows

    table = loaded.load_asset_value("warehouse/green_trips", partition_key=month)
    quarantine = loaded.load_asset_value("quarantine/green_trips", partition_key=month, python_type=pd.DataFrame)
    assert isinstance(table, pd.DataFrame)
    assert isinstance(quarantine, pd.DataFrame)

    assert sorted([*table["source_row"], *quarantine["source_row"]]) == list(range(1, rows + 1))
    quarantined = sum((totals[row - 1] for row in quarantine["source_row"]), Decimal(0))
    assert table["total_amount"].sum() == sum(totals, Decimal(0)) - quarantined
    assert all(len(reasons) > 0 for reasons in quarantine["reasons"])
    assert len(quarantine) < 0.02 * rows


@pytest.mark.parametrize("month", MONTHS)
def test_the_warehouse_holds_the_clean_trips(loaded: TaxiDefinitions, month: str) -> None:
    table = loaded.load_asset_value("warehouse/green_trips", partition_key=month)
    clean = loaded.load_asset_value("clean/green_trips", partition_key=month, python_type=pd.DataFrame)
    assert isinstance(table, pd.DataFrame)
    assert isinstance(clean, pd.DataFrame)
    pd.testing.assert_frame_equal(table, clean)


def test_a_month_that_was_never_loaded_is_an_error_not_an_empty_frame(loaded: TaxiDefinitions) -> None:
    with pytest.raises(dg.Failure, match=r"does not contain warehouse/green_trips for 2020-05\. Materialize"):
        loaded.load_asset_value("warehouse/green_trips", partition_key="2020-05")


def test_reversals_cancel_their_charge_to_the_cent(loaded: TaxiDefinitions) -> None:
    trips = loaded.load_asset_value("warehouse/green_trips", partition_key="2023-01")
    assert isinstance(trips, pd.DataFrame)
    pair = ["vendor_id", "pickup_datetime", "dropoff_datetime", "pickup_location_id", "dropoff_location_id"]
    reversals = trips[trips["is_reversal"]]
    charges = trips[~trips["is_reversal"]].set_index(pair)["total_amount"]
    canceled = [
        -total in set(charges.loc[[tuple(key)]]) if tuple(key) in charges.index else False
        for *key, total in reversals[[*pair, "total_amount"]].itertuples(index=False)
    ]
    assert len(reversals) > 150
    assert sum(canceled) > 0.95 * len(reversals)
