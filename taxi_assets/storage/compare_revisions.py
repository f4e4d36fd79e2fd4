"""Compare two revisions of a month, both cleaned by the same rules, row by row.

The trips of the two clean files are compared as multisets, by value: DuckDB groups equal rows of both files, and keeps
the groups of which the files have different numbers. It does so in a fixed amount of memory, and spills to a temporary
file what does not fit.

Belongs here: the queries. Does not belong here: the form of the result (`tlc/revision_report.py`).
"""

from __future__ import annotations

import glob
import hashlib
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from taxi_assets.errors import LakeConfigurationError, ReconciliationError
from taxi_assets.marts.all_trips import COLUMNS as COMMON_COLUMNS
from taxi_assets.marts.all_trips import column_sql
from taxi_assets.storage.duckdb_config import NO_EXTENSIONS
from taxi_assets.storage.parquet_rows import write_rows
from taxi_assets.storage.table_values import Rows
from taxi_assets.storage.warehouse.duckdb.tables import TYPES, literal, quote
from taxi_assets.tlc.revision_report import (
    ADDED,
    CHANGED,
    CHANGES,
    REMOVED,
    VERSION,
    RevisionReport,
    columns_only_in,
    compared_columns,
    revision_columns,
    trip_key,
)
from taxi_assets.tlc.schema import ColumnType, build_arrow_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

# With two threads, the process takes about 80 MB more than this, at any number of rows.
CONFIG: Mapping[str, Any] = {
    "memory_limit": "192MB", "threads": "2", "preserve_insertion_order": "false", **NO_EXTENSIONS,
}  # fmt: skip
# Smaller SQL types for a column, each with the magnitude below which it has all values.
_SMALL_TYPES: Mapping[ColumnType, Sequence[tuple[int, str]]] = {
    ColumnType.INTEGER: [(1 << 7, "TINYINT"), (1 << 15, "SMALLINT"), (1 << 31, "INTEGER")],
    ColumnType.MONEY: [(10**2, "DECIMAL(4,2)"), (10**7, "DECIMAL(9,2)")],
    ColumnType.MILES: [(10**1, "DECIMAL(4,3)"), (10**6, "DECIMAL(9,3)")],
}
_BATCH_ROWS = 16_384
_LARGEST = 10


@dataclass(frozen=True)
class CleanRevision:
    """The clean trips of one revision of a month."""

    path: Path
    report: CleaningReport


@dataclass(frozen=True)
class LargestDifference:
    """One of the differences that change the total amount the most.

    Attributes:
        change: How the trip differs: "added", "removed" or "changed".
        row_count: How many published rows differ in the same way.
        key: The values that identify the trip, as text, by column: times, zones, and vendor or base.
        old_cents: The total amount of one such row in the older revision; None if it has no such row, or no amount.
        new_cents: The same for the newer revision.
    """

    change: str
    row_count: int
    key: Mapping[str, str | None]
    old_cents: int | None
    new_cents: int | None


@dataclass(frozen=True)
class ComparedRevisions:
    """The differences between two revisions of a month.

    Attributes:
        path: A Parquet file with the columns of `revision_columns`, sorted by pickup time. Its footer has the report.
        rows: The number of rows in the file.
        report: The counts and sums.
        largest: Up to ten differences, those with the largest effect on the total amount first. If the service does not
            record a total amount, those with the most rows.
    """

    path: Path
    rows: int
    report: RevisionReport
    largest: Sequence[LargestDifference]


def comparison_version(old: CleaningReport, new: CleaningReport) -> str:
    """Return the data version of the comparison of two revisions: 64 hexadecimal digits."""
    content = VERSION, old.data_version, new.data_version
    return hashlib.sha256(repr(content).encode()).hexdigest()


