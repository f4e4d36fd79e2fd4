"""The table of taxi zones, as published."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from taxi_assets.errors import ColumnMismatchError, InvalidFileError
from taxi_assets.tlc.zones import MAX_BYTES, ZONE_COLUMNS, read_zones
from taxi_assets_tests.trip_files import REAL

if TYPE_CHECKING:
    import pandas as pd

LOOKUP = REAL / "months" / "taxi_zone_lookup.csv"
SAMPLE = Path(__file__).parents[3] / "taxi_assets" / "tlc" / "synthetic" / "taxi_zone_lookup.csv"
HEADER = b"LocationID,Borough,Zone,service_zone\n"


def zones(content: bytes, folder: Path) -> pd.DataFrame:
    path = folder / "zones.csv"
    path.write_bytes(content)
    return read(path)


def read(path: Path) -> pd.DataFrame:
    with path.open("rb") as file:
        return read_zones(file)


@pytest.mark.parametrize("path", [LOOKUP, SAMPLE])
def test_every_zone_is_read_as_it_stands(path: Path) -> None:
    with path.open(newline="") as file:
        published = list(csv.DictReader(file))
    frame = read(path)
    assert list(frame.columns) == [column.name for column in ZONE_COLUMNS]
    assert frame["location_id"].tolist() == [int(row["LocationID"]) for row in published] == list(range(1, 266))
    for name, published_name in {"borough": "Borough", "zone": "Zone", "service_zone": "service_zone"}.items():
        assert frame[name].tolist() == [row[published_name] for row in published]


def test_na_is_a_value() -> None:
    last = read(LOOKUP).iloc[-2:]
    assert set(last["borough"]) | set(last["zone"]) >= {"Unknown", "N/A"}
    assert not last.isna().any(axis=None)


def test_header_quirks_do_not_matter(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf"locationid", BOROUGH ,Zone,service_zone,area\r\n1,EWR,"Newark, Airport",EWR,7\r\n'
    assert zones(content, tmp_path).to_dict("records") == [
        {"location_id": 1, "borough": "EWR", "zone": "Newark, Airport", "service_zone": "EWR"}
    ]


@pytest.mark.parametrize("content", [b"<html><body>No such key</body></html>\n", b"LocationID,Borough,service_zone\n"])
def test_another_table_is_refused_by_its_header(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ColumnMismatchError, match="taxi zones: the file has no column for"):
        zones(content, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        HEADER + b"1,EWR,Newark Airport,EWR\n1,2,3,4,5,6\n",
        HEADER + b"1,EWR,Newark \xff,EWR\n",
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="taxi zones: the file cannot be read: ") as error:
        zones(content, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("third", "finding"),
    [
        (b"one,EWR,Newark Airport,EWR", "has 'one' as its location id, which must be a whole number"),
        (b"1.5,EWR,Newark Airport,EWR", "has '1.5' as its location id"),
        (b"-3,EWR,Newark Airport,EWR", "has '-3' as its location id"),
        (b"12345678901234567890,EWR,Newark Airport,EWR", "has '12345678901234567890' as its location id"),
        (b",EWR,Newark Airport,EWR", "has nothing as its location id"),
        (b" ,EWR,Newark Airport,EWR", "has nothing as its location id"),
        (b"01,EWR,Newark Airport,EWR", "has the location id 1, as row 1 has it already"),
    ],
)
def test_an_id_that_trips_cannot_be_joined_by_once_is_refused_with_its_row(
    third: bytes, finding: str, tmp_path: Path
) -> None:
    content = HEADER + b"1,EWR,Newark Airport,EWR\n2,Queens,Jamaica Bay,Boro Zone\n" + third + b"\n"
    with pytest.raises(InvalidFileError) as error:
        zones(content, tmp_path)
    assert f"taxi zones: row 3 below the header {finding}" in error.value.problem
    assert "Correct this row" in error.value.remedy


def test_a_file_too_large_for_a_table_of_zones_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    row = b"1,EWR,Newark Airport,EWR\n"  # one more of it is refused by its id
    with pytest.raises(InvalidFileError, match="the file is larger than 4,000,000 bytes"):
        zones(HEADER + row * (MAX_BYTES // len(row) + 1), tmp_path)
