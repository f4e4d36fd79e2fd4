"""Count the rows of a CSV file, without the readers that cleaning uses."""

from __future__ import annotations

import csv
import io
from collections import Counter, deque
from typing import IO, TYPE_CHECKING

from taxi_assets.tlc.file_format import TLC_DIALECT
from taxi_assets.tlc.sources.content_limits import OPEN_IN_BROWSER, InvalidContentError, NoRowsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from taxi_assets.tlc.file_format import CsvDialect
    from taxi_assets.tlc.sources.content_limits import ExpansionLimiter

MAX_LINE_BYTES = 1 << 20
"""The longest line of a CSV file that is accepted. Real lines have about 100 bytes."""

_CHUNK_BYTES = 256 << 10
_SAMPLED_LINES = 200
"""Number of lines before the last one that determine how many fields a complete line has."""

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def count_csv_rows(text: IO[bytes], limiter: ExpansionLimiter, dialect: CsvDialect) -> int:
    """Return the number of rows of a CSV file, without the header. Blank lines are not counted.

    Args:
        text: The file, decompressed and open for reading.
        limiter: Counts the bytes that are read.
        dialect: How the file is written.

    Raises:
        InvalidContentError: The file has no rows, is truncated, or is not written in this dialect.
    """
    if dialect.quoting or dialect.encoding != TLC_DIALECT.encoding:
        return _count_records(text, limiter, dialect)
    return _count_lines(text, limiter, dialect)


def _count_lines(text: IO[bytes], limiter: ExpansionLimiter, dialect: CsvDialect) -> int:
    r"""Count the rows of a CSV file by its line ends only.

    A chunk that ends between `\r` and `\n` adds a blank line, which is not counted.
    """
    header = rest = b""
    rows, delimiter = 0, dialect.delimiter.encode()
    delimiter_counts = deque[int](
        maxlen=_SAMPLED_LINES
    )  # of the last lines; only counts, because the lines themselves may be long
    byte_order_mark = b"\xef\xbb\xbf"
    while chunk := text.read(_CHUNK_BYTES):
        limiter.add(len(chunk))
        chunk, byte_order_mark = chunk.removeprefix(byte_order_mark), b""
        lines = list(filter(None, (rest + chunk).splitlines()))
        rest = lines.pop() if chunk[-1:] not in {b"\r", b"\n", b""} else b""
        # Only the first line can be too long: it may have begun in an earlier chunk.
        if len(rest) > MAX_LINE_BYTES or (lines and len(lines[0]) > MAX_LINE_BYTES):
            raise InvalidContentError(f"it has a line longer than {MAX_LINE_BYTES:,} bytes")
        if lines and not header:
            header = lines.pop(0)
        rows += len(lines)
        delimiter_counts.extend(line.count(delimiter) for line in lines[-_SAMPLED_LINES:])
    if not header:
        header, rest = rest, b""
    if rest:
        _require_complete_line(rest, delimiter_counts or [header.count(delimiter)], delimiter)
        rows += 1
    _require_rows(header.decode("utf-8", "replace"), rows, dialect)
    return rows


def _require_complete_line(last: bytes, delimiter_counts: Iterable[int], delimiter: bytes) -> None:
    """Raise an error if the last line, which has no line end, has fewer fields than most lines before it."""
    usual = Counter(delimiter_counts).most_common(1)[0][0]
    if last.count(delimiter) < usual:
        raise _truncated_error(last.count(delimiter) + 1, usual + 1)


def _truncated_error(fields: int, usual: int) -> InvalidContentError:
    return InvalidContentError(
        f"it is truncated in the middle of its last line ({fields} of {usual} fields and no line end)"
    )


def _require_rows(header: str, rows: int, dialect: CsvDialect) -> None:
    if not header:
        raise InvalidContentError("it has only blank lines", OPEN_IN_BROWSER)
    found = max(_DELIMITERS, key=header.count)
    if header.count(found) > header.count(dialect.delimiter):
        expected = _DELIMITERS.get(dialect.delimiter, repr(dialect.delimiter))
        raise InvalidContentError(
            f"its columns are separated by {_DELIMITERS[found]}, not by {expected}",
            f"Save it with {expected}, or change the dialect in the definition of the service.",
        )
    if dialect.delimiter not in header:
        raise InvalidContentError("it is text without columns, not CSV", OPEN_IN_BROWSER)
    if rows == 0:
        raise NoRowsError("it has a header but no rows", OPEN_IN_BROWSER)


def _count_records(text: IO[bytes], limiter: ExpansionLimiter, dialect: CsvDialect) -> int:
    """Count the rows with Python's csv module, which knows quotes and encodings."""
    errors = "backslashreplace" if dialect.encoding == TLC_DIALECT.encoding else "strict"
    lines = io.TextIOWrapper(text, dialect.encoding, errors, newline="")
    header, rows, last_line = "", 0, ""
    field_counts = deque[int](maxlen=_SAMPLED_LINES)

    def read() -> Iterator[str]:
        nonlocal header, last_line
        for line in lines:
            limiter.add(len(line))
            header = header or line.strip()
            last_line = line
            yield line

    delimiter = dialect.delimiter
    records = (
        csv.reader(read(), delimiter=delimiter, strict=True)
        if dialect.quoting
        else csv.reader(read(), delimiter=delimiter, quoting=csv.QUOTE_NONE)
    )
    try:
        for record in records:
            if record:
                rows += 1
                field_counts.append(len(record))
    except csv.Error as error:
        raise InvalidContentError(
            f"its quotes are inconsistent after data row {max(rows - 1, 0):,} ({error})"
        ) from None
    except UnicodeDecodeError as error:
        before = error.object[max(0, error.start - 40) : error.start].decode(dialect.encoding, "replace")
        place = f"the byte 0x{error.object[error.start]:02x} after {before!r}"
        raise InvalidContentError(
            f"it is not text in the encoding {dialect.encoding}: {place}",
            f"Save it in {dialect.encoding}, or change the dialect in the definition of the service.",
        ) from None
    finally:
        lines.detach()
    if rows > 1 and not last_line.endswith(("\n", "\r")):
        usual = Counter(field_counts).most_common(1)[0][0]
        if field_counts[-1] < usual:
            raise _truncated_error(field_counts[-1], usual)
    _require_rows(header, rows - 1, dialect)
    return rows - 1
