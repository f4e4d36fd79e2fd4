"""Whether a file is a trip file, whole, and how many rows it has; decided by its bytes alone.

Belongs here: what can be told without knowing any schema (error pages, cut files, bombs), and the count of rows that
conservation is measured against. Does not belong here: reading values. Nothing is shared with the reader that cleaning
uses, so that a mistake in the one cannot hide in the other.
"""

from __future__ import annotations

import gzip
import html
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

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
LONGEST_LINE = 1 << 20
"""Bytes; real lines have about 100."""

_CHUNK_BYTES = 256 << 10
_HEAD = 8 << 10
_NEIGHBOURS = 200
"""So many lines before the last one say how many fields a line has."""

_MOST_IN_LISTS = 4_000_000
_MOST_TEXT = 256 << 20
"""Bytes. Both are of one row group of Parquet; real ones have no lists, and some megabytes of text."""

_NOT_TRIPS = "That is no trip file: look at what the publisher sent."
_PLAINER = "Write it anew with texts in dictionaries, or plain; or choose another publisher (TAXI_SOURCE)."
_ELSEWHERE = "Look at that address with a browser, then try again later or choose another publisher (TAXI_SOURCE)."
_WHOLE = "Get the whole file from its publisher, or choose another publisher (TAXI_SOURCE)."
_LARGER = "If the file is genuine, raise TAXI_MAX_FILE_BYTES."
_DENSER = "If the file is genuine, raise TAXI_MAX_EXPANSION_RATIO."


@dataclass(frozen=True)
class FileLimits:
    """How large a file may be, in bytes: as published, and expanded; and the most one may be of the other."""

    max_bytes: int = 8 * GIB
    max_expanded_bytes: int = 64 * GIB
    max_expansion_ratio: int = 200

    @classmethod
    def of(cls, max_bytes: int, max_expansion_ratio: int) -> Self:
        """What settings say: a file may expand to eight times the size that one may have as published."""
        return cls(max_bytes, 8 * max_bytes, max_expansion_ratio)


DEFAULT_LIMITS = FileLimits()


def validate_file(
    path: Path,
    format: FileFormat,  # noqa: A002  (its name in Candidate and SourceRecord)
    *,
    label: str,
    url: str,
    limits: FileLimits = DEFAULT_LIMITS,
) -> int:
    r"""Count the data rows of a file that is whole and of the format it should be.

    CSV: non-blank lines less the header; `\n`, `\r\n` or a lone `\r` ends a line. Parquet: what the footer says.
    `what` (such as "green 2020-10") and `url` (without secrets) name the file in errors.

    Raises `InvalidFileError` with what it is instead.
    """
    try:
        return _validate(path, format, limits)
    except _InvalidContentError as refusal:
        raise invalid_file_error(label, url, refusal.finding, remedy=refusal.remedy) from None


def invalid_file_error(label: str, url: str, finding: str, *, remedy: str) -> InvalidFileError:
    """The error for content that is no trip file, worded alike wherever it is noticed."""
    return InvalidFileError(f"{label} from {url} was refused: {finding}.", remedy=remedy)


def too_large_error(label: str, url: str, limits: FileLimits) -> InvalidFileError:
    """The error for a file beyond `limits.max_bytes`."""
    return invalid_file_error(label, url, f"it is larger than {limits.max_bytes:,} bytes", remedy=_LARGER)


def expansion_ratio_error(label: str, url: str, limits: FileLimits) -> InvalidFileError:
    """The error for a file that expands to more than `limits.max_expansion_ratio` times its size."""
    return invalid_file_error(label, url, _expansion_finding(limits), remedy=_DENSER)


def _expansion_finding(limits: FileLimits) -> str:
    return f"it expands to more than {limits.max_expansion_ratio} times its size"


class _InvalidContentError(Exception):
    def __init__(self, finding: str, remedy: str = _WHOLE) -> None:
        super().__init__(finding)
        self.finding = finding
        self.remedy = remedy


def _validate(path: Path, expected: FileFormat, limits: FileLimits) -> int:
    size = path.stat().st_size
    if size == 0:
        raise _InvalidContentError("it is empty (0 bytes)", _ELSEWHERE)
    if size > limits.max_bytes:
        raise _InvalidContentError(f"it is larger than {limits.max_bytes:,} bytes", _LARGER)
    with path.open("rb") as file:
        head = file.read(_HEAD)
        _require_expected_content(head, expected)
        if expected is FileFormat.PARQUET:
            return _parquet_rows(path, size, limits)
        file.seek(0)
        expansion = _Expansion(limits, size)
        if expected is FileFormat.CSV:
            return _csv_rows(file, expansion)
        return _csv_gz_rows(file, expansion)


# --- what it is instead ---------------------------------------------------------------------------------------------


