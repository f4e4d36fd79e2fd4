"""The taxi zone table: the borough and the zone of each location ID in trips."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pandas as pd

from taxi_assets.errors import ColumnMismatchError, InvalidFileError
from taxi_assets.tlc.schema import Column, ColumnType, normalize
from taxi_assets.tlc.services.shared_columns import OUTSIDE_NYC_ZONE, SPECIAL_ZONES, UNKNOWN_ZONE

if TYPE_CHECKING:
    from typing import BinaryIO

ZONES_TABLE = "taxi_zones"
"""The last part of the asset key, and the name of the warehouse table."""

ZONE_COLUMNS = (
    Column(
        "location_id",
        ColumnType.INTEGER,
        f"TLC's number of the zone, as in pickup_location_id. {SPECIAL_ZONES}",
        aliases=("locationid",),
    ),
    Column(
        "borough",
        ColumnType.TEXT,
        f"Borough of the zone, EWR for Newark Airport. As published, {UNKNOWN_ZONE} has Unknown and "
        f"{OUTSIDE_NYC_ZONE} has N/A.",
    ),
    Column(
        "zone",
        ColumnType.TEXT,
        f"Name of the zone. As published, {UNKNOWN_ZONE} has N/A and {OUTSIDE_NYC_ZONE} has Outside of NYC.",
    ),
    Column(
        "service_zone",
        ColumnType.TEXT,
        "TLC's group of zones: Yellow Zone, Boro Zone, Airports, EWR, or N/A for the zones without a place.",
    ),
)
"""The columns of the zone table. Source: TLC's taxi_zone_lookup.csv."""

MAX_BYTES = 4_000_000
"""The largest file that is read. TLC's file has 12,331 bytes."""
_REMEDY = "Use TLC's taxi_zone_lookup.csv."


def read_zones(file: BinaryIO) -> pd.DataFrame:
    """Read TLC's zone table.

    Every trip is joined to this table, so each zone number must occur exactly once.

    Args:
        file: The CSV file, open for reading bytes.

    Returns:
        One row per zone, in file order, with `ZONE_COLUMNS`. "NA" and "N/A" are values of this table, not nulls.

    Raises:
        ColumnMismatchError: A column is missing.
        InvalidFileError: The file is too large or malformed, or a zone number is invalid or repeated.
    """
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InvalidFileError(f"taxi zones: the file is larger than {MAX_BYTES:,} bytes.", remedy=_REMEDY)
    try:
        return _read(io.BytesIO(content))
    except (ValueError, TypeError) as error:
        cause = " ".join(str(error).split())
        raise InvalidFileError(f"taxi zones: the file cannot be read: {cause}.", remedy=_REMEDY) from error


def _read(file: BinaryIO) -> pd.DataFrame:
    frame = pd.read_csv(file, dtype="string", keep_default_na=False)
    names = {normalize(name): name for name in frame.columns}
    found = {}
    for column in ZONE_COLUMNS:
        aliases = map(normalize, (column.name, *column.aliases))
        published = next((names[alias] for alias in aliases if alias in names), None)
        if published is None:
            raise ColumnMismatchError(
                f"taxi zones: the file has no column for {column.name}; it has {', '.join(frame.columns)}.",
                remedy=_REMEDY,
            )
        found[column.name] = frame[published]
    _require_unique_ids(found["location_id"])
    types = {column.name: pd.ArrowDtype(column.type.arrow_type) for column in ZONE_COLUMNS}
    return pd.DataFrame(found).astype({"location_id": "Int64"}).astype(types)


def _require_unique_ids(ids: pd.Series[str]) -> None:
    first_rows: dict[int, int] = {}
    for row, text in enumerate(ids.fillna("").str.strip(), start=1):  # a row that ends too early has no value here
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            shown = repr(text[:40]) if text else "nothing"
            raise _invalid_row_error(row, f"has {shown} as its location id, which must be a whole number")
        first = first_rows.setdefault(int(text), row)
        if first != row:
            raise _invalid_row_error(row, f"repeats the location id {int(text)} of row {first}")


def _invalid_row_error(row: int, problem: str) -> InvalidFileError:
    return InvalidFileError(
        f"taxi zones: data row {row} {problem}.",
        remedy="Correct this row, or use TLC's taxi_zone_lookup.csv.",
    )
