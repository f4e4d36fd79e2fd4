"""The reader of CSV files: each physical line is one row, and each column is an array of numbers or text."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from taxi_assets.tlc.readers.base_reader import CsvTexts, Layout, MalformedRow, RawBatch
from taxi_assets.tlc.readers.csv_blocks import BYTE_ORDER_MARK, Block, CsvBlockReader
from taxi_assets.tlc.readers.header import match_columns
from taxi_assets.tlc.readers.numeric_columns import numeric_type
from taxi_assets.tlc.rules import NOT_UTF8, WRONG_FIELD_COUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service


# Per block, to limit memory. A block with more malformed rows means that the file is not a trip file.
_MAXIMUM_MALFORMED_ROWS = 200_000


class CsvReader:
    """A reader of CSV files, of any layout that TLC has published.

    One physical line is one row. With quoting enabled, one stray quote can merge thousands of rows.

    A row must have as many fields as the header, or as most of the first 1,000 lines if that is more: some published
    layouts have data fields that the header does not name.

    Numeric columns are parsed as numbers (see `numeric_type`), which is three times as fast as parsing text. If that
    fails, the block is parsed as text. In later blocks, the columns that failed, or whose text was needed, are parsed
    as text.

    Args:
        blocks: The reader of the file's lines, after the header.
        service: The service whose columns the file should have.
        label: Names the file in errors, such as "green 2020-10".
        month: The month of the file, which decides which columns it must have.

    Raises:
        ColumnMismatchError: The columns are not those of the service.
    """

    def __init__(self, blocks: CsvBlockReader, service: Service, *, label: str, month: Month) -> None:
        self._blocks = blocks
        header = blocks.header.split(",")
        width = max(len(header), _most_common_field_count(blocks.peek()))
        names = header + [""] * (width - len(header))
        self.layout = Layout(names, ["text"] * width, match_columns(service, names, label=label, month=month))
        types = {
            position: numeric_type(column)
            for column in service.published_columns
            for position in self.layout.match.positions.get(column.name, ())
        }
        self._numeric = {position: type_ for position, type_ in types.items() if type_ is not None}

    def batches(self) -> Iterator[RawBatch]:
        """Yield all rows, in file order. Each array contains numbers or text; empty fields are null.

        Raises:
            InvalidFileError: A line is too long.
            pyarrow.ArrowInvalid: A block has too many malformed rows.
        """
        while (block := self._blocks.read()) is not None:
            malformed_rows: list[MalformedRow] = []
            first = self._blocks.rows + 1
            table = self._parse(block, malformed_rows, first)
            self._blocks.rows += table.num_rows + len(malformed_rows)
            source_rows = np.arange(first, self._blocks.rows + 1, dtype=np.int64)
            if malformed_rows:
                source_rows = np.delete(source_rows, [row.source_row - first for row in malformed_rows])
            arrays = [column.chunk(0) for column in table.columns]
            not_utf8 = frozenset(first + index for index in block.not_utf8)
            texts = CsvTexts(first, block, partial(self._column_as_text, block))
            yield RawBatch(self.layout, arrays, source_rows, malformed_rows, not_utf8, texts)

    def _parse(self, block: Block, malformed_rows: list[MalformedRow], first: int) -> Any:
        # pyarrow would read 0x1F as 31.
        numeric = {} if b"x" in block.content or b"X" in block.content else self._numeric
        collect = partial(_collect_malformed_row, malformed_rows, first, block.not_utf8)
        if numeric:
            try:
                return self._parse_as(numeric, block, collect)
            except pa.ArrowInvalid:
                malformed_rows.clear()
        table = self._parse_as({}, block, collect)
        if numeric:
            self._keep_as_text([position for position in numeric if not _can_cast(table[position], numeric[position])])
        return table

    def _column_as_text(self, block: Block, position: int) -> Any:
        self._keep_as_text([position])
        return self._parse_as({}, block, lambda _: "skip", only=position)[0].chunk(0)

    def _keep_as_text(self, positions: Sequence[int]) -> None:
        # If no column fails on its own, all are kept as text: otherwise every block would be parsed twice.
        # The cleaning thread and the reading thread both call this. A lost update only costs time.
        self._numeric = {key: type_ for key, type_ in self._numeric.items() if positions and key not in positions}

    def _parse_as(
        self,
        numeric: Mapping[int, Any],
        block: Block,
        on_malformed_row: Callable[[Any], str],
        *,
        only: int | None = None,
    ) -> Any:
        keys = [str(i) for i in range(len(self.layout.names))]
        content = block.content
        # pyarrow drops a byte order mark at the start of its input. Here it is data, so prepend a second one.
        if content.startswith(BYTE_ORDER_MARK):
            content = BYTE_ORDER_MARK + content
        return pyarrow.csv.read_csv(
            pa.BufferReader(content),
            pyarrow.csv.ReadOptions(
                block_size=len(content) + 1,  # one chunk per column
                use_threads=False,  # otherwise pyarrow does not report the row numbers of malformed rows
                column_names=keys,
            ),
            pyarrow.csv.ParseOptions(quote_char=False, invalid_row_handler=on_malformed_row),
            pyarrow.csv.ConvertOptions(
                column_types={key: numeric.get(position, pa.string()) for position, key in enumerate(keys)},
                include_columns=keys if only is None else [keys[only]],
                strings_can_be_null=True,
                null_values=[""],
                check_utf8=False,  # `CsvBlockReader` has checked it
            ),
        )


def _can_cast(text: Any, type_: Any) -> bool:
    try:
        pc.cast(text, type_)
    except pa.ArrowInvalid:
        return False
    return True


def _collect_malformed_row(malformed_rows: list[MalformedRow], first: int, not_utf8: frozenset[int], row: Any) -> str:
    if len(malformed_rows) >= _MAXIMUM_MALFORMED_ROWS:
        return "error"
    index = row.number - 1  # pyarrow counts from 1 within the block, without blank lines
    reasons = [WRONG_FIELD_COUNT, NOT_UTF8] if index in not_utf8 else [WRONG_FIELD_COUNT]
    malformed_rows.append(MalformedRow(first + index, reasons, row.text.rstrip("\r")))
    return "skip"


def _most_common_field_count(lines: bytes) -> int:
    counts = Counter(line.count(b",") + 1 for line in lines.splitlines()[:1000] if line)
    return counts.most_common(1)[0][0] if counts else 0
