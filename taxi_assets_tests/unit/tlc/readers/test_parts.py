"""Files that consist of parts: each is read by its own header, never by position."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from taxi_assets.errors import ColumnMismatchError, InvalidFileError
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.readers import csv_blocks
from taxi_assets.tlc.readers.open_trips import open_trips
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.sources.validate_file import validate_file
from taxi_assets_tests.trip_files import LAYOUTS, trip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

OCTOBER = Month(2020, 10)
LAYOUT = LAYOUTS["green 2019"]
HEADER = LAYOUT.header.split(",")
ZONE_COLUMNS = ("pickup_location_id", "dropoff_location_id")
TRIPS = [trip(pickup_location_id=str(zone), dropoff_location_id=str(zone + 100)) for zone in range(1, 61)]


def part(trips: Sequence[Mapping[str, str]], order: Sequence[int] = tuple(range(len(HEADER)))) -> bytes:
    """Return a CSV file with the columns of a layout in this order."""
    rows = [LAYOUT.line(trip).split(",") for trip in trips]
    return "".join(",".join(row[i] for i in order) + "\r\n" for row in [HEADER, *rows]).encode()


def read(path: Path, format_: FileFormat) -> tuple[list[tuple[Any, Any]], list[int], dict[int, str]]:
    """Return the zones of all rows, the numbers of the rows, and the reasons of malformed rows by number."""
    zones, numbers, malformed = [], list[int](), dict[int, str]()
    with open_trips(path, format_, GREEN, label="green 2020-10", month=OCTOBER) as reader:
        for batch in reader.batches():
            positions = batch.layout.match.positions
            pickups, dropoffs = (batch.arrays[positions[name][0]].to_pylist() for name in ZONE_COLUMNS)
            zones += [(int(pickup), int(dropoff)) for pickup, dropoff in zip(pickups, dropoffs, strict=True)]
            numbers += batch.source_rows.tolist()
            malformed |= {row.source_row: ", ".join(row.reasons) for row in batch.malformed_rows}
    return zones, numbers, malformed


REVERSED = tuple(reversed(range(len(HEADER))))
ZONES = [(zone, zone + 100) for zone in range(1, 61)]


@pytest.mark.parametrize("block_bytes", [2_000, 1 << 22])
@pytest.mark.parametrize("split", [1, 30, 59])
def test_a_repeated_header_starts_a_part_with_its_own_columns(
    split: int, block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "m.csv"
    path.write_bytes(part(TRIPS[:split]) + part(TRIPS[split:], REVERSED))
    zones, numbers, malformed = read(path, FileFormat.CSV)
    assert zones == ZONES
    assert malformed == {split + 1: "repeated_header"}
    assert numbers == [*range(1, split + 1), *range(split + 2, 62)]


def test_a_part_may_have_more_columns(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    wider = b"".join(line + b",1.25\r\n" for line in part(TRIPS[20:]).splitlines()).replace(b",1.25", b",new_fee", 1)
    path.write_bytes(part(TRIPS[:20]) + wider)
    zones, _, malformed = read(path, FileFormat.CSV)
    assert zones == ZONES
    assert malformed == {21: "repeated_header"}


def test_a_header_at_the_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(part(TRIPS) + part([]))
    zones, _, malformed = read(path, FileFormat.CSV)
    assert zones == ZONES
    assert malformed == {61: "repeated_header"}


def test_a_part_that_lacks_a_column_is_refused_with_the_row_of_its_header(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(part(TRIPS[:30]) + part(TRIPS[30:]).replace(b"PULocationID", b"pickup_zone"))
    with pytest.raises(ColumnMismatchError, match=r"from the header in data row 31 on: .* 'pickup_zone'"):
        read(path, FileFormat.CSV)


@pytest.mark.parametrize(
    "name", ["tpep_pickup_datetime", "Pickup Time", "#lpep_pickup_datetime", "lpep-pickup-datetime"]
)
def test_a_part_whose_header_names_the_pickup_differently_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(part(TRIPS[:30]) + part(TRIPS[30:], REVERSED).replace(b"lpep_pickup_datetime", name.encode()))
    with pytest.raises(ColumnMismatchError, match=r"header in data row 31 on: .* no column for pickup_datetime"):
        read(path, FileFormat.CSV)


def test_a_header_without_any_known_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    unknown = ",".join(f"column_{'x' * number}" for number in range(1, len(HEADER) + 1)).encode()
    path.write_bytes(part(TRIPS[:30]) + unknown + b"\r\n" + part(TRIPS[30:]).split(b"\r\n", 1)[1])
    with pytest.raises(ColumnMismatchError, match="from the header in data row 31 on"):
        read(path, FileFormat.CSV)


def test_a_value_in_a_field_without_a_name_makes_the_row_malformed(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    rows = [LAYOUT.line(trip) + ",," for trip in TRIPS]
    rows[7] = rows[7].replace("2.6", "2,6", 1).removesuffix(",") + "x"
    path.write_bytes("\r\n".join([LAYOUT.header, *rows, ""]).encode())
    zones, _, malformed = read(path, FileFormat.CSV)
    assert zones == [*ZONES[:7], *ZONES[8:]]
    assert malformed == {8: "wrong_field_count"}


def test_a_file_of_many_parts_is_read_in_one_pass(tmp_path: Path) -> None:
    path, repeats = tmp_path / "m.csv", 400
    path.write_bytes(part(TRIPS) * repeats)
    zones, _, malformed = read(path, FileFormat.CSV)
    assert zones == ZONES * repeats
    assert len(malformed) == repeats - 1


def archive(parts: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file:
        for name, part_ in parts.items():
            file.writestr(name, part_)
    return content.getvalue()


def parquet_part(trips: Sequence[Mapping[str, str]]) -> bytes:
    columns = {
        name: [trip.get(column, "") for trip in trips] for name, column in zip(HEADER, LAYOUT.columns, strict=True)
    }
    content = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), content)
    return content.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("extension", [".csv", ".parquet", ".PARQUET", ""])
def test_the_parts_of_an_archive_are_read_in_the_order_of_their_names(
    extension: str, compression: int, tmp_path: Path
) -> None:
    parts = [TRIPS[:20], TRIPS[20:50], TRIPS[50:]]
    contents = [part(trips) if extension == ".csv" else parquet_part(trips) for trips in parts]
    names = [f"202010/part-{number}{extension}" for number in range(3)]
    hidden = {"__MACOSX/._part-0.csv": b"x", "202010/_SUCCESS": b"", "202010/": b""}
    path = tmp_path / "m.zip"
    path.write_bytes(archive(hidden | dict(zip(names[::-1], contents[::-1], strict=True)), compression))
    zones, numbers, malformed = read(path, FileFormat.ZIP)
    assert zones == ZONES
    assert numbers == list(range(1, 61))
    assert malformed == {}


def test_each_part_of_an_archive_has_its_own_columns(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    path.write_bytes(
        archive(
            {"1.csv": part(TRIPS[:30]), "2.csv": part(TRIPS[30:50], REVERSED), "3.parquet": parquet_part(TRIPS[50:])}
        )
    )
    assert read(path, FileFormat.ZIP)[0] == ZONES


def test_an_error_names_the_part(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    path.write_bytes(archive({"1.csv": part(TRIPS[:30]), "2.csv": part(TRIPS[30:]).replace(b"VendorID", b"vendor")}))
    with pytest.raises(ColumnMismatchError, match=r"green 2020-10: 2\.csv: the file has no column for vendor_id"):
        read(path, FileFormat.ZIP)


@pytest.mark.parametrize(
    ("parts", "finding"),
    [
        ({"1.csv": part(TRIPS), "copy/2.csv": part(TRIPS)}, "has the same part twice: 1.csv and copy/2.csv"),
        ({"1.csv": part(TRIPS), "1.parquet": parquet_part(TRIPS)}, "has the same part twice: 1.csv and 1.parquet"),
        ({"1.csv": part([]), "2.csv": b"", "3.csv": part([])}, "the zip archive has no rows in any of its parts"),
        ({"notes.pdf": b"x", "1.csv": part(TRIPS)}, "the zip archive contains notes.pdf, which is not CSV or Parquet"),
        ({"2020/1.zip": archive({"1.csv": part(TRIPS)})}, "the zip archive contains 2020/1.zip, which is not CSV"),
        ({"__MACOSX/._1.csv": b"x"}, "the zip archive has no CSV or Parquet files"),
        ({"1.csv": part(TRIPS), "2.csv": b"<html></html>"}, "in 2.csv, it is an HTML page, not CSV text"),
        ({"1.csv": part(TRIPS)[:-30]}, "in 1.csv, it is truncated in the middle of its last line"),
        ({"1.parquet": parquet_part(TRIPS)[:-30]}, "in 1.parquet, it is a Parquet file without a footer"),
    ],
)
def test_an_archive_with_anything_else_is_refused(parts: Mapping[str, bytes], finding: str, tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    path.write_bytes(archive(parts))
    with pytest.raises(InvalidFileError) as error:
        validate_file(path, FileFormat.ZIP, label="green 2020-10", url="here")
    assert finding in str(error.value)


@pytest.mark.parametrize("damage", ["truncated", "changed", "encrypted", "bomb"])
def test_a_damaged_archive_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    content = bytearray(archive({"1.parquet": parquet_part(TRIPS)}, zipfile.ZIP_STORED))
    if damage == "truncated":
        del content[len(content) // 2 :]
    elif damage == "changed":
        content[200] ^= 1
    elif damage == "encrypted":
        content[content.index(b"PK\x01\x02") + 8] |= 1
    else:
        content = bytearray(archive({"1.csv": b"a,b\n" + b"1,2\n" * 10_000_000}))
    path.write_bytes(content)
    with pytest.raises(InvalidFileError, match=r"zip archive|in 1\.csv, it expands to more than"):
        validate_file(path, FileFormat.ZIP, label="green 2020-10", url="here")


def test_empty_parts_add_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    parts = {"1.csv": part(TRIPS), "2.csv": part([]), "3.csv": part([]), "4.csv": b"", "5.parquet": parquet_part([])}
    path.write_bytes(archive(parts))
    assert validate_file(path, FileFormat.ZIP, label="", url="") == len(TRIPS)
    assert read(path, FileFormat.ZIP)[0] == ZONES


def test_the_rows_of_all_parts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    path.write_bytes(
        archive({"1.csv": part(TRIPS[:20]), "2.parquet": parquet_part(TRIPS[20:50]), "3": part(TRIPS[50:])})
    )
    assert validate_file(path, FileFormat.ZIP, label="", url="") == len(TRIPS)
