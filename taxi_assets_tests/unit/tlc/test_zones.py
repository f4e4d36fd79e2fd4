"""The taxi zone table, as published."""

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
def test_every_zone_is_read_as_published(path: Path) -> None:
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
def test_a_zone_file_with_other_columns_is_rejected(content: bytes, tmp_path: Path) -> None:
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
def test_an_unreadable_zone_file_is_rejected_with_a_one_line_error(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="taxi zones: the file cannot be read: ") as error:
        zones(content, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("third", "problem"),
    [
        (b"one,EWR,Newark Airport,EWR", "has 'one' as its location id, which must be a whole number"),
        (b"1.5,EWR,Newark Airport,EWR", "has '1.5' as its location id"),
        (b"-3,EWR,Newark Airport,EWR", "has '-3' as its location id"),
        (b"12345678901234567890,EWR,Newark Airport,EWR", "has '12345678901234567890' as its location id"),
        (b",EWR,Newark Airport,EWR", "has nothing as its location id"),
        (b" ,EWR,Newark Airport,EWR", "has nothing as its location id"),
        (b"01,EWR,Newark Airport,EWR", "repeats the location id 1 of row 1"),
    ],
)
def test_an_invalid_or_repeated_location_id_is_rejected_with_its_row(
    third: bytes, problem: str, tmp_path: Path
) -> None:
    content = HEADER + b"1,EWR,Newark Airport,EWR\n2,Queens,Jamaica Bay,Boro Zone\n" + third + b"\n"
    with pytest.raises(InvalidFileError) as error:
        zones(content, tmp_path)
    assert f"taxi zones: data row 3 {problem}" in error.value.problem
    assert "Correct this row" in error.value.remedy


def test_a_zone_file_that_is_too_large_is_rejected_before_it_is_parsed(tmp_path: Path) -> None:
    row = b"1,EWR,Newark Airport,EWR\n"  # repeated, so parsing would raise another error
    with pytest.raises(InvalidFileError, match="the file is larger than 4,000,000 bytes"):
        zones(HEADER + row * (MAX_BYTES // len(row) + 1), tmp_path)
