"""The file formats that TLC and its mirrors publish."""

from __future__ import annotations

from enum import StrEnum


class FileFormat(StrEnum):
    """A format of published files. The value is the file name extension, without the first dot."""

    CSV_GZ = "csv.gz"
    CSV = "csv"
    PARQUET = "parquet"
    ZIP = "zip"
    """An archive of parts."""
