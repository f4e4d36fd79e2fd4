"""Replace and read rows of a table in a DuckDB file.

Belongs here: the statements within the transaction. Does not belong here: the transaction itself (`__init__.py`).
"""

from __future__ import annotations

import datetime as dt
import glob
import itertools
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from taxi_assets.storage.lake.staging import temporary_folder
from taxi_assets.storage.table_values import storable_type
from taxi_assets.storage.warehouse.duckdb.tables import literal, quote
from taxi_assets.storage.warehouse.table_output import STORED_PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taxi_assets.storage.partition_rows import Condition
    from taxi_assets.storage.warehouse.duckdb.tables import Schema
    from taxi_assets.storage.warehouse.table_output import TableOutput

_READ_ROWS = 65_536
_MAX_MEMORY_BYTES = 64 << 20
"""A larger result is copied to a temporary file."""


def replace_rows(schema: Schema, output: TableOutput, qualified_name: str) -> None:
    """Replace a table, or partitions of it, and update the ledger, within the caller's transaction.

    Args:
        schema: The schema that contains the table.
        output: The new rows.
        qualified_name: The name of the table in error messages.
    """
    connection = schema.connection
    schema.create()
    ledger = schema.table_name(STORED_PARTITIONS)
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {ledger} (table_name VARCHAR, asset VARCHAR, partition_key VARCHAR, "
        "run_id VARCHAR, stored_at TIMESTAMP, has_table BOOLEAN)"
    )
    existing = table_schema(schema, output.table)
    if existing is None:  # it has been dropped, with its partitions
        connection.execute(f"DELETE FROM {ledger} WHERE table_name = ? AND has_table", [output.table])
    entries = connection.execute(f"SELECT asset, partition_key FROM {ledger} WHERE table_name = ?", [output.table])
    output.require_owned(entries.fetchall(), existing is not None, qualified_name)
    wanted = output.table_columns(existing)
    new_columns = wanted if existing is None else output.new_columns(existing, qualified_name)
    table = schema.table_name(output.table)
    if output.partitions is None:
        connection.execute(f"CREATE OR REPLACE TABLE {table} ({_definitions(wanted)})")
    elif existing is None and new_columns.names:
        connection.execute(f"CREATE TABLE {table} ({_definitions(new_columns)})")
    else:
        for field in new_columns:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {_definitions([field])}")
    for partition in output.partitions or ():
        if existing is not None and set(partition.columns) <= set(existing.names):
            where, values = render_conditions(partition.conditions(existing))
            connection.execute(f"DELETE FROM {table} WHERE {where}", values)
    if output.rows:
        # The path names one file: no glob pattern, and `a=b` in it is not a Hive partition.
        connection.execute(
            f"INSERT INTO {table} BY NAME SELECT * FROM read_parquet(?, hive_partitioning = false)",
            [glob.escape(str(output.file))],
        )
    found = table_schema(schema, output.table)
    for column, description in output.descriptions.items():
        if found is not None and column in found.names:
            connection.execute(f"COMMENT ON COLUMN {table}.{quote(column)} IS {literal(description)}")
    _record(connection, ledger, output, has_table=found is not None)


def _record(connection: Any, ledger: str, output: TableOutput, *, has_table: bool) -> None:
    if output.partitions is None:  # partitions that the table had before are gone
        connection.execute(f"DELETE FROM {ledger} WHERE table_name = ?", [output.table])
    for key in output.keys:
        connection.execute(f"DELETE FROM {ledger} WHERE table_name = ? AND partition_key = ?", [output.table, key])
        connection.execute(
            f"INSERT INTO {ledger} VALUES (?, ?, ?, ?, ?, ?)",
            [output.table, output.asset, key, output.run_id, dt.datetime.now(dt.UTC).replace(tzinfo=None), has_table],
        )


def table_schema(schema: Schema, name: str) -> pa.Schema | None:
    """Return the columns of a table or view with their Arrow types; None if it does not exist."""
    table = schema.table(name)
    if not table.columns:
        return None
    found = schema.connection.sql(f"SELECT * FROM {table.name} LIMIT 0").to_arrow_table().schema
    return pa.schema([pa.field(field.name, _arrow_type(field.type)) for field in found])


def render_conditions(conditions: Sequence[Condition]) -> tuple[str, list[Any]]:
    """Return a condition of SQL with parameters, and the values of the parameters."""
    texts = [f"{quote(condition.column)} {condition.operator} ?" for condition in conditions]
    return " AND ".join(texts) or "true", [condition.value for condition in conditions]


def read_rows(
    schema: Schema,
    name: str,
    columns: Sequence[str],
    conditions: Sequence[Condition],
    order_by: Sequence[str],
    limit: int | None,
) -> pa.RecordBatchReader:
    """Return a reader of a copy of the query's rows, so that the database file can be closed while they are read.

    The copy is in memory, or in a temporary file if it is large. The file is deleted with the reader.
    """
    where, values = render_conditions(conditions)
    order = f" ORDER BY {', '.join(map(quote, order_by))}" if order_by else ""
    query = f"SELECT {', '.join(map(quote, columns))} FROM {schema.table_name(name)} WHERE {where}{order} LIMIT ?"
    rows = schema.connection.sql(query, params=[*values, limit]).to_arrow_reader(_READ_ROWS)
    kept, kept_bytes = [], 0
    for batch in rows:
        kept.append(batch)
        kept_bytes += batch.nbytes
        if kept_bytes > _MAX_MEMORY_BYTES:
            return _copy_to_file(rows.schema, itertools.chain(kept, rows))
    return pa.RecordBatchReader.from_batches(rows.schema, kept)


def _copy_to_file(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.RecordBatchReader:
    with temporary_folder() as folder:  # deleted at the end; the reader keeps the file open
        file = str(folder / "rows.arrow")
        with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return pa.ipc.open_stream(pa.memory_map(file))


def _definitions(fields: Any) -> str:
    return ", ".join(f"{quote(field.name)} {_sql_type(field.type)}" for field in fields)


def _arrow_type(type_: pa.DataType) -> pa.DataType:
    is_zoned = pa.types.is_timestamp(type_) and type_.tz is not None
    return pa.timestamp("us", "UTC") if is_zoned else storable_type(type_)


def _sql_type(type_: pa.DataType) -> str:
    if pa.types.is_decimal(type_):
        return f"DECIMAL({type_.precision},{type_.scale})"
    if pa.types.is_timestamp(type_):
        return "TIMESTAMP" if type_.tz is None else "TIMESTAMP WITH TIME ZONE"
    return {
        pa.int64(): "BIGINT",
        pa.float64(): "DOUBLE",
        pa.string(): "VARCHAR",
        pa.bool_(): "BOOLEAN",
        pa.date32(): "DATE",
    }[type_]
