"""CSV blocks: complete lines of valid UTF-8, and the rows that had invalid bytes."""

from __future__ import annotations

import gzip
import io
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_assets.errors import InvalidFileError
from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.readers import csv_blocks
from taxi_assets.tlc.readers.csv_blocks import BLOCK_BYTES, Block, CsvBlockReader, open_bytes

if TYPE_CHECKING:
    from pathlib import Path

MARK = b"\xef\xbb\xbf"


class SlowFile(io.BytesIO):
    """A file that never returns more than `most` bytes at once."""

    def __init__(self, content: bytes, most: int) -> None:
        super().__init__(content)
        self._most = most

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self._most if size is None or size < 0 else min(size, self._most))


def source(content: bytes, most: int = BLOCK_BYTES) -> CsvBlockReader:
    return CsvBlockReader(SlowFile(content, most), label="green 2020-10")


def blocks_of(opened: CsvBlockReader) -> list[Block]:
    return list(iter(opened.read, None))


def drain(opened: CsvBlockReader) -> bytes:
    """Return the content of all blocks, after a check that each block finds its lines by index."""
    blocks = blocks_of(opened)
    assert all(block.content.endswith((b"\n", b"\r")) for block in blocks[:-1])
    for block in blocks:
        rows = rows_of(block.content)
        assert [line.encode() for line in block.lines(np.arange(len(rows)))] == rows
    return b"".join(block.content for block in blocks)


def numbers_of_bad_rows(opened: CsvBlockReader) -> set[int]:
    numbers: set[int] = set()
    rows = 0
    for block in blocks_of(opened):
        numbers |= {rows + index + 1 for index in block.not_utf8}
        rows += len(rows_of(block.content))
    return numbers


def rows_of(content: bytes) -> list[bytes]:
    """Return the lines that are not blank, by a plain split."""
    return [line for line in re.split(rb"\r\n|\n|\r", content) if line]


# --- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 3, 7, BLOCK_BYTES])
@pytest.mark.parametrize(
    ("content", "header", "rows"),
    [
        (b"a,b\n1,2\n3,4\n", "a,b", [b"1,2", b"3,4"]),
        (b"a,b\r\n1,2\r\n3,4\r\n", "a,b", [b"1,2", b"3,4"]),
        (b"a,b\r1,2\r3,4\r", "a,b", [b"1,2", b"3,4"]),
        (b"a,b\n\r\n1,2\r\n3,4\n", "a,b", [b"1,2", b"3,4"]),
        (b"a,b\n\n\n1,2\r\n\r\n\n3,4", "a,b", [b"1,2", b"3,4"]),
        (b"a,b\n1,2\r3,4\r\n", "a,b", [b"1,2", b"3,4"]),
        (b"a,b\n1,2\r\r\n3,4\r\r\n", "a,b", [b"1,2", b"3,4"]),
        (b"\r\n\n\r\na,b\n1,2\n", "a,b", [b"1,2"]),
        (MARK + b"a,b\r\n1,2\r\n", "a,b", [b"1,2"]),
        (MARK + b"\na,b\n1,2\n", "a,b", [b"1,2"]),
        (b"a,b\n1,2", "a,b", [b"1,2"]),
        (b"a,b\n1,2\r", "a,b", [b"1,2"]),
        (b"a,b\n  \n1,\x0b\x0c\x1c2\n", "a,b", [b"  ", b"1,\x0b\x0c\x1c2"]),
        (b"a,b\n", "a,b", []),
        (b"a,b", "a,b", []),
        (b"a,b\n\n\r\n", "a,b", []),
        (b"", "", []),
        (MARK, "", []),
        (b"\n\r\n\n", "", []),
    ],
)
def test_header_and_rows_are_found_with_any_line_end_and_any_read_size(
    content: bytes, header: str, rows: list[bytes], most: int
) -> None:
    opened = source(content, most)
    assert opened.header == header
    drained = drain(opened)
    assert rows_of(drained) == rows


