"""The synthetic sample of all four services: reproducible, in the published format, and of bounded size.

The content is tested in `test_metered_trips.py`, `test_fhv_trips.py` and `test_fhvhv_trips.py`.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from taxi_assets.tlc import synthetic
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services import registry
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.sources.publishers import resolve_publisher
from taxi_assets.tlc.synthetic.demand import FHV_VOLUME, FHVHV_VOLUME, GREEN_VOLUME, YELLOW_VOLUME, Volume

REPOSITORY = Path(__file__).parents[4]
REAL = REPOSITORY / ".." / "shared" / "data"
REAL_FILES = {
    "yellow": REAL / "first100" / "yellow_tripdata_2020-04.csv",
    "green": REAL / "first100" / "green_tripdata_2020-04.csv",
    "fhv": REAL / "first100" / "fhv_tripdata_2020-04.csv",
}

MONTH = Month(2020, 4)  # few trips
VOLUMES = {"yellow": YELLOW_VOLUME, "green": GREEN_VOLUME, "fhv": FHV_VOLUME, "fhvhv": FHVHV_VOLUME}
FIRST_MONTHS = {
    "yellow": Month(2009, 1),
    "green": Month(2013, 8),
    "fhv": Month(2015, 1),
    "fhvhv": Month(2019, 2),
}
SERVICES = list(VOLUMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    for service in SERVICES:
        synthetic.write_month(service, MONTH, folder / name_of(service))
    return folder


def name_of(service: str) -> str:
    return f"{service}_tripdata_{MONTH}.{synthetic.format_of(service)}"


def pickups(path: Path) -> list[dt.datetime]:
    if path.suffix == ".parquet":
        times: list[dt.datetime] = pq.read_table(path, columns=["pickup_datetime"])["pickup_datetime"].to_pylist()
        return times
    with gzip.open(path, "rt", encoding="ascii", newline="") as file:
        header, *rows = csv.reader(file)
    pickup = next(position for position, name in enumerate(header) if name.endswith("pickup_datetime"))
    return [dt.datetime.fromisoformat(row[pickup]) for row in rows]


# --------------------------------------------------------------------------------------------------- reproducible files


def test_another_process_writes_the_same_bytes_and_needs_no_dagster(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from taxi_assets.tlc import month, synthetic\n"
        "for service in ['fhvhv', 'fhv', 'green']:\n"  # in another order: the files do not depend on each other
        "    synthetic.write_month(service, month.Month(2020, 4), pathlib.Path(sys.argv[1]) / service)\n"
        "assert not any(name.startswith('dagster') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=REPOSITORY)
    for service in ("green", "fhv", "fhvhv"):
        assert (tmp_path / service).read_bytes() == (folder / name_of(service)).read_bytes(), service


@pytest.mark.parametrize("service", ["yellow", "green", "fhv"])
def test_the_gzip_header_has_no_time_and_no_file_name(folder: Path, service: str) -> None:
    head = (folder / name_of(service)).read_bytes()[:10]
    assert head[:3] == b"\x1f\x8b\x08"
    assert head[3] == 0, "no file name"
    assert head[4:8] == bytes(4), "no time"


def test_months_differ_from_each_other(folder: Path, tmp_path: Path) -> None:
    synthetic.write_month("fhv", Month(2020, 5), tmp_path / "may.csv.gz")
    april, may = (pd.read_csv(path, nrows=1000) for path in (folder / name_of("fhv"), tmp_path / "may.csv.gz"))
    assert (april["DOLocationID"] == may["DOLocationID"]).mean() < 0.5
    assert (april["dispatching_base_num"] == may["dispatching_base_num"]).mean() < 0.1


# --------------------------------------------------------------------------------------------------------- as published


@pytest.mark.parametrize("service", REAL_FILES)
def test_header_fields_and_line_ends_are_those_of_the_published_files(folder: Path, service: str) -> None:
    header = REAL_FILES[service].read_bytes().partition(b"\n")[0] + b"\n"
    generated = gzip.decompress((folder / name_of(service)).read_bytes())
    assert header.endswith(b"\r\n")
    assert generated.startswith(header)
    assert generated.endswith(b"\r\n")
    lines = generated.count(b"\r\n")
    assert lines == generated.count(b"\n") == generated.count(b"\r")
    fields = {len(row) for row in csv.reader(generated.decode("ascii").splitlines())}
    assert fields == {header.count(b",") + 1}


def test_each_day_is_a_parquet_row_group(folder: Path) -> None:
    metadata = pq.read_metadata(folder / name_of("fhvhv"))
    assert metadata.num_row_groups == MONTH.days
    assert metadata.num_rows == FHVHV_VOLUME.rows(MONTH)


def test_the_publisher_offers_each_service_in_its_generated_format(folder: Path) -> None:
    formats = {}
    for service in synthetic.services():
        (candidate,) = resolve_publisher("sample").source_urls(registry.SERVICES[service], MONTH)
        assert candidate.url == f"sample:{service}/2020-04"
        assert candidate.format == synthetic.format_of(service)
        formats[service] = candidate.format
        magic = b"PAR1" if candidate.format == FileFormat.PARQUET else b"\x1f\x8b"
        assert (folder / name_of(service)).read_bytes().startswith(magic)
    assert formats == dict.fromkeys(["yellow", "green", "fhv"], FileFormat.CSV_GZ) | {"fhvhv": FileFormat.PARQUET}


def test_an_unknown_service_is_rejected_with_the_available_ones_and_has_no_url(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'boats', only of yellow, green, fhv, fhvhv"):
        synthetic.write_month("boats", MONTH, tmp_path / "x.csv.gz")
    with pytest.raises(ValueError, match="'boats', only of yellow, green, fhv, fhvhv"):
        synthetic.format_of("boats")
    assert list(tmp_path.iterdir()) == []
    assert resolve_publisher("sample").source_urls(replace(GREEN, name="boats"), MONTH) == []


def test_the_zone_table_is_the_published_one_and_na_is_a_value() -> None:
    assert synthetic.zones_path().read_bytes() == (REAL / "months" / "taxi_zone_lookup.csv").read_bytes()
    zones = pd.read_csv(synthetic.zones_path(), keep_default_na=False).set_index("LocationID")
    assert len(zones) == 265
    assert list(zones.loc[264]) == ["Unknown", "N/A", "N/A"]
    assert list(zones.loc[265]) == ["N/A", "Outside of NYC", "N/A"]


# ------------------------------------------------------------------------------------------------------------- how many


@pytest.mark.parametrize("service", SERVICES)
def test_a_month_has_the_rows_of_its_volume_on_all_of_its_days(folder: Path, service: str) -> None:
    times = pickups(folder / name_of(service))
    assert len(times) == VOLUMES[service].rows(MONTH)
    assert {dt.date(2020, 4, day) for day in range(1, 31)} <= {time.date() for time in times}


@pytest.mark.parametrize("service", SERVICES)
def test_no_month_is_above_200_000_rows_or_empty(service: str) -> None:
    months = [FIRST_MONTHS[service].shift(n) for n in range(25 * 12)]
    rows = [VOLUMES[service].rows(month) for month in months]
    assert max(rows) <= 200_000
    assert min(rows) > 1_000


def test_january_2021_has_the_documented_sizes() -> None:
    rows = {service: volume.rows(Month(2021, 1)) for service, volume in VOLUMES.items()}
    documented = {"yellow": 100_000, "green": 25_000, "fhv": 25_000, "fhvhv": 85_000}
    assert rows == pytest.approx(documented, rel=0.01)


def rows_of(volume: Volume, first: Month, months: int) -> dict[str, int]:
    return {str(first.shift(n)): volume.rows(first.shift(n)) for n in range(months)}


def test_volumes_collapse_in_2020_and_recover_slowly() -> None:
    rows = rows_of(YELLOW_VOLUME, Month(2019, 1), 60)
    assert rows["2020-04"] < rows["2020-02"] / 7
    assert rows["2020-04"] < rows["2020-06"] < rows["2020-09"] < rows["2021-03"] < rows["2021-06"] < rows["2019-06"]


def test_damped_months_still_show_the_season_and_the_trend() -> None:
    rows = rows_of(YELLOW_VOLUME, Month(2009, 1), 132)
    for year in (2010, 2013, 2018):
        assert rows[f"{year}-08"] / rows[f"{year}-03"] == pytest.approx(0.91 / 1.07, rel=0.03), (
            "August relative to March"
        )
    januaries = [rows[f"{year}-01"] for year in (2012, 2014, 2015, 2016, 2017, 2018, 2019)]
    assert januaries == sorted(januaries, reverse=True)
    assert len(set(januaries)) == len(januaries)


def test_small_months_are_not_damped() -> None:
    assert GREEN_VOLUME.rows(Month(2020, 10)) == round(95_100 / 3.06)
    assert FHVHV_VOLUME.rows(Month(2020, 4)) == round(4_313_000 / 140)


def test_the_apps_left_the_files_of_fhv_in_february_2019() -> None:
    rows = rows_of(FHV_VOLUME, Month(2019, 1), 2)
    assert rows["2019-02"] < rows["2019-01"] / 3
