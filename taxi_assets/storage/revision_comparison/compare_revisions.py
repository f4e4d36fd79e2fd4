"""Compare two revisions of a month, both cleaned by the same rules, row by row.

The trips of the two clean files are compared as multisets, by value. They are first divided by pickup time into parts
that fit in memory. DuckDB compares one part after the other: it pairs the trips of both files, and keeps the pairs that
differ. The memory that this takes does not grow with the month.

Belongs here: the queries. Does not belong here: the form of the result (`tlc/revision_report.py`).
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from taxi_assets.errors import LakeConfigurationError, ReconciliationError
from taxi_assets.marts.all_trips import COLUMNS as COMMON_COLUMNS
from taxi_assets.marts.all_trips import column_sql
from taxi_assets.storage.duckdb_config import NO_EXTENSIONS
from taxi_assets.storage.parquet_rows import write_rows
from taxi_assets.storage.revision_comparison.month_parts import IS_NEW, CleanRevision, divide_by_pickup
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

# A part usually needs less memory. A larger one, of many trips at the same time, spills to the disk.
CONFIG: Mapping[str, Any] = {
    "memory_limit": "192MB", "threads": "2", "preserve_insertion_order": "false", **NO_EXTENSIONS,
}  # fmt: skip
_FULL_MESSAGES = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT)]
_BATCH_ROWS = 16_384
_LARGEST = 10


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
        folder: An empty folder for the result and for temporary files, of about 100 bytes per row of a revision.
        footer: Key-value metadata of the file, in addition to the report.

    Raises:
        ReconciliationError: The differences do not add up to the difference of the two files.
        LakeConfigurationError: The disk has no space for the temporary files.
    """
    comparison = _Comparison(service, month, old, new)
    path, all_footers = folder / "differences.parquet", dict(footer)
    config = {**CONFIG, "temp_directory": str(folder / "spilled")}
    with _no_space_as_configuration_error(folder), closing(duckdb.connect(config=config)) as connection:

        def batches() -> Iterator[pa.RecordBatch]:
            columns = [*comparison.compared, "source_row"]
            for part in divide_by_pickup(month, old, new, columns, folder):
                yield from comparison.compare_part(connection, part)
            # The footer is written after the rows.
            report_footer = comparison.reconciled_report().footer()
            all_footers.update({name.decode(): value.decode() for name, value in report_footer.items()})

        written = write_rows(Rows(build_arrow_schema(revision_columns(service)), batches()), path, all_footers)
    return ComparedRevisions(path, written, comparison.reconciled_report(), comparison.largest())


@contextmanager
def _no_space_as_configuration_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.IOException, duckdb.OutOfMemoryException, OSError) as error:
        # DuckDB is out of memory if it cannot move more of it to the disk.
        is_full = isinstance(error, duckdb.OutOfMemoryException) or any(text in str(error) for text in _FULL_MESSAGES)
        if isinstance(error, OSError) and not is_full:
            raise
        message = str(error).partition("\n")[0].rstrip(".")
        raise LakeConfigurationError(
            f"Two revisions cannot be compared in {folder}: {message}.",
            remedy="Free disk space there: the comparison needs about 100 bytes per row for temporary files."
            if is_full
            else "Check that this folder can be written to.",
        ) from error


@dataclass
class _Totals:
    """Counts and sums of the parts that have been compared."""

    rows: Counter[tuple[str, int | None]] = field(default_factory=Counter)
    """Rows by kind of change, and by day of the pickup; None for a pickup in another month."""
    cents: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    largest: list[tuple[tuple[Any, int], LargestDifference]] = field(default_factory=list)
    """The largest differences, each after its sort key."""


