"""The synthetic sample of fhvhv: current columns and types, the companies' habits, and consistent amounts."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets.tlc import synthetic
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.synthetic import fhvhv_trips

TIMES = ["request_datetime", "on_scene_datetime", "pickup_datetime", "dropoff_datetime"]
MONEY = ["base_passenger_fare", "tolls", "bcf", "sales_tax", "congestion_surcharge", "airport_fee", "tips"]
FLAGS = ["shared_request_flag", "shared_match_flag", "access_a_ride_flag", "wav_request_flag", "wav_match_flag"]
COLUMNS = [
    *("hvfhs_license_num", "dispatching_base_num", "originating_base_num"),
    *(*TIMES, "PULocationID", "DOLocationID", "trip_miles", "trip_time"),
    *(*MONEY, "driver_pay", *FLAGS),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    path = tmp_path_factory.mktemp("sample") / "fhvhv.parquet"
    synthetic.write_month("fhvhv", Month(2020, 4), path)
    return pq.read_table(path)


@pytest.fixture(scope="module")
def trips(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame


def day_of(date: dt.date, count: int = 3_000) -> pd.DataFrame:
    month = Month(date.year, date.month)
    frame: pd.DataFrame = fhvhv_trips.draw_day_batch(np.random.default_rng(0), month, date, count).to_pandas()
    return frame


# --------------------------------------------------------------------------------------------------------- as published


def test_columns_and_types_are_those_of_tlc(table: pa.Table) -> None:
    assert table.column_names == COLUMNS
    types = {name: str(table.schema.field(name).type) for name in COLUMNS}
    assert {types[name] for name in TIMES} == {"timestamp[us]"}
    assert {types[name] for name in (*MONEY, "driver_pay", "trip_miles")} == {"double"}
    assert {types[name] for name in (*COLUMNS[:3], *FLAGS)} == {"string"}
    assert types["trip_time"] == types["PULocationID"] == types["DOLocationID"] == "int64"


def test_zones_are_32_bits_wide_since_february_2023_and_a_column_is_added_in_january_2025() -> None:
    assert fhvhv_trips.schema(Month(2023, 1)).field("DOLocationID").type == pa.int64()
    assert fhvhv_trips.schema(Month(2023, 2)).field("DOLocationID").type == pa.int32()
    assert fhvhv_trips.schema(Month(2024, 12)).names == COLUMNS
    assert fhvhv_trips.schema(Month(2025, 1)).names == [*COLUMNS, "cbd_congestion_fee"]
    assert fhvhv_trips.schema(Month(2025, 1)).field("cbd_congestion_fee").type == pa.float64()


def test_flags_are_y_or_n(trips: pd.DataFrame) -> None:
    for flag in FLAGS:
        assert set(trips[flag]) <= {"Y", "N", " "}
        assert (trips[flag] == " ").any() == (flag == "access_a_ride_flag")


def test_rows_are_sorted_by_hour_in_random_order_within(trips: pd.DataFrame) -> None:
    pickup = trips.loc[trips["pickup_datetime"] < "2020-05-01", "pickup_datetime"].reset_index(drop=True)
    assert pickup.dt.floor("h").is_monotonic_increasing
    assert (pickup.diff() < pd.Timedelta(0)).mean() > 0.3


# -------------------------------------------------------------------------------------------------------- the companies


@pytest.mark.parametrize(
    ("day", "companies"),
    [
        (dt.date(2019, 2, 1), {"HV0002", "HV0003", "HV0004", "HV0005"}),
        (dt.date(2019, 11, 18), {"HV0002", "HV0003", "HV0004", "HV0005"}),
        (dt.date(2019, 11, 19), {"HV0003", "HV0004", "HV0005"}),
        (dt.date(2021, 12, 20), {"HV0003", "HV0004", "HV0005"}),
        (dt.date(2021, 12, 21), {"HV0003", "HV0005"}),
    ],
)
def test_juno_ends_in_november_2019_and_via_in_december_2021(day: dt.date, companies: set[str]) -> None:
    assert set(day_of(day)["hvfhs_license_num"]) == companies


def test_uber_has_most_trips_and_lyft_over_a_quarter(trips: pd.DataFrame) -> None:
    shares = trips["hvfhs_license_num"].value_counts(normalize=True)
    assert shares["HV0003"] == pytest.approx(0.72, abs=0.02)
    assert shares["HV0005"] == pytest.approx(0.27, abs=0.02)


def test_a_base_belongs_to_one_company_and_uber_has_many_until_2022(trips: pd.DataFrame) -> None:
    assert trips.groupby("dispatching_base_num")["hvfhs_license_num"].nunique().max() == 1
    assert trips.loc[trips["hvfhs_license_num"] == "HV0003", "dispatching_base_num"].nunique() > 20
    assert set(day_of(dt.date(2022, 1, 1))["dispatching_base_num"]) == {"B03404", "B03406"}


def test_lyft_reports_neither_the_originating_base_nor_the_time_on_scene(trips: pd.DataFrame) -> None:
    lyft = trips["hvfhs_license_num"] == "HV0005"
    assert (trips["originating_base_num"].isna() == lyft).all()
    assert (trips["originating_base_num"] == trips["dispatching_base_num"])[~lyft].all()
    assert trips.loc[~lyft, "on_scene_datetime"].notna().all()
    assert trips.loc[lyft, "on_scene_datetime"].isna().mean() > 0.99


def test_sharing_stops_in_march_2020_except_for_via(trips: pd.DataFrame) -> None:
    before, after = day_of(dt.date(2019, 5, 1)), trips
    assert (before["shared_request_flag"] == "Y").mean() > 0.2
    assert set(after.loc[after["shared_request_flag"] == "Y", "hvfhs_license_num"]) == {"HV0004"}
    matched = before[before["shared_match_flag"] == "Y"]
    assert len(matched) > 0
    assert (matched["shared_request_flag"] == "Y").all()


def test_some_trips_request_a_wheelchair_accessible_car_and_mostly_get_it(trips: pd.DataFrame) -> None:
    asked = trips["wav_request_flag"] == "Y"
    assert 0.0005 < asked.mean() < 0.005
    assert (trips.loc[asked, "wav_match_flag"] == "Y").mean() > 0.7


# ----------------------------------------------------------------------------------------------------- times and places


def test_request_arrival_pickup_and_dropoff_are_in_order(trips: pd.DataFrame) -> None:
    request, on_scene, pickup, dropoff = (trips[name] for name in TIMES)
    assert (request < pickup).all()
    assert not (on_scene < request).any()
    assert 0.001 < (on_scene > pickup).mean() < 0.01
    assert (dropoff - pickup == pd.to_timedelta(trips["trip_time"], unit="s")).all()
    assert 1 <= (trips["trip_time"] == 0).sum() <= 15
    assert trips["trip_time"].min() >= 0


def test_trip_time_stays_correct_when_the_clock_falls_back() -> None:
    night = day_of(dt.date(2020, 11, 1))
    off = pd.to_timedelta(night["trip_time"], unit="s") - (night["dropoff_datetime"] - night["pickup_datetime"])
    assert set(off) == {pd.Timedelta(0), pd.Timedelta(hours=1)}
    assert night["trip_time"].median() < 3600


def test_a_few_pickups_are_slightly_after_the_end_of_the_month(trips: pd.DataFrame) -> None:
    beyond = trips.loc[trips["pickup_datetime"] >= "2020-05-01", "pickup_datetime"]
    assert 1 <= len(beyond) <= 12
    assert beyond.max() < pd.Timestamp("2020-05-02")
    assert trips["pickup_datetime"].min() >= pd.Timestamp("2020-04-01")


def test_most_trips_start_outside_manhattan_and_weekend_nights_are_busy(trips: pd.DataFrame) -> None:
    zones = pd.read_csv(synthetic.zones_path(), keep_default_na=False).set_index("LocationID")
    boroughs = trips["PULocationID"].map(zones["Borough"]).value_counts(normalize=True)
    assert 0.3 < boroughs["Manhattan"] < 0.45
    assert boroughs["Brooklyn"] > 0.22
    assert boroughs["Queens"] > 0.15
    assert boroughs["Bronx"] > 0.1
    assert boroughs["Staten Island"] > 0.01
    hour, weekend = trips["pickup_datetime"].dt.hour, trips["pickup_datetime"].dt.dayofweek >= 5
    assert (hour[weekend] == 1).mean() > 3 * (hour[~weekend] == 1).mean()
    assert (hour[~weekend] == 8).mean() > 1.7 * (hour[weekend] == 8).mean()


def test_lyft_reports_thousandths_of_a_mile_and_uber_hundredths(trips: pd.DataFrame) -> None:
    for company, factor in (("HV0003", 100), ("HV0005", 1000)):
        miles = trips.loc[trips["hvfhs_license_num"] == company, "trip_miles"]
        assert (miles == (miles * factor).round() / factor).all()
    assert 2 < trips["trip_miles"].median() < 3.5
    assert 0 < (trips["trip_miles"] == 0).mean() < 0.005


# -------------------------------------------------------------------------------------------------------------- amounts


def test_every_amount_has_whole_cents(trips: pd.DataFrame) -> None:
    for column in (*MONEY, "driver_pay"):
        amount = trips[column].dropna()
        assert (amount == (amount * 100).round() / 100).all()


@pytest.mark.parametrize(
    ("day", "share"),
    [(dt.date(2020, 10, 31), 0.025), (dt.date(2020, 11, 1), 0.03), (dt.date(2024, 1, 1), 0.0275)],
)
def test_tax_and_the_black_car_fund_are_shares_of_fare_and_tolls(day: dt.date, share: float) -> None:
    trips = day_of(day)
    due = trips["base_passenger_fare"] + trips["tolls"]
    assert (trips["tolls"] > 0).any()
    assert ((trips["bcf"] - share * due).abs() <= 0.0051).all()
    assert ((trips["sales_tax"] - 0.08875 * due).abs() <= 0.0051).all()


def test_the_congestion_surcharge_is_paid_in_manhattan_below_96th_street() -> None:
    trips = day_of(dt.date(2019, 5, 1))
    shared = trips["shared_request_flag"] == "Y"
    assert set(trips.loc[shared, "congestion_surcharge"]) == {0, 0.75}
    assert set(trips.loc[~shared, "congestion_surcharge"]) == {0, 2.75}
    midtown = (trips["PULocationID"] == 161) | (trips["DOLocationID"] == 161)
    harlem_heights = trips["PULocationID"].isin([244, 116]) & trips["DOLocationID"].isin([244, 116])
    assert (trips.loc[midtown, "congestion_surcharge"] > 0).all()
    assert harlem_heights.any()
    assert (trips.loc[harlem_heights, "congestion_surcharge"] == 0).all()


def test_the_airport_fee_is_paid_at_each_end_since_april_5th_2021_and_empty_before() -> None:
    assert day_of(dt.date(2021, 4, 4))["airport_fee"].isna().all()
    trips = day_of(dt.date(2021, 4, 5))
    ends = trips[["PULocationID", "DOLocationID"]].isin([1, 132, 138]).sum(axis=1)
    each = np.where(trips["shared_request_flag"] == "Y", 1.25, 2.5)
    assert (trips["airport_fee"] == ends * each).all()
    assert (ends == 1).any()


def test_the_business_districts_fee_is_paid_below_60th_street_since_january_5th_2025() -> None:
    assert set(day_of(dt.date(2025, 1, 4))["cbd_congestion_fee"]) == {0}
    trips = day_of(dt.date(2025, 1, 5))
    assert set(trips["cbd_congestion_fee"]) == {0, 1.5}
    to_midtown = trips["DOLocationID"] == 161
    upper_east_side = trips[["PULocationID", "DOLocationID"]].isin([236, 237, 262, 263]).all(axis=1)
    assert (trips.loc[to_midtown, "cbd_congestion_fee"] == 1.5).all()
    assert upper_east_side.any()
    assert (trips.loc[upper_east_side, "cbd_congestion_fee"] == 0).all()


def test_one_in_six_tips_and_drivers_are_paid_by_miles_and_minutes(trips: pd.DataFrame) -> None:
    assert 0.15 < (trips["tips"] > 0).mean() < 0.2
    paid = trips[(trips["driver_pay"] > 0) & (trips["trip_miles"] > 0) & (trips["trip_time"] > 0)]
    least = 1.09 * paid["trip_miles"] + 0.5 * paid["trip_time"] / 60
    assert (paid["driver_pay"] > 0.99 * least - 0.05).all()
    assert (paid["driver_pay"] / least).median() < 1.1
    assert trips["base_passenger_fare"].min() > 0


def test_a_few_drivers_are_unpaid_or_pay_back(trips: pd.DataFrame) -> None:
    assert 0 < (trips["driver_pay"] == 0).mean() < 0.005
    assert 1 <= (trips["driver_pay"] < 0).sum() <= 15
