"""Count the rows of a Parquet file by its footer, and check that reading it is safe."""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from taxi_assets.tlc.sources.content_limits import (
    CHECK_FILE,
    OPEN_IN_BROWSER,
    ExpansionLimiter,
    InvalidContentError,
    NoRowsError,
)

if TYPE_CHECKING:
    from taxi_assets.tlc.sources.content_limits import FileLimits

_MAX_LIST_VALUES = 4_000_000
_MAX_STRING_BYTES = 256 << 20
"""Both limits apply to one Parquet row group. Real ones have no lists, and a few megabytes of strings."""

_REENCODE = "Rewrite it with dictionary or plain encoding for strings, or choose another publisher (TAXI_SOURCE)."


def count_parquet_rows(file: IO[bytes], size: int, limits: FileLimits) -> int:
    """Return the number of rows in the footer of a Parquet file.

    Args:
        file: The file, open for reading and seeking.
        size: Its length in bytes.
        limits: The size and expansion limits.

    Raises:
        InvalidContentError: The file is truncated or damaged, or exceeds a limit.
    """
    file.seek(max(0, size - 8))
    tail = file.read()
    if tail[4:] != b"PAR1":
        raise InvalidContentError("it is a Parquet file without a footer: the file is truncated")
    try:
        footer = pq.read_metadata(file)
    except (pa.ArrowException, OSError, ValueError):
        raise InvalidContentError("it is a Parquet file with a footer that cannot be read") from None
    data_end = size - 8 - int.from_bytes(tail[:4], "little")
    if footer.num_columns == 0:  # any number of rows would use no bytes
        raise InvalidContentError("it is a Parquet file without columns", CHECK_FILE)
    limiter = ExpansionLimiter(limits, size)
    metadata_reader = pq.ParquetFile(_PageGuard(), metadata=footer, pre_buffer=False, buffer_size=1)
    rows = 0
    for index in range(footer.num_row_groups):
        group = footer.row_group(index)
        rows += group.num_rows
        # Dictionary encoding stores a million rows in a few bytes: each value counts as at least one byte.
        limiter.add(max(group.total_byte_size, group.num_rows * group.num_columns))
        if group.num_rows:
            _require_readable_metadata(metadata_reader, index)
            _require_chunks_inside(group, data_end)
            _require_column_sizes(group, footer.schema)
    if rows != footer.num_rows:
        raise InvalidContentError(
            f"its Parquet footer is inconsistent: it declares {footer.num_rows:,} rows, "
            f"but its row groups contain {rows:,}"
        )
    if rows == 0:
        raise NoRowsError("it is a Parquet file without rows", OPEN_IN_BROWSER)
    return rows


def _require_readable_metadata(reader: Any, index: int) -> None:
    """Raise an error if pyarrow finds the column metadata of a row group invalid when it prepares to read it.

    Call this before the row group's `column()`, which aborts the process on invalid metadata. The batch has one row,
    because pyarrow reserves memory for a complete batch.
    """
    try:
        next(reader.iter_batches(batch_size=1, row_groups=[index], use_threads=False), None)
    except _PageGuard.PageRead:
        return
    except (pa.ArrowException, OSError, ValueError) as error:
        finding = " ".join(str(error).split()).rstrip(".")
        raise InvalidContentError(f"its Parquet metadata cannot be read (row group {index + 1}: {finding})") from None


class _PageGuard(io.RawIOBase):
    """A fake file that raises `PageRead` on the first read. By then, pyarrow has accepted the footer."""

    class PageRead(Exception):  # noqa: N818  (the expected outcome, not an error)
        """pyarrow reads a page."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:  # noqa: ARG002
        return 1 << 62

    def tell(self) -> int:
        return 1 << 62

    def read(self, size: int = -1) -> bytes:  # noqa: ARG002
        raise _PageGuard.PageRead


def _require_chunks_inside(group: Any, data_end: int) -> None:
    """Raise an error if a column chunk lies outside the file: footer and data do not match."""
    for index in range(group.num_columns):
        chunk = group.column(index)
        starts = [chunk.data_page_offset]
        # Old writers set an offset of 0 for a missing dictionary.
        if chunk.has_dictionary_page and chunk.dictionary_page_offset:
            starts.append(chunk.dictionary_page_offset)
        if min(starts) < len(b"PAR1") or min(starts) + chunk.total_compressed_size > data_end:
            raise InvalidContentError(f"its Parquet footer points outside the file (column {chunk.path_in_schema})")


def _require_column_sizes(group: Any, schema: Any) -> None:
    """Raise an error if a row group has too many list values or too much text.

    Otherwise a batch of a few rows could exhaust memory.
    """
    string_bytes = 0
    for index in range(group.num_columns):
        chunk, column = group.column(index), schema.column(index)
        if column.max_repetition_level and chunk.num_values > _MAX_LIST_VALUES:
            raise InvalidContentError(
                f"it has more than {_MAX_LIST_VALUES:,} values in lists (column {chunk.path_in_schema})", CHECK_FILE
            )
        if column.physical_type == "BYTE_ARRAY":
            string_bytes += chunk.total_uncompressed_size
            deltas = [encoding for encoding in chunk.encodings if encoding.startswith("DELTA")]
            # Delta encoding can store a megabyte of text in one bit. The reader rejects it too, but without a useful
            # remedy.
            if deltas:
                raise InvalidContentError(
                    f"its strings are encoded as {deltas[0]} (column {chunk.path_in_schema})", _REENCODE
                )
    if string_bytes > _MAX_STRING_BYTES:
        raise InvalidContentError(
            f"it has more than {_MAX_STRING_BYTES:,} bytes of strings in one row group", CHECK_FILE
        )
