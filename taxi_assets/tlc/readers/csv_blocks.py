"""Blocks of a CSV file that pyarrow can parse: complete lines of valid UTF-8, without a byte order mark.

Belongs here: the preparation of bytes for pyarrow's parser. One invalid byte makes pyarrow reject the whole file,
without giving its position. This module escapes the byte and records its row.
"""

from __future__ import annotations

import codecs
import gzip
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from isal import igzip, isal_zlib

from taxi_assets.errors import InvalidFileError
from taxi_assets.tlc.file_format import FileFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES = 1 << 22
"""The size of the largest block that is parsed at once. No line may be longer."""

DECOMPRESSION_ERRORS: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, cast("Any", isal_zlib.error))
"""Errors raised while reading a truncated or damaged gzip file."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_FEED, _CARRIAGE_RETURN, _QUOTE = b'\n\r"'


def open_bytes(file: Path | BinaryIO, format_: FileFormat, encoding: str = "utf-8") -> BinaryIO:
    """Open a CSV file for reading its bytes, decompressed and in UTF-8.

    Args:
        file: A path, or a file that is open for reading bytes.
        format_: `CSV` or `CSV_GZ`.
        encoding: The encoding of the text in the file.

    Returns:
        A binary file. Reading a damaged gzip file raises one of `DECOMPRESSION_ERRORS`, and text in another encoding
        raises `UnicodeError`.
    """
    opened: BinaryIO
    if format_ is FileFormat.CSV_GZ:
        # Does the same as Python's gzip, in a third of the time.
        opened = cast("Any", igzip.IGzipFile(file) if isinstance(file, Path) else igzip.IGzipFile(fileobj=file))
    else:
        opened = file.open("rb") if isinstance(file, Path) else file
    if codecs.lookup(encoding).name == "utf-8":  # `CsvBlockReader` keeps rows that are not valid UTF-8
        return opened
    return cast("BinaryIO", codecs.EncodedFile(cast("Any", opened), "utf-8", encoding))


@dataclass(frozen=True)
class Block:
    r"""Complete rows of a file, in valid UTF-8.

    Rows are counted from 0. Blank lines are not counted.

    Attributes:
        content: The rows. Bytes that were not UTF-8 are escaped, as in `\xff`.
        not_utf8: The indices of rows that had bytes that are not UTF-8.
        quoting: Whether line breaks within quotes belong to a field. Otherwise, each line is one row.
    """

    content: bytes
    not_utf8: frozenset[int] = frozenset()
    quoting: bool = False

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self._bounds[0])

    def lines(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> list[str]:
        """Return the rows at these indices, without their line ends."""
        starts, ends = self._bounds
        bounds = zip(starts[indices].tolist(), ends[indices].tolist(), strict=True)
        return [self.content[start:end].decode() for start, end in bounds]

    def part(self, start: int, stop: int) -> Block:
        """Return the rows from the index `start` until before the index `stop`."""
        starts, ends = self._bounds
        content = self.content[starts[start] : ends[stop - 1]] + b"\n" if start < stop else b""
        not_utf8 = frozenset(index - start for index in self.not_utf8 if start <= index < stop)
        return Block(content, not_utf8, self.quoting)

    @cached_property
    def _bounds(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]:
        return _row_bounds(self.content, quoting=self.quoting)


def _row_bounds(
    content: bytes, *, quoting: bool
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Return the positions of the first character of each row, and of the end of each row."""
    characters = np.frombuffer(content, np.uint8)
    line_feeds, carriage_returns = characters == _LINE_FEED, characters == _CARRIAGE_RETURN
    if quoting:
        outside = _outside_quotes(characters)
        line_feeds, carriage_returns = line_feeds & outside, carriage_returns & outside
    ends = np.flatnonzero(line_feeds)
    if np.count_nonzero(carriage_returns) != np.count_nonzero(carriage_returns[ends - 1]):
        # A lone CR ends a line, so every CR and every LF does. The empty line within a CR LF pair is dropped below.
        ends = np.flatnonzero(line_feeds | carriage_returns)
    starts = np.concatenate([[0], ends + 1])
    ends = np.append(ends, len(content))
    ends = ends - (characters[ends - 1] == _CARRIAGE_RETURN if len(content) else 0)
    not_blank = ends > starts
    return starts[not_blank], ends[not_blank]


