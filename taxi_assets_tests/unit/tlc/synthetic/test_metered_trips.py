"""The synthetic sample of yellow and green: content like that of published files, including data errors."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxi_assets.tlc import synthetic
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.synthetic import metered_trips
from taxi_assets.tlc.synthetic.metered_distributions import GREEN, YELLOW, MeteredService, tariff_of

REAL = Path(__file__).parents[4] / ".." / "shared" / "data"
REAL_GREEN = REAL / "months" / "green_tripdata_2020-10.csv.gz"

MONTHS = [("yellow", "2020-05"), ("green", "2020-10")]  # small months in which the shares are those of 2021
PARTS = [
    "fare_amount",
    "extra",
    "mta_tax",
    "tip_amount",
    "tolls_amount",
    "improvement_surcharge",
    "congestion_surcharge",
]
DISTANCE = r"(?!0)\d*\.\d\d"  # .79, 2.10
AMOUNT = r"-?(0|[1-9]\d*)(\.\d?[1-9])?"  # 0, 0.5, 7.88, -5.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    for service, month in MONTHS:
        synthetic.write_month(service, Month.parse(month), path_of(folder, service, month))
    return folder


@pytest.fixture(scope="module")
def trips(folder: Path) -> dict[tuple[str, str], pd.DataFrame]:
    return {(service, month): read(path_of(folder, service, month)) for service, month in MONTHS}


@pytest.fixture(scope="module")
def real_green() -> pd.DataFrame:
    times = ["lpep_pickup_datetime", "lpep_dropoff_datetime"]
    return read(REAL_GREEN, [*times, "VendorID", "trip_distance", "fare_amount", "tolls_amount", "total_amount"])


def path_of(folder: Path, service: str, month: str) -> Path:
    return folder / f"{service}_tripdata_{month}.csv.gz"


def read(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a month, with `pickup` and `dropoff` as times, and the `hours` between them."""
    frame = pd.read_csv(path, low_memory=False, usecols=columns)
    frame = frame.rename(columns=lambda name: re.sub("[tl]pep_(pickup|dropoff)_datetime", r"\1", name))
    pickup, dropoff = pd.to_datetime(frame["pickup"]), pd.to_datetime(frame["dropoff"])
    return frame.assign(pickup=pickup, dropoff=dropoff, hours=(dropoff - pickup).dt.total_seconds() / 3600)


def cents(frame: pd.DataFrame, column: str) -> pd.Series[int]:
    return (frame[column].fillna(0) * 100).round().astype("int64")


def failing(frame: pd.DataFrame, month: str) -> dict[str, float]:
    """Return the share of rows that each default rule rejects, and the share that `any` of them rejects."""
    start = pd.Timestamp(Month.parse(month).shift(-1).start)
    end = pd.Timestamp(Month.parse(month).end) + pd.Timedelta(days=1)
    rules = {
        "pickup": (frame["pickup"] < start) | (frame["pickup"] >= end),
        "dropoff": frame["dropoff"] <= frame["pickup"],
        "passengers": frame["passenger_count"] == 0,
        "distance": (frame["trip_distance"] < 0) | (frame["trip_distance"] > 500),
        "day-long": frame["hours"] > 24,
    }
    rules["any"] = pd.concat(rules, axis=1).any(axis=1)
    return {name: float(rejected.mean()) for name, rejected in rules.items()}