def _require_expected_content(head: bytes, expected: FileFormat, subject: str = "it") -> None:
    wrong_format = _detect_wrong_format(head)
    if wrong_format is not None:
        raise _InvalidContentError(f"{subject} is {wrong_format}, not {_NAMES[expected]}", _ELSEWHERE)
    actual = _format(head)
    if actual is not expected:
        finding = f"{subject} is {_NAMES[actual] if actual else 'binary data'}, not {_NAMES[expected]}"
        raise _InvalidContentError(
            finding, "Publish it under the ending of what it is, or choose another publisher (TAXI_SOURCE)."
        )


_NAMES = {FileFormat.CSV: "CSV text", FileFormat.CSV_GZ: "gzip (csv.gz)", FileFormat.PARQUET: "Parquet"}


def _format(head: bytes) -> FileFormat | None:
    if head.startswith(b"\x1f\x8b"):
        return FileFormat.CSV_GZ
    if head.startswith(b"PAR1"):
        return FileFormat.PARQUET
    first_line = re.match(rb"[\r\n]*[^\r\n]*", head)
    if first_line is None or b"\0" in first_line[0]:
        return None
    return FileFormat.CSV


def _detect_wrong_format(head: bytes) -> str | None:
    """What people really got instead of a file; None when it is none of that."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        if re.search(rb"<!doctype\s+html|<html|<head|<title", text, re.IGNORECASE):
            return "an HTML page" + _quoted(rb"<title[^>]*>(.*?)</title", text)
        return "an XML document" + _quoted(rb"<code>(.*?)</code>", text)
    if text.startswith((b"{", b"[")):
        return "a JSON document"
    if text.startswith(b"version https://git-lfs"):
        return "a git-LFS pointer"
    if text.startswith(b"PK\x03\x04"):
        return "a zip archive"
    return None


def _quoted(pattern: bytes, text: bytes) -> str:
    match = re.search(pattern, text, re.IGNORECASE | re.DOTALL)
    message = html.unescape(match[1].decode("utf-8", "replace")) if match else ""
    # Without what would command a terminal.
    words = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    return f' ("{words[:100]}")' if words else ""


# --- CSV ------------------------------------------------------------------------------------------------------------


class _Expansion:
    """Counts what a file expands to, and stops it at the limits: a few kilobytes can hold terabytes."""

    def __init__(self, limits: FileLimits, size: int) -> None:
        self._expanded = 0
        self._limits = limits
        self._ratio_at = limits.max_expansion_ratio * size

    def add(self, expanded: int) -> None:
        self._expanded += expanded
        if self._expanded > self._limits.max_expanded_bytes:
            raise _InvalidContentError(f"it expands to more than {self._limits.max_expanded_bytes:,} bytes", _LARGER)
        if self._expanded > self._ratio_at:
            raise _InvalidContentError(_expansion_finding(self._limits), _DENSER)


def _csv_gz_rows(file: IO[bytes], expansion: _Expansion) -> int:
    try:
        with gzip.GzipFile(fileobj=file) as text:
            _require_expected_content(text.peek(_HEAD), FileFormat.CSV, "what the gzip holds")
            return _csv_rows(cast("IO[bytes]", text), expansion)
    except EOFError:
        raise _InvalidContentError("its gzip stream ends in the middle: the file is cut off") from None
    except gzip.BadGzipFile as error:
        follows = "Not a gzipped file" in str(error)
        damage = "something that is no gzip follows it" if follows else "its checksum or length does not match"
        raise _InvalidContentError(f"its gzip stream is damaged: {damage}") from None
    except zlib.error:
        raise _InvalidContentError("its gzip stream is damaged: it cannot be expanded") from None


def _csv_rows(text: IO[bytes], expansion: _Expansion) -> int:
    r"""The rows of a CSV, by splitting at line ends and nothing else.

    A piece that ends between `\r` and `\n` shows an extra blank line, and blank lines do not count.
    """
    header = rest = b""
    rows = 0
    neighbours: list[int] = []  # the commas of each, because the lines may be long
    mark = b"\xef\xbb\xbf"  # a byte order mark, which is no header
    while chunk := text.read(_CHUNK_BYTES):
        expansion.add(len(chunk))
        chunk, mark = chunk.removeprefix(mark), b""
        lines = list(filter(None, (rest + chunk).splitlines()))
        rest = lines.pop() if chunk[-1:] not in {b"\r", b"\n", b""} else b""
        # A line within one piece is short enough; only one that began in an earlier piece can be too long.
        if len(rest) > LONGEST_LINE or (lines and len(lines[0]) > LONGEST_LINE):
            raise _InvalidContentError(f"it has a line longer than {LONGEST_LINE:,} bytes")
        if lines and not header:
            header = lines.pop(0)
        rows += len(lines)
        neighbours = [*neighbours, *(line.count(b",") for line in lines[-_NEIGHBOURS:])][-_NEIGHBOURS:]
    if not header:
        header, rest = rest, b""
    if rest:
        _require_complete_line(rest, neighbours or [header.count(b",")])
        rows += 1
    _require_rows(header, rows)
    return rows


def _require_complete_line(last: bytes, neighbours: list[int]) -> None:
    """A last line with too few fields and no line end: the file was cut, whatever the rest looks like."""
    usual = Counter(neighbours).most_common(1)[0][0]
    if last.count(b",") < usual:
        fields = f"{last.count(b',') + 1} of {usual + 1} fields"
        raise _InvalidContentError(f"it is cut off in the middle of its last line ({fields} and no line end)")


def _require_rows(header: bytes, rows: int) -> None:
    if not header:
        raise _InvalidContentError("it has only blank lines", _ELSEWHERE)
    if b"," not in header:
        raise _InvalidContentError("it is text without columns, not CSV", _ELSEWHERE)
    if rows == 0:
        raise _InvalidContentError("it has a header and no rows", _ELSEWHERE)


# --- Parquet --------------------------------------------------------------------------------------------------------


def _parquet_rows(path: Path, size: int, limits: FileLimits) -> int:
    with path.open("rb") as file:
        file.seek(max(0, size - 8))
        tail = file.read()
    if tail[4:] != b"PAR1":
        raise _InvalidContentError("it is Parquet without its footer: the file is cut off")
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowException, OSError, ValueError):
        raise _InvalidContentError("it is Parquet with a footer that cannot be read") from None
    data_end = size - 8 - int.from_bytes(tail[:4], "little")
    if footer.num_columns == 0:  # as many rows as it likes, in no bytes at all
        raise _InvalidContentError("it is Parquet without columns", _NOT_TRIPS)
    expansion = _Expansion(limits, size)
    pages = pq.ParquetFile(_Pages(), metadata=footer, pre_buffer=False, buffer_size=1)
    rows = 0
    for index in range(footer.num_row_groups):
        group = footer.row_group(index)
        rows += group.num_rows
        # A dictionary says in a few bytes what a million rows hold: each value counts as one byte at least.
        expansion.add(max(group.total_byte_size, group.num_rows * group.num_columns))
        if group.num_rows:
            _require_readable_pages(pages, index)
            _require_chunks_inside(group, data_end)
            _require_column_sizes(group, footer.schema)
    if rows != footer.num_rows:
        raise _InvalidContentError(
            f"its Parquet footer contradicts itself: {footer.num_rows:,} rows, {rows:,} in row groups"
        )
    if rows == 0:
        raise _InvalidContentError("it is Parquet with no rows", _ELSEWHERE)
    return rows


def _require_readable_pages(pages: Any, index: int) -> None:
    """Have pyarrow prepare to read a row group: there it raises what it finds wrong with the columns' metadata.

    Where `column()` of the row group finds it, C++ ends the process. For batches of many rows it would reserve memory.
    """
    try:
        next(pages.iter_batches(batch_size=1, row_groups=[index], use_threads=False), None)
    except _Pages.Reached:
        return
    except (pa.ArrowException, OSError, ValueError) as error:
        finding = " ".join(str(error).split()).rstrip(".")
        raise _InvalidContentError(f"its Parquet cannot be read (row group {index + 1}: {finding})") from None


class _Pages(io.RawIOBase):
    """Stands for a file of any size whose footer is known: whoever reads from it is past the checks of that footer."""

    class Reached(Exception):  # noqa: N818  (no error: it is what should happen)
        """Somebody reads a page."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:  # noqa: ARG002
        return 1 << 62

    def tell(self) -> int:
        return 1 << 62

    def read(self, size: int = -1) -> bytes:  # noqa: ARG002
        raise _Pages.Reached


