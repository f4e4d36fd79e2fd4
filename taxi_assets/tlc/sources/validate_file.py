"""Validation of a downloaded file: is it a complete trip file, and how many rows does it have?

Belongs here: byte-level checks (error pages, truncated files, decompression bombs), and the row count that cleaning is
reconciled with.

Does not belong here: reading values. This module shares no code with the readers that cleaning uses, so that an error
in one is detected by the other.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Self, cast

import pyarrow as pa
import pyarrow.parquet as pq

from taxi_assets.errors import InvalidFileError
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.sources.wrong_formats import detect_wrong_format

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
MAX_LINE_BYTES = 1 << 20
"""The longest line of a CSV file that is accepted. Real lines have about 100 bytes."""

_CHUNK_BYTES = 256 << 10
_HEAD_BYTES = 8 << 10
_SAMPLED_LINES = 200
"""Number of lines before the last one that determine how many fields a complete line has."""

_MAX_LIST_VALUES = 4_000_000
_MAX_STRING_BYTES = 256 << 20
"""Both limits apply to one Parquet row group. Real ones have no lists, and a few megabytes of strings."""

_CHECK_FILE = "Check the file that the publisher sent: it is not a trip file."
_REENCODE = "Rewrite it with dictionary or plain encoding for strings, or choose another publisher (TAXI_SOURCE)."
_OPEN_IN_BROWSER = (
    "Open the URL in a browser to inspect the response, then try again later or choose another publisher (TAXI_SOURCE)."
)
_GET_COMPLETE_FILE = "Get the complete file from its publisher, or choose another publisher (TAXI_SOURCE)."
_RAISE_MAX_BYTES = "Raise TAXI_MAX_FILE_BYTES if the file is genuine."
_RAISE_MAX_RATIO = "Raise TAXI_MAX_EXPANSION_RATIO if the file is genuine."


@dataclass(frozen=True)
class FileLimits:
    """Limits on a file: published bytes, decompressed bytes, and the ratio of the two."""

    max_bytes: int = 8 * GIB
    max_expanded_bytes: int = 64 * GIB
    max_expansion_ratio: int = 200

    @classmethod
    def from_settings(cls, max_bytes: int, max_expansion_ratio: int) -> Self:
        """Return the limits for the given settings. A file may expand to eight times `max_bytes`."""
        return cls(max_bytes, 8 * max_bytes, max_expansion_ratio)


DEFAULT_LIMITS = FileLimits()


def validate_file(
    path: Path,
    format: FileFormat,  # noqa: A002  (its name in SourceUrl and SourceRecord)
    *,
    label: str,
    url: str,
    limits: FileLimits = DEFAULT_LIMITS,
) -> int:
    r"""Check that a file is complete and has the expected format, and count its data rows.

    Args:
        path: The downloaded file.
        format: The expected format.
        label: Names the file in errors, such as "green 2020-10".
        url: The URL it came from, without secrets; for errors.
        limits: The size and expansion limits.

    Returns:
        For CSV, the number of non-blank lines without the header; a line ends with `\n`, `\r\n` or a lone `\r`. For
        Parquet, the number in the footer.

    Raises:
        InvalidFileError: The file has a different format, is truncated, is damaged or exceeds `limits`.
    """
    try:
        return _validate(path, format, limits)
    except _InvalidContentError as error:
        raise invalid_file_error(label, url, error.finding, remedy=error.remedy) from None


def invalid_file_error(label: str, url: str, finding: str, *, remedy: str) -> InvalidFileError:
    """Build the error for a file with invalid content; `finding` completes the sentence."""
    return InvalidFileError(f"{label} from {url} was rejected: {finding}.", remedy=remedy)


def too_large_error(label: str, url: str, limits: FileLimits) -> InvalidFileError:
    """Build the error for a file that is larger than `limits.max_bytes`."""
    return invalid_file_error(label, url, f"it is larger than {limits.max_bytes:,} bytes", remedy=_RAISE_MAX_BYTES)


def expansion_ratio_error(label: str, url: str, limits: FileLimits) -> InvalidFileError:
    """Build the error for a file that expands to more than `limits.max_expansion_ratio` times its size."""
    return invalid_file_error(label, url, _expansion_finding(limits), remedy=_RAISE_MAX_RATIO)


def _expansion_finding(limits: FileLimits) -> str:
    return f"it expands to more than {limits.max_expansion_ratio} times its size"


class _InvalidContentError(Exception):
    def __init__(self, finding: str, remedy: str = _GET_COMPLETE_FILE) -> None:
        super().__init__(finding)
        self.finding = finding
        self.remedy = remedy


def _validate(path: Path, expected: FileFormat, limits: FileLimits) -> int:
    size = path.stat().st_size
    if size == 0:
        raise _InvalidContentError("it is empty (0 bytes)", _OPEN_IN_BROWSER)
    if size > limits.max_bytes:
        raise _InvalidContentError(f"it is larger than {limits.max_bytes:,} bytes", _RAISE_MAX_BYTES)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        _require_expected_content(head, expected)
        if expected is FileFormat.PARQUET:
            return _count_parquet_rows(path, size, limits)
        file.seek(0)
        limiter = _ExpansionLimiter(limits, size)
        if expected is FileFormat.CSV:
            return _count_csv_rows(file, limiter)
        return _count_csv_gz_rows(file, limiter)


# --- wrong formats --------------------------------------------------------------------------------------------------


def _require_expected_content(head: bytes, expected: FileFormat, subject: str = "it") -> None:
    wrong_format = detect_wrong_format(head)
    if wrong_format is not None:
        raise _InvalidContentError(f"{subject} is {wrong_format}, not {_FORMAT_NAMES[expected]}", _OPEN_IN_BROWSER)
    actual = _detect_format(head)
    if actual is not expected:
        finding = f"{subject} is {_FORMAT_NAMES[actual] if actual else 'binary data'}, not {_FORMAT_NAMES[expected]}"
        raise _InvalidContentError(
            finding, "Publish it with the extension of its format, or choose another publisher (TAXI_SOURCE)."
        )


_FORMAT_NAMES = {
    FileFormat.CSV: "CSV text",
    FileFormat.CSV_GZ: "gzip (csv.gz)",
    FileFormat.PARQUET: "Parquet",
    FileFormat.ZIP: "a zip archive",
}


def _detect_format(head: bytes) -> FileFormat | None:
    if head.startswith(b"\x1f\x8b"):
        return FileFormat.CSV_GZ
    if head.startswith(b"PAR1"):
        return FileFormat.PARQUET
    first_line = re.match(rb"[\r\n]*[^\r\n]*", head)
    if first_line is None or b"\0" in first_line[0]:
        return None
    return FileFormat.CSV


# --- CSV ------------------------------------------------------------------------------------------------------------


class _ExpansionLimiter:
    """Counts the decompressed bytes of a file, and raises an error at the limits.

    Without limits, a few kilobytes can expand to terabytes.
    """

    def __init__(self, limits: FileLimits, size: int) -> None:
        self._expanded = 0
        self._limits = limits
        self._max_by_ratio = limits.max_expansion_ratio * size

    def add(self, expanded: int) -> None:
        self._expanded += expanded
        if self._expanded > self._limits.max_expanded_bytes:
            raise _InvalidContentError(
                f"it expands to more than {self._limits.max_expanded_bytes:,} bytes", _RAISE_MAX_BYTES
            )
        if self._expanded > self._max_by_ratio:
            raise _InvalidContentError(_expansion_finding(self._limits), _RAISE_MAX_RATIO)


def _count_csv_gz_rows(file: IO[bytes], limiter: _ExpansionLimiter) -> int:
    try:
        with gzip.GzipFile(fileobj=file) as text:
            _require_expected_content(text.peek(_HEAD_BYTES), FileFormat.CSV, "its gzip content")
            return _count_csv_rows(cast("IO[bytes]", text), limiter)
    except EOFError:
        raise _InvalidContentError("its gzip stream ends early: the file is truncated") from None
    except gzip.BadGzipFile as error:
        has_other_data = "Not a gzipped file" in str(error)
        damage = "data that is not gzip follows it" if has_other_data else "its checksum or length does not match"
        raise _InvalidContentError(f"its gzip stream is damaged: {damage}") from None
    except zlib.error:
        raise _InvalidContentError("its gzip stream is damaged: it cannot be decompressed") from None


def _count_csv_rows(text: IO[bytes], limiter: _ExpansionLimiter) -> int:
    r"""Count the rows of a CSV file by its line ends only.

    A chunk that ends between `\r` and `\n` adds a blank line, which is not counted.
    """
    header = rest = b""
    rows = 0
    comma_counts: list[int] = []  # of the last lines; only counts, because the lines themselves may be long
    byte_order_mark = b"\xef\xbb\xbf"
    while chunk := text.read(_CHUNK_BYTES):
        limiter.add(len(chunk))
        chunk, byte_order_mark = chunk.removeprefix(byte_order_mark), b""
        lines = list(filter(None, (rest + chunk).splitlines()))
        rest = lines.pop() if chunk[-1:] not in {b"\r", b"\n", b""} else b""
        # Only the first line can be too long: it may have begun in an earlier chunk.
        if len(rest) > MAX_LINE_BYTES or (lines and len(lines[0]) > MAX_LINE_BYTES):
            raise _InvalidContentError(f"it has a line longer than {MAX_LINE_BYTES:,} bytes")
        if lines and not header:
            header = lines.pop(0)
        rows += len(lines)
        comma_counts = [*comma_counts, *(line.count(b",") for line in lines[-_SAMPLED_LINES:])][-_SAMPLED_LINES:]
    if not header:
        header, rest = rest, b""
    if rest:
        _require_complete_line(rest, comma_counts or [header.count(b",")])
        rows += 1
    _require_rows(header, rows)
    return rows


def _require_complete_line(last: bytes, comma_counts: list[int]) -> None:
    """Raise an error if the last line, which has no line end, has fewer fields than most lines before it."""
    usual = Counter(comma_counts).most_common(1)[0][0]
    if last.count(b",") < usual:
        fields = f"{last.count(b',') + 1} of {usual + 1} fields"
        raise _InvalidContentError(f"it is truncated in the middle of its last line ({fields} and no line end)")


def _require_rows(header: bytes, rows: int) -> None:
    if not header:
        raise _InvalidContentError("it has only blank lines", _OPEN_IN_BROWSER)
    if b"," not in header:
        raise _InvalidContentError("it is text without columns, not CSV", _OPEN_IN_BROWSER)
    if rows == 0:
        raise _InvalidContentError("it has a header but no rows", _OPEN_IN_BROWSER)


# --- Parquet --------------------------------------------------------------------------------------------------------


def _count_parquet_rows(path: Path, size: int, limits: FileLimits) -> int:
    with path.open("rb") as file:
        file.seek(max(0, size - 8))
        tail = file.read()
    if tail[4:] != b"PAR1":
        raise _InvalidContentError("it is a Parquet file without a footer: the file is truncated")
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowException, OSError, ValueError):
        raise _InvalidContentError("it is a Parquet file with a footer that cannot be read") from None
    data_end = size - 8 - int.from_bytes(tail[:4], "little")
    if footer.num_columns == 0:  # any number of rows would use no bytes
        raise _InvalidContentError("it is a Parquet file without columns", _CHECK_FILE)
    limiter = _ExpansionLimiter(limits, size)
    metadata_reader = pq.ParquetFile(_PageGuard(), metadata=footer, pre_buffer=False, buffer_size=1)
    rows = 0
    for index in range(footer.num_row_groups):
        group = footer.row_group(index)
        rows += group.num_rows
        # Dictionary encoding stores a million rows in a few bytes: each value counts as at least one byte.
        limiter.add(max(group.total_byte_size, group.num_rows * group.num_columns))
        if group.num_rows:
            _require_readable_metadata(metadata_reader, index)
            _require_chunks_inside(group, data_end)
            _require_column_sizes(group, footer.schema)
    if rows != footer.num_rows:
        raise _InvalidContentError(
            f"its Parquet footer is inconsistent: it declares {footer.num_rows:,} rows, "
            f"but its row groups contain {rows:,}"
        )
    if rows == 0:
        raise _InvalidContentError("it is a Parquet file without rows", _OPEN_IN_BROWSER)
    return rows


def _require_readable_metadata(reader: Any, index: int) -> None:
    """Raise an error if pyarrow finds the column metadata of a row group invalid when it prepares to read it.

    Call this before the row group's `column()`, which aborts the process on invalid metadata. The batch has one row,
    because pyarrow reserves memory for a complete batch.
    """
    try:
        next(reader.iter_batches(batch_size=1, row_groups=[index], use_threads=False), None)
    except _PageGuard.PageRead:
        return
    except (pa.ArrowException, OSError, ValueError) as error:
        finding = " ".join(str(error).split()).rstrip(".")
        raise _InvalidContentError(f"its Parquet metadata cannot be read (row group {index + 1}: {finding})") from None


class _PageGuard(io.RawIOBase):
    """A fake file that raises `PageRead` on the first read. By then, pyarrow has accepted the footer."""

    class PageRead(Exception):  # noqa: N818  (the expected outcome, not an error)
        """pyarrow reads a page."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:  # noqa: ARG002
        return 1 << 62

    def tell(self) -> int:
        return 1 << 62

    def read(self, size: int = -1) -> bytes:  # noqa: ARG002
        raise _PageGuard.PageRead


