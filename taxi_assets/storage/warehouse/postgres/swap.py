"""How a month gets into a table of trips on a Postgres server: built beside the old one, then swapped in.

Belongs here: one month's table, from its making to its place among the others. It is built under the name `…_staged`,
where no reader meets it; what a killed load left under such a name is dropped by the next load of the same table.

A reader whose transaction is older than the swap, and has not looked at the table before, sees the new month: Postgres
keeps no old list of partitions for it. So rows are loaded frozen, that is visible to everybody; that reader would see
an empty month otherwise.
"""

from __future__ import annotations

from contextlib import closing, contextmanager, suppress
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import psycopg2
import pyarrow.parquet
from psycopg2 import errors, sql

from taxi_assets.errors import ReconciliationError, WarehouseSchemaError
from taxi_assets.storage.warehouse.base_warehouse import reconciliation_error
from taxi_assets.storage.warehouse.postgres.binary_copy import BinaryCopyStream, NulByteError
from taxi_assets.storage.warehouse.postgres.locks import LOCK_ERRORS, key_of, run_with_lock_retry, set_lock_timeout
from taxi_assets.storage.warehouse.postgres.table_definition import table_definition
from taxi_assets.storage.warehouse.postgres.tables import LOADED_MONTHS, concurrent_change_error, totals
from taxi_assets.tlc.month import Month

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.storage.warehouse.postgres.locks import LockTimeouts
    from taxi_assets.storage.warehouse.postgres.tables import Table
    from taxi_assets.tlc.cleaning.report import CleaningReport, ControlTotals
    from taxi_assets.tlc.schema import Column, Service

_COPY_BYTES = 1 << 16


def month_key(schema: str, table: str, month: Month) -> int:
    """The advisory lock that a load holds from its first statement to its last."""
    return key_of(schema, table, str(month))


def drop_abandoned_tables(connection: Any, table: Table, month: Month, timeouts: LockTimeouts) -> None:
    """Drop what killed loads of other months left behind; those that are alive hold their month's lock.

    What somebody reads (a dump of the database) is left to a later load.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE nspname = %s "
            r"AND relname ~ ('^' || %s || '_\d{4}_\d{2}_staged$') AND pg_has_role(relowner, 'USAGE')",
            [table.schema, table.name],
        )
        names = {name for (name,) in cursor.fetchall()} - {_staged_name(table, month)}
    for name in names:
        other = Month.parse(name.removeprefix(f"{table.name}_").removesuffix("_staged").replace("_", "-"))
        with suppress(*LOCK_ERRORS), connection, connection.cursor() as cursor:
            set_lock_timeout(cursor, timeouts)
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [month_key(table.schema, table.name, other)])
            if cursor.fetchone()[0]:
                cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(table.schema, name)))


@contextmanager
def staged_table(
    connection: Any, table: Table, service: Service, month: Month, trips: ParquetPartition, path: Path
) -> Iterator[None]:
    """The month as a table of its own, verified, and with all that lets it be attached without a look at its rows."""
    name = sql.Identifier(table.schema, _staged_name(table, month))
    drop = sql.SQL("DROP TABLE IF EXISTS {}").format(name)
    definition = table_definition(connection, table)
    with connection, connection.cursor() as cursor:
        cursor.execute(drop)
        # In the same transaction as the rows: only then can they be frozen.
        cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(name, definition.columns))
        _copy(cursor, name, service, month, trips, path)
        _verify(totals(connection, name, table.columns, service, month), table, service, month, trips)
        cursor.execute(
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT one_month CHECK (data_month = {})").format(
                name, sql.Literal(month.start)
            )
        )
        definition.make_indexes(cursor, name)
        cursor.execute(sql.SQL("ANALYZE {}").format(name))
    try:
        yield
    finally:
        if not connection.closed:
            with connection.cursor() as cursor:
                cursor.execute(drop)  # it has its final name by now, unless something went wrong


def swap_partition(
    connection: Any, table: Table, month: Month, report: CleaningReport, run_id: str, timeouts: LockTimeouts
) -> None:
    """Put the staged month in the place of the old one, and note it in the ledger, in one transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.oid, nspname, relname FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid "
            "JOIN pg_namespace AS n ON n.oid = relnamespace "
            "WHERE inhparent = %s AND pg_get_expr(relpartbound, c.oid) = format('FOR VALUES IN (%%L)', %s::date)",
            [table.oid, month.start],
        )
        old = cursor.fetchone()

    def action(cursor: Any) -> None:
        name = _free_name(cursor, table, month, old)
        if old is not None:
            _drop(cursor, table, sql.Identifier(*old[1:]))
        _attach(cursor, table, month, name)
        _note_loaded(cursor, table, month, report, run_id)

    run_with_lock_retry(
        connection,
        f"{month} in {table.qualified_name}",
        [table.oid] if old is None else [table.oid, old[0]],
        action,
        timeouts,
    )


