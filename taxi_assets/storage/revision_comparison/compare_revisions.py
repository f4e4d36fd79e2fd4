"""Compare two revisions of a month, both cleaned by the same rules, row by row.

The trips of the two clean files are compared as multisets, by value. They are first divided by pickup time into parts
that fit in memory, and compared one part after the other. The memory that this takes does not grow with the month.

Belongs here: the course of a comparison, and its report. Does not belong here: the form of the result
(`tlc/revision_report.py`).
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from taxi_assets.errors import LakeConfigurationError, ReconciliationError
from taxi_assets.storage.duckdb_config import NO_EXTENSIONS
from taxi_assets.storage.revision_comparison.difference_rows import TOTAL, DifferenceRows
from taxi_assets.storage.revision_comparison.large_parts import find_differences_on_disk
from taxi_assets.storage.revision_comparison.month_parts import divide_by_pickup
from taxi_assets.storage.revision_comparison.row_matching import find_differences
from taxi_assets.storage.revision_comparison.row_values import TripRows
from taxi_assets.tlc.parquet_io import TripWriter
from taxi_assets.tlc.revision_report import (
    ADDED,
    CHANGED,
    CHANGES,
    REMOVED,
    VERSION,
    RevisionReport,
    columns_only_in,
    compared_columns,
    trip_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from taxi_assets.storage.revision_comparison.difference_rows import LargestDifference
    from taxi_assets.storage.revision_comparison.month_parts import CleanRevision, Part
    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

# Only parts that do not fit in memory need more, and use the disk.
CONFIG: Mapping[str, Any] = {"memory_limit": "192MB", "threads": "2", **NO_EXTENSIONS}
_FREE_SPACE = "Free disk space there: the comparison needs about 100 bytes per row for temporary files."
_FULL_MESSAGES = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT)]
_DISTINCT_COLUMNS = ("pickup_datetime", "dropoff_datetime", "old_source_row", "new_source_row")


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
    path = folder / "differences.parquet"
    config = {**CONFIG, "temp_directory": str(folder / "spilled")}
    with _no_space_as_configuration_error(folder), closing(duckdb.connect(config=config)) as connection:
        comparison = _Comparison(service, month, old, new, connection)
        rows = 0
        with TripWriter(path, comparison.result.schema, distinct_columns=_DISTINCT_COLUMNS) as writer:
            columns = [*comparison.compared, "source_row"]
            for part in divide_by_pickup(month, old, new, columns, folder):
                for batch in comparison.compare_part(part):
                    writer.write(batch)
                    rows += batch.num_rows
            report = comparison.reconciled_report()
            writer.finish({**{name.encode(): value.encode() for name, value in footer.items()}, **report.footer()})
    return ComparedRevisions(path, rows, report, comparison.largest())


@contextmanager
def _no_space_as_configuration_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.IOException, duckdb.OutOfMemoryException, OSError) as error:
        remedy = "Check that this folder can be written to."
        if isinstance(error, duckdb.OutOfMemoryException):
            # DuckDB says the same, whether it cannot move more of its memory to the disk or needs too much at once.
            remedy = f"{_FREE_SPACE} If the disk has space, too many trips have the same pickup time to compare them."
        elif any(text in str(error) for text in _FULL_MESSAGES):
            remedy = _FREE_SPACE
        elif isinstance(error, OSError):
            raise
        message = str(error).partition("\n")[0].rstrip(".")
        raise LakeConfigurationError(
            f"Two revisions cannot be compared in {folder}: {message}.", remedy=remedy
        ) from error


class _Comparison:
    """A comparison, part by part."""

    def __init__(
        self,
        service: Service,
        month: Month,
        old: CleanRevision,
        new: CleanRevision,
        connection: duckdb.DuckDBPyConnection,
    ) -> None:
        self._service, self._month = service, month
        self._old, self._new = old, new
        self._connection = connection
        self.compared = compared_columns(service, old.report, new.report)
        self._key = trip_key(self.compared)
        # A cursor, because a query ends other queries of its connection whose rows have not all been read.
        self.result = DifferenceRows(service, month, self.compared, self._key, connection.cursor())

    def compare_part(self, part: Part) -> Iterator[pa.RecordBatch]:
        """Compare the trips of a part, add to the totals, and yield the rows of the result, sorted by pickup time."""
        if part.fits_in_memory:
            rows = TripRows.of(part.batches(part.old), part.batches(part.new))
            yield from self.result.batches(find_differences(rows, self.compared, self._key))
        else:
            for differences in find_differences_on_disk(self._connection, part, self.compared, self._key):
                yield from self.result.batches(differences)

    def largest(self) -> list[LargestDifference]:
        """Return the largest differences of all parts."""
        return [difference for _, difference in self.result.totals.largest]

    def reconciled_report(self) -> RevisionReport:
        """Return the report of all parts.

        Raises:
            ReconciliationError: The differences do not explain the rows and the cents of the two files.
        """
        old, new, totals = self._old.report, self._new.report, self.result.totals
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
            changed_by_column={name: totals.changed[name] for name in self.compared if totals.changed[name]},
            cents=totals.cents[TOTAL] if self.result.total else None,
            cents_by_column={name: totals.cents[name] for name in self.result.money if totals.cents[name]},
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
        absent = {*self._service.money_columns} - {*self.result.money}
        if not absent & {*report.columns_only_old, *report.columns_only_new}:
            cents = sum(self.result.totals.cents[name] for name in self.result.money)
            checks.append(("cents", cents, new.clean.cents - old.clean.cents))
        for unit, found, expected in checks:
            if found != expected:
                raise ReconciliationError(
                    f"{self._service.name} {self._month}: the newer revision has {expected:+,} {unit}, but the "
                    f"differences add up to {found:+,}. Nothing was written.",
                    remedy="Materialize the clean month again, then compare again. If the error persists, report it.",
                )
