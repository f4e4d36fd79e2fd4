"""Reading a published file, in record batches, as published: nothing parsed, nothing dropped, every row numbered.

Belongs here: the two formats and their quirks. What the columns mean is `columns.py`, what the values mean `parse.py`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from taxi_assets.tlc.columns import ColumnMatch, match_columns
from taxi_assets.tlc.lines import BLOCK_BYTES, LineSource, open_bytes
from taxi_assets.tlc.rules import NOT_UTF8, WRONG_FIELD_COUNT
from taxi_assets.tlc.source import FileFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from taxi_assets.tlc.schema import Service

PARQUET_BATCH_ROWS = 16_384
# Rows of another shape that are held back until they are written; a file that has more in one go is another file.
_MAXIMUM_MISFITS = 200_000


@dataclass(frozen=True)
class Misfit:
    """A row that does not have the shape of the others: it never becomes values, and goes to quarantine as text."""

    source_row: int
    reasons: Sequence[str]
    text: str


@dataclass(frozen=True)
class PublishedBatch:
    """Rows as published: `arrays` by position in the file, `source_rows` (from 1) as int64, and what did not fit."""

    arrays: Sequence[Any]
    source_rows: np.ndarray[Any, np.dtype[np.int64]]
    misfits: Sequence[Misfit]
    not_utf8: frozenset[int]


class TripReader(Protocol):
    """An open file."""

    names: Sequence[str]
    types: Sequence[str]
    match: ColumnMatch

    def batches(self) -> Iterator[PublishedBatch]:
        """All rows, in the file's order."""
        ...

    def originals(self, batch: PublishedBatch, indices: Any) -> Any:
        """The texts of these rows as they stand in the file (for Parquet: as JSON), as an array of strings."""
        ...


@contextmanager
def open_trips(path: Path, format_: FileFormat, service: Service, *, what: str) -> Iterator[TripReader]:
    """Open a published file of a service; `what` names it in errors, as in "green 2020-10".

    Raises `HeaderError` where its columns are not the service's.
    """
    if format_ is FileFormat.PARQUET:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=BLOCK_BYTES) as file:
            yield ParquetReader(file, service, what=what)
        return
    with open_bytes(path, format_) as bytes_:
        yield CsvReader(LineSource(bytes_, what=what), service, what=what)


class CsvReader:
    """Comma-separated values, of any era.

    One physical line is one row: with quoting on, one stray quote has swallowed thousands of rows into one. Rows are
    matched to the header by the number of fields that most rows have, because several eras have data fields that the
    header does not name.
    """

    def __init__(self, lines: LineSource, service: Service, *, what: str) -> None:
        self._lines = lines
        header = lines.header.split(",")
        width = max(len(header), _usual_field_count(lines.peek()))
        self.names: Sequence[str] = header + [""] * (width - len(header))
        self.types: Sequence[str] = ["text"] * width
        self.match = match_columns(service, self.names, what=what)

    def batches(self) -> Iterator[PublishedBatch]:
        """All rows; texts, with null for empty fields."""
        last = 0
        while block := self._lines.read():
            first, last = last + 1, self._lines.rows
            not_utf8 = frozenset(row for row in self._lines.not_utf8 if row <= last)
            self._lines.not_utf8 -= not_utf8
            misfits: list[Misfit] = []
            table = self._parse(block, partial(_set_aside, misfits, first, not_utf8))
            source_rows = np.arange(first, last + 1, dtype=np.int64)
            if misfits:
                source_rows = np.delete(source_rows, [misfit.source_row - first for misfit in misfits])
            arrays = [column.chunk(0) for column in table.columns]
            yield PublishedBatch(arrays, source_rows, misfits, not_utf8)

    def _parse(self, block: bytes, on_misfit: Callable[[Any], str]) -> Any:
        keys = [str(i) for i in range(len(self.names))]
        return pyarrow.csv.read_csv(
            pa.BufferReader(block),
            # Not in threads: only so does pyarrow tell the row numbers of misfits.
            pyarrow.csv.ReadOptions(block_size=2 * BLOCK_BYTES, use_threads=False, column_names=keys),
            pyarrow.csv.ParseOptions(quote_char=False, invalid_row_handler=on_misfit),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(keys, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
                check_utf8=False,  # `LineSource` has
            ),
        )

    def originals(self, batch: PublishedBatch, indices: Any) -> Any:
        """The lines; exact, because no field is unquoted or trimmed while reading."""
        fields = [pc.fill_null(array.take(indices), "") for array in batch.arrays]
        return pc.binary_join_element_wise(*fields, ",")


