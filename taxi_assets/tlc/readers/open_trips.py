"""Open a published file with the reader of its format."""

from __future__ import annotations

import csv
import io
import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple
from zipfile import ZipFile

from taxi_assets.tlc.archive_parts import list_parts, open_part
from taxi_assets.tlc.file_format import CsvDialect, FileFormat
from taxi_assets.tlc.parquet_io import open_parquet_stream
from taxi_assets.tlc.readers.csv import CsvReader
from taxi_assets.tlc.readers.csv_blocks import CsvBlockReader, open_bytes
from taxi_assets.tlc.readers.json_text import to_json_value
from taxi_assets.tlc.readers.parquet import ParquetReader, escape_invalid_utf8
from taxi_assets.tlc.readers.quoted_fields import split_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.readers.base_reader import RawBatch, TripReader
    from taxi_assets.tlc.schema import Service


@contextmanager
def open_trips(
    file: Path | BinaryIO, format_: FileFormat, service: Service, *, label: str, month: Month, rows: int = 0
) -> Iterator[TripReader]:
    """Open a published file of a service for reading.

    Args:
        file: A path, or a file that is open for reading and seeking bytes.
        format_: Its format, which decides the reader.
        service: The service whose trips the file should contain.
        label: Names the file in errors, such as "green 2020-10".
        month: The month of the file, which decides which columns it must have.
        rows: The number of rows of the parts before this one, if the file is part of an archive.

    Raises:
        ColumnMismatchError: The columns are not those of the service.
        InvalidFileError: The header is too long, or a Parquet file has an unsupported text type.
    """
    if format_ is FileFormat.ZIP:
        with ZipFile(file) as archive:
            yield ArchiveReader(archive, service, label=label, month=month)
    elif format_ is FileFormat.PARQUET:
        with open_parquet_stream(file, text_as_dictionary=True) as parquet:
            yield ParquetReader(parquet, service, label=label, month=month, rows=rows)
    else:
        dialect = service.dialect
        with open_bytes(file, format_, dialect.encoding) as bytes_:
            blocks = CsvBlockReader(bytes_, label=label, quoting=dialect.quoting, rows=rows)
            yield CsvReader(blocks, service, label=label, month=month)


class ArchiveReader:
    """A reader of zip archives. Each part is read by its own header or footer, in the order of the names.

    Args:
        archive: The archive.
        service: The service whose trips the parts should contain.
        label: Names the archive in errors, such as "green 2020-10".
        month: The month of the archive, which decides which columns each part must have.
    """

    def __init__(self, archive: ZipFile, service: Service, *, label: str, month: Month) -> None:
        self._archive = archive
        self._service = service
        self._label = label
        self._month = month

    def batches(self) -> Iterator[RawBatch]:
        """Yield the rows of all parts.

        Raises:
            ColumnMismatchError: The columns of a part are not those of the service.
            InvalidFileError: A part cannot be read.
        """
        rows = 0
        for part in list_parts(self._archive):
            label = f"{self._label}: {part.name}"
            with (
                open_part(self._archive, part) as file,
                open_trips(file, part.format, self._service, label=label, month=self._month, rows=rows) as reader,
            ):
                for batch in reader.batches():
                    rows += len(batch.source_rows) + len(batch.malformed_rows)
                    yield batch


class FirstRows(NamedTuple):
    """The columns and the first rows of a published file, as published."""

    names: Sequence[str]
    """The column names; "" for fields that the header does not name."""
    types: Sequence[str]
    """The type of each column, as text."""
    rows: Sequence[Sequence[Any]]
    """One sequence of values per row."""


def first_rows(file: BinaryIO, format_: FileFormat, rows: int, dialect: CsvDialect) -> FirstRows:
    """Return the columns and the first rows of a published file, as published, for a preview.

    Args:
        file: The file, open for reading bytes. Of an archive, the first part is read.
        format_: Its format.
        rows: The maximum number of rows.
        dialect: How its CSV text is written.
    """
    if format_ is FileFormat.ZIP:
        with ZipFile(file) as archive:
            part = list_parts(archive)[0]
            with open_part(archive, part) as member:
                return first_rows(member, part.format, rows, dialect)
    if format_ is FileFormat.PARQUET:
        with open_parquet_stream(file) as parquet:
            batch = next(parquet.iter_batches(batch_size=rows, use_threads=False), None)
            arrays = [] if batch is None else escape_invalid_utf8(batch.columns)[0]
            values = list(zip(*(map(to_json_value, array) for array in arrays), strict=True))
            schema = parquet.schema_arrow
            return FirstRows(schema.names, [str(type_) for type_ in schema.types], values)
    with open_bytes(file, format_, dialect.encoding) as bytes_:
        blocks = CsvBlockReader(bytes_, label="the file", quoting=dialect.quoting)
        following = blocks.peek()
    quoted = csv.reader(io.StringIO(following.decode(), newline=""), delimiter=dialect.delimiter)
    lines = (split_fields(line.decode(), dialect.delimiter) for line in following.splitlines() if line)
    records = filter(None, quoted) if dialect.quoting else lines
    fields = list(itertools.islice(records, rows))
    header = split_fields(blocks.header, dialect.delimiter)
    width = max([len(header), *map(len, fields)])
    names = [*header, *[""] * (width - len(header))]
    return FirstRows(names, ["text"] * width, [[*line, *[""] * (width - len(line))] for line in fields])
