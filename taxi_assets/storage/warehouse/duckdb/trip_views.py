"""Trips as views over Parquet files, instead of tables: a load copies no rows.

A month is one file in a folder next to the database: a hard link to the clean Parquet file in the lake, or a copy if
the lake is in a bucket or on another file system. The file never changes, whatever happens to the object in the lake.
The view lists the files of all loaded months. One transaction replaces the view and writes the ledger, so a month is
replaced as a whole, as in a table.

Belongs here: the files of a service, and the view over them. Does not belong here: the ledger (`load_ledger.py`), and
the order of the steps of a load (`__init__.py`).
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote as quote_for_path

import dagster as dg

from taxi_assets.errors import WarehouseConfigurationError, WarehouseSchemaError
from taxi_assets.storage.lake.staging import flush_to_disk, private_folder
from taxi_assets.storage.warehouse.base_warehouse import column_type_error
from taxi_assets.storage.warehouse.duckdb.tables import TYPES, Table, literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import duckdb

    from taxi_assets.storage.warehouse.duckdb.load_ledger import LoadLedger
    from taxi_assets.storage.warehouse.duckdb.tables import Schema
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service


def trips_folder(database: str, schema_name: str, service: Service) -> Path:
    """Return the folder of a service's files, such as `warehouse.duckdb.trips/taxi.green_trips`."""
    # DuckDB ignores the case of a schema's name.
    name = f"{quote_for_path(schema_name.lower(), safe='')}.{service.table}"
    return Path(f"{os.path.realpath(database)}.trips", name)


@contextmanager
def staged_file(folder: Path, source: Path) -> Iterator[Path]:
    """Create a hard link to a local file, or a copy of it, in a private subfolder.

    The subfolder is deleted when the context ends. If the process is killed, the next call deletes it.

    Raises:
        WarehouseConfigurationError: The folder cannot be written to, or its disk is full.
    """
    staging = folder / ".staging"
    try:
        with ExitStack() as stack:
            try:
                file = stack.enter_context(private_folder(staging)) / source.name
                _link_or_copy(source, file)
            except OSError as error:
                raise WarehouseConfigurationError(
                    f"{folder} cannot be written to ({error.strerror}). Its contents are unchanged.",
                    remedy="Free disk space or allow this account to write to it, then run the month again.",
                ) from error
            yield file
    finally:
        for empty in (staging, folder, folder.parent):
            with suppress(OSError):  # it is in use
                empty.rmdir()


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def file_name(month: Month, file: Path) -> str:
    """Return the name of a month's file. Files with other bytes have other names."""
    with file.open("rb") as content:
        return f"{month}-{hashlib.file_digest(content, 'sha256').hexdigest()[:16]}.parquet"


def parquet_source(*files: Path) -> str:
    """Return the table function that reads the rows of Parquet files.

    Each path names one file, and no part of it is a Hive partition. A column that a file does not have is null.
    """
    names = ", ".join(literal(glob.escape(str(file))) for file in files)
    return f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)"


def read_file(connection: duckdb.DuckDBPyConnection, file: Path, service: Service, uri: str) -> Table:
    """Return a file as a table.

    Args:
        connection: Any connection of DuckDB.
        file: The file.
        service: The service whose columns the file has.
        uri: The name of the file in error messages.

    Raises:
        WarehouseSchemaError: A column does not have the type of the schema.
    """
    source = parquet_source(file)
    types = {name: (type_, None) for name, type_, *_ in connection.execute(f"DESCRIBE FROM {source}").fetchall()}
    for column in service.columns:
        found = types.get(column.name, (TYPES[column.type], None))[0]
        if found != TYPES[column.type]:
            raise WarehouseSchemaError(
                f"Column {column.name} of {uri} has type {found}; the schema requires {TYPES[column.type]}.",
                remedy="Materialize the clean asset of this month again, then its warehouse asset.",
            )
    return Table(connection, source, types)