def _set_aside(misfits: list[Misfit], first: int, not_utf8: frozenset[int], row: Any) -> str:
    # Its number counts from 1 within the block, and no lines that are blank.
    if len(misfits) >= _MAXIMUM_MISFITS:
        return "error"
    source_row = first + row.number - 1
    reasons = [WRONG_FIELD_COUNT, NOT_UTF8] if source_row in not_utf8 else [WRONG_FIELD_COUNT]
    misfits.append(Misfit(source_row, reasons, row.text.rstrip("\r")))
    return "skip"


class ParquetReader:
    """Parquet, with whatever types the month happens to have."""

    def __init__(self, file: Any, service: Service, *, what: str) -> None:
        self._file = file
        self.names: Sequence[str] = list(file.schema_arrow.names)
        self.types: Sequence[str] = [str(type_) for type_ in file.schema_arrow.types]
        self.match = match_columns(service, self.names, what=what)

    def batches(self) -> Iterator[PublishedBatch]:
        """All rows, in the file's types."""
        next_row = 1
        for batch in self._file.iter_batches(batch_size=PARQUET_BATCH_ROWS, use_threads=False):
            source_rows = np.arange(next_row, next_row + batch.num_rows, dtype=np.int64)
            next_row += batch.num_rows
            arrays, bad = _valid(batch)
            yield PublishedBatch(arrays, source_rows, [], frozenset(source_rows[bad].tolist()))

    def originals(self, batch: PublishedBatch, indices: Any) -> Any:
        """The rows as JSON objects, with the published names."""
        rows = zip(*(map(plain, array.take(indices)) for array in batch.arrays), strict=True)
        objects = (dict(zip(self.names, row, strict=True)) for row in rows)
        return pa.array([json.dumps(row, default=str, ensure_ascii=False) for row in objects], pa.string())


def _valid(batch: Any) -> tuple[Sequence[Any], list[int]]:
    """The columns, with bytes that are not UTF-8 escaped, as in a CSV; and the places of rows that had any."""
    try:
        batch.validate(full=True)  # or they would be noticed, or not, wherever they are first looked at
    except pa.ArrowInvalid:
        pass
    else:
        return batch.columns, []
    arrays, bad = [], set()
    for array in batch.columns:
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            published = array.cast(pa.large_binary()).to_pylist()
            texts = [None if value is None else value.decode("utf-8", "backslashreplace") for value in published]
            bad |= {i for i, text in enumerate(texts) if text is not None and text.encode() != published[i]}
            arrays.append(pa.array(texts, pa.string()))
        else:
            array.validate(full=True)
            arrays.append(array)
    return arrays, sorted(bad)


def plain(scalar: Any) -> Any:
    """A value as JSON can hold it; as text where Python has no such time, or JSON no such number."""
    try:
        value = scalar.as_py()
    except (OverflowError, ValueError):
        return scalar.cast(pa.string()).as_py()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _usual_field_count(lines: bytes) -> int:
    counts = Counter(line.count(b",") + 1 for line in lines.splitlines()[:1000] if line)
    return counts.most_common(1)[0][0] if counts else 0


def first_rows(file: BinaryIO, format_: FileFormat, rows: int) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """The column names and the first rows of a published file, as they stand there; for a look, not for work."""
    if format_ is FileFormat.PARQUET:
        # Buffered: a published month may be one row group, and its columns would be read whole.
        with pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=BLOCK_BYTES) as parquet:
            batch = next(parquet.iter_batches(batch_size=rows, use_threads=False), None)
            arrays = [] if batch is None else _valid(batch)[0]
            return parquet.schema_arrow.names, list(zip(*(map(plain, array) for array in arrays), strict=True))
    with open_bytes(file, format_) as bytes_:
        lines = LineSource(bytes_, what="the file")
    first = itertools.islice(filter(None, lines.peek().splitlines()), rows)
    fields = [line.decode().split(",") for line in first]
    header = lines.header.split(",")
    width = max([len(header), *map(len, fields)])
    return [*header, *[""] * (width - len(header))], [[*line, *[""] * (width - len(line))] for line in fields]
