"""FHV and FHVHV: every layout, value by value, compared with Python's csv module."""

from __future__ import annotations

import csv
import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from taxi_assets.tlc.cleaning.clean_month import CleanedMonth, clean_month
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets_tests.trip_files import ANY_FILE, REAL, service_and_month, source_record

if TYPE_CHECKING:
    from pathlib import Path

# What the published names mean, in lower case. This repeats the service definitions, to be independent of them.
MEANING = {
    "hvfhs_license_num": "hvfhs_license_num",
    "dispatching_base_num": "dispatching_base_num",
    "dispatching_base_number": "dispatching_base_num",
    "pickup_date": "pickup_datetime",
    "pickup_datetime": "pickup_datetime",
    "dropoff_datetime": "dropoff_datetime",
    "locationid": "pickup_location_id",
    "pulocationid": "pickup_location_id",
    "dolocationid": "dropoff_location_id",
    "sr_flag": "sr_flag",
}
REAL_FILES = sorted((REAL / "first100").glob("fhv*_tripdata_*.csv"))


def plain_value(column: str, text: str) -> Any:
    if text.strip() == "":
        return None
    if column.endswith("_datetime"):
        return dt.datetime.fromisoformat(text)
    return int(text) if column.endswith(("_id", "_flag")) else text.strip()


def plain_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        header, *rows = [row for row in csv.reader(file) if row]
    columns = [MEANING[name.strip().lower()] for name in header]
    read = []
    for row in rows:
        values: dict[str, Any] = {}
        for column, text in zip(columns, row, strict=True):
            # If two columns have the same meaning, one of them is empty.
            values[column] = values.get(column) or plain_value(column, text)
        read.append(values)
    return read


def clean(path: Path, output_dir: Path, service: str = "", **record: Any) -> CleanedMonth:
    name, month = service_and_month(path)
    known = SERVICES[service or name]
    return clean_month(path, source_record(path, **record), known, month, known.rules, output_dir, ANY_FILE)


@pytest.mark.parametrize("path", REAL_FILES, ids=lambda path: path.name)
def test_the_first_rows_of_every_layout_equal_those_of_the_csv_module(path: Path, tmp_path: Path) -> None:
    cleaned = clean(path, tmp_path)
    expected = plain_rows(path)
    kept = pyarrow.parquet.read_table(cleaned.clean).to_pylist()

    assert cleaned.report.rows_raw == len(expected) == 100
    assert cleaned.report.clean.rows + cleaned.report.rows_quarantined == 100
    assert cleaned.report.clean.rows >= 95
    assert cleaned.report.unknown_columns == []
    for row in kept:
        published = expected[row["source_row"] - 1]
        for column in set(MEANING.values()) & row.keys():
            assert row[column] == published.get(column), (column, row["source_row"])
        assert row["dispatching_base_num"].startswith(("B", "b"))
        if row["dropoff_datetime"] is not None:
            assert row["trip_seconds"] == (row["dropoff_datetime"] - row["pickup_datetime"]).total_seconds()


def test_real_files_of_every_year_are_tested() -> None:
    assert {path.name[:17] for path in REAL_FILES} >= {f"fhv_tripdata_{year}" for year in range(2015, 2021)}
    assert {path.name[:19] for path in REAL_FILES} >= {f"fhvhv_tripdata_{year}" for year in (2019, 2020)}


HEADER_2018 = "Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID,SR_Flag,Dispatching_base_number,"
HEADER_2018 += "Dispatching_base_num"
TIMES = "2018-01-30 21:06:50,2018-01-30 21:15:34,56,129,,"


def test_the_base_is_read_from_the_column_that_has_it(tmp_path: Path) -> None:
    path = tmp_path / "fhv_tripdata_2018-01.csv"
    rows = [f"{TIMES}B02884,", f"{TIMES},B00001", f"{TIMES}B02884,B02884", f"{TIMES},", f"{TIMES}B02884,B00001"]
    path.write_text("\n".join([HEADER_2018, *rows]) + "\n")

    cleaned = clean(path, tmp_path)

    kept = pyarrow.parquet.read_table(cleaned.clean)
    assert kept["dispatching_base_num"].to_pylist() == ["B02884", "B00001", "B02884", None]
    # With two different bases, either may be meant.
    rejected = pyarrow.parquet.read_table(cleaned.quarantine).to_pylist()
    assert [(row["source_row"], row["unreadable_columns"]) for row in rejected] == [(5, ["dispatching_base_num"])]


