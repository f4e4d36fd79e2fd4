"""Validation of a downloaded file: is it a complete trip file, and how many rows does it have?

Belongs here: byte-level checks (error pages, truncated files, decompression bombs), and the row count that cleaning is
reconciled with.

Does not belong here: reading values. This module shares no code with the readers that cleaning uses, so that an error
in one is detected by the other.
"""

from __future__ import annotations

import gzip
import re
import zlib
from typing import IO, TYPE_CHECKING, cast
from zipfile import BadZipFile, ZipFile

from taxi_assets.tlc.archive_parts import ArchiveContentError, Part, list_parts, open_part
from taxi_assets.tlc.file_format import TLC_DIALECT, CsvDialect, FileFormat
from taxi_assets.tlc.sources.content_limits import (
    DEFAULT_LIMITS,
    OPEN_IN_BROWSER,
    RAISE_MAX_BYTES,
    ExpansionLimiter,
    FileLimits,
    InvalidContentError,
    NoRowsError,
    invalid_file_error,
)
from taxi_assets.tlc.sources.count_csv_rows import count_csv_rows
from taxi_assets.tlc.sources.count_parquet_rows import count_parquet_rows
from taxi_assets.tlc.sources.wrong_formats import detect_wrong_format

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 8 << 10
_ZIP_MAGIC = b"PK\x03\x04"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def validate_file(
    path: Path,
    format: FileFormat,  # noqa: A002  (its name in SourceUrl and SourceRecord)
    *,
    label: str,
    url: str,
    limits: FileLimits = DEFAULT_LIMITS,
    dialect: CsvDialect = TLC_DIALECT,
) -> int:
    r"""Check that a file is complete and has the expected format, and count its data rows.

    Args:
        path: The downloaded file.
        format: The expected format.
        label: Names the file in errors, such as "green 2020-10".
        url: The URL it came from, without secrets; for errors.
        limits: The size and expansion limits.
        dialect: How the text of a CSV file is written.

    Returns:
        For CSV, the number of non-blank lines without the header; a line ends with `\n`, `\r\n` or a lone `\r`. For
        Parquet, the number in the footer. For an archive, the sum of its parts.

    Raises:
        InvalidFileError: The file has a different format, is truncated, is damaged or exceeds `limits`.
    """
    try:
        return _validate(path, format, limits, dialect)
    except InvalidContentError as error:
        raise invalid_file_error(label, url, error.finding, remedy=error.remedy) from None


def _validate(path: Path, expected: FileFormat, limits: FileLimits, dialect: CsvDialect) -> int:
    size = path.stat().st_size
    if size == 0:
        raise InvalidContentError("it is empty (0 bytes)", OPEN_IN_BROWSER)
    if size > limits.max_bytes:
        raise InvalidContentError(f"it is larger than {limits.max_bytes:,} bytes", RAISE_MAX_BYTES)
    limiter = ExpansionLimiter(limits, size)
    with path.open("rb") as file:
        if expected is FileFormat.ZIP:
            return _count_archive_rows(file, limits, limiter, dialect)
        return _count_rows(file, size, expected, limits, limiter, dialect)


def _count_rows(
    file: IO[bytes],
    size: int,
    expected: FileFormat,
    limits: FileLimits,
    limiter: ExpansionLimiter,
    dialect: CsvDialect,
) -> int:
    _require_expected_content(file.read(_HEAD_BYTES), expected, dialect)
    file.seek(0)
    if expected is FileFormat.PARQUET:
        return count_parquet_rows(file, size, limits)
    if expected is FileFormat.CSV:
        return count_csv_rows(file, limiter, dialect)
    return _count_csv_gz_rows(file, limiter, dialect)


def _count_csv_gz_rows(file: IO[bytes], limiter: ExpansionLimiter, dialect: CsvDialect) -> int:
    try:
        with gzip.GzipFile(fileobj=file) as text:
            _require_expected_content(text.peek(_HEAD_BYTES), FileFormat.CSV, dialect, "its gzip content")
            return count_csv_rows(cast("IO[bytes]", text), limiter, dialect)
    except EOFError:
        raise InvalidContentError("its gzip stream ends early: the file is truncated") from None
    except gzip.BadGzipFile as error:
        has_other_data = "Not a gzipped file" in str(error)
        damage = "data that is not gzip follows it" if has_other_data else "its checksum or length does not match"
        raise InvalidContentError(f"its gzip stream is damaged: {damage}") from None
    except zlib.error:
        raise InvalidContentError("its gzip stream is damaged: it cannot be decompressed") from None


