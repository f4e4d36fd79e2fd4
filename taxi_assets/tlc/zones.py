"""The taxi zones: what the location ids of trips mean."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pandas as pd

from taxi_assets.errors import ColumnMismatchError, InvalidFileError
from taxi_assets.tlc.readers.header import normalize
from taxi_assets.tlc.schema import Column, ColumnType

if TYPE_CHECKING:
    from typing import BinaryIO

ZONES_TABLE = "taxi_zones"
"""The last part of the asset's key, and the table's name in the warehouse."""

ZONE_COLUMNS = (
    Column("location_id", ColumnType.INTEGER, "Number of the zone, as in pickup_location_id.", aliases=("locationid",)),
    Column("borough", ColumnType.TEXT, "Borough; EWR for Newark Airport, Unknown and N/A for zones 264 and 265."),
    Column("zone", ColumnType.TEXT, "Name of the zone."),
    Column("service_zone", ColumnType.TEXT, "Yellow Zone, Boro Zone, Airports or EWR."),
)

MAX_BYTES = 4_000_000
"""The table as published has 12,331 bytes."""
_REMEDY = "Is this TLC's taxi_zone_lookup.csv?"


def read_zones(file: BinaryIO) -> pd.DataFrame:
    """The table as published, with this project's column names.

    "NA" and "N/A" are values of this table, not missing ones. Raises `ColumnMismatchError` for other columns, and
    `InvalidFileError` for what is no table of zones: every trip is joined to it, so each id must stand there once.
    """
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InvalidFileError(f"taxi zones: the file is larger than {MAX_BYTES:,} bytes.", remedy=_REMEDY)
    try:
        return _read(io.BytesIO(content))
    except (ValueError, TypeError) as error:
        finding = " ".join(str(error).split())
        raise InvalidFileError(f"taxi zones: the file cannot be read: {finding}.", remedy=_REMEDY) from error


def _read(file: BinaryIO) -> pd.DataFrame:
    frame = pd.read_csv(file, dtype="string", keep_default_na=False)
    names = {normalize(name): name for name in frame.columns}
    found = {}
    for column in ZONE_COLUMNS:
        published = next((names[alias] for alias in (column.name, *column.aliases) if alias in names), None)
        if published is None:
            raise ColumnMismatchError(
                f"taxi zones: the file has no column for {column.name}; it has {', '.join(frame.columns)}.",
                remedy=_REMEDY,
            )
        found[column.name] = frame[published]
    _require_ids(found["location_id"])
    return pd.DataFrame(found).astype({"location_id": "Int64"})


def _require_ids(ids: pd.Series[str]) -> None:
    rows_of: dict[int, int] = {}
    for row, text in enumerate(ids.fillna("").str.strip(), start=1):  # a row that ends too early has no value there
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            shown = repr(text[:40]) if text else "nothing"
            raise _invalid_row_error(row, f"has {shown} as its location id, which must be a whole number")
        first = rows_of.setdefault(int(text), row)
        if first != row:
            raise _invalid_row_error(row, f"has the location id {int(text)}, as row {first} has it already")


def _invalid_row_error(row: int, finding: str) -> InvalidFileError:
    return InvalidFileError(
        f"taxi zones: row {row} below the header {finding}.",
        remedy=f"Correct this row of the file, or take TLC's own. {_REMEDY}",
    )
