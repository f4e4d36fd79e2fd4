"""Write rows to Parquet files that every tool can read, and read such files on demand."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from taxi_assets.errors import AssetDefinitionError
from taxi_assets.tlc.parquet_io import ROW_GROUP_ROWS, read_footer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import BinaryIO

    from taxi_assets.storage.table_values import Rows

ASSET = "taxi_assets.asset"
"""The key of the footer's metadata that names the asset of a file."""

_FORMAT = pyarrow.dataset.ParquetFileFormat()
_ROW_GROUP_BYTES = 64 << 20
_DECIMAL_DIGITS = 38


def write_rows(rows: Rows, path: Path, footer: Mapping[str, str]) -> int:
    """Write rows to a file, in row groups of 131,072 rows, or fewer if these take 64 MiB of memory.

    Args:
        rows: The rows, which are read once.
        path: The file.
        footer: Key-value metadata of the file.

    Returns:
        The number of rows.
    """
    written, buffered, buffered_bytes = 0, 0, 0
    batches: list[pa.RecordBatch] = []
    # PLAIN and RLE_DICTIONARY encodings, which every engine reads.
    with pyarrow.parquet.ParquetWriter(path, rows.schema, compression="zstd", use_dictionary=True) as writer:
        for batch in rows.batches:
            batches.append(batch)
            buffered += batch.num_rows
            buffered_bytes += batch.nbytes
            written += batch.num_rows
            if buffered >= ROW_GROUP_ROWS or buffered_bytes >= _ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(batches, rows.schema), ROW_GROUP_ROWS)
                batches, buffered, buffered_bytes = [], 0, 0
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
    opened = {name: pa.PythonFile(SelfClosingFile(file), mode="r") for name, file in files.items()}
    fragments = {name: _FORMAT.make_fragment(file) for name, file in opened.items()}
    schema = unify_schemas({name: fragment.physical_schema for name, fragment in fragments.items()})
    return pyarrow.dataset.FileSystemDataset([*fragments.values()], schema, _FORMAT)


class SelfClosingFile(io.RawIOBase):
    """A file that is closed with the last dataset that reads it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        """Return true: bytes can be read at any position."""
        return True

    seekable = readable

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file. The destructor calls this method, too."""
        self._file.close()
        super().close()


def read_owner(file: BinaryIO) -> str | None:
    """Return the asset that `lake_parquet` has stored in a file; "" if there is none, None if the file is damaged."""
    footer = read_footer(file)
    return None if footer is None else (footer.metadata or {}).get(ASSET.encode(), b"").decode()


def unify_schemas(schemas: Mapping[str, pa.Schema]) -> pa.Schema:
    """Return all columns of some files, each with the type that contains the values of all files unchanged.

    Args:
        schemas: The columns by the name of the file, which appears in errors.

    Raises:
        AssetDefinitionError: Files have the same column with types that cannot be combined.
    """
    unified: dict[str, pa.DataType] = {}
    for name, schema in schemas.items():
        for field in schema:
            type_ = _common_type(unified.get(field.name, field.type), field.type)
            if type_ is None:
                raise AssetDefinitionError(
                    f"{name} cannot be read together with the partitions before it: the column {field.name} has type "
                    f"{field.type} in it, and {unified[field.name]} in them.",
                    remedy="Materialize the partitions again with one type, or annotate the input as dict[str, …].",
                )
            unified[field.name] = type_
    return pa.schema(unified.items())


def _common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Return the type that contains every value of two types unchanged; None if there is none."""
    types = pa.types
    if first == second or types.is_null(second):
        return first
    if types.is_null(first):
        return second
    if types.is_signed_integer(first) and types.is_signed_integer(second):
        return max(first, second, key=lambda type_: type_.bit_width)
    if types.is_decimal128(first) and types.is_decimal128(second):
        scale = max(first.scale, second.scale)
        digits = max(first.precision - first.scale, second.precision - second.scale) + scale
        return pa.decimal128(digits, scale) if digits <= _DECIMAL_DIGITS else None
    if {first, second} == {pa.float32(), pa.float64()}:
        return pa.float64()
    return None
