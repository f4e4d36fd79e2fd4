"""Build the report of a month while its batches are cleaned."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.cleaning.file_checks import MalformedRows, PickupMonths
from taxi_assets.tlc.cleaning.refusal import UnreadableValues, is_hopeless, too_many_quarantined_error
from taxi_assets.tlc.cleaning.report import (
    NO_ROWS,
    CleaningReport,
    ReasonTotals,
    UnknownColumn,
    compute_totals,
    to_cents,
)
from taxi_assets.tlc.cleaning.time_marks import TimeMarks
from taxi_assets.tlc.readers.header import readable_name
from taxi_assets.tlc.readers.json_text import to_json_value
from taxi_assets.tlc.rules import READING_REASONS, REPEATED_HEADER, WRONG_FIELD_COUNT
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.errors import TooManyQuarantinedError
    from taxi_assets.tlc.cleaning.file_checks import FileChecks
    from taxi_assets.tlc.cleaning.split_batch import SplitBatch
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.readers.base_reader import RawBatch
    from taxi_assets.tlc.rules import Rule
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.source_record import SourceRecord
    from taxi_assets.tlc.values.time_forms import TimeForm

# Examples of an unknown column: distinct values, their maximum length in characters, and the rows read per batch.
_EXAMPLES, _EXAMPLE_LENGTH, _EXAMPLE_ROWS = 3, 80, 1000


class ReportBuilder:
    """Builds the report of a month from its batches."""

    def __init__(self, service: Service, month: Month) -> None:
        self._service = service
        self._month = month
        self._clean = NO_ROWS
        self._batches = 0
        self._quarantined = self._quarantined_cents = self._reading_errors = 0
        self._unreadable = UnreadableValues()
        self._time_marks = TimeMarks(month)
        self._pickup_months = PickupMonths(month)
        self._malformed_rows = MalformedRows()
        self._reasons: Counter[str] = Counter()
        self._reason_cents: Counter[str] = Counter()
        self._by_day = np.zeros(month.days, np.int64)
        self._published: dict[str, dict[str, None]] = {}
        self._unknown: dict[str, _UnknownValues] = {}

    def add(self, raw: RawBatch, split: SplitBatch) -> None:
        """Count the rows of a batch."""
        self._batches += 1
        clean = split.clean
        self._clean += compute_totals(clean, self._service.money_columns)
        for day in pc.value_counts(clean.column("pickup_date")).to_pylist():
            index = (day["values"] - self._month.start).days if day["values"] else -1
            if 0 <= index < self._month.days:
                self._by_day[index] += day["counts"]
        self._add_quarantined(split.quarantine)
        self._add_columns(raw)
        self._unreadable.add(raw, split.parsed.unreadable)
        self._time_marks.add(raw, split.parsed)
        self._pickup_months.add(split)
        self._malformed_rows.add(raw)

    def _add_quarantined(self, quarantine: Any) -> None:
        reasons, totals = quarantine.column("reasons"), quarantine.column("total_amount")
        self._quarantined += quarantine.num_rows
        self._quarantined_cents += to_cents(pc.sum(totals).as_py())
        names = reasons.flatten().dictionary_encode()
        # The working type is decimal64 with two decimals. Its bytes, viewed as int64, are the cents.
        cents = pc.cast(totals, ColumnType.MONEY.working_type).view(pa.int64()).fill_null(0)
        rows = pc.list_parent_indices(reasons)
        cents = np.asarray(cents.take(rows))
        reading_errors = pc.is_in(names.dictionary, value_set=pa.array(READING_REASONS)).take(names.indices)
        self._reading_errors += pc.count_distinct(rows.filter(reading_errors)).as_py()
        for code, name in enumerate(names.dictionary.to_pylist()):
            has_reason = np.asarray(names.indices) == code
            self._reasons[name] += int(np.count_nonzero(has_reason))
            self._reason_cents[name] += int(cents[has_reason].sum())

    def _add_columns(self, raw: RawBatch) -> None:
        layout = raw.layout
        for name, positions in layout.match.positions.items():
            published = self._published.setdefault(name, {})
            published.update(dict.fromkeys(readable_name(layout.names[position], position) for position in positions))
        for position in layout.match.unknown:
            name = readable_name(layout.names[position], position)
            unknown = self._unknown.setdefault(
                name, _UnknownValues(layout.types[position], bool(layout.names[position]))
            )
            unknown.add(raw.arrays[position])

    def refuse_hopeless_file(self, label: str) -> None:
        """Refuse a file before its end if hardly any row can be read.

        Args:
            label: Names the file in errors, such as "green 2020-10".

        Raises:
            TooManyQuarantinedError: At least 99% of the first batches' rows cannot be read.
        """
        rows = self._clean.rows + self._quarantined
        if is_hopeless(batches=self._batches, rows=rows, reading_errors=self._reading_errors):
            raise self.too_many_quarantined_error(label, before_end=True)

    def check_file(self, label: str, checks: FileChecks) -> None:
        """Refuse a file of another month, or with a part that does not have the columns of its header.

        Args:
            label: Names the file in errors, such as "green 2020-10".
            checks: The checks that the run has relaxed.

        Raises:
            WrongMonthError: Most pickups are in other months.
            ColumnMismatchError: Too many rows have another number of fields than the header.
            TooManyQuarantinedError: Too many rows cannot be read.
        """
        step = f"ops/clean_{self._service.name}/config"
        malformed, rows = self._reasons[WRONG_FIELD_COUNT], self._clean.rows + self._quarantined
        limit = f"{step}/maximum_share_unreadable"
        self._malformed_rows.require_few(label, malformed, rows, checks.maximum_share_unreadable, limit)
        unreadable = self._reading_errors - self._reasons[REPEATED_HEADER]
        if unreadable > checks.maximum_share_unreadable * rows:
            raise self.too_many_quarantined_error(label, limit=limit)
        self._pickup_months.require_all_day(label)
        if not checks.allow_other_months:
            self._pickup_months.require_month(label, f"{step}/allow_other_months: true")

    def uncertain_time_forms(self, label: str) -> frozenset[TimeForm]:
        """Return the forms of times that may be in UTC, or refuse the file; see `TimeMarks.uncertain_forms`."""
        return self._time_marks.uncertain_forms(label, rows=self._clean.rows + self._quarantined)

    def too_many_quarantined_error(
        self, label: str, *, before_end: bool = False, limit: str | None = None
    ) -> TooManyQuarantinedError:
        """Return the error for a month with too many quarantined rows.

        Args:
            label: Names the file, such as "green 2020-10".
            before_end: Whether the file has more rows than were added.
            limit: The place in the run config of the limit of unreadable rows, if it is exceeded.
        """
        return too_many_quarantined_error(
            label,
            rows=self._clean.rows + self._quarantined,
            quarantined=self._quarantined,
            reading_errors=self._reading_errors,
            reasons=dict(sorted(self._reasons.items())),
            unreadable=self._unreadable.columns(),
            before_end=before_end,
            limit=limit,
        )

    def build(self, record: SourceRecord, rules: Sequence[Rule], data_version: str) -> CleaningReport:
        """Return the report of all batches that were added."""
        return CleaningReport(
            service=self._service.name,
            month=str(self._month),
            data_version=data_version,
            raw_sha256=record.sha256,
            generated=record.generated,
            rules=[rule.name for rule in rules],
            rows_raw=record.rows,
            rows_quarantined=self._quarantined,
            clean=self._clean,
            quarantined_total_cents=self._quarantined_cents,
            reasons={
                name: ReasonTotals(rows=rows, total_cents=self._reason_cents[name])
                for name, rows in sorted(self._reasons.items())
            },
            rows_by_day=self._by_day.tolist(),
            unknown_columns=[
                UnknownColumn(name=name, type=unknown.type, examples=list(unknown.examples)[:_EXAMPLES])
                for name, unknown in self._unknown.items()
                # Some known layouts have fields that the header does not name; they are always empty. Report such a
                # field only if it has a value.
                if unknown.has_name or unknown.examples
            ],
            absent_columns=[
                column.name for column in self._service.published_columns if column.name not in self._published
            ],
            published_columns={name: list(published) for name, published in self._published.items()},
            unreadable_columns=dict(self._unreadable.columns()),
            interpretations=dict(self._time_marks.interpretations()),
        )


@dataclass
class _UnknownValues:
    """Distinct values of a column that matches no canonical column."""

    type: str
    has_name: bool
    examples: dict[str, None] = field(default_factory=dict)

    def add(self, array: Any) -> None:
        if len(self.examples) < _EXAMPLES:
            values = array.drop_null()[:_EXAMPLE_ROWS]
            self.examples.update(dict.fromkeys(str(to_json_value(value))[:_EXAMPLE_LENGTH] for value in values))
