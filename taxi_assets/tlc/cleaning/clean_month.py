"""Clean one published file into two Parquet files: clean trips and quarantine. No row is lost.

Belongs here: the order of the steps, and the counting of rows. Does not belong here: reading (`readers/`), splitting
one batch (`split_batch.py`), values (`values.py`) and rules (`rules.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.errors import InvalidFileError, ReconciliationError, TooManyQuarantinedError
from taxi_assets.tlc.cleaning.quarantine import QUARANTINE_SCHEMA
from taxi_assets.tlc.cleaning.report import (
    NO_ROWS,
    CleaningReport,
    ReasonTotals,
    UnknownColumn,
    compute_totals,
    to_cents,
)
from taxi_assets.tlc.cleaning.split_batch import SplitBatch, split_batch
from taxi_assets.tlc.parquet_io import QUARANTINE_ROW_GROUP_ROWS, ROW_GROUP_ROWS, TripWriter
from taxi_assets.tlc.readers.csv_blocks import DECOMPRESSION_ERRORS
from taxi_assets.tlc.readers.header import readable_name
from taxi_assets.tlc.readers.json_text import to_json_value
from taxi_assets.tlc.readers.open_trips import open_trips
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.readers.base_reader import RawBatch, TripReader
    from taxi_assets.tlc.rules import Rule
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.source_record import SourceRecord

MAXIMUM_SHARE_QUARANTINED = 0.5
"""The largest accepted share of quarantined rows, 0 to 1. Real months have 0.005 to 0.014.

With a larger share, nothing is written to the lake: the file's format has probably changed.
"""

# Examples of an unknown column: distinct values, their maximum length in characters, and the rows read per batch.
_EXAMPLES, _EXAMPLE_LENGTH, _EXAMPLE_ROWS = 3, 80, 1000


@dataclass(frozen=True)
class CleanedMonth:
    """The two files of a cleaned month, and their report.

    Attributes:
        clean: The path of the Parquet file of clean trips.
        quarantine: The path of the Parquet file of quarantined rows.
        report: The report, which is also in the footers of both files.
    """

    clean: Path
    quarantine: Path
    report: CleaningReport


def data_version(record: SourceRecord, service: Service, rules: Sequence[Rule]) -> str:
    """Return the data version of a clean month: a digest of the file's bytes, the schema and the rules.

    Args:
        record: The record of the published file, for its sha256.
        service: The service, for its columns.
        rules: The rules that the run applies.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps([record.sha256, service.version(rules)]).encode()).hexdigest()


def clean_month(
    path: Path, record: SourceRecord, service: Service, month: Month, rules: Sequence[Rule], output_dir: Path
) -> CleanedMonth:
    """Clean one published file into `output_dir/clean.parquet` and `output_dir/quarantine.parquet`.

    Rows are processed in batches, so memory does not grow with the size of the month. Every published row is in exactly
    one of the two files, in file order. The report is written to both footers only after all checks have passed.

    Args:
        path: The published file.
        record: Its record from the download, with its format, sha256 and independently counted rows.
        service: Defines the canonical columns.
        month: The partition.
        rules: The rules to apply.
        output_dir: An existing folder.

    Raises:
        InvalidFileError: The file cannot be read.
        ColumnMismatchError: The columns match no known layout of the service.
        TooManyQuarantinedError: More than half of the rows would be quarantined.
        ReconciliationError: Clean and quarantined rows do not add up to the rows that were counted during the download.
    """
    label = f"{service.name} {month}"
    clean_path, quarantine_path = output_dir / "clean.parquet", output_dir / "quarantine.parquet"
    report_builder = _ReportBuilder(service, month)
    with ExitStack() as stack:
        with _read_errors_as_invalid_file(record, label):
            reader = stack.enter_context(open_trips(path, record.format, service, label=label))
        clean_writer = stack.enter_context(TripWriter(clean_path, service.working_schema, ROW_GROUP_ROWS))
        quarantine_writer = stack.enter_context(
            TripWriter(quarantine_path, QUARANTINE_SCHEMA, QUARANTINE_ROW_GROUP_ROWS)
        )
        reader_thread = stack.enter_context(ThreadPoolExecutor(1, "read"))
        for raw in _prefetch(reader.batches(), reader_thread, record, label):
            split = split_batch(raw, service, month, rules, reader=reader)
            report_builder.add(raw, split, reader)
            clean_writer.write(split.clean)
            quarantine_writer.write(split.quarantine)
        report = report_builder.build(reader, record, rules)
        _check_totals_and_quarantine_rate(report, label)
        clean_writer.finish(report.footer())
        quarantine_writer.finish(report.footer())
    return CleanedMonth(clean_path, quarantine_path, report)