def _outside_quotes(characters: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which characters are outside of quotes, if the first one is: those after an even number of quotes."""
    return ~np.logical_xor.accumulate(characters == _QUOTE)


class CsvBlockReader:
    """A reader of a binary file in blocks of complete rows, after the header.

    Args:
        file: The CSV file, decompressed and open for reading bytes.
        label: Names the file in errors, such as "green 2020-10".
        quoting: Whether line breaks within quotes belong to a field. Otherwise, each line is one row.
        rows: The number of rows of the parts before this one.

    Attributes:
        header: The text of the first row that is not blank.
        quoting: Whether line breaks within quotes belong to a field.
        rows: The number of data rows parsed so far. The parser of the blocks updates it.

    Raises:
        InvalidFileError: The header is longer than `BLOCK_BYTES`.
    """

    def __init__(self, file: BinaryIO, *, label: str, quoting: bool = False, rows: int = 0) -> None:
        self._file = file
        self._label = label
        self.quoting = quoting
        self._blocks = self._read_rows()
        self.rows = rows
        first = b""
        while not first and (block := next(self._blocks, b"")):
            first = block.removeprefix(BYTE_ORDER_MARK).lstrip(b"\r\n")
        starts, ends = _row_bounds(first, quoting=quoting)
        self.header = first[: ends[0]].decode("utf-8", "backslashreplace") if len(ends) else ""
        # The rows after the header in the first block are kept for `peek`, from which `CsvReader` counts the fields.
        self._next_content = first[starts[1] :] if len(starts) > 1 else b""

    def peek(self) -> bytes:
        """Return the next rows without consuming them."""
        self._next_content = self._next_content or next(self._blocks, b"")
        return self._escape_invalid_utf8(self._next_content).content

    def read(self) -> Block | None:
        """Return the next block, or None at the end of the file.

        Raises:
            InvalidFileError: A row is longer than `BLOCK_BYTES`.
        """
        content, self._next_content = self._next_content or next(self._blocks, b""), b""
        return self._escape_invalid_utf8(content) if content else None

    def _read_rows(self) -> Iterator[bytes]:
        rest = b""
        while data := self._file.read(BLOCK_BYTES - len(rest)):
            rows = rest + data
            end = self._end_of_last_row(rows)
            rest = rows[end:]
            if len(rest) >= BLOCK_BYTES:
                cause = " or a quote before it is not closed" if self.quoting else ""
                raise InvalidFileError(
                    f"{self._label}: the line after data row {self.rows:,} is longer than "
                    f"{BLOCK_BYTES:,} bytes{cause}.",
                    remedy="Check the file that the publisher sent: it is not a trip file.",
                )
            if end:
                yield rows[:end]
        if rest:
            yield rest

    def _end_of_last_row(self, rows: bytes) -> int:
        # A carriage return at the end may be the first half of a line end.
        if not self.quoting:
            return max(rows.rfind(b"\n"), rows.rfind(b"\r", 0, -1)) + 1
        characters = np.frombuffer(rows, np.uint8)
        is_end = (characters == _LINE_FEED) | (characters == _CARRIAGE_RETURN)
        is_end[-1] = characters[-1] == _LINE_FEED
        ends = np.flatnonzero(is_end & _outside_quotes(characters))
        return int(ends[-1]) + 1 if len(ends) else 0

    def _escape_invalid_utf8(self, content: bytes) -> Block:
        if content.isascii():
            return Block(content, quoting=self.quoting)
        try:
            content.decode()
        except UnicodeDecodeError:
            pass
        else:
            return Block(content, quoting=self.quoting)
        bounds = zip(*_row_bounds(content, quoting=self.quoting), strict=True)
        rows = [content[start:end] for start, end in bounds]
        escaped = [row.decode("utf-8", "backslashreplace").encode() for row in rows]
        not_utf8 = (index for index, (row, text) in enumerate(zip(rows, escaped, strict=True)) if row != text)
        return Block(b"\n".join([*escaped, b""]), frozenset(not_utf8), self.quoting)