@dataclass(frozen=True)
class TripView:
    """The view of a service's trips. Its methods run in the caller's transaction, while no other process can write."""

    schema: Schema
    ledger: LoadLedger
    service: Service
    folder: Path
    """The folder of the files."""
    qualified_name: str
    """The name of the view in error messages."""

    def replace_month(self, month: Month, staged: Path) -> str:
        """Move a month's file to the folder, and recreate the view over the files of all months.

        Months whose files are missing no longer count as loaded.

        Args:
            month: The month.
            staged: The finished file, in a private folder.

        Returns:
            The name of the file.

        Raises:
            WarehouseConfigurationError: There is a table, or another view, with the name of the view.
            WarehouseSchemaError: A column of the view does not have the type of the schema.
        """
        existing = self.schema.table(self.service.table).columns
        self._require_own_view(exists=bool(existing))
        if not existing:
            self.ledger.forget_all(self.service)
        for column in self.service.columns:
            found = existing.get(column.name, (TYPES[column.type], None))[0]
            if found != TYPES[column.type]:
                raise column_type_error(self.qualified_name, column.name, found, TYPES[column.type])
        name = file_name(month, staged)
        _move(staged, self.folder / name)
        self._create([*self._files_of_other_months(month), self.folder / name])
        return name

    def delete_old_files(self, month: Month, *listed: str | None) -> None:
        """Delete the month's files except `listed`, such as those of killed processes."""
        for file in self.folder.glob(f"{month}-*.parquet"):
            if file.name not in listed:
                file.unlink(missing_ok=True)

    def _require_own_view(self, *, exists: bool) -> None:
        is_view = self.schema.is_view(self.service.table)
        if exists and not (is_view and self.ledger.files(self.service)):
            raise WarehouseConfigurationError(
                f"{self.qualified_name} is {'a view that the platform has not created' if is_view else 'a table'}, "
                "but TAXI_WAREHOUSE ends with trips=views.",
                remedy="Rename or drop it, then load its months again; or remove trips=views from TAXI_WAREHOUSE.",
            )

    def _files_of_other_months(self, month: Month) -> list[Path]:
        files = []
        for other, name in self.ledger.files(self.service).items():
            if other == month.start:
                continue
            if (self.folder / name).exists():
                files.append(self.folder / name)
            else:
                dg.get_dagster_logger().warning(
                    "%s is missing. %s no longer contains %s: load that month again.",
                    self.folder / name,
                    self.qualified_name,
                    f"{other:%Y-%m}",
                )
                self.ledger.forget(self.service, other)
        return files

    def _create(self, files: Iterable[Path]) -> None:
        """Create the view with the columns of the schema, and those that it had before."""
        connection, name = self.schema.connection, self.schema.table_name(self.service.table)
        source = parquet_source(*sorted(files))
        found = {column for column, *_ in connection.execute(f"DESCRIBE FROM {source}").fetchall()}
        types = {column.name: TYPES[column.type] for column in self.service.columns}
        comments = {column.name: column.description_with_unit for column in self.service.columns}
        for column, (type_, comment) in self.schema.table(self.service.table).columns.items():
            types.setdefault(column, type_)
            comments.setdefault(column, comment or "")
        columns = ", ".join(
            quote(column) if column in found else f"NULL::{type_} AS {quote(column)}" for column, type_ in types.items()
        )
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {columns} FROM {source}")
        connection.execute(f"COMMENT ON VIEW {name} IS {literal(f'{self.service.title}: clean trips.')}")
        for column, comment in comments.items():
            connection.execute(f"COMMENT ON COLUMN {name}.{quote(column)} IS {literal(comment)}")


def require_table(schema: Schema, service: Service, qualified_name: str) -> None:
    """Raise an error if the trips are a view, as another deployment has created them."""
    if schema.is_view(service.table):
        raise WarehouseConfigurationError(
            f"{qualified_name} is a view, but TAXI_WAREHOUSE does not end with trips=views.",
            remedy="Add trips=views to TAXI_WAREHOUSE; or drop the view, then load its months again.",
        )


def _move(file: Path, target: Path) -> None:
    """Rename a file durably: the database must not refer to a file that is lost with the power."""
    flush_to_disk(file)
    file.replace(target)
    for folder in target.parents[:3]:  # the first load has created two of them
        flush_to_disk(folder)
