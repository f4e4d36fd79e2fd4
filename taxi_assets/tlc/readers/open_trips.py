"""Open a published file with the reader of its format."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from taxi_assets.tlc.file_format import FileFormat
from taxi_assets.tlc.parquet_io import open_parquet_stream
from taxi_assets.tlc.readers.csv import CsvReader
from taxi_assets.tlc.readers.csv_blocks import CsvBlockReader, open_bytes
from taxi_assets.tlc.readers.json_text import to_json_value
from taxi_assets.tlc.readers.parquet import ParquetReader, escape_invalid_utf8

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.readers.base_reader import TripReader
    from taxi_assets.tlc.schema import Service


@contextmanager
def open_trips(path: Path, format_: FileFormat, service: Service, *, label: str, month: Month) -> Iterator[TripReader]:
    """Open a published file of a service for reading.

    Args:
        path: The file.
        format_: Its format, which decides the reader.
        service: The service whose trips the file should contain.
        label: Names the file in errors, such as "green 2020-10".
        month: The month of the file, which decides which columns it must have.

    Raises:
        ColumnMismatchError: The columns are not those of the service.
        InvalidFileError: The header is too long, or a Parquet file has an unsupported text type.
    """
    if format_ is FileFormat.PARQUET:
        with open_parquet_stream(path, text_as_dictionary=True) as file:
            yield ParquetReader(file, service, label=label, month=month)
        return
    with open_bytes(path, format_) as bytes_:
        yield CsvReader(CsvBlockReader(bytes_, label=label), service, label=label, month=month)


class FirstRows(NamedTuple):
    """The columns and the first rows of a published file, as published."""

    names: Sequence[str]
    """The column names; "" for fields that the header does not name."""
    types: Sequence[str]
    """The type of each column, as text."""
    rows: Sequence[Sequence[Any]]
    """One sequence of values per row."""


def first_rows(file: BinaryIO, format_: FileFormat, rows: int) -> FirstRows:
    """Return the columns and the first rows of a published file, as published, for a preview.

    Args:
        file: The file, open for reading bytes.
        format_: Its format.
        rows: The maximum number of rows.
    """
    if format_ is FileFormat.PARQUET:
        with open_parquet_stream(file) as parquet:
            batch = next(parquet.iter_batches(batch_size=rows, use_threads=False), None)
            arrays = [] if batch is None else escape_invalid_utf8(batch.columns)[0]
            values = list(zip(*(map(to_json_value, array) for array in arrays), strict=True))
            schema = parquet.schema_arrow
            return FirstRows(schema.names, [str(type_) for type_ in schema.types], values)
    with open_bytes(file, format_) as bytes_:
        lines = CsvBlockReader(bytes_, label="the file")
    first = itertools.islice(filter(None, lines.peek().splitlines()), rows)
    fields = [line.decode().split(",") for line in first]
    header = lines.header.split(",")
    width = max([len(header), *map(len, fields)])
    names = [*header, *[""] * (width - len(header))]
    return FirstRows(names, ["text"] * width, [[*line, *[""] * (width - len(line))] for line in fields])
