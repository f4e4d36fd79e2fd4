"""The taxi zones: what the location ids of trips mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from taxi_assets.errors import ContentRefusedError, HeaderError
from taxi_assets.tlc.columns import normalise
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


def read_zones(file: BinaryIO) -> pd.DataFrame:
    """The table as published, with this project's column names.

    "NA" and "N/A" are values of this table, not missing ones. Raises `HeaderError` for other columns, and
    `ContentRefusedError` for what is no table of zones.
    """
    try:
        return _read(file)
    except (ValueError, TypeError) as error:
        finding = " ".join(str(error).split())
        raise ContentRefusedError(
            f"taxi zones: the file cannot be read: {finding}.", remedy="Is this TLC's taxi_zone_lookup.csv?"
        ) from error


def _read(file: BinaryIO) -> pd.DataFrame:
    frame = pd.read_csv(file, dtype="string", keep_default_na=False)
    names = {normalise(name): name for name in frame.columns}
    found = {}
    for column in ZONE_COLUMNS:
        published = next((names[alias] for alias in (column.name, *column.aliases) if alias in names), None)
        if published is None:
            raise HeaderError(
                f"taxi zones: the file has no column for {column.name}; it has {', '.join(frame.columns)}.",
                remedy="Is this TLC's taxi_zone_lookup.csv?",
            )
        found[column.name] = frame[published]
    return pd.DataFrame(found).astype({"location_id": "Int64"})
