"""Read the definition of a table of trips from the catalog, to create the table of one month.

A month's table must have the same columns, constraints, keys and indexes as the parent table, including those that a
user has added there. `CREATE TABLE … (LIKE …)` would lock the parent table until the rows are loaded, and so block the
swaps of other months.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg2 import sql

from taxi_assets.storage.warehouse.postgres.tables import concurrent_change_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.storage.warehouse.postgres.tables import Table

_COLUMNS = """
    SELECT concat_ws(' ', quote_ident(attname), format_type(atttypid, atttypmod),
        'COLLATE ' || nullif(attcollation, typcollation)::regcollation::text,
        CASE attgenerated WHEN '' THEN 'DEFAULT ' || expression
            ELSE format('GENERATED ALWAYS AS (%%s) %%s', expression,
                CASE attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END) END,
        CASE WHEN attnotnull THEN 'NOT NULL' END)
    FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        CROSS JOIN LATERAL pg_get_expr(adbin, adrelid) AS expression
    WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_CHECK_CONSTRAINTS = """
    SELECT format('CONSTRAINT %%I %%s', conname, pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE conrelid = %s AND contype = 'c'
"""
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


@dataclass(frozen=True)
class TableDefinition:
    """The statements that create a table which Postgres can attach to another one without scanning its rows."""

    columns: sql.Composable
    """Columns and check constraints, as `CREATE TABLE` takes them."""
    indexes: Sequence[tuple[str, str]]
    """Per key or index: the parts of its statement before and after the name of the table."""

    def create_indexes(self, cursor: Any, table: sql.Composable) -> None:
        """Create keys and indexes on a table of these columns. Call it after loading the rows: that is faster."""
        for before, after in self.indexes:
            cursor.execute(sql.SQL(before) + table + sql.SQL(after))


def read_table_definition(connection: Any, table: Table) -> TableDefinition:
    """Read the current definition of a table from the catalog.

    Raises:
        WarehouseBusyError: Another session has dropped the table.
    """
    with connection.cursor() as cursor:
        parts: list[str] = []
        for query in (_COLUMNS, _CHECK_CONSTRAINTS):
            cursor.execute(query, [table.oid])
            parts += [part for (part,) in cursor.fetchall()]
        cursor.execute(_INDEXES, [table.oid])
        indexes = cursor.fetchall()
    if not parts:
        raise concurrent_change_error(table.qualified_name)
    return TableDefinition(sql.SQL(", ").join(map(sql.SQL, parts)), indexes)
