"""Read comma-separated files: every physical line is one row, and columns are arrays of numbers or text."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from taxi_assets.tlc.readers.base_reader import CsvTexts, MalformedRow, RawBatch
from taxi_assets.tlc.readers.csv_blocks import BYTE_ORDER_MARK, Block, CsvBlockReader
from taxi_assets.tlc.readers.header import match_columns
from taxi_assets.tlc.readers.numeric_columns import numeric_type
from taxi_assets.tlc.rules import NOT_UTF8, WRONG_FIELD_COUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from taxi_assets.tlc.schema import Service


# Rows of another shape that are held back until they are written; a file that has more in one go is another file.
_MAXIMUM_MALFORMED_ROWS = 200_000


class CsvReader:
    """Comma-separated values, of any era.

    One physical line is one row: with quoting on, one stray quote has swallowed thousands of rows into one. Rows are
    matched to the header by the number of fields that most rows have, because several eras have data fields that the
    header does not name.

    Columns of numbers are parsed as numbers at once (see `numeric_type`), which takes a third of the time that text
    takes. Where that fails, a block is parsed as text, and so is, from then on, each column whose text was needed.
    """

    def __init__(self, lines: CsvBlockReader, service: Service, *, label: str) -> None:
        self._lines = lines
        header = lines.header.split(",")
        width = max(len(header), _most_common_field_count(lines.peek()))
        self.names: Sequence[str] = header + [""] * (width - len(header))
        self.types: Sequence[str] = ["text"] * width
        self.match = match_columns(service, self.names, label=label)
        types = {
            position: numeric_type(column)
            for column in service.published_columns
            for position in self.match.positions.get(column.name, ())
        }
        self._numeric = {position: type_ for position, type_ in types.items() if type_ is not None}

    def batches(self) -> Iterator[RawBatch]:
        """All rows; numbers or texts, with null for empty fields."""
        while (block := self._lines.read()) is not None:
            malformed_rows: list[MalformedRow] = []
            first = self._lines.rows + 1
            table = self._parse(block, malformed_rows, first)
            self._lines.rows += table.num_rows + len(malformed_rows)
            source_rows = np.arange(first, self._lines.rows + 1, dtype=np.int64)
            if malformed_rows:
                source_rows = np.delete(
                    source_rows, [malformed_row.source_row - first for malformed_row in malformed_rows]
                )
            arrays = [column.chunk(0) for column in table.columns]
            not_utf8 = frozenset(first + place for place in block.not_utf8)
            texts = CsvTexts(first, block, partial(self._column_as_text, block))
            yield RawBatch(arrays, source_rows, malformed_rows, not_utf8, texts)

    def _parse(self, block: Block, malformed_rows: list[MalformedRow], first: int) -> Any:
        # Arrow reads 0x1F as 31.
        numeric = {} if b"x" in block.content or b"X" in block.content else self._numeric
        set_aside = partial(_collect_malformed_row, malformed_rows, first, block.not_utf8)
        if numeric:
            try:
                return self._parse_as(numeric, block, set_aside)
            except pa.ArrowInvalid:
                malformed_rows.clear()
        table = self._parse_as({}, block, set_aside)
        if numeric:
            self._keep_as_text([position for position in numeric if not _can_cast(table[position], numeric[position])])
        return table

    def _column_as_text(self, block: Block, position: int) -> Any:
        self._keep_as_text([position])
        return self._parse_as({}, block, lambda _: "skip", only=position)[0].chunk(0)

    def _keep_as_text(self, positions: Sequence[int]) -> None:
        # Asked for by the thread that works, and by the one that reads: what one of them misses only costs time.
        self._numeric = {key: type_ for key, type_ in self._numeric.items() if positions and key not in positions}

    def _parse_as(
        self,
        numeric: Mapping[int, Any],
        block: Block,
        on_malformed_row: Callable[[Any], str],
        *,
        only: int | None = None,
    ) -> Any:
        keys = [str(i) for i in range(len(self.names))]
        content = block.content
        if content.startswith(BYTE_ORDER_MARK):  # pyarrow leaves out one, at the start of whatever it is given
            content = BYTE_ORDER_MARK + content
        return pyarrow.csv.read_csv(
            pa.BufferReader(content),
            pyarrow.csv.ReadOptions(
                block_size=len(content) + 1,  # in one piece
                use_threads=False,  # only so does pyarrow tell the row numbers of misfits
                column_names=keys,
            ),
            pyarrow.csv.ParseOptions(quote_char=False, invalid_row_handler=on_malformed_row),
            pyarrow.csv.ConvertOptions(
                column_types={key: numeric.get(position, pa.string()) for position, key in enumerate(keys)},
                include_columns=keys if only is None else [keys[only]],
                strings_can_be_null=True,
                null_values=[""],
                check_utf8=False,  # `CsvBlockReader` has
            ),
        )

    def original_texts(self, batch: RawBatch, indices: Any) -> Any:
        """The lines."""
        return pa.array(batch.texts.lines(batch.source_rows[np.asarray(indices)]) if batch.texts else [], pa.string())


def _can_cast(text: Any, type_: Any) -> bool:
    try:
        pc.cast(text, type_)
    except pa.ArrowInvalid:
        return False
    return True


def _collect_malformed_row(malformed_rows: list[MalformedRow], first: int, not_utf8: frozenset[int], row: Any) -> str:
    # Its number counts from 1 within the block, and no lines that are blank.
    if len(malformed_rows) >= _MAXIMUM_MALFORMED_ROWS:
        return "error"
    place = row.number - 1
    reasons = [WRONG_FIELD_COUNT, NOT_UTF8] if place in not_utf8 else [WRONG_FIELD_COUNT]
    malformed_rows.append(MalformedRow(first + place, reasons, row.text.rstrip("\r")))
    return "skip"


def _most_common_field_count(lines: bytes) -> int:
    counts = Counter(line.count(b",") + 1 for line in lines.splitlines()[:1000] if line)
    return counts.most_common(1)[0][0] if counts else 0
