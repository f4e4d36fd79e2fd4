"""Bytes of a CSV made fit for the parser: whole lines, valid UTF-8, one kind of line end, no byte order mark.

Belongs here: what stands between the file and pyarrow's parser. pyarrow fails a whole month for one bad byte, and
does not say where; this says which rows had one.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa

from taxi_assets.errors import ContentRefusedError
from taxi_assets.tlc.source import FileFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

# The largest piece handed to the parser at once, and so the longest line.
BLOCK_BYTES = 1 << 21

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_END = ord("\n")
_LONE_CARRIAGE_RETURN = re.compile(rb"\r(?!\n)")


def open_bytes(file: Path | BinaryIO, format_: FileFormat) -> BinaryIO:
    """Open a CSV for reading, decompressed."""
    if format_ is FileFormat.CSV_GZ:
        # Not Python's gzip module: it asks for the interpreter's lock thousands of times.
        unpacked: BinaryIO = pa.input_stream(file, compression="gzip", buffer_size=BLOCK_BYTES)
        return unpacked
    return file.open("rb") if isinstance(file, Path) else file


class LineSource:
    r"""The lines of a binary file, a block at a time; the header is taken off first.

    `header` is the first line's text. `rows` counts the data rows that were read, without blank lines. `not_utf8`
    collects the numbers of data rows (from 1) that held bytes that are not UTF-8, at times of a few rows that come
    next, too; these bytes are escaped, as in `\xff`; who is done with a number may take it off.
    """

    def __init__(self, file: BinaryIO, *, what: str) -> None:
        self._file = file
        self._what = what
        self._blocks = self._valid_blocks()
        self.rows = 0
        self.not_utf8: set[int] = set()
        self.header = ""
        # The first block is read ahead: it holds the header, and what the reader looks at to learn the field count.
        self._ahead = next(self._blocks, b"")

    def peek(self) -> bytes:
        """The first lines of data, without taking them; only before the first `read`."""
        return self._ahead

    def read(self) -> bytes:
        """The next whole lines, of `BLOCK_BYTES` at most; b"" at the end."""
        block, self._ahead = (self._ahead, b"") if self._ahead else (next(self._blocks, b""), b"")
        if len(block) > BLOCK_BYTES:  # escaping made it longer
            block, self._ahead = self._split(block)
        self.rows += count_rows(block)
        return block

    def _split(self, block: bytes) -> tuple[bytes, bytes]:
        end = block.rfind(b"\n", 0, BLOCK_BYTES) + 1
        if end == 0:
            raise self._line_too_long(self.rows)
        return block[:end], block[end:]

    def _line_too_long(self, rows_before: int) -> ContentRefusedError:
        return ContentRefusedError(
            f"{self._what}: the line after data row {rows_before:,} is longer than {BLOCK_BYTES:,} bytes.",
            remedy="That is no trip file: look at what the publisher sent.",
        )

    def _valid_blocks(self) -> Iterator[bytes]:
        blocks = self._whole_lines()
        first = b""
        while not first and (block := next(blocks, b"")):
            first = block.removeprefix(_BYTE_ORDER_MARK).lstrip(b"\r\n")
        header, _, first = _LONE_CARRIAGE_RETURN.sub(b"\n", first).partition(b"\n")
        self.header = header.decode("utf-8", "backslashreplace").rstrip("\r")
        for raw in itertools.chain([first], blocks):
            block = raw
            if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
                block = _LONE_CARRIAGE_RETURN.sub(b"\n", block)
            if not block.isascii():
                block = self._escape_invalid(block)
            if block:
                yield block

    def _whole_lines(self) -> Iterator[bytes]:
        rest = b""
        while data := self._file.read(BLOCK_BYTES - len(rest)):
            lines = rest + data
            # A carriage return that comes last may be half of a line end.
            end = max(lines.rfind(b"\n"), lines.rfind(b"\r", 0, -1)) + 1
            rest = lines[end:]
            if len(rest) >= BLOCK_BYTES:
                raise self._line_too_long(self.rows)
            if end:
                yield lines[:end]
        if rest:
            yield rest

    def _escape_invalid(self, block: bytes) -> bytes:
        try:
            block.decode()
        except UnicodeDecodeError:
            pass
        else:
            return block
        row = self.rows
        lines = block.split(b"\n")
        for index, line in enumerate(lines):
            row += bool(line.rstrip(b"\r"))
            text = line.decode("utf-8", "backslashreplace").encode()
            if text != line:
                lines[index] = text
                self.not_utf8.add(row)
        return b"\n".join(lines)


def count_rows(block: bytes) -> int:
    """Lines of a block that are not blank."""
    if b"\r" in block:
        return sum(map(bool, block.splitlines()))
    # Bytes that are not line ends, and come first or after one.
    ends = np.frombuffer(block, np.uint8) == _LINE_END
    return int(np.count_nonzero(~ends[1:] & ends[:-1])) + int(block[:1] not in (b"", b"\n"))
