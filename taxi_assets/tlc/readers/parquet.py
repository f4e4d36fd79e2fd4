"""The reader of Parquet files of any layout. Batches have the types of the file."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from taxi_assets.errors import InvalidFileError
from taxi_assets.tlc.parquet_io import variable_length_columns
from taxi_assets.tlc.readers.base_reader import Layout, RawBatch
from taxi_assets.tlc.readers.header import match_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service


PARQUET_BATCH_ROWS = 65_536
"""The maximum number of rows per batch."""

# The maximum size of a batch's texts, and of its values of fixed size. Real batches use about 1% of it.
_PARQUET_BATCH_BYTES = 64 << 20


class ParquetReader:
    """A reader of Parquet files that keeps the file's types. Types differ from month to month.

    Args:
        file: A file from `open_parquet_stream`, with text as dictionaries.
        service: The service whose columns the file should have.
        label: Names the file in errors, such as "green 2020-10".
        month: The month of the file, which decides which columns it must have.
        rows: The number of rows of the parts before this file, if it is part of an archive.

    Raises:
        ColumnMismatchError: The columns are not those of the service.
        InvalidFileError: A text column has an unsupported type.
    """

    def __init__(self, file: Any, service: Service, *, label: str, month: Month, rows: int = 0) -> None:
        self._file = file
        self._label = label
        self._rows = rows
        self._schema = file.metadata.schema.to_arrow_schema()
        names = list(self._schema.names)
        match = match_columns(service, names, label=label, month=month)
        self.layout = Layout(names, [str(type_) for type_ in self._schema.types], match)
        if sum(map(_count_dictionaries, file.schema_arrow.types)) < len(variable_length_columns(file.metadata)):
            raise self._invalid_file_error("it has text in columns of an unsupported type")

    def batches(self) -> Iterator[RawBatch]:
        """Yield all rows, in file order.

        Raises:
            InvalidFileError: Rows use more memory than rows of real trip files.
        """
        next_row = self._rows + 1
        for batch in self._file.iter_batches(batch_size=self._batch_rows(), use_threads=False):
            source_rows = np.arange(next_row, next_row + batch.num_rows, dtype=np.int64)
            next_row += batch.num_rows
            # The upper bound is fast, because it does not depend on the rows.
            if all(
                sum(_text_bytes(column, measure) for column in batch.columns) > _PARQUET_BATCH_BYTES
                for measure in (_max_text_bytes, _exact_text_bytes)
            ):
                rows = f"the texts of data rows {source_rows[0]:,} to {source_rows[-1]:,}"
                raise self._invalid_file_error(f"{rows} use more than {_PARQUET_BATCH_BYTES:,} bytes")
            columns = list(map(_as_published, batch.columns, self._schema.types))
            for position in chain.from_iterable(self.layout.match.positions.values()):
                columns[position] = _binary_as_text(columns[position])
            arrays, bad = escape_invalid_utf8(columns)
            yield RawBatch(self.layout, arrays, source_rows, [], frozenset(source_rows[bad].tolist()))

    def _batch_rows(self) -> int:
        """Return the number of rows per batch that keeps values of fixed size within the limit."""
        columns = map(self._file.metadata.schema.column, range(self._file.metadata.num_columns))
        row_bytes = sum(column.length if column.length > 0 else 8 for column in columns)
        if row_bytes > _PARQUET_BATCH_BYTES:
            raise self._invalid_file_error(f"each row uses more than {_PARQUET_BATCH_BYTES:,} bytes")
        return min(PARQUET_BATCH_ROWS, _PARQUET_BATCH_BYTES // max(row_bytes, 1))

    def _invalid_file_error(self, problem: str) -> InvalidFileError:
        return InvalidFileError(
            f"{self._label}: {problem}.", remedy="Check the file that the publisher sent: it is not a trip file."
        )


def _count_dictionaries(type_: Any) -> int:
    """Return the number of dictionary types within a type, at any depth."""
    if pa.types.is_nested(type_):
        return sum(_count_dictionaries(type_.field(index).type) for index in range(type_.num_fields))
    return int(pa.types.is_dictionary(type_))


def _text_bytes(array: Any, measure: Callable[[Any], int]) -> int:
    """Return the bytes of a column's texts as if each row stored its own copy; `measure` sizes a dictionary array."""
    if pa.types.is_dictionary(array.type):
        return measure(array)
    if pa.types.is_map(array.type):
        return _text_bytes(array.keys, measure) + _text_bytes(array.items, measure)
    if pa.types.is_struct(array.type):
        return sum(_text_bytes(field, measure) for field in array.flatten())
    return _text_bytes(array.flatten(), measure) if pa.types.is_nested(array.type) else 0


def _max_text_bytes(texts: Any) -> int:
    return len(texts) * (pc.max(pc.binary_length(texts.dictionary)).as_py() or 0)


def _exact_text_bytes(texts: Any) -> int:
    lengths = pc.binary_length(texts.dictionary).cast(pa.int64())
    return pc.sum(lengths.take(texts.indices)).as_py() or 0


def _as_published(array: Any, type_: Any) -> Any:
    """Return a column in its published type. Repeated texts stay dictionary-encoded, and views become plain arrays.

    Each distinct text is then parsed once. pyarrow has no function to select rows of a view. Texts within lists and
    structs are left as they are: trip columns are never nested.
    """
    if not _is_text(type_):
        return array
    if pa.types.is_string_view(type_) or pa.types.is_binary_view(type_):
        type_ = pa.string() if pa.types.is_string_view(type_) else pa.binary()
    repeats = len(array.dictionary) < len(array)
    return array if repeats and pa.types.is_string(array.type.value_type) else array.dictionary_decode().cast(type_)


def _binary_as_text(array: Any) -> Any:
    """Return a column of bytes as text, which some tools write without marking it as text. It may be invalid UTF-8."""
    types = pa.types
    if types.is_fixed_size_binary(array.type):
        array = array.cast(pa.binary())
    is_bytes = types.is_binary(array.type) or types.is_large_binary(array.type)
    return array.cast(pa.string(), safe=False) if is_bytes else array


def _is_text(type_: Any) -> bool:
    kinds = pa.types
    tests = [kinds.is_string, kinds.is_large_string, kinds.is_string_view]
    tests += [kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view]
    return any(is_kind(type_) for is_kind in tests)


def escape_invalid_utf8(columns: Iterable[Any]) -> tuple[Sequence[Any], list[int]]:
    """Escape bytes that are not UTF-8 in text columns, as the CSV reader does.

    Args:
        columns: The Arrow arrays of a batch.

    Returns:
        The columns, and the sorted indices of rows that had such bytes.
    """
    published_columns = list(columns)
    try:
        for array in published_columns:
            # Otherwise invalid bytes raise an error, or go unnoticed, at a later read.
            array.validate(full=True)
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
