"""Read Parquet files of any layout, in the types of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from taxi_assets.errors import InvalidFileError
from taxi_assets.tlc.parquet_io import text_columns
from taxi_assets.tlc.readers.base_reader import RawBatch
from taxi_assets.tlc.readers.header import match_columns
from taxi_assets.tlc.readers.json_text import encode_json, json_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from taxi_assets.tlc.schema import Service


PARQUET_BATCH_ROWS = 65_536
# And the most that their texts take, or their values of a fixed size; real ones take a hundredth.
_PARQUET_BATCH_BYTES = 64 << 20


class ParquetReader:
    """Parquet, with whatever types the month happens to have."""

    def __init__(self, file: Any, service: Service, *, label: str) -> None:
        """`file`: from `open_parquet_stream`, each text once."""
        self._file = file
        self._what = label
        self._schema = file.metadata.schema.to_arrow_schema()
        self.names: Sequence[str] = list(self._schema.names)
        self.types: Sequence[str] = [str(type_) for type_ in self._schema.types]
        self.match = match_columns(service, self.names, label=label)
        if sum(map(_count_dictionaries, file.schema_arrow.types)) < len(text_columns(file.metadata)):
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
                for measure in (_upper_bound, _exact_size)
            ):
                rows = f"the texts of data rows {source_rows[0]:,} to {source_rows[-1]:,}"
                raise self._invalid_file_error(f"{rows} take more than {_PARQUET_BATCH_BYTES:,} bytes")
            arrays, bad = escape_invalid_utf8(map(_as_published, batch.columns, self._schema.types))
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

    def original_texts(self, batch: RawBatch, indices: Any) -> Any:
        """The rows as JSON objects, with the published names."""
        # By column, not by row, in a tenth of the time. If two columns have one name, the last one counts.
        positions = {name: position for position, name in enumerate(self.names)}
        chunks: list[Any] = []
        for name, position in positions.items():
            key = f"{', ' if chunks else '{'}{encode_json(name)}: "
            chunks += [pa.scalar(key), json_texts(batch.arrays[position].take(indices))]
        return pc.binary_join_element_wise(*chunks, pa.scalar("}"), pa.scalar(""))


def _count_dictionaries(type_: Any) -> int:
    """How many there are in a type, however deep."""
    if pa.types.is_nested(type_):
        return sum(_count_dictionaries(type_.field(place).type) for place in range(type_.num_fields))
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


def _upper_bound(texts: Any) -> int:
    return len(texts) * (pc.max(pc.binary_length(texts.dictionary)).as_py() or 0)


def _exact_size(texts: Any) -> int:
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


def escape_invalid_utf8(columns: Iterable[Any]) -> tuple[Sequence[Any], list[int]]:
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