def compare_revisions(
    service: Service, month: Month, old: CleanRevision, new: CleanRevision, folder: Path, footer: Mapping[str, str]
) -> ComparedRevisions:
    """Compare two revisions of a month on all published columns that both files have.

    Equal rows cancel each other out, one by one. Rows that remain in both revisions are paired if they have the same
    times, zones, and vendor or base: the first such row of the older file with the first one of the newer file, and so
    on. A pair is a changed trip; other rows are added or removed.

    Args:
        service: The service.
        month: The month.
        old: The older revision.
        new: The newer revision.
        folder: An empty folder for the result and for temporary files, of up to 600 bytes per row.
        footer: Key-value metadata of the file, in addition to the report.

    Raises:
        ReconciliationError: The differences do not add up to the difference of the two files.
        LakeConfigurationError: The disk has no space for the temporary files.
    """
    comparison = _Comparison(service, month, old, new)
    path, database = folder / "differences.parquet", folder / "comparison.duckdb"
    config = {**CONFIG, "temp_directory": str(folder / "spilled")}
    with _no_space_as_configuration_error(folder), closing(duckdb.connect(database, config=config)) as connection:
        comparison.create_tables(connection)
        report = comparison.read_report(connection)
        comparison.require_reconciled(connection, report)
        largest = comparison.read_largest(connection)
        schema = build_arrow_schema(revision_columns(service))
        batches = connection.sql(comparison.rows_query()).to_arrow_reader(_BATCH_ROWS)
        rows = Rows(
            schema, (pa.RecordBatch.from_arrays(batch.columns, batch.schema.names).cast(schema) for batch in batches)
        )
        report_footer = {name.decode(): value.decode() for name, value in report.footer().items()}
        written = write_rows(rows, path, {**footer, **report_footer})
    database.unlink()
    return ComparedRevisions(path, written, report, largest)


@contextmanager
def _no_space_as_configuration_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        message = str(error).partition("\n")[0].rstrip(".")
        raise LakeConfigurationError(
            f"Two revisions cannot be compared in {folder}: {message}.",
            remedy="Free disk space there: the comparison needs up to 600 bytes per row for temporary files.",
        ) from error