@contextmanager
def _read_errors_as_invalid_file(record: SourceRecord, label: str) -> Iterator[None]:
    # Only read errors are the file's fault. A write error, such as a full disk, is not.
    try:
        yield
    except (pa.ArrowException, OSError, *DECOMPRESSION_ERRORS) as error:
        cause = " ".join(str(error).split()).rstrip(".")
        raise InvalidFileError(
            f"{label}: the file cannot be read as {record.format}: {cause}.",
            remedy=f"Fetch it again. If that does not help, check what {record.url} sends.",
        ) from error


def _prefetch(batches: Iterator[RawBatch], thread: Executor, record: SourceRecord, label: str) -> Iterator[RawBatch]:
    """Yield the batches, and read the next batch in a thread while the caller processes one."""
    next_batch = thread.submit(next, batches, None)
    while True:
        with _read_errors_as_invalid_file(record, label):
            batch = next_batch.result()
        if batch is None:
            return
        next_batch = thread.submit(next, batches, None)
        yield batch


def _check_totals_and_quarantine_rate(report: CleaningReport, label: str) -> None:
    found = report.clean.rows + report.rows_quarantined
    if found != report.rows_raw:
        raise ReconciliationError(
            f"{label}: {found:,} rows were read ({report.clean.rows:,} clean, {report.rows_quarantined:,} quarantined),"
            f" but the file has {report.rows_raw:,}. Nothing was written.",
            remedy="Fetch the file again. If the error persists, report it: the file or the reader is faulty.",
        )
    if report.share_quarantined > MAXIMUM_SHARE_QUARANTINED:
        reasons = ", ".join(f"{name} {reason.rows:,}" for name, reason in report.reasons.items())
        raise TooManyQuarantinedError(
            f"{label}: {report.rows_quarantined:,} of {report.rows_raw:,} rows would be quarantined ({reasons}). "
            "Nothing was written.",
            remedy="Check the file: its format may have changed. To skip rules, choose them in the run config.",
        )


class _ReportBuilder:
    """Builds the report of a month from its batches."""

    def __init__(self, service: Service, month: Month) -> None:
        self._service = service
        self._month = month
        self._clean = NO_ROWS
        self._quarantined = self._quarantined_cents = 0
        self._reasons: Counter[str] = Counter()
        self._reason_cents: Counter[str] = Counter()
        self._by_day = np.zeros(month.days, np.int64)
        self._examples: dict[int, dict[str, None]] = {}

    def add(self, raw: RawBatch, split: SplitBatch, reader: TripReader) -> None:
        """Count the rows of a batch."""
        clean = split.clean
        self._clean += compute_totals(clean, self._service.money_columns)
        for day in pc.value_counts(clean.column("pickup_date")).to_pylist():
            index = (day["values"] - self._month.start).days if day["values"] else -1
            if 0 <= index < self._month.days:
                self._by_day[index] += day["counts"]
        self._add_quarantined(split.quarantine)
        self._add_examples(raw, reader)

    def _add_quarantined(self, quarantine: Any) -> None:
        reasons, totals = quarantine.column("reasons"), quarantine.column("total_amount")
        self._quarantined += quarantine.num_rows
        self._quarantined_cents += to_cents(pc.sum(totals).as_py())
        names = reasons.flatten().dictionary_encode()
        # The working type is decimal64 with two decimals. Its bytes, viewed as int64, are the cents.
        cents = pc.cast(totals, ColumnType.MONEY.working_type).view(pa.int64()).fill_null(0)
        cents = np.asarray(cents.take(pc.list_parent_indices(reasons)))
        for code, name in enumerate(names.dictionary.to_pylist()):
            has_reason = np.asarray(names.indices) == code
            self._reasons[name] += int(np.count_nonzero(has_reason))
            self._reason_cents[name] += int(cents[has_reason].sum())

    def _add_examples(self, raw: RawBatch, reader: TripReader) -> None:
        # `reader.match` maps the file's columns to the service's; `unknown` has the positions of the others.
        for position in reader.match.unknown:
            examples = self._examples.setdefault(position, {})
            if len(examples) < _EXAMPLES:
                values = raw.arrays[position].drop_null()[:_EXAMPLE_ROWS]
                examples.update(dict.fromkeys(str(to_json_value(value))[:_EXAMPLE_LENGTH] for value in values))

    def build(self, reader: TripReader, record: SourceRecord, rules: Sequence[Rule]) -> CleaningReport:
        """Return the report of all batches that were added."""
        unknown = [
            UnknownColumn(
                name=reader.names[position] or f"(field {position + 1})",
                type=reader.types[position],
                examples=list(examples)[:_EXAMPLES],
            )
            for position, examples in self._examples.items()
            # Some known layouts have fields that the header does not name; they are always empty. Report such a field
            # only if it has a value.
            if reader.names[position] or examples
        ]
        return CleaningReport(
            service=self._service.name,
            month=str(self._month),
            data_version=data_version(record, self._service, rules),
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
            unknown_columns=unknown,
            absent_columns=list(reader.match.absent),
            published_columns={
                column: [readable_name(reader.names[position], position) for position in positions]
                for column, positions in reader.match.positions.items()
            },
        )