def _count_archive_rows(file: IO[bytes], limits: FileLimits, limiter: ExpansionLimiter, dialect: CsvDialect) -> int:
    _require_expected_content(file.read(_HEAD_BYTES), FileFormat.ZIP, dialect)
    rows, seen = 0, dict[object, str]()
    try:
        with ZipFile(file) as archive:
            for part in list_parts(archive):
                part_rows = _count_part_rows(archive, part, limits, limiter, dialect)
                rows += part_rows
                if part_rows:
                    _require_new_part(part, seen)
    except ArchiveContentError as error:
        raise InvalidContentError(
            f"the zip archive {error}", "Publish an archive of CSV or Parquet files only."
        ) from None
    except (BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise InvalidContentError(f"the zip archive is damaged or truncated ({error})") from None
    if rows == 0:
        raise InvalidContentError("the zip archive has no rows in any of its parts", OPEN_IN_BROWSER)
    return rows


def _require_new_part(part: Part, seen: dict[object, str]) -> None:
    """Raise an error if an archive has the same rows twice: the same bytes, or one name in two formats."""
    stem = part.name.lower().removesuffix(f".{part.format}")
    for key in (stem, (part.info.CRC, part.info.file_size)):
        if key in seen:
            raise InvalidContentError(
                f"the zip archive has the same part twice: {seen[key]} and {part.name}", "Remove one of them."
            )
        seen[key] = part.name


def _count_part_rows(
    archive: ZipFile, part: Part, limits: FileLimits, limiter: ExpansionLimiter, dialect: CsvDialect
) -> int:
    try:
        with open_part(archive, part) as file:
            if part.format is FileFormat.PARQUET:
                while chunk := file.read(_CHUNK_BYTES):  # the archive's checksum is verified only by reading in order
                    limiter.add(len(chunk))
                file.seek(0)
            return _count_rows(file, part.info.file_size, part.format, limits, limiter, dialect)
    except NoRowsError:
        return 0  # tools write such parts
    except InvalidContentError as error:
        raise InvalidContentError(f"in {part.name}, {error.finding}", error.remedy) from None


# --- wrong formats --------------------------------------------------------------------------------------------------


def _require_expected_content(head: bytes, expected: FileFormat, dialect: CsvDialect, subject: str = "it") -> None:
    if expected is FileFormat.CSV and dialect.encoding != TLC_DIALECT.encoding:
        head = head.decode(dialect.encoding, "ignore").encode()
    wrong_format = detect_wrong_format(head)
    if wrong_format is not None and not (expected is FileFormat.ZIP and head.startswith(_ZIP_MAGIC)):
        raise InvalidContentError(f"{subject} is {wrong_format}, not {_FORMAT_NAMES[expected]}", OPEN_IN_BROWSER)
    actual = _detect_format(head)
    if actual is None and expected is FileFormat.CSV and _is_utf16(head):
        raise InvalidContentError(
            f"{subject} is text in UTF-16, not in UTF-8",
            "Save it in UTF-8, or change the dialect in the definition of the service.",
        )
    if actual is not expected:
        finding = f"{subject} is {_FORMAT_NAMES[actual] if actual else 'binary data'}, not {_FORMAT_NAMES[expected]}"
        raise InvalidContentError(
            finding, "Publish it with the extension of its format, or choose another publisher (TAXI_SOURCE)."
        )


_FORMAT_NAMES = {
    FileFormat.CSV: "CSV text",
    FileFormat.CSV_GZ: "gzip (csv.gz)",
    FileFormat.PARQUET: "Parquet",
    FileFormat.ZIP: "a zip archive",
}


def _is_utf16(head: bytes) -> bool:
    # Without a byte order mark: every second byte of text in Latin letters is zero, and no other is.
    start = head[:200]
    return start.startswith(_UTF16_MARKS) or (
        len(start) // 2 in {start[::2].count(0), start[1::2].count(0)} and any(start)
    )


def _detect_format(head: bytes) -> FileFormat | None:
    if head.startswith(b"\x1f\x8b"):
        return FileFormat.CSV_GZ
    if head.startswith(b"PAR1"):
        return FileFormat.PARQUET
    if head.startswith(_ZIP_MAGIC):
        return FileFormat.ZIP
    first_line = re.match(rb"[\r\n]*[^\r\n]*", head)
    if first_line is None or b"\0" in first_line[0]:
        return None
    return FileFormat.CSV
