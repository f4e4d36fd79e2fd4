"""The reader of CSV files: each row is a line, and each column is an array of numbers or text."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from taxi_assets.errors import InvalidFileError
from taxi_assets.tlc.readers.base_reader import CsvTexts, Layout, MalformedRow, RawBatch
from taxi_assets.tlc.readers.csv_blocks import BYTE_ORDER_MARK, Block, CsvBlockReader
from taxi_assets.tlc.readers.header import match_columns
from taxi_assets.tlc.readers.numeric_columns import numeric_type
from taxi_assets.tlc.readers.quoted_fields import JOINED_COMMA, join_quoted_fields, split_fields
from taxi_assets.tlc.readers.repeated_headers import HeaderFinder
from taxi_assets.tlc.rules import NOT_UTF8, REPEATED_HEADER, WRONG_FIELD_COUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from taxi_assets.tlc.file_format import CsvDialect
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

    Mask = np.ndarray[Any, np.dtype[np.bool_]]


# Per block, to limit memory. A block with more malformed rows means that the file is not a trip file.
_MAXIMUM_MALFORMED_ROWS = 200_000

# A block in which this many columns are numbers has no header, which would have names there.
_NUMERIC_COLUMNS_WITHOUT_HEADER = 2

# The number of rows after a header that determine how many fields a row has.
_ROWS_OF_A_LAYOUT = 1000


class _ParsedBlock(NamedTuple):
    table: Any
    malformed: Sequence[int]
    """The indices of malformed rows."""
    numeric_columns: int
    text: _Text


class _Text(NamedTuple):
    """The rows of a block, for pyarrow's parser."""

    content: bytes
    has_joined_fields: bool
    """Whether each `JOINED_COMMA` was a comma within quotes."""


