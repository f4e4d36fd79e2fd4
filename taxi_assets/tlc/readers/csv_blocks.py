"""Blocks of a CSV file that pyarrow can parse: complete lines of valid UTF-8, without a byte order mark.

Belongs here: the preparation of bytes for pyarrow's parser. One invalid byte makes pyarrow reject the whole file,
without giving its position. This module escapes the byte and records its row.
"""

from __future__ import annotations

import gzip
import re
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
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LINE_FEED, _CARRIAGE_RETURN = b"\n\r"


def open_bytes(file: Path | BinaryIO, format_: FileFormat) -> BinaryIO:
    """Open a CSV file for reading its bytes, decompressed.

    Args:
        file: A path, or a file that is open for reading bytes.
        format_: `CSV` or `CSV_GZ`.

    Returns:
        A binary file. Reading a damaged gzip file raises one of `DECOMPRESSION_ERRORS`.
    """
    if format_ is FileFormat.CSV_GZ:
        # Does the same as Python's gzip, in a third of the time.
        decompressed = igzip.IGzipFile(file) if isinstance(file, Path) else igzip.IGzipFile(fileobj=file)
        return cast("BinaryIO", decompressed)
    return file.open("rb") if isinstance(file, Path) else file


@dataclass(frozen=True)
class Block:
    r"""Complete lines of a file, in valid UTF-8.

    Lines are counted from 0. Blank lines are not counted.

    Attributes:
        content: The lines. Bytes that were not UTF-8 are escaped, as in `\xff`.
        not_utf8: The indices of lines that had bytes that are not UTF-8.
    """

    content: bytes
    not_utf8: frozenset[int] = frozenset()

    def lines(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> list[str]:
        """Return the lines at these indices, without their line ends."""
        starts, ends = self._bounds
        bounds = zip(starts[indices].tolist(), ends[indices].tolist(), strict=True)
        return [self.content[start:end].decode() for start, end in bounds]

    @cached_property
    def _bounds(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]:
        content = np.frombuffer(self.content, np.uint8)
        ends = np.flatnonzero(content == _LINE_FEED)
        if np.count_nonzero(content == _CARRIAGE_RETURN) != np.count_nonzero(content[ends - 1] == _CARRIAGE_RETURN):
            # A lone CR ends a line, so every CR and every LF does. The empty line within a CR LF pair is dropped below.
            ends = np.flatnonzero((content == _LINE_FEED) | (content == _CARRIAGE_RETURN))
        starts = np.concatenate([[0], ends + 1])
        ends = np.append(ends, len(content))
        ends = ends - (content[ends - 1] == _CARRIAGE_RETURN)
        not_blank = ends > starts
        return starts[not_blank], ends[not_blank]


class CsvBlockReader:
    """A reader of a binary file in blocks of complete lines, after the header.

    Args:
        file: The CSV file, decompressed and open for reading bytes.
        label: Names the file in errors, such as "green 2020-10".

    Attributes:
        header: The text of the first line that is not blank.
        rows: The number of data rows parsed so far. The parser of the blocks updates it.

    Raises:
        InvalidFileError: The header is longer than `BLOCK_BYTES`.
    """

    def __init__(self, file: BinaryIO, *, label: str) -> None:
        self._file = file
        self._label = label
        self._blocks = self._read_lines()
        self.rows = 0
        first = b""
        while not first and (block := next(self._blocks, b"")):
            first = block.removeprefix(BYTE_ORDER_MARK).lstrip(b"\r\n")
        # What follows the header in the first block is kept for `peek`, from which `CsvReader` counts the fields.
        header, *rest = _LINE_END.split(first, maxsplit=1)
        self.header = header.decode("utf-8", "backslashreplace")
        self._next_content = rest[0] if rest else b""
        if not self._next_content:
            self._next_content = next(self._blocks, b"")

    def peek(self) -> bytes:
        """Return the first data lines without consuming them. After the first `read` it returns nothing."""
        return _escape_invalid_utf8(self._next_content).content

    def read(self) -> Block | None:
        """Return the next block, or None at the end of the file.

        Raises:
            InvalidFileError: A line is longer than `BLOCK_BYTES`.
        """
        content, self._next_content = self._next_content or next(self._blocks, b""), b""
        return _escape_invalid_utf8(content) if content else None

    def _read_lines(self) -> Iterator[bytes]:
        rest = b""
        while data := self._file.read(BLOCK_BYTES - len(rest)):
            lines = rest + data
            # A carriage return at the end may be the first half of a line end.
            end = max(lines.rfind(b"\n"), lines.rfind(b"\r", 0, -1)) + 1
            rest = lines[end:]
            if len(rest) >= BLOCK_BYTES:
                raise InvalidFileError(
                    f"{self._label}: the line after data row {self.rows:,} is longer than {BLOCK_BYTES:,} bytes.",
                    remedy="Check the file that the publisher sent: it is not a trip file.",
                )
            if end:
                yield lines[:end]
        if rest:
            yield rest


def _escape_invalid_utf8(content: bytes) -> Block:
    if content.isascii():
        return Block(content)
    try:
        content.decode()
    except UnicodeDecodeError:
        pass
    else:
        return Block(content)
    lines = list(filter(None, _LINE_END.split(content)))
    escaped = [line.decode("utf-8", "backslashreplace").encode() for line in lines]
    not_utf8 = (index for index, (line, text) in enumerate(zip(lines, escaped, strict=True)) if line != text)
    return Block(b"\n".join([*escaped, b""]), frozenset(not_utf8))