def _drop(cursor: Any, table: Table, old: sql.Composable) -> None:
    # Readers queue from the first statement on; so the second one does not wait for its lock as long again.
    cursor.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(table.identifier))
    cursor.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT").format(old))
    cursor.execute(sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(table.identifier, old))
    cursor.execute(sql.SQL("DROP TABLE {}").format(old))


def _free_name(cursor: Any, table: Table, month: Month, old: tuple[int, str, str] | None) -> str:
    """The month's name; with a number where a table has it that is none of this table's any more."""
    cursor.execute(
        "SELECT relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE nspname = %s "
        "AND starts_with(relname, %s) AND c.oid IS DISTINCT FROM %s::oid",
        [table.schema, name := _month_name(table, month), old and old[0]],
    )
    taken = {taken for (taken,) in cursor.fetchall()}
    return next(free for free in chain([name], (f"{name}_{number}" for number in count(2))) if free not in taken)


def _attach(cursor: Any, table: Table, month: Month, name: str) -> None:
    staged_name, new = sql.Identifier(table.schema, _staged_name(table, month)), sql.Identifier(name)
    cursor.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(staged_name, new))
    try:
        cursor.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES IN ({})").format(
                table.identifier, sql.Identifier(table.schema, name), sql.Literal(month.start)
            )
        )
    except (errors.DatatypeMismatch, errors.UndefinedTable) as error:  # a column, say, that another load has added
        raise concurrent_change_error(table.qualified_name) from error


def _note_loaded(cursor: Any, table: Table, month: Month, report: CleaningReport, run_id: str) -> None:
    ledger, key = sql.Identifier(table.schema, LOADED_MONTHS), [table.name, month.start]
    cursor.execute(sql.SQL("DELETE FROM {} WHERE table_name = %s AND data_month = %s").format(ledger), key)
    cursor.execute(
        sql.SQL(
            "INSERT INTO {} (table_name, data_month, data_version, row_count, cents, source_rows, run_id) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s)"
        ).format(ledger),
        [*key, report.data_version, report.clean.rows, report.clean.cents, report.clean.source_rows, run_id],
    )


def _copy(
    cursor: Any, name: sql.Composable, service: Service, month: Month, trips: ParquetPartition, path: Path
) -> None:
    columns = _columns_of(path, service, trips)
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    with closing(BinaryCopyStream(path, columns)) as source:
        try:
            cursor.copy_expert(
                sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary, FREEZE)").format(name, names), source, _COPY_BYTES
            )
        except psycopg2.Error:
            if source.failure is None:
                raise
            if not isinstance(source.failure, NulByteError):
                raise source.failure from None
            raise ReconciliationError(
                f"{service.name} {month}: a value of {source.failure} in {trips.uri} holds a NUL byte, "
                "which no text in Postgres can. The month was left as it was.",
                remedy="Load this month into a warehouse of another kind, or have its publisher mend the file.",
            ) from None


def _columns_of(path: Path, service: Service, trips: ParquetPartition) -> list[Column]:
    """The service's columns that the file has; it must have no others."""
    fields = {field.name: field.type for field in pyarrow.parquet.read_schema(path)}
    columns = [column for column in service.columns if fields.get(column.name) == column.type.arrow]
    unknown = fields.keys() - {column.name for column in columns}
    if unknown:
        raise WarehouseSchemaError(
            f"{trips.uri} was made with another schema: {', '.join(sorted(unknown))}.",
            remedy="Materialize the clean asset of this month again, then the warehouse.",
        )
    return columns


def _verify(found: ControlTotals, table: Table, service: Service, month: Month, trips: ParquetPartition) -> None:
    if found != trips.report.clean:
        raise reconciliation_error(service, month, trips, table.qualified_name, found)


def _month_name(table: Table, month: Month) -> str:
    return f"{table.name}_{month}".replace("-", "_")


def _staged_name(table: Table, month: Month) -> str:
    return f"{_month_name(table, month)}_staged"