def _require_chunks_inside(group: Any, data_end: int) -> None:
    """Refuse a footer that points outside the file: the two do not belong together."""
    for index in range(group.num_columns):
        chunk = group.column(index)
        starts = [chunk.data_page_offset]
        # Old writers set an offset of 0 for a dictionary that is not there.
        if chunk.has_dictionary_page and chunk.dictionary_page_offset:
            starts.append(chunk.dictionary_page_offset)
        if min(starts) < len(b"PAR1") or min(starts) + chunk.total_compressed_size > data_end:
            raise _InvalidContentError(f"its Parquet footer points outside the file (column {chunk.path_in_schema})")


def _require_column_sizes(group: Any, schema: Any) -> None:
    """Refuse what no batch of few rows keeps small: columns whose values, or whose number of values, have no bound."""
    texts = 0
    for index in range(group.num_columns):
        chunk, column = group.column(index), schema.column(index)
        if column.max_repetition_level and chunk.num_values > _MOST_IN_LISTS:
            raise _InvalidContentError(
                f"it has more than {_MOST_IN_LISTS:,} values in lists (column {chunk.path_in_schema})", _NOT_TRIPS
            )
        if column.physical_type == "BYTE_ARRAY":
            texts += chunk.total_uncompressed_size
            deltas = [encoding for encoding in chunk.encodings if encoding.startswith("DELTA")]
            if deltas:  # in which each text may be a megabyte for a bit; the reader would refuse them without a remedy
                raise _InvalidContentError(
                    f"its texts are packed as {deltas[0]} (column {chunk.path_in_schema})", _PLAINER
                )
    if texts > _MOST_TEXT:
        raise _InvalidContentError(f"it has more than {_MOST_TEXT:,} bytes of text in one row group", _NOT_TRIPS)
