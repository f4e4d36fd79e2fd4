"""Write rows to Parquet files that every tool can read, and read such files on demand."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from taxi_assets.errors import AssetDefinitionError
from taxi_assets.tlc.parquet_io import ROW_GROUP_ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from taxi_assets.storage.table_values import Rows

_FORMAT = pyarrow.dataset.ParquetFileFormat()


def write_rows(rows: Rows, path: Path, footer: Mapping[str, str]) -> int:
    """Write rows to a file, in row groups of 131,072 rows. Memory does not grow with the number of rows.

    Args:
        rows: The rows, which are read once.
        path: The file.
        footer: Key-value metadata of the file.

    Returns:
        The number of rows.
    """
    written, buffered = 0, 0
    batches: list[pa.RecordBatch] = []
    # PLAIN and RLE_DICTIONARY encodings, which every engine reads.
    with pyarrow.parquet.ParquetWriter(path, rows.schema, compression="zstd", use_dictionary=True) as writer:
        for batch in rows.batches:
            batches.append(batch)
            buffered += batch.num_rows
            written += batch.num_rows
            if buffered >= ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(batches, rows.schema), ROW_GROUP_ROWS)
                batches, buffered = [], 0
        writer.write_table(pa.Table.from_batches(batches, rows.schema), ROW_GROUP_ROWS)
        writer.add_key_value_metadata(dict(footer))
    return written


def open_files(files: Mapping[str, BinaryIO]) -> Any:
    """Return a dataset of Parquet files that are open for reading. Rows are read only when they are needed.

    Args:
        files: Files by name, in the order of their rows. The dataset closes them. They may differ in columns; a column
            that a file lacks is null. The names appear in errors.

    Returns:
        A `pyarrow.dataset.Dataset`.

    Raises:
        AssetDefinitionError: Files have the same column with types that cannot be combined.
    """
    opened = {name: pa.PythonFile(_SelfClosingFile(file), mode="r") for name, file in files.items()}
    fragments = {name: _FORMAT.make_fragment(file) for name, file in opened.items()}
    schema = _unify({name: fragment.physical_schema for name, fragment in fragments.items()})
    return pyarrow.dataset.FileSystemDataset([*fragments.values()], schema, _FORMAT)


class _SelfClosingFile(io.RawIOBase):
    """A file that is closed with the last dataset that reads it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:  # called by the destructor, too
        self._file.close()
        super().close()


def _unify(schemas: Mapping[str, pa.Schema]) -> pa.Schema:
    unified = pa.schema([])
    for name, schema in schemas.items():
        try:
            unified = _combine([unified, schema.remove_metadata()])
        except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
            different = [
                f"{field.name} ({unified.field(field.name).type}, {field.type})"
                for field in schema
                if field.name in unified.names and unified.field(field.name).type != field.type
            ]
            raise AssetDefinitionError(
                f"{name} cannot be read together with the partitions before it: the type of {', '.join(different)} has "
                "changed.",
                remedy="Materialize the partitions again with one type, or annotate the input as dict[str, …].",
            ) from error
    return unified


def _combine(schemas: Sequence[pa.Schema]) -> pa.Schema:
    # "permissive" widens integers to floats and decimals to more digits. The cast of values fails if one would change.
    return pa.unify_schemas(schemas, promote_options="permissive")
