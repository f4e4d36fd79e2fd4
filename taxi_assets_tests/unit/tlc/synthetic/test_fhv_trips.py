"""The synthetic sample of fhv: habits of the bases, few zones, and unusual but valid rows."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from taxi_assets.tlc import synthetic
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.synthetic import fhv_trips

if TYPE_CHECKING:
    import pyarrow as pa


@pytest.fixture(scope="module")
def trips(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    path = tmp_path_factory.mktemp("sample") / "fhv.csv.gz"
    synthetic.write_month("fhv", Month(2021, 1), path)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    pickup, dropoff = (pd.to_datetime(frame[name]) for name in ("pickup_datetime", "dropoff_datetime"))
    return frame.assign(pickup=pickup, dropoff=dropoff, hours=(dropoff - pickup).dt.total_seconds() / 3600)


def test_there_are_thousands_of_bases_and_a_few_have_most_rows(trips: pd.DataFrame) -> None:
    rows = trips["dispatching_base_num"].value_counts()
    assert trips["dispatching_base_num"].str.fullmatch(r"B0\d{4}").all()
    assert len(rows) > 1_500
    assert 0.02 < rows.iloc[0] / len(trips) < 0.05
    assert rows.iloc[:200].sum() > len(trips) / 2
    assert rows.median() < 10


def test_most_zones_are_empty_or_264_and_some_are_real(trips: pd.DataFrame) -> None:
    for column, real in (("PULocationID", (0.08, 0.3)), ("DOLocationID", (0.55, 0.85))):
        zone = trips[column]
        assert zone.str.fullmatch(r"\d*").all()
        assert real[0] < zone.isin(["", "264"]).eq(other=False).mean() < real[1]
        assert (zone == "").mean() > 0.1
        assert (zone == "264").mean() > 0.03
        assert set(zone) <= {"", *(str(number) for number in range(1, 266))}
    assert trips["DOLocationID"].nunique() > 200


def test_a_base_reports_its_zones_always_or_never(trips: pd.DataFrame) -> None:
    known = ~trips["PULocationID"].isin(["", "264"])
    assert known.groupby(trips["dispatching_base_num"]).nunique().max() == 1


def test_some_bases_report_whole_minutes(trips: pd.DataFrame) -> None:
    assert 0.08 < (trips["pickup"].dt.second == 0).mean() < 0.3
    assert 0.04 < (trips["dropoff"].dt.second == 0).mean() < (trips["pickup"].dt.second == 0).mean()


def test_exact_duplicates_are_adjacent(trips: pd.DataFrame) -> None:
    assert 0.004 < trips.duplicated().mean() < 0.015
    written = trips[["dispatching_base_num", "pickup_datetime", "dropoff_datetime", "PULocationID"]]
    adjacent = (written == written.shift()).all(axis=1)
    assert adjacent.sum() > 0.9 * trips.duplicated().sum()


def test_a_few_percent_take_longer_than_a_day_and_a_few_no_time_at_all(trips: pd.DataFrame) -> None:
    assert 0.02 < (trips["hours"] > 24).mean() < 0.05
    assert 1 <= (trips["hours"] > 365 * 24).sum() <= 12
    assert trips["dropoff"].max() < pd.Timestamp("2100-01-01")
    assert 5 <= (trips["hours"] == 0).sum() <= 100
    assert 5 <= (trips["hours"] < 0).sum() <= 100
    assert 0.2 < trips["hours"].median() < 0.5


def test_every_pickup_is_in_the_month(trips: pd.DataFrame) -> None:
    assert trips["pickup"].min() >= pd.Timestamp("2021-01-01")
    assert trips["pickup"].max() < pd.Timestamp("2021-02-01")


def test_rows_are_sorted_by_hour_then_by_base(trips: pd.DataFrame) -> None:
    key = pd.DataFrame({"hour": trips["pickup"].dt.floor("h"), "base": trips["dispatching_base_num"]})
    assert key.equals(key.sort_values(["hour", "base"], kind="stable"))


def test_workdays_are_busier_than_sundays(trips: pd.DataFrame) -> None:
    rows = trips["pickup"].dt.dayofweek.value_counts()
    assert rows[2] > 1.3 * rows[6]


def shared(day: dt.date) -> float:
    lines: pa.Array = fhv_trips.draw_day_lines(np.random.default_rng(0), day, 2_000)
    flags = [line.rpartition(",")[2] for line in lines.to_pylist()]
    assert set(flags) <= {"", "1"}
    return flags.count("1") / len(flags)


def test_the_shared_flag_is_mostly_empty_except_while_the_apps_were_in_these_files(trips: pd.DataFrame) -> None:
    assert set(trips["SR_Flag"]) == {"", "1"}
    assert (trips["SR_Flag"] == "1").mean() < 0.01
    assert 0.15 < shared(dt.date(2019, 1, 31)) < 0.25
    assert shared(dt.date(2019, 2, 1)) < 0.01
    assert shared(dt.date(2016, 5, 1)) == 0


def test_unknown_zones_were_more_often_264_before_2021() -> None:
    shares = [
        np.mean(
            [",264," in line for line in fhv_trips.draw_day_lines(np.random.default_rng(0), day, 2_000).to_pylist()]
        )
        for day in (dt.date(2020, 5, 1), dt.date(2021, 5, 1))
    ]
    assert shares[0] > 0.5
    assert shares[1] < 0.35
