"""Load a month into a table of trips on a Postgres server.

The table of a service is partitioned: every month is a table of its own, attached to the parent table as a partition. A
load builds the new month in a staging table (`…_staged`), which no reader knows, and verifies it there
(`staging_table`). Then it swaps the old table for the new one in one short transaction (`swap_partition`), which also
writes the month's row in the ledger, the table `loaded_months`. If a load is killed, the next load of the same parent
table drops its leftover table (`drop_abandoned_tables`).

Rows are loaded with `COPY … FREEZE`, which makes them visible to every transaction. Otherwise a transaction with an
older snapshot would see an empty month: Postgres gives it the new partition, but hides rows that are newer than the
snapshot.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from itertools import chain, count
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow.parquet
from psycopg2 import errors, sql

from taxi_assets.errors import ReconciliationError, WarehouseSchemaError
from taxi_assets.storage.warehouse.base_warehouse import reconciliation_error
from taxi_assets.storage.warehouse.postgres.copy_rows import binary_rows, copy_rows
from taxi_assets.storage.warehouse.postgres.locks import (
    LOCK_ERRORS,
    advisory_lock_key,
    run_with_lock_retry,
    set_lock_timeout,
)
from taxi_assets.storage.warehouse.postgres.tables import LOADED_MONTHS, compute_totals, concurrent_change_error
from taxi_assets.tlc.month import Month

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taxi_assets.storage.lake.objects import ParquetPartition
    from taxi_assets.storage.warehouse.postgres.locks import LockTimeouts
    from taxi_assets.storage.warehouse.postgres.tables import Table
    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.schema import Column, Service

# One row per index: the statement that creates it, split into the parts before and after the name of the table.
_INDEXES = """
    SELECT CASE WHEN rule.oid IS NOT NULL THEN 'ALTER TABLE ' WHEN indisunique THEN 'CREATE UNIQUE INDEX ON '
            ELSE 'CREATE INDEX ON ' END,
        coalesce(' ADD ' || pg_get_constraintdef(rule.oid), substr(pg_get_indexdef(indexrelid), 1 + length(
            format('CREATE %%sINDEX %%I ON ONLY %%s', CASE WHEN indisunique THEN 'UNIQUE ' END, relname,
                indrelid::regclass))))
    FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid
        LEFT JOIN pg_constraint AS rule ON conindid = indexrelid AND conrelid = indrelid AND contype IN ('p', 'u', 'x')
    WHERE indrelid = %s
"""


class _Partition(NamedTuple):
    """The table that holds a month now."""

    oid: int
    schema: str
    name: str


def month_lock_key(schema: str, table: str, month: Month) -> int:
    """Return the key of the advisory lock that a load of a month holds from its first statement to its last."""
    return advisory_lock_key(schema, table, str(month))


def drop_abandoned_tables(connection: Any, table: Table, month: Month, timeouts: LockTimeouts) -> None:
    """Drop the staging tables that killed loads of other months have left.

    A load that is still running holds the advisory lock of its month, so its table stays. A table that another session
    reads, such as a dump of the database, is left for a later load.

    Args:
        connection: An open connection in autocommit mode.
        table: The parent table.
        month: The month of this load. `staging_table` itself drops its leftover table.
        timeouts: Only `lock_timeout` counts: there is one attempt per table.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE nspname = %s "
            r"AND relname ~ ('^' || %s || '_\d{4}_\d{2}_staged$') AND pg_has_role(relowner, 'USAGE')",
            [table.schema, table.name],
        )
        names = {name for (name,) in cursor.fetchall()} - {_staging_name(table, month)}
    for name in names:
        other = Month.parse(name.removeprefix(f"{table.name}_").removesuffix("_staged").replace("_", "-"))
        with suppress(*LOCK_ERRORS), connection, connection.cursor() as cursor:
            set_lock_timeout(cursor, timeouts)
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [month_lock_key(table.schema, table.name, other)])
            if cursor.fetchone()[0]:
                cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(table.schema, name)))


