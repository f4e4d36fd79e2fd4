"""The interface of readers: batches of rows as published, each row with its number in the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.readers.json_text import encode_json, json_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taxi_assets.tlc.readers.csv_blocks import Block
    from taxi_assets.tlc.readers.header import ColumnMatch


@dataclass(frozen=True)
class MalformedRow:
    """A row with another number of fields than most rows. It has no values, and goes to quarantine as text.

    Attributes:
        source_row: The number of the row in the file; the first data row is 1.
        reasons: The reasons for quarantine, from `rules.READING_REASONS`.
        text: The line as published, without its line end.
    """

    source_row: int
    reasons: Sequence[str]
    text: str


@dataclass(frozen=True)
class Layout:
    """The columns of a file, or of a part of it that has its own header.

    Attributes:
        names: The published column names, in file order; "" for a field that the header does not name.
        types: The type of each column, as text.
        match: The positions of the service's columns in the file.
    """

    names: Sequence[str]
    types: Sequence[str]
    match: ColumnMatch


@dataclass(frozen=True)
class RawBatch:
    """Consecutive rows of a published file, from one part of it.

    Attributes:
        layout: The columns of the part.
        arrays: One Arrow array per column of the file, in file order, in the types of the file. Malformed rows are not
            in them.
        source_rows: The row number of each row in `arrays`. The first data row of the file is 1.
        malformed_rows: The malformed rows among these rows, in file order.
        not_utf8: The row numbers of rows that had bytes that are not UTF-8.
        texts: The text behind a CSV file's numbers; None for Parquet.
    """

    layout: Layout
    arrays: Sequence[Any]
    source_rows: np.ndarray[Any, np.dtype[np.int64]]
    malformed_rows: Sequence[MalformedRow]
    not_utf8: frozenset[int]
    texts: CsvTexts | None = None

    def original_texts(self, indices: Any) -> Any:
        """Return rows as published, for quarantine.

        Args:
            indices: Positions within the batch, as an Arrow array of integers.

        Returns:
            One string per index: the line of a CSV file; for Parquet, a JSON object with the published names.
        """
        if self.texts is not None:
            return pa.array(self.texts.lines(self.source_rows[np.asarray(indices)]), pa.string())
        # Building JSON by column takes a tenth of the time of building it by row. If two columns have the same name,
        # the last one counts.
        positions = {name: position for position, name in enumerate(self.layout.names)}
        chunks: list[Any] = []
        for name, position in positions.items():
            key = f"{', ' if chunks else '{'}{encode_json(name)}: "
            chunks += [pa.scalar(key), json_texts(self.arrays[position].take(indices))]
        return pc.binary_join_element_wise(*chunks, pa.scalar("}"), pa.scalar(""))


@dataclass(frozen=True)
class CsvTexts:
    """The text of a batch of a CSV file, in which the parser has read numeric columns as numbers.

    Attributes:
        first_row: The row number of the block's first row.
        block: The lines of the batch.
        column: Returns the text of a column, given its position in the file.
    """

    first_row: int
    block: Block
    column: Callable[[int], Any]

    def lines(self, source_rows: np.ndarray[Any, np.dtype[np.int64]]) -> list[str]:
        """Return the lines with these row numbers, as published."""
        return self.block.lines(source_rows - self.first_row)


class TripReader(Protocol):
    """An open file of trips."""

    def batches(self) -> Iterator[RawBatch]:
        """Yield all rows, in file order."""
        ...