def test_the_base_is_read_from_the_column_that_has_it_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "fhv_tripdata_2018-01.parquet"
    rows = 3_000
    table = pa.table(
        {
            "pickup_datetime": pa.array([dt.datetime.fromisoformat("2018-01-30 21:06:00")] * rows),
            "dropOff_datetime": pa.array([dt.datetime.fromisoformat("2018-01-30 21:15:00")] * rows),
            "PUlocationID": pa.nulls(rows),
            "DOlocationID": pa.nulls(rows),
            "Dispatching_base_number": ["B02884", None, "B02884"] * (rows // 3),
            "Dispatching_base_num": [None, "B00001 ", "B00001"] * (rows // 3),
        }
    )
    pyarrow.parquet.write_table(table, path)

    cleaned = clean(path, tmp_path)

    kept = pyarrow.parquet.read_table(cleaned.clean)
    assert kept["dispatching_base_num"].to_pylist() == ["B02884", "B00001"] * (rows // 3)
    assert cleaned.report.rows_quarantined == rows // 3


def test_exact_duplicates_are_clean(tmp_path: Path) -> None:
    path = tmp_path / "fhv_tripdata_2015-03.csv"
    path.write_text("Dispatching_base_num,Pickup_date,locationID\r\n" + "B00013,2015-03-01 00:30:00,\r\n" * 50)
    assert clean(path, tmp_path).report.clean.rows == 50


def test_a_trip_of_several_days_is_clean_if_the_service_has_no_rule_against_it(tmp_path: Path) -> None:
    row = "2019-03-01 00:30:00,2019-03-05 02:51:55,1,2,"
    names = "pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,SR_Flag"
    fhv = tmp_path / "fhv_tripdata_2019-03.csv"
    fhv.write_text(f"dispatching_base_num,{names}\n" + f"B00001,{row}\n" * 3)
    assert clean(fhv, tmp_path).report.clean.rows == 3

    fhvhv = tmp_path / "fhvhv_tripdata_2019-03.csv"
    good = row.replace("03-05", "03-01")
    lines = [
        f"hvfhs_license_num,dispatching_base_num,{names}",
        *[f"HV0003,B02867,{text}" for text in (row, good, good)],
    ]
    fhvhv.write_text("\n".join(lines) + "\n")
    assert {name: reason.rows for name, reason in clean(fhvhv, tmp_path).report.reasons.items()} == {
        "longer_than_24_hours": 1
    }


def official_parquet(path: Path, *, rows: int = 4, cbd: bool = False) -> Path:
    """Write a month of FHVHV as TLC publishes it today: 24 columns, 25 from 2025 on."""
    year = 2025 if cbd else 2023
    at = dt.datetime.fromisoformat(f"{year}-02-01 00:10:00")
    minutes = [at + dt.timedelta(minutes=m) for m in (0, 3, 5, 20)]
    times = ("request_datetime", "on_scene_datetime", "pickup_datetime", "dropoff_datetime")
    columns: dict[str, Any] = {
        "hvfhs_license_num": ["HV0003", "HV0005", "HV0003", "HV0003"],
        "dispatching_base_num": ["B03404", "B03406", "B03404", "B03404"],
        "originating_base_num": ["B03404", None, "B03404", "B03404"],
        **{name: pa.array([time] * rows, pa.timestamp("us")) for name, time in zip(times, minutes, strict=True)},
        "PULocationID": pa.array([4, 5, 6, 7], pa.int32()),
        "DOLocationID": pa.array([7, 6, 5, 4], pa.int32()),
        "trip_miles": [2.83, 0.0, 1.2345, 500.5],
        "trip_time": [900, 900, 901, 902],
        "base_passenger_fare": [25.95, 60.14, 24.37, 13.80],
        "tolls": [0.0, 6.55, 0.0, 0.0],
        "bcf": [0.78, 1.8, 0.73, 0.41],
        "sales_tax": [2.3, 5.34, 2.16, 1.22],
        "congestion_surcharge": [2.75, 2.75, 2.75, 0.0],
        "airport_fee": [0.0, 2.5, None, 0.0],
        "tips": [5.22, 0.0, 0.0, 1.0],
        "driver_pay": [27.83, -50.15, 20.22, 7.9],
        "shared_request_flag": ["N", "Y", "N", "N"],
        "shared_match_flag": ["N"] * rows,
        "access_a_ride_flag": [" ", "N", " ", " "],
        "wav_request_flag": ["N"] * rows,
        "wav_match_flag": pa.array(["N", "Y", "N", "N"], pa.large_string()),
    }
    if cbd:
        columns["cbd_congestion_fee"] = [1.5, 0.0, 1.5, 0.0]
    assert len(columns) == (25 if cbd else 24)
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("cbd", [False, True], ids=["24 columns", "25 columns"])
def test_official_fhvhv_parquet_is_read(tmp_path: Path, cbd: bool) -> None:
    month = Month(2025 if cbd else 2023, 2)
    cleaned = clean(official_parquet(tmp_path / f"fhvhv_tripdata_{month}.parquet", cbd=cbd), tmp_path)

    assert cleaned.report.unknown_columns == []
    assert cleaned.report.absent_columns == (["sr_flag"] if cbd else ["cbd_congestion_fee", "sr_flag"])
    assert {name: reason.rows for name, reason in cleaned.report.reasons.items()} == {"distance_out_of_range": 1}
    first, second, third = pyarrow.parquet.read_table(cleaned.clean).to_pylist()
    assert (first["trip_distance"], third["trip_distance"]) == (Decimal("2.830"), Decimal("1.235"))  # miles
    assert (first["trip_time"], first["trip_seconds"]) == (900, 900)  # seconds, as published and as computed
    assert (first["tip_amount"], second["tolls_amount"]) == (Decimal("5.22"), Decimal("6.55"))
    assert (first["black_car_fund"], second["driver_pay"]) == (Decimal("0.78"), Decimal("-50.15"))
    assert (first["airport_fee"], third["airport_fee"]) == (Decimal("0.00"), None)
    assert (first["access_a_ride_flag"], second["access_a_ride_flag"]) == (None, "N")
    assert (first["wav_match_flag"], second["wav_match_flag"]) == ("N", "Y")
    assert first["cbd_congestion_fee"] == (Decimal("1.50") if cbd else None)
