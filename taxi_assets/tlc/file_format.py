"""The file formats that TLC and its mirrors publish."""

from __future__ import annotations

from enum import StrEnum


class FileFormat(StrEnum):
    """The formats TLC and its mirrors publish in; the value is the file name's ending without its first dot."""

    CSV_GZ = "csv.gz"
    CSV = "csv"
    PARQUET = "parquet"