@given(st.lists(st.sampled_from([b"1,2", b"x", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\xff", b"\xc3\xa9"])))
def test_blocks_have_the_same_rows_as_a_plain_split(chunks: list[bytes]) -> None:
    content = b"".join(chunks)
    drained = drain(source(b"header\n" + content, most=5))
    assert rows_of(drained) == [row.decode("utf-8", "backslashreplace").encode() for row in rows_of(content)]


def test_peek_consumes_nothing() -> None:
    opened = source(b"a,b\n1,2\n3,4\n")
    assert opened.peek() == b"1,2\n3,4\n"
    assert drain(opened) == b"1,2\n3,4\n"
    assert opened.peek() == b""


def test_a_file_of_many_blocks_is_read_unchanged() -> None:
    body = b"".join(b"%d,%s\r\n" % (i, b"x" * (i % 97)) for i in range(260_000))
    opened = source(b"a,b\n" + body)
    assert len(body) > 3 * BLOCK_BYTES
    assert drain(opened) == body


def test_a_block_may_end_within_a_line_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 8)
    for padding in range(7):
        body = b"x" * padding + b"\r\n" + b"1\r\n22\r\n333\r\n4444\r\n"
        opened = source(b"h\r\n" + body)
        assert rows_of(drain(opened)) == rows_of(body), padding


def test_a_large_file_may_have_only_carriage_returns_as_line_ends() -> None:
    body = b"1,2\r" * 600_000
    assert drain(source(b"a,b\r" + body)) == body


def test_blank_lines_may_fill_whole_blocks_before_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 8)
    opened = source(b"\r\n" * 50 + b"a,b\n" + b"\n" * 50 + b"1,2\n")
    assert opened.header == "a,b"
    assert rows_of(drain(opened)) == [b"1,2"]


def test_a_gzip_file_is_decompressed(tmp_path: Path) -> None:
    path = tmp_path / "month.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with open_bytes(path, FileFormat.CSV_GZ) as file:
        assert drain(CsvBlockReader(file, label="")) == b"1,2\n"


# --- long lines ------------------------------------------------------------------------------------------------------


def test_a_line_as_long_as_a_block_is_read() -> None:
    line = b"x" * (BLOCK_BYTES - 1) + b"\n"
    assert drain(source(b"a\n" + line + b"1\n")) == line + b"1\n"


def test_a_line_longer_than_a_block_is_rejected_with_its_row() -> None:
    opened = source(b"a,b\n1,2\n\n3,4\n" + b"x" * BLOCK_BYTES + b"\n5,6\n")
    assert opened.read() is not None
    opened.rows = 2
    with pytest.raises(InvalidFileError, match="green 2020-10: the line after data row 2 is longer than 4,194,304"):
        opened.read()


def test_a_header_longer_than_a_block_is_rejected() -> None:
    with pytest.raises(InvalidFileError, match="longer than"):
        source(b"x" * (BLOCK_BYTES + 1))


def test_escapes_may_make_a_block_larger_than_the_limit() -> None:
    content = b"a\n" + (b"\xff" * 1000 + b"\n") * 1000
    assert drain(source(content)) == (rb"\xff" * 1000 + b"\n") * 1000
    assert numbers_of_bad_rows(source(content)) == set(range(1, 1001))


# --- not UTF-8 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 4, BLOCK_BYTES])
def test_invalid_utf8_is_escaped_and_its_rows_are_reported(most: int) -> None:
    good = "7,é€\U0001f695\r\n".encode()
    content = b"a,b\n\r\n1,2\n\n3,\xff\n" + good + b"5,\xe9\r\n\r\n\xf0\x9f\n7,\xed\xa0\x80"
    drained = drain(source(content, most))
    assert rows_of(drained) == [b"1,2", rb"3,\xff", good.strip(), rb"5,\xe9", rb"\xf0\x9f", rb"7,\xed\xa0\x80"]
    assert numbers_of_bad_rows(source(content, most)) == {2, 4, 5, 6}
    drained.decode()


def test_a_character_may_extend_across_two_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 16)
    for padding in range(11):
        content = b"h\n" + b"x" * padding + "é€\n".encode() * 9
        assert drain(source(content)).decode() == "x" * padding + "é€\n" * 9
        assert numbers_of_bad_rows(source(content)) == set()


def test_a_header_that_is_not_utf8_is_escaped() -> None:
    assert source(b"a,\xff\n1,2\n").header == "a,\\xff"