def hourly(frame: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.bincount(frame["pickup"].dt.hour, minlength=24) / len(frame)


# --------------------------------------------------------------------------------------------------------- as published


def test_numbers_are_formatted_as_in_published_files(folder: Path) -> None:
    for path in (REAL_GREEN, path_of(folder, "green", "2020-10"), path_of(folder, "yellow", "2020-05")):
        text = pd.read_csv(path, dtype=str, keep_default_na=False, nrows=5_000)
        assert text["trip_distance"].str.fullmatch(DISTANCE).all()
        for column in ("fare_amount", "extra", "tip_amount", "tolls_amount", "total_amount"):
            assert text[column].str.fullmatch(AMOUNT).all()
        for column in ("VendorID", "RatecodeID", "passenger_count", "payment_type"):
            assert text[column].str.fullmatch(r"\d*").all()


@pytest.mark.parametrize("service", [YELLOW, GREEN])
def test_the_days_of_any_month_sum_to_the_month(service: MeteredService) -> None:
    rng = np.random.default_rng(0)
    for month in (Month(2009, 1), Month(2013, 8), Month(2019, 7), Month(2020, 2), Month(2024, 2), Month(2031, 12)):
        days = service.rows_by_day(rng, month)
        assert len(days) == month.days
        assert sum(hailed + dispatched for _, hailed, dispatched in days) == service.volume.rows(month)


# ------------------------------------------------------------------------------------------------- like published files


@pytest.mark.parametrize(("service", "month"), MONTHS)
def test_total_amount_is_the_sum_of_its_parts_to_the_cent(
    trips: dict[tuple[str, str], pd.DataFrame], service: str, month: str
) -> None:
    frame = trips[service, month]
    parts = np.sum([cents(frame, part) for part in PARTS], axis=0)
    assert (parts == cents(frame, "total_amount")).all()


@pytest.mark.parametrize(("service", "month"), MONTHS)
def test_every_reversal_is_next_to_its_charge_and_cancels_it_to_the_cent(
    trips: dict[tuple[str, str], pd.DataFrame], service: str, month: str
) -> None:
    frame = trips[service, month]
    reversed_at = np.flatnonzero(frame["total_amount"] < 0)
    reversal, charge = frame.iloc[reversed_at].reset_index(), frame.iloc[reversed_at + 1].reset_index()
    assert 0.001 < len(reversal) / len(frame) < 0.006
    for column in ("VendorID", "pickup", "dropoff", "PULocationID", "DOLocationID"):
        assert (reversal[column] == charge[column]).all()
    for column in (*PARTS, "total_amount"):
        assert (cents(reversal, column) + cents(charge, column) == 0).all()
    assert set(reversal["payment_type"]) == {3, 4}


@pytest.mark.parametrize(
    ("service", "month", "bounds"),
    [
        (
            "yellow",
            "2020-05",
            {"passengers": (0.015, 0.02), "distance": (5e-5, 5e-4), "pickup": (1e-5, 2e-4), "any": (0.015, 0.02)},
        ),
        (
            "green",
            "2020-10",
            {"passengers": (0.002, 0.005), "distance": (1e-4, 1e-3), "pickup": (0, 2e-4), "any": (0.004, 0.01)},
        ),
    ],
)
def test_each_rule_rejects_about_the_same_share_as_in_real_months(
    trips: dict[tuple[str, str], pd.DataFrame], service: str, month: str, bounds: dict[str, tuple[float, float]]
) -> None:
    shares = failing(trips[service, month], month)
    everywhere = {"dropoff": (0.0008, 0.0025), "day-long": (0, 2e-4)}
    for rule, (least, most) in (everywhere | bounds).items():
        assert least <= shares[rule] <= most, rule


def test_the_other_data_errors_of_real_files_occur(trips: dict[tuple[str, str], pd.DataFrame]) -> None:
    frame = trips["yellow", "2020-05"]
    unknown = frame["VendorID"].isna()
    assert 0.065 < unknown.mean() < 0.08
    for column in ("passenger_count", "RatecodeID", "store_and_fwd_flag", "payment_type", "congestion_surcharge"):
        assert (frame[column].isna() == unknown).all()
    assert unknown.to_numpy()[-1000:].all(), "dispatched rows are at the end"
    strays = frame.loc[~frame["pickup"].between("2020-05-01", "2020-05-31 23:59:59"), "pickup"]
    assert 2 <= len(strays) <= 26
    assert {2020} < set(strays.dt.year) <= {2008, 2009, 2020}
    assert 500 < frame["trip_distance"].max() < 230_000
    assert 0.005 < (frame["trip_distance"] == 0).mean() < 0.05
    assert 0.001 < frame["hours"].between(23, 24).mean() < 0.004
    assert {1, 2, 3, 4, 5, 99} <= set(frame["RatecodeID"].dropna())
    assert {1, 2, 3, 4} <= set(frame["payment_type"].dropna())
    assert {264, 265} <= set(frame["PULocationID"])
    assert not frame.duplicated().any()


def test_no_dispatched_trips_before_july_2019() -> None:
    rng = np.random.default_rng(0)
    assert {dispatched for _, _, dispatched in YELLOW.rows_by_day(rng, Month(2019, 6))} == {0}
    assert all(dispatched for _, _, dispatched in YELLOW.rows_by_day(rng, Month(2019, 7)))


def test_nights_are_quiet_evenings_busy_and_weekend_nights_different(
    trips: dict[tuple[str, str], pd.DataFrame],
) -> None:
    frame = trips["yellow", "2020-05"]
    hours, weekday = hourly(frame), frame["pickup"].dt.dayofweek
    assert hours[4] < hours[18] / 5
    assert hours.argmax() in {16, 17, 18}
    assert hourly(frame[weekday >= 5])[1] > 3 * hourly(frame[weekday < 4])[1]
    assert hourly(frame[weekday < 5])[8] > 2 * hourly(frame[weekday >= 5])[8]


def test_yellow_is_in_manhattan_and_at_the_airports_and_green_around_them(
    trips: dict[tuple[str, str], pd.DataFrame],
) -> None:
    zones = pd.read_csv(synthetic.zones_path(), keep_default_na=False).set_index("LocationID")
    yellow, green = (
        trips["yellow", "2020-05"].dropna(subset="VendorID"),
        trips["green", "2020-10"].dropna(subset="VendorID"),
    )
    assert (yellow["PULocationID"].map(zones["Borough"]) == "Manhattan").mean() > 0.85
    assert yellow["PULocationID"].isin([132, 138]).mean() > 0.02
    assert (green["PULocationID"].map(zones["service_zone"]) == "Boro Zone").mean() > 0.9
    assert set(green["PULocationID"].value_counts().index[:2]) == {74, 75}, "East Harlem"
    assert (yellow["congestion_surcharge"].abs() == 2.5).mean() > 0.85
    assert set(green["congestion_surcharge"].abs()) == {0, 2.75}


def test_fares_follow_the_tariff_and_only_card_payments_have_tips(trips: dict[tuple[str, str], pd.DataFrame]) -> None:
    frame = trips["yellow", "2020-05"]
    charged = frame[frame["total_amount"] > 0]
    assert set(charged.loc[charged["RatecodeID"] == 2, "fare_amount"]) == {52}
    assert set(charged.loc[charged["RatecodeID"] == 1, "mta_tax"]) == {0.5}
    assert set(charged["improvement_surcharge"]) == {0.3}
    assert (charged.loc[charged["payment_type"] == 1, "tip_amount"] > 0).mean() > 0.8
    assert (charged.loc[charged["payment_type"].isin([2, 3, 4]), "tip_amount"] == 0).all()
    to_airport = frame["DOLocationID"].isin([132, 138])
    assert (frame.loc[to_airport, "tolls_amount"] > 0).mean() > 5 * (frame.loc[~to_airport, "tolls_amount"] > 0).mean()


def test_green_2020_10_resembles_the_real_month(
    trips: dict[tuple[str, str], pd.DataFrame], real_green: pd.DataFrame
) -> None:
    ours, real = trips["green", "2020-10"], real_green
    assert np.abs(hourly(ours) - hourly(real)).sum() < 0.08
    assert ours["VendorID"].isna().mean() == pytest.approx(real["VendorID"].isna().mean(), abs=0.01)
    for hailed in (True, False):
        mine, theirs = (frame[frame["VendorID"].notna() == hailed] for frame in (ours, real))
        for column in ("trip_distance", "fare_amount", "total_amount"):
            quartiles = [0.25, 0.5, 0.75]
            assert mine[column].quantile(quartiles).to_numpy() == pytest.approx(
                theirs[column].quantile(quartiles).to_numpy(), rel=0.2
            )
        assert mine["hours"].median() == pytest.approx(theirs["hours"].median(), rel=0.1)
        assert (mine["tolls_amount"] > 0).mean() == pytest.approx((theirs["tolls_amount"] > 0).mean(), rel=0.4)


@pytest.mark.parametrize(("service", "month"), MONTHS)
def test_rows_are_sorted_by_hour_in_random_order_within(
    trips: dict[tuple[str, str], pd.DataFrame], service: str, month: str
) -> None:
    frame = trips[service, month].dropna(subset="VendorID").reset_index()
    seconds = (frame["pickup"] - pd.Timestamp(f"{month}-01")).dt.total_seconds()
    around = seconds.rolling(101, center=True, min_periods=1).median()
    assert 0.88 < (seconds // 3600 == around // 3600).mean() < 0.97
    assert (frame["pickup"].diff() < pd.Timedelta(0)).mean() > 0.3


def hailed_on(day: dt.date, count: int) -> tuple[pd.Series[pd.Timestamp], pd.Series[pd.Timestamp]]:
    """Return pickups and dropoffs of `count` trips of a day."""
    tariff = tariff_of(Month(day.year, day.month))
    trips = metered_trips.draw_hailed_trips(np.random.default_rng(0), YELLOW, tariff, day, count)
    pickup, dropoff = (
        pd.to_datetime(pd.Series(trips[name]), unit="s") for name in ("pickup_datetime", "dropoff_datetime")
    )
    return pickup, dropoff


def test_a_meter_left_on_for_almost_a_day_is_sometimes_left_on_for_longer() -> None:
    pickup, dropoff = hailed_on(dt.date(2021, 1, 15), 80_000)
    hours = (dropoff - pickup).dt.total_seconds() / 3600
    assert 1 <= (hours > 24).sum() < 10
    assert hours.max() < 24.1


def test_when_the_clock_falls_back_some_trips_end_before_they_begin() -> None:
    pickup, dropoff = hailed_on(dt.date(2020, 11, 1), 5_000)
    backwards = dropoff < pickup
    fallen = backwards & pickup.between("2020-11-01 01:00", "2020-11-01 01:59:59")
    assert fallen.sum() >= 5
    assert ((pickup - dropoff)[fallen] < pd.Timedelta(hours=1)).all()
    assert backwards.sum() - fallen.sum() <= 2


def test_no_pickup_is_in_the_hour_skipped_when_the_clock_springs_forward() -> None:
    pickup, _ = hailed_on(dt.date(2021, 3, 14), 5_000)
    assert not pickup.between("2021-03-14 02:00", "2021-03-14 02:59:59").any()
    assert pickup.between("2021-03-14 03:00", "2021-03-14 03:59:59").any()