@contextmanager
def staging_table(
    connection: Any,
    table: Table,
    service: Service,
    month: Month,
    trips: ParquetPartition,
    path: Path,
    timeouts: LockTimeouts,
) -> Iterator[None]:
    """Create the month's staging table: complete and verified, but not attached to the parent table yet.

    A short transaction creates the table like its parent. Another one copies the rows, verifies them, and adds a check
    constraint and the indexes. The constraint lets Postgres attach the table without scanning its rows. The second
    transaction locks nothing that readers or other loads use. On exit the table is dropped, unless `swap_partition` has
    given it its final name, or another session reads it.

    Args:
        connection: An open connection in autocommit mode.
        table: The parent table.
        service: Defines the columns.
        month: The month to load.
        trips: The month in the lake, with its report.
        path: The same month as a local Parquet file.
        timeouts: Only `lock_timeout` counts: there is one attempt to drop the table.

    Raises:
        ReconciliationError: The control totals of the rows differ from the report, or a text contains a NUL byte.
        WarehouseSchemaError: The file has a column that the service does not have.
        WarehouseBusyError: Another session has dropped the parent table. The error is transient: the next attempt
            creates the table.
    """
    name = sql.Identifier(table.schema, _staging_name(table, month))
    drop = sql.SQL("DROP TABLE IF EXISTS {}").format(name)
    _create_staging_table(connection, table, name, drop)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL("TRUNCATE {}").format(name))  # FREEZE needs it
            _copy(cursor, name, service, month, trips, path)
            found = compute_totals(connection, name, table.columns, service, month)
            if found != trips.report.clean:
                raise reconciliation_error(service, month, trips, table.qualified_name, found)
            cursor.execute(
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT one_month CHECK (data_month = {})").format(
                    name, sql.Literal(month.start)
                )
            )
            _create_indexes(cursor, table, name)
            cursor.execute(sql.SQL("ANALYZE {}").format(name))
        yield
    finally:
        if not connection.closed:
            # Another session that reads the table must not hide the error of this load. The next load drops the table.
            with suppress(*LOCK_ERRORS), connection, connection.cursor() as cursor:
                set_lock_timeout(cursor, timeouts)
                cursor.execute(drop)


def _create_staging_table(connection: Any, table: Table, name: sql.Composable, drop: sql.Composable) -> None:
    """Create an empty table with the columns, defaults and constraints of the parent table.

    This is a transaction of its own, because it locks the parent table against swaps of other months. A partition must
    not have identity columns, and its comments would become outdated. Indexes are created after loading.
    """
    like = sql.SQL("LIKE {} INCLUDING ALL EXCLUDING COMMENTS EXCLUDING IDENTITY EXCLUDING INDEXES").format(
        table.identifier
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(drop)
        try:
            cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(name, like))
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            raise concurrent_change_error(table.qualified_name) from error


def _create_indexes(cursor: Any, table: Table, name: sql.Composable) -> None:
    """Create the parent table's keys and indexes on a loaded table, so that the swap does not have to."""
    cursor.execute(_INDEXES, [table.oid])
    for before, after in cursor.fetchall():
        cursor.execute(sql.SQL(before) + name + sql.SQL(after))


def swap_partition(
    connection: Any, table: Table, month: Month, report: CleaningReport, run_id: str, timeouts: LockTimeouts
) -> None:
    """Replace the month's old partition with the staging table, and record it in the ledger, in one transaction.

    Locks: the caller holds the advisory lock of the month (`month_lock_key`). If the month is loaded already, the
    transaction takes these locks, in this order, and holds them until it ends:

    1. ACCESS EXCLUSIVE on the parent table, without its partitions. Waits for at most `timeouts.lock_timeout`.
    2. ACCESS EXCLUSIVE on the old partition. Does not wait (NOWAIT).
    3. ACCESS EXCLUSIVE on the staging table, which no reader knows.
    4. ROW EXCLUSIVE on the ledger `loaded_months`, which blocks neither readers nor loads of other months.

    For the first load of a month there is no old partition. Then the transaction takes lock 3, SHARE UPDATE EXCLUSIVE
    on the parent table (for ATTACH PARTITION; it blocks no reader), and lock 4.

    Longest wait: readers of any month queue behind lock 1 while it is pending and while it is held. One attempt blocks
    them for at most `timeouts.lock_timeout` (0.3 s by default) plus the transaction itself, which changes only catalog
    rows and takes milliseconds. Locks 3 and 4 can each add at most `timeouts.lock_timeout`, if a session locks the
    staging table or the ledger explicitly. The server deletes the old partition's files after it has released the
    locks. A failed attempt is rolled back; the next one starts 0.05 to 0.5 s later, so queued readers run in between.
    Attempts end after `timeouts.wait_seconds`.

    Crashes, of this process or of the server:

    | crash                        | readers and ledger | left behind                                             |
    |------------------------------|--------------------|---------------------------------------------------------|
    | while `staging_table` builds | old month          | the empty staging table; the next load drops it         |
    | before the COMMIT of a swap  | old month          | the staging table; the next load of the table drops it  |
    | after the COMMIT             | new month          | nothing                                                 |

    If the connection breaks during the COMMIT, either of the last two rows applies, and the run fails. The next run
    reads the ledger and loads the month again only if it has to. Locks end with the session.

    Args:
        connection: An open connection in autocommit mode.
        table: The parent table.
        month: The month of the staging table.
        report: Gives the data version and control totals for the ledger.
        run_id: The Dagster run, for the ledger.
        timeouts: The limits of one attempt and of all attempts.

    Raises:
        WarehouseBusyError: Other sessions kept the tables locked for `timeouts.wait_seconds`; or one of them changed
            the parent table since the staging table was created.
    """
    old = _find_partition(connection, table, month)

    def swap(cursor: Any) -> None:
        name = _choose_name(cursor, table, month, old)
        if old is not None:
            _drop_partition(cursor, table, old)
        _attach_staging_table(cursor, table, month, name)
        _record_in_ledger(cursor, table, month, report, run_id)

    run_with_lock_retry(
        connection,
        f"{month} in {table.qualified_name}",
        [table.oid] if old is None else [table.oid, old.oid],
        swap,
        timeouts,
    )


