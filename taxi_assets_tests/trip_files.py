"""Trip files for tests: the layouts that TLC has published, files in these layouts, and their source records.

The layouts repeat the service definitions, by position, and nothing here imports the readers. The expectations of a
test must not come from the code under test.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import hashlib
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet

from taxi_assets.tlc.cleaning.file_checks import FileChecks
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.sources.source_record import SourceRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ANY_FILE = FileChecks(allow_other_months=True, maximum_share_unreadable=1)
"""For tests of few rows, of which many cannot be read."""

REAL = Path(__file__).parents[1] / ".." / "shared" / "data"


# --- layouts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """The layout of published CSV files in some period.

    Attributes:
        header: The header line.
        columns: The canonical column of each field; "" for a field without one.
        unnamed: The number of further fields in each row that the header does not name.
        gap: The bytes between the header line and the first row.
        line_end: The line end of rows.
    """

    header: str
    columns: Sequence[str]
    unnamed: int = 0
    gap: bytes = b""
    line_end: bytes = b"\r\n"

    def line(self, trip: Mapping[str, str]) -> str:
        """Return a row without its line end. Columns that the trip lacks are empty."""
        return ",".join([trip.get(name, "") for name in self.columns] + [""] * self.unnamed)

    def file(self, trips: Sequence[Mapping[str, str] | str | bytes]) -> bytes:
        """Return a complete CSV file. A trip that is text or bytes becomes a line as it is."""
        header_end = b"\n" if self.gap else self.line_end
        return self.header.encode() + header_end + self.gap + b"".join(self._bytes(t) + self.line_end for t in trips)

    def _bytes(self, trip: Mapping[str, str] | str | bytes) -> bytes:
        if isinstance(trip, bytes):
            return trip
        return (trip if isinstance(trip, str) else self.line(trip)).encode()


_YELLOW_TIMES = "vendor_id pickup_datetime dropoff_datetime passenger_count trip_distance "
_YELLOW_COORDINATES = (
    "pickup_longitude pickup_latitude rate_code_id store_and_fwd_flag dropoff_longitude dropoff_latitude payment_type "
)
_YELLOW_ZONES = "rate_code_id store_and_fwd_flag pickup_location_id dropoff_location_id payment_type "
_MONEY_2009 = "fare_amount extra mta_tax tip_amount tolls_amount total_amount"
_MONEY_2015 = "fare_amount extra mta_tax tip_amount tolls_amount improvement_surcharge total_amount"
_GREEN_COORDINATES = (
    "vendor_id pickup_datetime dropoff_datetime store_and_fwd_flag rate_code_id pickup_longitude pickup_latitude "
    "dropoff_longitude dropoff_latitude passenger_count trip_distance fare_amount extra mta_tax tip_amount "
    "tolls_amount ehail_fee "
)
_GREEN_ZONES = (
    "vendor_id pickup_datetime dropoff_datetime store_and_fwd_flag rate_code_id pickup_location_id "
    "dropoff_location_id passenger_count trip_distance fare_amount extra mta_tax tip_amount tolls_amount ehail_fee "
    "improvement_surcharge total_amount payment_type trip_type"
)

_YELLOW_2010 = (
    "vendor_id,pickup_datetime,dropoff_datetime,passenger_count,trip_distance,pickup_longitude,pickup_latitude,"
    "rate_code,store_and_fwd_flag,dropoff_longitude,dropoff_latitude,payment_type,fare_amount,surcharge,mta_tax,"
    "tip_amount,tolls_amount,total_amount"
)
_YELLOW_2015 = (
    "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,pickup_longitude,"
    "pickup_latitude,RateCodeID,store_and_fwd_flag,dropoff_longitude,dropoff_latitude,payment_type,fare_amount,extra,"
    "mta_tax,tip_amount,tolls_amount,improvement_surcharge,total_amount"
)
_YELLOW_2016 = (
    "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,RatecodeID,store_and_fwd_flag,"
    "PULocationID,DOLocationID,payment_type,fare_amount,extra,mta_tax,tip_amount,tolls_amount,improvement_surcharge,"
    "total_amount"
)
_GREEN_2013 = (
    "VendorID,lpep_pickup_datetime,Lpep_dropoff_datetime,Store_and_fwd_flag,RateCodeID,Pickup_longitude,"
    "Pickup_latitude,Dropoff_longitude,Dropoff_latitude,Passenger_count,Trip_distance,Fare_amount,Extra,MTA_tax,"
    "Tip_amount,Tolls_amount,Ehail_fee,Total_amount,Payment_type,Trip_type "
)
_GREEN_2016 = (
    "VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,store_and_fwd_flag,RatecodeID,PULocationID,DOLocationID,"
    "passenger_count,trip_distance,fare_amount,extra,mta_tax,tip_amount,tolls_amount,ehail_fee,improvement_surcharge,"
    "total_amount,payment_type,trip_type"
)
_BLANK = b"\r\n"

LAYOUTS: Mapping[str, Layout] = {
    "yellow 2009": Layout(
        "vendor_name,Trip_Pickup_DateTime,Trip_Dropoff_DateTime,Passenger_Count,Trip_Distance,Start_Lon,Start_Lat,"
        "Rate_Code,store_and_forward,End_Lon,End_Lat,Payment_Type,Fare_Amt,surcharge,mta_tax,Tip_Amt,Tolls_Amt,"
        "Total_Amt",
        (_YELLOW_TIMES + _YELLOW_COORDINATES + _MONEY_2009).split(),
        gap=_BLANK,
    ),
    "yellow 2010": Layout(_YELLOW_2010, (_YELLOW_TIMES + _YELLOW_COORDINATES + _MONEY_2009).split(), gap=_BLANK),
    "yellow 2014": Layout(
        _YELLOW_2010.replace(",", ", "), (_YELLOW_TIMES + _YELLOW_COORDINATES + _MONEY_2009).split(), gap=_BLANK
    ),
    "yellow 2015": Layout(_YELLOW_2015, (_YELLOW_TIMES + _YELLOW_COORDINATES + _MONEY_2015).split()),
    "yellow 2015-07": Layout(
        _YELLOW_2015.replace("RateCodeID", "RatecodeID"),
        (_YELLOW_TIMES + _YELLOW_COORDINATES + _MONEY_2015).split(),
    ),
    "yellow 2016-07": Layout(_YELLOW_2016, (_YELLOW_TIMES + _YELLOW_ZONES + _MONEY_2015).split(), unnamed=2),
    "yellow 2017": Layout(_YELLOW_2016, (_YELLOW_TIMES + _YELLOW_ZONES + _MONEY_2015).split(), gap=_BLANK),
    "yellow 2019": Layout(
        _YELLOW_2016 + ",congestion_surcharge",
        (_YELLOW_TIMES + _YELLOW_ZONES + _MONEY_2015 + " congestion_surcharge").split(),
    ),
    "yellow 2021, with a number in front": Layout(
        "id," + _YELLOW_2016 + ",congestion_surcharge,airport_fee",
        ["", *(_YELLOW_TIMES + _YELLOW_ZONES + _MONEY_2015 + " congestion_surcharge airport_fee").split()],
    ),
    "yellow 2025": Layout(
        _YELLOW_2016 + ",congestion_surcharge,Airport_fee,cbd_congestion_fee",
        (_YELLOW_TIMES + _YELLOW_ZONES + _MONEY_2015 + " congestion_surcharge airport_fee cbd_congestion_fee").split(),
    ),
    "green 2013": Layout(
        _GREEN_2013, (_GREEN_COORDINATES + "total_amount payment_type trip_type").split(), unnamed=2, gap=_BLANK
    ),
    "green 2015": Layout(
        _GREEN_2013.replace(",Total_amount", ",improvement_surcharge,Total_amount"),
        (_GREEN_COORDINATES + "improvement_surcharge total_amount payment_type trip_type").split(),
        unnamed=2,
    ),
    "green 2016-07": Layout(_GREEN_2016, _GREEN_ZONES.split(), unnamed=2, gap=_BLANK),
    "green 2019": Layout(_GREEN_2016 + ",congestion_surcharge", (_GREEN_ZONES + " congestion_surcharge").split()),
}

TRIP: Mapping[str, str] = {
    "vendor_id": "2",
    "pickup_datetime": "2020-10-05 10:00:00",
    "dropoff_datetime": "2020-10-05 10:12:30",
    "passenger_count": "1",
    "trip_distance": "2.6",
    "rate_code_id": "1",
    "store_and_fwd_flag": "N",
    "pickup_location_id": "74",
    "dropoff_location_id": "42",
    "payment_type": "1",
    "fare_amount": "10.5",
    "extra": "0.5",
    "mta_tax": "0.5",
    "tip_amount": "1.23",
    "tolls_amount": "0",
    "improvement_surcharge": "0.3",
    "total_amount": "13.03",
}
"""A trip of October 2020 that violates no rule: canonical column to published text."""


def trip(**changes: str) -> dict[str, str]:
    """Return `TRIP` with other texts for some columns."""
    return {**TRIP, **changes}


def month_of(layout: str) -> Month:
    """Return the first month of a layout."""
    first = layout.split()[1].rstrip(",")
    return Month.parse(first if "-" in first else f"{first}-01")


def service_of(layout_name: str) -> str:
    """Return the service of a layout in `LAYOUTS`."""
    return layout_name.split(maxsplit=1)[0]


# --- files -----------------------------------------------------------------------------------------------------------


def write_csv(path: Path, content: bytes) -> Path:
    """Write a CSV file, compressed if its name ends in `.gz`. Identical content produces identical bytes."""
    path.write_bytes(gzip.compress(content, 1, mtime=0) if path.suffix == ".gz" else content)
    return path


def write_trips(path: Path, layout_name: str, trips: Sequence[Mapping[str, str] | str | bytes]) -> Path:
    """Write a month as `.csv` or `.csv.gz` in a layout of `LAYOUTS`. A trip may also be a complete line."""
    return write_csv(path, LAYOUTS[layout_name].file(trips))


def write_parquet(path: Path, layout_name: str, columns: Mapping[str, Any], **options: Any) -> Path:
    """Write a month as Parquet with the published names of a layout.

    Args:
        path: The file to write.
        layout_name: A layout of `LAYOUTS`.
        columns: Canonical column name to Arrow array. Other columns have Arrow's null type, as `ehail_fee` has had.
        options: Further arguments of `pyarrow.parquet.write_table`.
    """
    layout = LAYOUTS[layout_name]
    rows = len(next(iter(columns.values())))
    names = layout.header.split(",")
    arrays = [columns.get(name, pa.nulls(rows)) for name in layout.columns]
    pyarrow.parquet.write_table(pa.Table.from_arrays(arrays, names=names), path, **options)
    return path


def format_of(path: Path) -> FileFormat:
    """Return the format that a file name has."""
    return next(ending for ending in FileFormat if path.name.endswith(f".{ending}"))


def source_record(path: Path, **changes: Any) -> SourceRecord:
    """Return the record that a download of the file would have made. Python's csv module counts the rows."""
    content = path.read_bytes()
    format_ = format_of(path)
    if "rows" not in changes:
        parquet = format_ is FileFormat.PARQUET
        changes["rows"] = pyarrow.parquet.read_metadata(path).num_rows if parquet else len(csv_rows(path)) - 1
    known: dict[str, Any] = {
        "url": path.as_uri(),
        "publisher": "test",
        "format": format_,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "fetched_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    }
    return SourceRecord.model_validate({**known, **changes})


def csv_rows(path: Path) -> list[list[str]]:
    """Return header and rows as Python's csv module reads them, without blank lines. Invalid UTF-8 is escaped."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    # Lines end as in a file that is open for text. str.splitlines would also split at form feeds and the like.
    text = content.decode("utf-8-sig", "backslashreplace").replace("\r\n", "\n").replace("\r", "\n")
    return [row for row in csv.reader(text.split("\n"), quoting=csv.QUOTE_NONE) if row]


def real_files(*folders: str) -> list[Path]:
    """Return the real yellow and green files in these folders of the shared data, sorted by name."""
    return sorted(
        path
        for folder in folders
        for path in (REAL / folder).glob("*_tripdata_*")
        if path.name.startswith(("yellow", "green"))
    )


def service_and_month(path: Path) -> tuple[str, Month]:
    """Return the service and month in a file name: `green_tripdata_2020-10.csv.gz` gives ("green", 2020-10)."""
    service, _, rest = path.name.partition("_tripdata_")
    return service, Month.parse(rest[:7])


# --- a plain reading -------------------------------------------------------------------------------------------------

_CODES: Mapping[str, Mapping[str, str]] = {
    "vendor_id": {"CMT": "1", "VTS": "2", "DDS": "3"},
    "payment_type": {
        "credit": "1", "crd": "1", "cre": "1", "cash": "2", "cas": "2", "csh": "2", "no charge": "3", "no": "3",
        "noc": "3", "dispute": "4", "dis": "4", "na": "5", "unk": "5",
    },
    "store_and_fwd_flag": {"Y": "Y", "N": "N", "1": "Y", "0": "N", "1.0": "Y", "0.0": "N"},
}  # fmt: skip
_AMOUNTS = {
    "fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount", "ehail_fee", "improvement_surcharge",
    "total_amount", "congestion_surcharge", "airport_fee", "cbd_congestion_fee",
}  # fmt: skip


def _plain_value(column: str, text: str) -> Any:
    """Return the value of a text, converted by Python's standard library. Real files have no unreadable values."""
    text = text.strip()
    if column in _CODES and text:
        codes = _CODES[column]
        text = codes.get(text, codes.get(text.lower(), text))
    if text == "":
        return None
    if column in _AMOUNTS:
        return Decimal(text).quantize(Decimal("0.01"), ROUND_HALF_UP)
    if column == "trip_distance":
        return Decimal(text).quantize(Decimal("0.001"), ROUND_HALF_UP)
    for ending, read in (("_datetime", dt.datetime.fromisoformat), ("tude", float), ("_flag", str)):
        if column.endswith(ending):
            return read(text)
    assert Decimal(text) == int(Decimal(text))
    return int(Decimal(text))


def _plain_columns(service: str, path: Path) -> dict[str, list[str]]:
    """Return the texts of a file by canonical column, with published names matched by `LAYOUTS`."""
    meaning = {
        published.strip().lower(): canonical
        for name, layout in LAYOUTS.items()
        if service_of(name) == service
        for published, canonical in zip(layout.header.split(","), layout.columns, strict=True)
        if canonical
    }
    if path.suffix == ".parquet":
        table = pyarrow.parquet.read_table(path)
        published = {
            name.lower(): ["" if value is None else str(value) for value in table[name].to_pylist()]
            for name in table.column_names
        }
    else:
        header, *rows = csv_rows(path)
        named = [name.strip().lower() for name in header]
        # zip omits fields that the header does not name.
        published = dict(zip(named, map(list, zip(*rows, strict=True)), strict=False))
    return {meaning[name]: texts for name, texts in published.items() if name in meaning}


def plain_reading(service: str, path: Path) -> dict[str, list[Any]]:
    """Return every value of a real file by canonical column, read with Python's standard library for comparison."""

    def values(column: str, texts: list[str]) -> list[Any]:
        meanings = {text: _plain_value(column, text) for text in set(texts)}
        return [meanings[text] for text in texts]

    return {column: values(column, texts) for column, texts in _plain_columns(service, path).items()}
