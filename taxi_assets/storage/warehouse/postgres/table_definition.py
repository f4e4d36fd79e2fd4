"""What a month's table has in common with the whole table, also where somebody has changed that one.

Belongs here: columns with their rules, keys and indexes, as statements that make the same in another table. They are
read from the catalog: `CREATE TABLE … (LIKE …)` would hold the whole table until the rows are in, and swaps of other
months up.
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
_RULES = """
    SELECT format('CONSTRAINT %%I %%s', conname, pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE conrelid = %s AND contype = 'c'
"""
# What stands before the name of the table, and what behind it.
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
    """What makes a table that can be attached to another without a look at its rows, and without work then."""

    columns: sql.Composable
    """As `CREATE TABLE` takes them."""
    indexes: Sequence[tuple[str, str]]

    def make_indexes(self, cursor: Any, table: sql.Composable) -> None:
        """Keys and indexes; faster once the rows are in."""
        for before, behind in self.indexes:
            cursor.execute(sql.SQL(before) + table + sql.SQL(behind))


def table_definition(connection: Any, table: Table) -> TableDefinition:
    """As the table stands; raises `WarehouseBusyError` where it was dropped just now."""
    with connection.cursor() as cursor:
        parts: list[str] = []
        for query in (_COLUMNS, _RULES):
            cursor.execute(query, [table.oid])
            parts += [part for (part,) in cursor.fetchall()]
        cursor.execute(_INDEXES, [table.oid])
        indexes = cursor.fetchall()
    if not parts:
        raise concurrent_change_error(table.qualified_name)
    return TableDefinition(sql.SQL(", ").join(map(sql.SQL, parts)), indexes)