class _Comparison:
    """A comparison, part by part. For each part, it has two tables.

    - `trips`: the trips of both files, with the compared columns.
    - `differences`: the pairs that differ, with the columns of the older trip (`old_…`) and of the newer one (`new_…`).
      A trip without a counterpart is alone. Columns of the trip's key are there once.
    """

    def __init__(self, service: Service, month: Month, old: CleanRevision, new: CleanRevision) -> None:
        self._service, self._month = service, month
        self._old, self._new = old, new
        self.compared = compared_columns(service, old.report, new.report)
        self._key = trip_key(self.compared)
        self._values = [name for name in self.compared if name not in self._key]
        self._money = [
            column.name
            for column in service.published_columns
            if column.type is ColumnType.MONEY and column.name in self.compared
        ]
        (revenue,) = (column for column in COMMON_COLUMNS if column.name == "revenue")
        self._total = column_sql(revenue, service)
        self._totals = _Totals()

    def compare_part(self, connection: duckdb.DuckDBPyConnection, path: Path) -> Iterator[pa.RecordBatch]:
        """Compare the trips of a part, add to the totals, and yield the rows of the result, sorted by pickup time."""
        self._create_tables(connection, path)
        self._add_totals(connection)
        self._add_largest(connection)
        schema = build_arrow_schema(revision_columns(self._service))
        for batch in connection.sql(self._rows_query()).to_arrow_reader(_BATCH_ROWS):
            yield pa.RecordBatch.from_arrays(batch.columns, batch.schema.names).cast(schema)

    def _create_tables(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        compared, key = _names(self.compared), _names(self._key)
        # A column that is not compared is null, so that the total amount can name it.
        absent = "".join(
            f", NULL::{TYPES[column.type]} AS {quote(column.name)}"
            for column in self._service.published_columns
            if column.name not in self.compared
        )
        with pa.OSFile(str(path)) as file:
            part = connection.from_arrow(pa.ipc.open_stream(file))
            part.query(
                "part",
                f"""CREATE OR REPLACE TEMP TABLE trips AS SELECT {compared}, source_row AS _row, {IS_NEW},
                ({self._total or "NULL"})::DECIMAL(18,2) AS _total FROM (SELECT *{absent} FROM part)""",
            )
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE repeated AS SELECT DISTINCT {key} FROM (
            SELECT {key} FROM trips GROUP BY {key}, {IS_NEW} HAVING count(*) > 1)"""
        )
        in_repeated = " AND ".join(f"t.{name} IS NOT DISTINCT FROM r.{name}" for name in map(quote, self._key))
        unique = f"SELECT t.*, 1 AS _place FROM trips t ANTI JOIN repeated r ON {in_repeated}"
        # Equal rows cancel each other out. Each copy of a row that remains gets its place among the rows of its trip.
        surplus = f"""SELECT {compared}, any_value(_total) AS _total, sum(CASE WHEN {IS_NEW} THEN 1 ELSE -1 END)::BIGINT
            AS _surplus, min(_row) FILTER (NOT {IS_NEW}) AS _old_row, min(_row) FILTER ({IS_NEW}) AS _new_row
            FROM (SELECT t.* FROM trips t SEMI JOIN repeated r ON {in_repeated}) GROUP BY {compared}"""
        copies = f"""SELECT {compared}, _total, _surplus > 0 AS {IS_NEW}, unnest(range(abs(_surplus))) AS _copy,
            CASE WHEN _surplus > 0 THEN _new_row ELSE _old_row END AS _row FROM ({surplus}) WHERE _surplus <> 0"""
        places = f"""SELECT *, row_number() OVER (PARTITION BY {key}, {IS_NEW} ORDER BY _row, _copy) AS _place
            FROM ({copies})"""
        differs = " OR ".join(["old_row IS NULL", "new_row IS NULL", *map(_is_changed, self._values)])
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE differences AS SELECT *, CASE WHEN old_row IS NULL THEN {literal(ADDED)}
            WHEN new_row IS NULL THEN {literal(REMOVED)} ELSE {literal(CHANGED)} END AS change FROM (
            SELECT *, 1::BIGINT AS row_count FROM ({self._paired(unique)}) WHERE {differs}
            UNION ALL SELECT *, count(*) AS row_count FROM ({self._paired(places)}) GROUP BY ALL)"""
        )

    def _paired(self, trips: str) -> str:
        """Return a query that pairs the older and newer trips of a query with the same key and place."""
        keys = [f"coalesce(n.{name}, o.{name}) AS {name}" for name in map(quote, self._key)]
        values = [
            f"o.{quote(name)} AS {_old(name)}, n.{quote(name)} AS {_new(name)}"
            for name in ("_row", "_total", *self._values)
        ]
        same = " AND ".join(f"o.{name} IS NOT DISTINCT FROM n.{name}" for name in (*map(quote, self._key), "_place"))
        return f"""WITH placed AS ({trips}) SELECT {", ".join([*keys, *values])} FROM
            (FROM placed WHERE NOT {IS_NEW}) o FULL JOIN (FROM placed WHERE {IS_NEW}) n ON {same}"""

    def _rows_query(self) -> str:
        """Return the query of the result's rows, sorted by pickup time and by row numbers."""
        changes = ", ".join(
            f"CASE WHEN {_is_changed(name)} THEN {{position: {position}, name: {literal(name)}, "
            f"old: {_old(name)}::VARCHAR, new: {_new(name)}::VARCHAR}} END"
            for position, name in enumerate(self._values)
        )
        no_change = "NULL::STRUCT(position INTEGER, name VARCHAR, old VARCHAR, new VARCHAR)"
        found = f"list_filter([{changes}], lambda change: change IS NOT NULL)" if changes else "[]"
        unnested = f"unnest(CASE WHEN change <> {literal(CHANGED)} THEN [{no_change}] ELSE {found} END) AS difference"
        columns = {
            **{
                column.name: f"CASE WHEN new_row IS NULL THEN {_old(column.name)} ELSE {_new(column.name)} END"
                if column.name in self._values
                else f"NULL::{TYPES[column.type]}"
                for column in self._service.published_columns
                if column.name not in self._key
            },
            "data_month": f"DATE {literal(f'{self._month.start:%Y-%m-%d}')}",
            "changed_column": "difference.name",
            "old_value": "difference.old",
            "new_value": "difference.new",
            "old_source_row": "old_row",
            "new_source_row": "new_row",
        }
        selected = ", ".join(
            f"{columns.get(column.name, quote(column.name))} AS {quote(column.name)}"
            for column in revision_columns(self._service)
        )
        return f"""SELECT {selected} FROM (SELECT *, {unnested} FROM differences)
            ORDER BY pickup_datetime, coalesce(new_row, old_row), change, difference.position"""

    def _add_totals(self, connection: duckdb.DuckDBPyConnection) -> None:
        in_month = f"date_trunc('month', pickup_datetime) = DATE {literal(f'{self._month.start:%Y-%m-%d}')}"
        for change, day, rows in connection.execute(
            f"SELECT change, CASE WHEN {in_month} THEN day(pickup_datetime) END AS day, sum(row_count) "
            "FROM differences GROUP BY ALL"
        ).fetchall():
            self._totals.rows[change, day] += int(rows)
        money = ["_total", *self._money]
        sums = [
            *(f"sum((coalesce({_new(name)}, 0) - coalesce({_old(name)}, 0)) * row_count)" for name in money),
            *(f"sum(row_count) FILTER (change = {literal(CHANGED)} AND {_is_changed(name)})" for name in self._values),
        ]
        found = connection.execute(f"SELECT {', '.join(sums)} FROM differences").fetchone() or ()
        for name, dollars in zip(money, found, strict=False):
            self._totals.cents[name] += int((dollars or Decimal()).scaleb(2))
        for name, rows in zip(self._values, found[len(money) :], strict=True):
            self._totals.changed[name] += int(rows or 0)

    def _add_largest(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Add the differences with the largest effect on the total amount, or with the most rows."""
        key = ", ".join(f"{name}::VARCHAR AS {name}" for name in map(quote, self._key))
        order = "effect DESC, row_count DESC, pickup_datetime, coalesce(new_row, old_row), change"
        found = connection.execute(
            "SELECT abs(coalesce(new_total, 0) - coalesce(old_total, 0)) * row_count AS effect, "
            f"change, row_count, old_total, new_total, {key} "
            f"FROM differences ORDER BY {order} LIMIT {_LARGEST}"
        ).fetchall()
        for effect, change, rows, old, new, *values in found:
            difference = LargestDifference(
                change=change,
                row_count=rows,
                key=dict(zip(self._key, values, strict=True)),
                old_cents=None if old is None else int(old.scaleb(2)),
                new_cents=None if new is None else int(new.scaleb(2)),
            )
            self._totals.largest.append(((-effect, -rows), difference))
        # Among equals, the earliest pickup comes first, because parts come in the order of pickup times.
        self._totals.largest = sorted(self._totals.largest, key=lambda each: each[0])[:_LARGEST]

    def largest(self) -> list[LargestDifference]:
        """Return the largest differences of all parts."""
        return [difference for _, difference in self._totals.largest]

    def reconciled_report(self) -> RevisionReport:
        """Return the report of all parts.

        Raises:
            ReconciliationError: The differences do not explain the rows and the cents of the two files.
        """
        old, new, totals = self._old.report, self._new.report, self._totals
        rows = {change: sum(n for (each, _), n in totals.rows.items() if each == change) for change in CHANGES}
        days = range(1, self._month.days + 1)
        report = RevisionReport(
            service=self._service.name,
            month=str(self._month),
            data_version=comparison_version(old, new),
            old_sha256=old.raw_sha256,
            new_sha256=new.raw_sha256,
            rows_old=old.clean.rows,
            rows_new=new.clean.rows,
            quarantined_old=old.rows_quarantined,
            quarantined_new=new.rows_quarantined,
            rows_added=rows[ADDED],
            rows_removed=rows[REMOVED],
            rows_changed=rows[CHANGED],
            changed_by_column={name: totals.changed[name] for name in self._values if totals.changed[name]},
            cents=totals.cents["_total"] if self._total else None,
            cents_by_column={name: totals.cents[name] for name in self._money if totals.cents[name]},
            columns_only_old=columns_only_in(old, new),
            columns_only_new=columns_only_in(new, old),
            rows_by_day={change: [totals.rows[change, day] for day in days] for change in CHANGES},
        )
        self._require_reconciled(report)
        return report

    def _require_reconciled(self, report: RevisionReport) -> None:
        """Raise an error if the report does not explain the rows and the cents of the two files.

        The cents are those of all money columns, so they are not checked if the revisions differ in money columns.
        """
        old, new = self._old.report, self._new.report
        checks = [("rows", report.rows_added - report.rows_removed, new.clean.rows - old.clean.rows)]
        absent = {*self._service.money_columns} - {*self._money}
        if not absent & {*report.columns_only_old, *report.columns_only_new}:
            cents = sum(self._totals.cents[name] for name in self._money)
            checks.append(("cents", cents, new.clean.cents - old.clean.cents))
        for unit, found, expected in checks:
            if found != expected:
                raise ReconciliationError(
                    f"{self._service.name} {self._month}: the newer revision has {expected:+,} {unit}, but the "
                    f"differences add up to {found:+,}. Nothing was written.",
                    remedy="Materialize the clean month again, then compare again. If the error persists, report it.",
                )


def _names(columns: Sequence[str]) -> str:
    return ", ".join(map(quote, columns))


def _old(name: str) -> str:
    return quote(f"old_{name.removeprefix('_')}")


def _new(name: str) -> str:
    return quote(f"new_{name.removeprefix('_')}")


def _is_changed(name: str) -> str:
    return f"{_old(name)} IS DISTINCT FROM {_new(name)}"