def _find_partition(connection: Any, table: Table, month: Month) -> _Partition | None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.oid, nspname, relname FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid "
            "JOIN pg_namespace AS n ON n.oid = relnamespace "
            "WHERE inhparent = %s AND pg_get_expr(relpartbound, c.oid) = format('FOR VALUES IN (%%L)', %s::date)",
            [table.oid, month.start],
        )
        found = cursor.fetchone()
    return None if found is None else _Partition(*found)


def _drop_partition(cursor: Any, table: Table, old: _Partition) -> None:
    # NOWAIT for the second lock: readers already queue behind the first one.
    partition = sql.Identifier(old.schema, old.name)
    cursor.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(table.identifier))
    cursor.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT").format(partition))
    cursor.execute(sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(table.identifier, partition))
    cursor.execute(sql.SQL("DROP TABLE {}").format(partition))


def _choose_name(cursor: Any, table: Table, month: Month, old: _Partition | None) -> str:
    """Return a name for the month's table, with a numeric suffix if another table already has that name."""
    name = _month_name(table, month)
    cursor.execute(
        "SELECT relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE nspname = %s "
        "AND starts_with(relname, %s) AND c.oid IS DISTINCT FROM %s::oid",
        [table.schema, name, old and old.oid],
    )
    taken = {row[0] for row in cursor.fetchall()}
    candidates = chain([name], (f"{name}_{number}" for number in count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)


def _attach_staging_table(cursor: Any, table: Table, month: Month, name: str) -> None:
    staging_name, new = sql.Identifier(table.schema, _staging_name(table, month)), sql.Identifier(name)
    cursor.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(staging_name, new))
    try:
        cursor.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES IN ({})").format(
                table.identifier, sql.Identifier(table.schema, name), sql.Literal(month.start)
            )
        )
    except (errors.DatatypeMismatch, errors.UndefinedTable) as error:  # such as a column that another load has added
        raise concurrent_change_error(table.qualified_name) from error


def _record_in_ledger(cursor: Any, table: Table, month: Month, report: CleaningReport, run_id: str) -> None:
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
    columns = [column.name for column in _file_columns(path, service, trips)]
    try:
        copy_rows(cursor, name, columns, binary_rows(path, columns), "FORMAT binary, FREEZE")
    except errors.CharacterNotInRepertoire as error:
        place = (error.diag.context or "").rpartition(", ")[2]  # such as "column store_and_fwd_flag"
        raise ReconciliationError(
            f"{service.name} {month}: a text in {trips.uri} contains a byte that Postgres cannot store, such as NUL: "
            f"{error.diag.message_primary} ({place}). The month is unchanged.",
            remedy="Load this month into a warehouse of another kind, or ask its publisher to correct the file.",
        ) from None


def _file_columns(path: Path, service: Service, trips: ParquetPartition) -> list[Column]:
    """Return the service's columns that the file has; raise if it has others."""
    fields = {field.name: field.type for field in pyarrow.parquet.read_schema(path)}
    columns = [column for column in service.columns if fields.get(column.name) == column.type.arrow_type]
    unknown = fields.keys() - {column.name for column in columns}
    if unknown:
        raise WarehouseSchemaError(
            f"{trips.uri} was written with another schema. These columns, or their types, are not in the service "
            f"{service.name}: {', '.join(sorted(unknown))}.",
            remedy="Materialize the clean asset of this month again, then the warehouse asset.",
        )
    return columns


def _month_name(table: Table, month: Month) -> str:
    return f"{table.name}_{month}".replace("-", "_")


def _staging_name(table: Table, month: Month) -> str:
    return f"{_month_name(table, month)}_staged"
