"""The file `views.duckdb` in the lake: a view over the lake's Parquet for each table.

A query of a view opens Parquet files, not the warehouse. In a folder, these are the files of a snapshot, so all queries
of one session see the same versions. In a bucket, a query reads the current objects. The file of views contains no
rows. It is replaced as a whole, so a reader that keeps it open never makes a run wait.

Belongs here: the statements that create the views. Does not belong here: the tables (`lake_tables.py`).
"""

from __future__ import annotations

import glob
import shutil
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import duckdb
import pyarrow as pa
import pyarrow.parquet
from fsspec.implementations.memory import MemoryFileSystem

from taxi_assets.errors import LakeObjectDamagedError, LakeObjectMissingError
from taxi_assets.marts.mart import marts
from taxi_assets.storage.duckdb_config import NO_EXTENSIONS
from taxi_assets.storage.lake.staging import temporary_folder
from taxi_assets.storage.lake_tables import VIEWS_KEY, VIEWS_SCHEMA, LakeTable, lake_tables
from taxi_assets.storage.warehouse.duckdb.tables import TYPES, literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from taxi_assets.storage.lake.base_lake import Lake

# BI tools contain older versions of DuckDB, which refuse a file in the format of a newer one.
_OLDEST_DUCKDB = "v1.0.0"


def publish_views(lake: Lake, *, run_id: str) -> list[str]:
    """Replace the file of views; return the names of the views.

    A table gets a view if the lake has at least one month of it. The views of a mart, such as `zone_day_ratios`, are
    created, too.

    Args:
        lake: The lake.
        run_id: The Dagster run that writes the file.

    Raises:
        LakeObjectMissingError: The lake has no table yet.
        LakeObjectDamagedError: An object of a table is not a Parquet file, or has a column of another type. The file
            of views is not changed.
        LakeConflictError: Another run has replaced the file meanwhile.
    """
    replaces = lake.version(VIEWS_KEY)
    stored = {table: keys for table in lake_tables() if (keys := table.stored_keys(lake))}
    if not stored:
        raise LakeObjectMissingError(
            f"{lake.uri(VIEWS_KEY)} cannot be written: the lake has no table yet.",
            remedy="Materialize a month of any service first.",
        )
    root = lake.snapshot(key for keys in stored.values() for key in keys)
    # Not created in the lake's folder: DuckDB cannot create a file if its path contains a question mark.
    with temporary_folder() as work, lake.staging() as folder:
        options = {**NO_EXTENSIONS, "storage_compatibility_version": _OLDEST_DUCKDB}
        with closing(duckdb.connect(work / VIEWS_KEY, config=options)) as connection:
            if lake.is_remote:
                connection.register_filesystem(_empty_files(lake, root, stored))
            names = _create_views(connection, root, stored)
        file = Path(shutil.move(work / VIEWS_KEY, folder))
        if not lake.is_remote:
            # A client that wrote to the old file and was killed leaves this log. DuckDB refuses the new file with it.
            lake.delete(f"{VIEWS_KEY}.wal")
        lake.publish(file, VIEWS_KEY, replaces=replaces, run_id=run_id)
    return names


def _create_views(connection: duckdb.DuckDBPyConnection, root: str, tables: Iterable[LakeTable]) -> list[str]:
    names = []
    connection.execute(f"CREATE SCHEMA {VIEWS_SCHEMA}")
    connection.execute(f"USE {VIEWS_SCHEMA}")
    for table in tables:
        _create_view(connection, root, table)
        names.append(table.name)
    for name, query in _mart_views(names).items():
        connection.execute(f"CREATE VIEW {quote(name)} AS {query}")
        names.append(name)
    return names


def _create_view(connection: duckdb.DuckDBPyConnection, root: str, table: LakeTable) -> None:
    # Months may differ in columns that were added later. No part of the path is a Hive partition.
    pattern = f"{glob.escape(root)}/{table.pattern}"
    source = f"read_parquet({literal(pattern)}, union_by_name = true, hive_partitioning = false)"
    try:
        relation = connection.sql(f"FROM {source}")
    except duckdb.InvalidInputException as error:  # which names the file
        raise _damaged_error(table, str(error).removeprefix("Invalid Input Error: ")) from error
    stored = dict(zip(relation.columns, map(str, relation.types), strict=True))
    for column in table.columns:
        if stored.get(column.name, TYPES[column.type]) != TYPES[column.type]:
            types = f"{stored[column.name]} in at least one file; the schema requires {TYPES[column.type]}"
            raise _damaged_error(table, f"Column {column.name} has type {types}.")
    columns = ", ".join(
        quote(column.name) if column.name in stored else f"NULL::{TYPES[column.type]} AS {quote(column.name)}"
        for column in table.columns
    )
    connection.execute(f"CREATE VIEW {quote(table.name)} AS SELECT {columns} FROM {source}")
    connection.execute(f"COMMENT ON VIEW {quote(table.name)} IS {literal(table.description)}")
    for column in table.columns:
        name = f"{quote(table.name)}.{quote(column.name)}"
        connection.execute(f"COMMENT ON COLUMN {name} IS {literal(column.description_with_unit)}")


def _damaged_error(table: LakeTable, reason: str) -> LakeObjectDamagedError:
    return LakeObjectDamagedError(
        f"{VIEWS_KEY} cannot be written: the view {table.name} cannot be created. {reason.removesuffix('.')}.",
        remedy=f"Materialize {table.asset} again{' for this month' if table.is_monthly else ''}, then the views.",
    )


def _mart_views(names: Sequence[str]) -> dict[str, str]:
    """Return the queries of the marts' own views by name, for the marts among `names`."""
    from taxi_assets.marts.sql_rendering import mart_queries, render  # noqa: PLC0415  (0.2 s)

    return {
        # With the schema, because DuckDB before 1.2 does not look for tables in the schema of the view.
        name: render(query, "duckdb", lambda table: f"{quote(VIEWS_SCHEMA)}.{quote(table)}")
        for mart in marts().values()
        if mart.name in names
        for name, query in mart_queries(mart)[1].items()
    }


class _EmptyFiles(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files without rows in memory, under the URIs of a bucket.

    DuckDB opens the files of a view when the view is created. To open a bucket, it would have to download an extension
    and to have credentials of its own.
    """

    protocol = "gs"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("gs:")))


def _empty_files(lake: Lake, root: str, stored: Mapping[LakeTable, Sequence[str]]) -> MemoryFileSystem:
    """Return a file system with an empty Parquet file for each table."""

    class Files(_EmptyFiles):  # of this call only: fsspec keeps the files of a class as long as the process lives
        store: ClassVar[dict[str, object]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

    files = Files(skip_instance_cache=True)
    for table, keys in stored.items():
        with files.open(f"{root}/{keys[-1]}", "wb") as file:
            pyarrow.parquet.write_table(_stored_schema(lake, table, keys).empty_table(), file)
    return files


def _stored_schema(lake: Lake, table: LakeTable, keys: Sequence[str]) -> pa.Schema:
    """Return the columns that the files of a table have.

    A file that was written before a column was added does not have the column. Newer months are opened first, because
    usually one file has all columns.
    """
    found: dict[str, pa.Field] = {}
    for key in reversed(keys):
        with lake.open(key) as file:
            try:
                found |= {field.name: field for field in pyarrow.parquet.read_schema(file)}
            except (pa.ArrowException, OSError, ValueError) as error:  # pyarrow raises any of these
                raise _damaged_error(table, f"{lake.uri(key)} is not a Parquet file.") from error
        if found.keys() >= set(table.schema.names):
            break
    return pa.schema(found.values())
