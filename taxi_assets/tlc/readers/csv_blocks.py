"""Bytes of a CSV made fit for the parser: whole lines, valid UTF-8, no byte order mark.

Belongs here: what stands between the file and pyarrow's parser. pyarrow fails a whole month for one bad byte, and
does not say where; this says which rows had one.
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

# The largest piece handed to the parser at once, and so the longest line.
BLOCK_BYTES = 1 << 22

# Where a gzip ends too early, and where it is damaged.
DECOMPRESSION_ERRORS: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, cast("Any", isal_zlib.error))

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LINE_FEED, _CARRIAGE_RETURN = b"\n\r"


def open_bytes(file: Path | BinaryIO, format_: FileFormat) -> BinaryIO:
    """Open a CSV for reading, decompressed; reading may raise `UNPACKING_ERRORS`."""
    if format_ is FileFormat.CSV_GZ:
        # As Python's own, in a third of the time.
        unpacked = igzip.IGzipFile(file) if isinstance(file, Path) else igzip.IGzipFile(fileobj=file)
        return cast("BinaryIO", unpacked)
    return file.open("rb") if isinstance(file, Path) else file


@dataclass(frozen=True)
class Block:
    r"""Whole lines of a file, in valid UTF-8.

    `not_utf8`: the places, among the lines that are not blank, of those that held bytes that are not UTF-8; these bytes
    are escaped, as in `\xff`.
    """

    content: bytes
    not_utf8: frozenset[int] = frozenset()

    def lines(self, places: np.ndarray[Any, np.dtype[np.int64]]) -> list[str]:
        """The lines of these places, counted from 0 and without those that are blank; without what ends them."""
        starts, ends = self._bounds
        bounds = zip(starts[places].tolist(), ends[places].tolist(), strict=True)
        return [self.content[start:end].decode() for start, end in bounds]

    @cached_property
    def _bounds(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]:
        content = np.frombuffer(self.content, np.uint8)
        ends = np.flatnonzero(content == _LINE_FEED)
        if np.count_nonzero(content == _CARRIAGE_RETURN) != np.count_nonzero(content[ends - 1] == _CARRIAGE_RETURN):
            # Some end lines by themselves. Nothing lies between the others and their line feeds.
            ends = np.flatnonzero((content == _LINE_FEED) | (content == _CARRIAGE_RETURN))
        starts = np.concatenate([[0], ends + 1])
        ends = np.append(ends, len(content))
        ends = ends - (content[ends - 1] == _CARRIAGE_RETURN)
        filled = ends > starts  # others are blank
        return starts[filled], ends[filled]


class CsvBlockReader:
    """The lines of a binary file, a block at a time; the header is taken off first.

    `header` is the first line's text. `rows`: how many data rows have been parsed; whoever parses a block says so.
    """

    def __init__(self, file: BinaryIO, *, label: str) -> None:
        self._file = file
        self._what = label
        self._blocks = self._whole_lines()
        self.rows = 0
        first = b""
        while not first and (block := next(self._blocks, b"")):
            first = block.removeprefix(BYTE_ORDER_MARK).lstrip(b"\r\n")
        # The first block is read ahead: it holds the header, and what the reader looks at to learn the field count.
        header, *rest = _LINE_END.split(first, maxsplit=1)
        self.header = header.decode("utf-8", "backslashreplace")
        self._ahead = rest[0] if rest else b""
        if not self._ahead:
            self._ahead = next(self._blocks, b"")

    def peek(self) -> bytes:
        """The first lines of data, without taking them; only before the first `read`."""
        return _escape_invalid_utf8(self._ahead).content

    def read(self) -> Block | None:
        """The next whole lines, read as `BLOCK_BYTES` at most; None at the end."""
        content, self._ahead = self._ahead or next(self._blocks, b""), b""
        return _escape_invalid_utf8(content) if content else None

    def _whole_lines(self) -> Iterator[bytes]:
        rest = b""
        while data := self._file.read(BLOCK_BYTES - len(rest)):
            lines = rest + data
            # A carriage return that comes last may be half of a line end.
            end = max(lines.rfind(b"\n"), lines.rfind(b"\r", 0, -1)) + 1
            rest = lines[end:]
            if len(rest) >= BLOCK_BYTES:
                raise InvalidFileError(
                    f"{self._what}: the line after data row {self.rows:,} is longer than {BLOCK_BYTES:,} bytes.",
                    remedy="That is no trip file: look at what the publisher sent.",
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
    places = (place for place, (line, text) in enumerate(zip(lines, escaped, strict=True)) if line != text)
    return Block(b"\n".join([*escaped, b""]), frozenset(places))