class _Comparison:
    """The queries of one comparison, over the tables that `create_tables` creates.

    - `differences`: the distinct rows of which the files have different numbers. `_surplus` is the number in the newer
      file minus that in the older one.
    - `matches`: the differences in pairs. A row without a counterpart is alone.
    """

    def __init__(self, service: Service, month: Month, old: CleanRevision, new: CleanRevision) -> None:
        self._service, self._month = service, month
        self._old, self._new = old, new
        self._compared = compared_columns(service, old.report, new.report)
        self._key = trip_key(self._compared)
        self._money = [
            column.name
            for column in service.published_columns
            if column.type is ColumnType.MONEY and column.name in self._compared
        ]
        (revenue,) = (column for column in COMMON_COLUMNS if column.name == "revenue")
        self._total = column_sql(revenue, service)

    def create_tables(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Create the two tables."""
        compared, key = _names(self._compared), _names(self._key)
        grouped = self._small_types(connection)
        values = ", ".join(f"{quote(name)}::{grouped[name]} AS {quote(name)}" for name in self._compared)
        files = " UNION ALL ".join(
            f"SELECT {values}, source_row::INTEGER AS source_row, {sign}::TINYINT AS _sign FROM {_file(revision.path)}"
            for revision, sign in ((self._old, -1), (self._new, 1))
        )
        # A column that is not compared is null, so that the total amount can name it.
        columns = ", ".join(
            f"{quote(column.name) if column.name in grouped else 'NULL'}::{TYPES[column.type]} AS {quote(column.name)}"
            for column in self._service.published_columns
        )
        connection.execute(
            f"""CREATE TABLE differences AS SELECT row_number() OVER () AS _id, *,
            ({self._total or "NULL"})::DECIMAL(18,2) AS _total,
            CASE WHEN _surplus > 0 THEN _new_row ELSE _old_row END AS _source_row FROM (
            SELECT {columns}, _surplus, _old_row, _new_row FROM (
            SELECT {compared}, sum(_sign)::BIGINT AS _surplus, min(source_row) FILTER (_sign < 0) AS _old_row,
            min(source_row) FILTER (_sign > 0) AS _new_row FROM ({files})
            GROUP BY {compared} HAVING sum(_sign) <> 0))"""
        )
        # Each copy of a row gets its place among the rows of its trip in its file. Copies in the same place match.
        connection.execute(
            f"""CREATE TABLE matches AS SELECT old_id, new_id, count(*) AS row_count FROM (
            SELECT max(_id) FILTER (NOT _is_new) AS old_id, max(_id) FILTER (_is_new) AS new_id FROM (
            SELECT _id, {key}, _is_new, row_number() OVER (PARTITION BY {key}, _is_new ORDER BY _source_row, _copy)
            AS _place FROM (SELECT _id, {key}, _surplus > 0 AS _is_new, _source_row,
            unnest(range(abs(_surplus))) AS _copy FROM differences)) GROUP BY {key}, _place) GROUP BY old_id, new_id"""
        )

    def _small_types(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Return the smallest SQL type that has all values of a compared column in both files, by column.

        Rows in small types take two thirds of the time, and of the space for temporary files.
        """
        types = {
            column.name: column.type for column in self._service.published_columns if column.name in self._compared
        }
        numeric = [name for name, type_ in types.items() if type_ in _SMALL_TYPES]
        limits = ", ".join(f"min({quote(name)}), max({quote(name)})" for name in numeric)
        files = " UNION ALL ".join(
            f"SELECT {_names(numeric)} FROM {_file(each.path)}" for each in (self._old, self._new)
        )
        found: Any = connection.execute(f"SELECT {limits} FROM ({files})").fetchone() if numeric else ()
        sql_types = {name: TYPES[type_] for name, type_ in types.items()}
        for name, least, most in zip(numeric, found[::2], found[1::2], strict=True):
            largest = max(abs(least or 0), abs(most or 0))
            small = [sql_type for limit, sql_type in _SMALL_TYPES[types[name]] if largest < limit]
            sql_types[name] = small[0] if small else sql_types[name]
        return sql_types

    def _matched(self, columns: str) -> str:
        """Return a query of the matches, with expressions over `o` (the older row) and `n` (the newer one)."""
        return f"""SELECT {columns}, row_count,
            CASE WHEN o._id IS NULL THEN {literal(ADDED)} WHEN n._id IS NULL THEN {literal(REMOVED)}
            ELSE {literal(CHANGED)} END AS change
            FROM matches LEFT JOIN differences o ON o._id = old_id LEFT JOIN differences n ON n._id = new_id"""

    def _changed_columns(self) -> list[str]:
        return [name for name in self._compared if name not in self._key]

    def rows_query(self) -> str:
        """Return the query of the result's rows, sorted by pickup time and by row numbers."""
        values = ", ".join(
            f"CASE WHEN n._id IS NULL THEN o.{name} ELSE n.{name} END AS {name}"
            for name in (quote(column.name) for column in self._service.published_columns)
        )
        changes = ", ".join(
            f"CASE WHEN o.{quote(name)} IS DISTINCT FROM n.{quote(name)} THEN {{position: {position}, "
            f"name: {literal(name)}, old: o.{quote(name)}::VARCHAR, new: n.{quote(name)}::VARCHAR}} END"
            for position, name in enumerate(self._changed_columns())
        )
        no_change = "NULL::STRUCT(position INTEGER, name VARCHAR, old VARCHAR, new VARCHAR)"
        found = f"list_filter([{changes}], lambda change: change IS NOT NULL)" if changes else "[]"
        unnested = f"unnest(CASE WHEN o._id IS NULL OR n._id IS NULL THEN [{no_change}] ELSE {found} END) AS difference"
        matched = self._matched(
            f"{values}, o._source_row AS old_source_row, n._source_row AS new_source_row, {unnested}"
        )
        columns = {
            "data_month": f"DATE {literal(f'{self._month.start:%Y-%m-%d}')}",
            "changed_column": "difference.name",
            "old_value": "difference.old",
            "new_value": "difference.new",
        }
        selected = ", ".join(
            f"{columns.get(column.name, quote(column.name))} AS {quote(column.name)}"
            for column in revision_columns(self._service)
        )
        return f"""SELECT {selected} FROM ({matched})
            ORDER BY pickup_datetime, coalesce(new_source_row, old_source_row), change, difference.position"""

    def read_report(self, connection: duckdb.DuckDBPyConnection) -> RevisionReport:
        """Read the counts and sums."""
        old, new = self._old.report, self._new.report
        counts = dict(self._fetch(connection, "SELECT change, sum(row_count) FROM ({}) GROUP BY change", ["o._id"]))
        pickup = "coalesce(n.pickup_datetime, o.pickup_datetime) AS pickup"
        days = self._fetch(
            connection,
            "SELECT change, day(pickup), sum(row_count) FROM ({}) "
            f"WHERE date_trunc('month', pickup) = DATE {literal(f'{self._month.start:%Y-%m-%d}')} GROUP BY ALL",
            [pickup],
        )
        rows_by_day = {change: [0] * self._month.days for change in CHANGES}
        for change, day, rows in days:
            rows_by_day[change][day - 1] = int(rows)
        sums = self._sums(connection, ["_total", *self._money])
        return RevisionReport(
            service=self._service.name,
            month=str(self._month),
            data_version=comparison_version(old, new),
            old_sha256=old.raw_sha256,
            new_sha256=new.raw_sha256,
            rows_old=old.clean.rows,
            rows_new=new.clean.rows,
            quarantined_old=old.rows_quarantined,
            quarantined_new=new.rows_quarantined,
            rows_added=int(counts.get(ADDED, 0)),
            rows_removed=int(counts.get(REMOVED, 0)),
            rows_changed=int(counts.get(CHANGED, 0)),
            changed_by_column=self._changed_by_column(connection),
            cents=sums["_total"] if self._total else None,
            cents_by_column={name: sums[name] for name in self._money if sums[name]},
            columns_only_old=columns_only_in(old, new),
            columns_only_new=columns_only_in(new, old),
            rows_by_day=rows_by_day,
        )

    def _fetch(self, connection: duckdb.DuckDBPyConnection, query: str, columns: Sequence[str]) -> list[Any]:
        return connection.execute(query.format(self._matched(", ".join(columns)))).fetchall()

    def _sums(self, connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> dict[str, int]:
        sums = ", ".join(f"sum({quote(name)} * _surplus)" for name in names)
        found = connection.execute(f"SELECT {sums} FROM differences").fetchone() or ()
        return {name: 0 if value is None else int(value.scaleb(2)) for name, value in zip(names, found, strict=True)}

    def _changed_by_column(self, connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
        names = self._changed_columns()
        if not names:
            return {}
        sums = ", ".join(f"sum(row_count) FILTER (o.{quote(name)} IS DISTINCT FROM n.{quote(name)})" for name in names)
        found = connection.execute(
            f"SELECT {sums} FROM matches JOIN differences o ON o._id = old_id JOIN differences n ON n._id = new_id"
        ).fetchone()
        return {name: int(rows) for name, rows in zip(names, found or (), strict=True) if rows}

    def require_reconciled(self, connection: duckdb.DuckDBPyConnection, report: RevisionReport) -> None:
        """Raise an error if the differences do not explain the rows and the cents of the two files.

        The cents are those of all money columns, so they are not checked if the revisions differ in money columns.
        """
        old, new = self._old.report, self._new.report
        checks = [("rows", report.rows_added - report.rows_removed, new.clean.rows - old.clean.rows)]
        absent = {*self._service.money_columns} - {*self._money}
        if not absent & {*report.columns_only_old, *report.columns_only_new}:
            cents = sum(self._sums(connection, self._money).values()) if self._money else 0
            checks.append(("cents", cents, new.clean.cents - old.clean.cents))
        for unit, found, expected in checks:
            if found != expected:
                raise ReconciliationError(
                    f"{self._service.name} {self._month}: the newer revision has {expected:+,} {unit}, but the "
                    f"differences add up to {found:+,}. Nothing was written.",
                    remedy="Materialize the clean month again, then compare again. If the error persists, report it.",
                )

    def read_largest(self, connection: duckdb.DuckDBPyConnection) -> list[LargestDifference]:
        """Read the differences with the largest effect on the total amount, or with the most rows."""
        key = ", ".join(f"coalesce(n.{name}, o.{name})::VARCHAR AS {name}" for name in map(quote, self._key))
        rows = "coalesce(n._source_row, o._source_row) AS source_row"
        found = self._fetch(
            connection,
            f"SELECT change, row_count, old_total, new_total, {_names(self._key)} FROM ({{}}) ORDER BY "
            "abs(coalesce(new_total, 0) - coalesce(old_total, 0)) * row_count DESC, row_count DESC, pickup_datetime, "
            f"source_row, change LIMIT {_LARGEST}",
            [key, rows, "o._total AS old_total", "n._total AS new_total"],
        )
        return [
            LargestDifference(
                change=change,
                row_count=rows,
                key=dict(zip(self._key, values, strict=True)),
                old_cents=None if old is None else int(old.scaleb(2)),
                new_cents=None if new is None else int(new.scaleb(2)),
            )
            for change, rows, old, new, *values in found
        ]


def _names(columns: Sequence[str]) -> str:
    return ", ".join(map(quote, columns))


def _file(path: Path) -> str:
    return f"read_parquet({literal(glob.escape(str(path)))})"