class CsvReader:
    """A reader of CSV files, of any layout that TLC has published.

    In the dialect of TLC's files, one line is one row. With quoting enabled, one stray quote can merge thousands of
    rows. Only lines that are quoted consistently have quoted fields; see `quoted_fields.py`.

    A row must have as many fields as the header, or as most of the first 1,000 lines if that is more: some published
    layouts have data fields that the header does not name. These are empty: a row with a value there may be shifted.

    A row that is a header begins a new part, whose columns are matched by that header.

    Numeric columns are parsed as numbers (see `numeric_type`), which is three times as fast as parsing text. If that
    fails, the block is parsed as text. In later blocks, the columns that failed, or whose text was needed, are parsed
    as text.

    Args:
        blocks: The reader of the file's rows, after the header.
        service: The service whose columns the file should have.
        label: Names the file in errors, such as "green 2020-10".
        month: The month of the file, which decides which columns it must have.

    Raises:
        ColumnMismatchError: The columns are not those of the service.
    """

    def __init__(self, blocks: CsvBlockReader, service: Service, *, label: str, month: Month) -> None:
        self._blocks = blocks
        self._service = service
        self._label = label
        self._month = month
        self._headers = HeaderFinder(service)
        self._header_rows: list[MalformedRow] = []
        self._numeric: dict[int, Any] = {}
        self._named = 0
        self.layout = self._read_header(
            blocks.header, self._next_rows(Block(blocks.peek(), quoting=blocks.quoting)), label
        )

    def _read_header(self, header: str, following: bytes, label: str) -> Layout:
        """Prepare for the rows after a header, and return their layout."""
        dialect, names = self._service.dialect, split_fields(header, self._service.dialect.delimiter)
        self._named = len(names)
        names += [""] * (_most_common_field_count(following, dialect) - len(names))
        match = match_columns(self._service, names, label=label, month=self._month)
        types = {
            position: numeric_type(column)
            for column in self._service.published_columns
            for position in match.positions.get(column.name, ())
        }
        self._numeric = {position: type_ for position, type_ in types.items() if type_ is not None}
        return Layout(names, ["text"] * len(names), match)

    def batches(self) -> Iterator[RawBatch]:
        """Yield all rows, in file order. Each array contains numbers or text; empty fields are null.

        Raises:
            InvalidFileError: A line is too long.
            ColumnMismatchError: The columns of a later part are not those of the service.
            pyarrow.ArrowInvalid: A block has too many malformed rows.
        """
        while (block := self._blocks.read()) is not None:
            yield from self._read_block(block)
        if self._header_rows:  # the last line is a header
            yield self._batch(Block(b""), self._parse(Block(b"")))

    def _read_block(self, block: Block) -> Iterator[RawBatch]:
        parsed = self._parse(block)
        may_have_header = parsed.malformed or parsed.numeric_columns < _NUMERIC_COLUMNS_WITHOUT_HEADER
        headers = self._headers.find(block, len(self.layout.names)) if may_have_header else []
        if not headers:
            yield self._batch(block, parsed)
            return
        if headers[0] > 0:
            part = block.part(0, headers[0])
            yield self._batch(part, self._parse(part))
        for header, end in itertools.pairwise([*headers, block.rows]):
            part = block.part(header + 1, end)
            (text,) = block.lines(np.array([header]))
            self._begin_part(text, part)
            if part.rows:
                yield self._batch(part, self._parse(part))

    def _next_rows(self, block: Block) -> bytes:
        """Return the first rows of a block, before its first header."""
        rows = block.part(0, min(block.rows, _ROWS_OF_A_LAYOUT))
        headers = self._headers.find(rows, 0)
        return rows.part(0, headers[0]).content if headers else rows.content

    def _begin_part(self, text: str, part: Block) -> None:
        self._blocks.rows += 1
        row = self._blocks.rows
        self._header_rows.append(MalformedRow(row, [REPEATED_HEADER], text))
        following = self._next_rows(part) or self._next_rows(Block(self._blocks.peek(), quoting=part.quoting))
        self.layout = self._read_header(text, following, f"{self._label}: from the header in data row {row:,} on")

    def _batch(self, block: Block, parsed: _ParsedBlock) -> RawBatch:
        first = self._blocks.rows + 1
        texts = block.lines(np.array(parsed.malformed, np.int64)) if parsed.malformed else []
        malformed_rows = [
            _malformed_row(block, first, index, text) for index, text in zip(parsed.malformed, texts, strict=True)
        ]
        rows = parsed.table.num_rows + len(malformed_rows)
        if block.quoting and rows != block.rows:
            raise InvalidFileError(
                f"{self._label}: between the data rows {first:,} and {first + block.rows:,}, a quote is not closed, or "
                "stands within a field that is not quoted.",
                remedy="Check the file that the publisher sent.",
            )
        self._blocks.rows += rows
        source_rows = np.arange(first, self._blocks.rows + 1, dtype=np.int64)
        if parsed.malformed:
            source_rows = np.delete(source_rows, parsed.malformed)
        headers, self._header_rows = self._header_rows, []
        arrays = [column.chunk(0) for column in parsed.table.columns]
        # In files of TLC, the fields that the header does not name are empty.
        wide = np.zeros(len(source_rows), bool)
        for array in arrays[self._named :]:
            if array.null_count < len(array):
                wide |= np.asarray(array.is_valid())
        if wide.any():
            texts = block.lines(source_rows[wide] - first)
            wide_rows = zip((source_rows[wide] - first).tolist(), texts, strict=True)
            malformed_rows += [_malformed_row(block, first, index, text) for index, text in wide_rows]
            malformed_rows.sort(key=lambda row: row.source_row)
            arrays, source_rows = [array.filter(pa.array(~wide)) for array in arrays], source_rows[~wide]
        return RawBatch(
            self.layout,
            arrays,
            source_rows,
            [*headers, *malformed_rows],
            frozenset(first + index for index in block.not_utf8),
            CsvTexts(first, block, partial(self._column_as_text, parsed.text, self.layout, wide)),
        )

    def _parse(self, block: Block) -> _ParsedBlock:
        content = block.content if block.quoting else join_quoted_fields(block.content)
        text = _Text(content, content is not block.content)
        width, malformed = len(self.layout.names), list[int]()
        # pyarrow would read 0x1F as 31.
        numeric = {} if b"x" in content or b"X" in content else self._numeric
        collect = partial(_collect_malformed_row, malformed)
        if numeric:
            try:
                table = self._parse_as(numeric, text, collect, width)
            except pa.ArrowInvalid:
                malformed.clear()
            else:
                return _ParsedBlock(table, malformed, len(numeric), text)
        table = self._parse_as({}, text, collect, width)
        if numeric:
            self._keep_as_text([position for position in numeric if not _can_cast(table[position], numeric[position])])
        return _ParsedBlock(table, malformed, 0, text)

    def _column_as_text(self, text: _Text, layout: Layout, left_out: Mask, position: int) -> Any:
        if layout is self.layout:
            self._keep_as_text([position])
        column = self._parse_as({}, text, lambda _: "skip", len(layout.names), only=position)[0].chunk(0)
        return column.filter(pa.array(~left_out)) if left_out.any() else column

    def _keep_as_text(self, positions: Sequence[int]) -> None:
        # If no column fails on its own, all are kept as text: otherwise every block would be parsed twice.
        # The cleaning thread and the reading thread both call this. A lost update only costs time.
        self._numeric = {key: type_ for key, type_ in self._numeric.items() if positions and key not in positions}

    def _parse_as(
        self,
        numeric: Mapping[int, Any],
        text: _Text,
        on_malformed_row: Callable[[Any], str],
        width: int,
        *,
        only: int | None = None,
    ) -> Any:
        keys, content = [str(i) for i in range(width)], text.content
        if not content:
            return pa.table([pa.chunked_array([pa.array([], pa.string())]) for _ in keys], keys)
        # pyarrow drops a byte order mark at the start of its input. Here it is data, so prepend a second one.
        if content.startswith(BYTE_ORDER_MARK):
            content = BYTE_ORDER_MARK + content
        dialect = self._service.dialect
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            pyarrow.csv.ReadOptions(
                block_size=len(content) + 1,  # one chunk per column
                use_threads=False,  # otherwise pyarrow does not report the row numbers of malformed rows
                column_names=keys,
            ),
            pyarrow.csv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char='"' if dialect.quoting else False,
                newlines_in_values=dialect.quoting,
                invalid_row_handler=on_malformed_row,
            ),
            pyarrow.csv.ConvertOptions(
                column_types={key: numeric.get(position, pa.string()) for position, key in enumerate(keys)},
                include_columns=keys if only is None else [keys[only]],
                strings_can_be_null=True,
                null_values=[""],
                check_utf8=False,  # `CsvBlockReader` has checked it
            ),
        )
        return _restore_commas(table) if text.has_joined_fields else table


