"""What every reader of published files returns: batches of raw rows, each row with its number in the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from taxi_assets.tlc.readers.csv_blocks import Block
from taxi_assets.tlc.readers.header import ColumnMatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from taxi_assets.tlc.readers.csv_blocks import Block
    from taxi_assets.tlc.readers.header import ColumnMatch


@dataclass(frozen=True)
class MalformedRow:
    """A row that does not have the shape of the others: it never becomes values, and goes to quarantine as text."""

    source_row: int
    reasons: Sequence[str]
    text: str


@dataclass(frozen=True)
class RawBatch:
    """Rows as published: `arrays` by position in the file, `source_rows` (from 1) as int64, and what did not fit.

    `texts` are those behind a CSV's numbers.
    """

    arrays: Sequence[Any]
    source_rows: np.ndarray[Any, np.dtype[np.int64]]
    malformed_rows: Sequence[MalformedRow]
    not_utf8: frozenset[int]
    texts: CsvTexts | None = None


@dataclass(frozen=True)
class CsvTexts:
    """The text behind a batch of a CSV, whose columns of numbers its parser has read as numbers.

    `column` gives a column's text, by its position in the file.
    """

    first_row: int
    block: Block
    column: Callable[[int], Any]

    def lines(self, source_rows: np.ndarray[Any, np.dtype[np.int64]]) -> list[str]:
        """The lines of these rows, as they stand in the file."""
        return self.block.lines(source_rows - self.first_row)


class TripReader(Protocol):
    """An open file."""

    names: Sequence[str]
    types: Sequence[str]
    match: ColumnMatch

    def batches(self) -> Iterator[RawBatch]:
        """All rows, in the file's order."""
        ...

    def original_texts(self, batch: RawBatch, indices: Any) -> Any:
        """The texts of these rows as they stand in the file (for Parquet: as JSON), as an array of strings."""
        ...
