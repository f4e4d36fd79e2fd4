"""Reading a published file, in record batches, as published: nothing parsed, nothing dropped, every row numbered.

Belongs here: the two formats and their quirks. What the columns mean is `columns.py`, what the values mean `parse.py`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from taxi_assets.errors import InvalidFileError
from taxi_assets.tlc.cleaning.rules import NOT_UTF8, WRONG_FIELD_COUNT
from taxi_assets.tlc.cleaning.values import numeric_type
from taxi_assets.tlc.parquet_io import open_to_stream, text_columns
from taxi_assets.tlc.readers.csv_blocks import BYTE_ORDER_MARK, Block, CsvBlockReader, open_bytes
from taxi_assets.tlc.readers.header import ColumnMatch, match_columns
from taxi_assets.tlc.readers.json_text import as_json, json_texts, plain
from taxi_assets.tlc.sources.source_record import FileFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from taxi_assets.tlc.schema import Service

PARQUET_BATCH_ROWS = 65_536
# And the most that their texts take, or their values of a fixed size; real ones take a hundredth.
_PARQUET_BATCH_BYTES = 64 << 20
# Rows of another shape that are held back until they are written; a file that has more in one go is another file.
_MAXIMUM_MALFORMED_ROWS = 200_000


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

    def originals(self, batch: RawBatch, indices: Any) -> Any:
        """The texts of these rows as they stand in the file (for Parquet: as JSON), as an array of strings."""
        ...


@contextmanager
def open_trips(path: Path, format_: FileFormat, service: Service, *, label: str) -> Iterator[TripReader]:
    """Open a published file of a service; `what` names it in errors, as in "green 2020-10".

    Raises `ColumnMismatchError` where its columns are not the service's.
    """
    if format_ is FileFormat.PARQUET:
        with open_to_stream(path, texts_once=True) as file:
            yield ParquetReader(file, service, label=label)
        return
    with open_bytes(path, format_) as bytes_:
        yield CsvReader(CsvBlockReader(bytes_, label=label), service, label=label)


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
        width = max(len(header), _usual_field_count(lines.peek()))
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
            misfits: list[MalformedRow] = []
            first = self._lines.rows + 1
            table = self._parse(block, misfits, first)
            self._lines.rows += table.num_rows + len(misfits)
            source_rows = np.arange(first, self._lines.rows + 1, dtype=np.int64)
            if misfits:
                source_rows = np.delete(source_rows, [misfit.source_row - first for misfit in misfits])
            arrays = [column.chunk(0) for column in table.columns]
            not_utf8 = frozenset(first + place for place in block.not_utf8)
            texts = CsvTexts(first, block, partial(self._column_as_text, block))
            yield RawBatch(arrays, source_rows, misfits, not_utf8, texts)

    def _parse(self, block: Block, malformed_rows: list[MalformedRow], first: int) -> Any:
        # Arrow reads 0x1F as 31.
        numeric = {} if b"x" in block.content or b"X" in block.content else self._numeric
        set_aside = partial(_set_aside, malformed_rows, first, block.not_utf8)
        if numeric:
            try:
                return self._parse_as(numeric, block, set_aside)
            except pa.ArrowInvalid:
                malformed_rows.clear()
        table = self._parse_as({}, block, set_aside)
        if numeric:
            self._keep_as_text([position for position in numeric if not _casts(table[position], numeric[position])])
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

    def originals(self, batch: RawBatch, indices: Any) -> Any:
        """The lines."""
        return pa.array(batch.texts.lines(batch.source_rows[np.asarray(indices)]) if batch.texts else [], pa.string())


def _casts(text: Any, type_: Any) -> bool:
    try:
        pc.cast(text, type_)
    except pa.ArrowInvalid:
        return False
    return True


def _set_aside(malformed_rows: list[MalformedRow], first: int, not_utf8: frozenset[int], row: Any) -> str:
    # Its number counts from 1 within the block, and no lines that are blank.
    if len(malformed_rows) >= _MAXIMUM_MALFORMED_ROWS:
        return "error"
    place = row.number - 1
    reasons = [WRONG_FIELD_COUNT, NOT_UTF8] if place in not_utf8 else [WRONG_FIELD_COUNT]
    malformed_rows.append(MalformedRow(first + place, reasons, row.text.rstrip("\r")))
    return "skip"


class ParquetReader:
    """Parquet, with whatever types the month happens to have."""

    def __init__(self, file: Any, service: Service, *, label: str) -> None:
        """`file`: from `open_to_stream`, each text once."""
        self._file = file
        self._what = label
        self._schema = file.metadata.schema.to_arrow_schema()
        self.names: Sequence[str] = list(self._schema.names)
        self.types: Sequence[str] = [str(type_) for type_ in self._schema.types]
        self.match = match_columns(service, self.names, label=label)
        if sum(map(_dictionaries, file.schema_arrow.types)) < len(text_columns(file.metadata)):
            raise self._invalid_file_error("it has texts in columns of a type that is not known")

    def batches(self) -> Iterator[RawBatch]:
        """All rows, in the file's types."""
        next_row = 1
        for batch in self._file.iter_batches(batch_size=self._batch_rows(), use_threads=False):
            source_rows = np.arange(next_row, next_row + batch.num_rows, dtype=np.int64)
            next_row += batch.num_rows
            # First at most, which takes no look at the rows.
            if all(
                sum(_text_bytes(column, measure) for column in batch.columns) > _PARQUET_BATCH_BYTES
                for measure in (_at_most, _exactly)
            ):
                rows = f"the texts of data rows {source_rows[0]:,} to {source_rows[-1]:,}"
                raise self._invalid_file_error(f"{rows} take more than {_PARQUET_BATCH_BYTES:,} bytes")
            arrays, bad = _valid(map(_as_published, batch.columns, self._schema.types))
            yield RawBatch(arrays, source_rows, [], frozenset(source_rows[bad].tolist()))

    def _batch_rows(self) -> int:
        """As many as do not take too much where values have a size of their own."""
        columns = map(self._file.metadata.schema.column, range(self._file.metadata.num_columns))
        row_bytes = sum(column.length if column.length > 0 else 8 for column in columns)
        if row_bytes > _PARQUET_BATCH_BYTES:
            raise self._invalid_file_error(f"each row takes more than {_PARQUET_BATCH_BYTES:,} bytes")
        return min(PARQUET_BATCH_ROWS, _PARQUET_BATCH_BYTES // max(row_bytes, 1))

    def _invalid_file_error(self, finding: str) -> InvalidFileError:
        return InvalidFileError(
            f"{self._what}: {finding}.", remedy="That is no trip file: look at what the publisher sent."
        )

    def originals(self, batch: RawBatch, indices: Any) -> Any:
        """The rows as JSON objects, with the published names."""
        # By column, not by row, in a tenth of the time. If two columns have one name, the last one counts.
        positions = {name: position for position, name in enumerate(self.names)}
        pieces: list[Any] = []
        for name, position in positions.items():
            key = f"{', ' if pieces else '{'}{as_json(name)}: "
            pieces += [pa.scalar(key), json_texts(batch.arrays[position].take(indices))]
        return pc.binary_join_element_wise(*pieces, pa.scalar("}"), pa.scalar(""))


def _dictionaries(type_: Any) -> int:
    """How many there are in a type, however deep."""
    if pa.types.is_nested(type_):
        return sum(_dictionaries(type_.field(place).type) for place in range(type_.num_fields))
    return int(pa.types.is_dictionary(type_))


def _text_bytes(array: Any, measure: Callable[[Any], int]) -> int:
    """The bytes that the texts of a column take if each row has its own; `measure` counts those of a dictionary."""
    if pa.types.is_dictionary(array.type):
        return measure(array)
    if pa.types.is_map(array.type):
        return _text_bytes(array.keys, measure) + _text_bytes(array.items, measure)
    if pa.types.is_struct(array.type):
        return sum(_text_bytes(field, measure) for field in array.flatten())
    return _text_bytes(array.flatten(), measure) if pa.types.is_nested(array.type) else 0


def _at_most(texts: Any) -> int:
    return len(texts) * (pc.max(pc.binary_length(texts.dictionary)).as_py() or 0)


def _exactly(texts: Any) -> int:
    lengths = pc.binary_length(texts.dictionary).cast(pa.int64())
    return pc.sum(lengths.take(texts.indices)).as_py() or 0


def _as_published(array: Any, type_: Any) -> Any:
    """A column in the type of its file; texts that repeat stay a dictionary, in which each is read once.

    Texts within lists and structures stay as they are: those are no trip data.
    """
    if not _is_text(type_):
        return array
    repeats = len(array.dictionary) < len(array)
    return array if repeats and pa.types.is_string(array.type.value_type) else array.dictionary_decode().cast(type_)


def _is_text(type_: Any) -> bool:
    kinds = pa.types
    asked = [kinds.is_string, kinds.is_large_string, kinds.is_string_view]
    asked += [kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view]
    return any(is_kind(type_) for is_kind in asked)


def _valid(columns: Iterable[Any]) -> tuple[Sequence[Any], list[int]]:
    """The columns, with bytes that are not UTF-8 escaped, as in a CSV; and the places of rows that had any."""
    published_columns = list(columns)
    try:
        for array in published_columns:
            array.validate(full=True)  # or they would be noticed, or not, wherever they are first looked at
    except pa.ArrowInvalid:
        pass
    else:
        return published_columns, []
    arrays, bad = [], set()
    for column in published_columns:
        array = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            published = array.cast(pa.large_binary()).to_pylist()
            texts = [None if value is None else value.decode("utf-8", "backslashreplace") for value in published]
            bad |= {i for i, text in enumerate(texts) if text is not None and text.encode() != published[i]}
            arrays.append(pa.array(texts, pa.string()))
        else:
            array.validate(full=True)
            arrays.append(array)
    return arrays, sorted(bad)


def _usual_field_count(lines: bytes) -> int:
    counts = Counter(line.count(b",") + 1 for line in lines.splitlines()[:1000] if line)
    return counts.most_common(1)[0][0] if counts else 0


def first_rows(file: BinaryIO, format_: FileFormat, rows: int) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """The column names and the first rows of a published file, as they stand there; for a look, not for work."""
    if format_ is FileFormat.PARQUET:
        with open_to_stream(file) as parquet:
            batch = next(parquet.iter_batches(batch_size=rows, use_threads=False), None)
            arrays = [] if batch is None else _valid(batch.columns)[0]
            return parquet.schema_arrow.names, list(zip(*(map(plain, array) for array in arrays), strict=True))
    with open_bytes(file, format_) as bytes_:
        lines = CsvBlockReader(bytes_, label="the file")
    first = itertools.islice(filter(None, lines.peek().splitlines()), rows)
    fields = [line.decode().split(",") for line in first]
    header = lines.header.split(",")
    width = max([len(header), *map(len, fields)])
    return [*header, *[""] * (width - len(header))], [[*line, *[""] * (width - len(line))] for line in fields]
