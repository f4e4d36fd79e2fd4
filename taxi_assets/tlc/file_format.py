"""The file formats that publishers use: the kind of file, and how CSV text is written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FileFormat(StrEnum):
    """A format of published files. The value is the file name extension, without the first dot."""

    CSV_GZ = "csv.gz"
    CSV = "csv"
    PARQUET = "parquet"
    ZIP = "zip"
    """An archive of parts."""


@dataclass(frozen=True)
class CsvDialect:
    """How a service's CSV files are written. The defaults are those of TLC's files.

    Attributes:
        delimiter: The character between two fields.
        quoting: Whether a field in double quotes may contain delimiters and line breaks, as in RFC 4180. Without
            quoting, one line is one row, whatever quotes it has.
        encoding: The encoding of the text, as Python names it.
    """

    delimiter: str = ","
    quoting: bool = False
    encoding: str = "utf-8"


TLC_DIALECT = CsvDialect()