def _require_chunks_inside(group: Any, data_end: int) -> None:
    """Raise an error if a column chunk lies outside the file: footer and data do not match."""
    for index in range(group.num_columns):
        chunk = group.column(index)
        starts = [chunk.data_page_offset]
        # Old writers set an offset of 0 for a missing dictionary.
        if chunk.has_dictionary_page and chunk.dictionary_page_offset:
            starts.append(chunk.dictionary_page_offset)
        if min(starts) < len(b"PAR1") or min(starts) + chunk.total_compressed_size > data_end:
            raise _InvalidContentError(f"its Parquet footer points outside the file (column {chunk.path_in_schema})")


def _require_column_sizes(group: Any, schema: Any) -> None:
    """Raise an error if a row group has too many list values or too much text.

    Otherwise a batch of a few rows could exhaust memory.
    """
    string_bytes = 0
    for index in range(group.num_columns):
        chunk, column = group.column(index), schema.column(index)
        if column.max_repetition_level and chunk.num_values > _MAX_LIST_VALUES:
            raise _InvalidContentError(
                f"it has more than {_MAX_LIST_VALUES:,} values in lists (column {chunk.path_in_schema})", _CHECK_FILE
            )
        if column.physical_type == "BYTE_ARRAY":
            string_bytes += chunk.total_uncompressed_size
            deltas = [encoding for encoding in chunk.encodings if encoding.startswith("DELTA")]
            # Delta encoding can store a megabyte of text in one bit. The reader rejects it too, but without a useful
            # remedy.
            if deltas:
                raise _InvalidContentError(
                    f"its strings are encoded as {deltas[0]} (column {chunk.path_in_schema})", _REENCODE
                )
    if string_bytes > _MAX_STRING_BYTES:
        raise _InvalidContentError(
            f"it has more than {_MAX_STRING_BYTES:,} bytes of strings in one row group", _CHECK_FILE
        )