def _malformed_row(block: Block, first: int, index: int, text: str) -> MalformedRow:
    reasons = [WRONG_FIELD_COUNT, NOT_UTF8] if index in block.not_utf8 else [WRONG_FIELD_COUNT]
    return MalformedRow(first + index, reasons, text)


def _restore_commas(table: Any) -> Any:
    for position, column in enumerate(table.columns):
        if pa.types.is_string(column.type):
            restored = pc.replace_substring(column, JOINED_COMMA, ",")
            table = table.set_column(position, table.column_names[position], restored)
    return table


def _can_cast(text: Any, type_: Any) -> bool:
    try:
        pc.cast(text, type_)
    except pa.ArrowInvalid:
        return False
    return True


def _collect_malformed_row(malformed: list[int], row: Any) -> str:
    if len(malformed) >= _MAXIMUM_MALFORMED_ROWS:
        return "error"
    malformed.append(row.number - 1)  # pyarrow counts from 1 within the block, without blank lines
    return "skip"


def _most_common_field_count(following: bytes, dialect: CsvDialect) -> int:
    if dialect.quoting:
        rows = csv.reader(io.StringIO(following.decode(), newline=""), delimiter=dialect.delimiter)
        counts = Counter(len(row) for row in rows if row)
    else:
        lines = filter(None, following.splitlines())
        counts = Counter(len(split_fields(line.decode(), dialect.delimiter)) for line in lines)
    return counts.most_common(1)[0][0] if counts else 0
