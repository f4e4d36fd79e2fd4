"""From a published file to two Parquet files: the clean trips, and the quarantine. No row is lost on the way.

Belongs here: the order of the work, and the counting. Reading is `read.py`, one batch is `split_batch.py`, values are
`values.py`, rules are `rules.py`.
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
from taxi_assets.tlc.cleaning.report import (
    NO_ROWS,
    CleaningReport,
    ReasonTotals,
    UnknownColumn,
    compute_totals,
    to_cents,
)
from taxi_assets.tlc.cleaning.split_batch import QUARANTINE_SCHEMA, SplitBatch, split_batch
from taxi_assets.tlc.parquet_io import QUARANTINE_ROW_GROUP_ROWS, ROW_GROUP_ROWS, TripWriter
from taxi_assets.tlc.readers.csv_blocks import DECOMPRESSION_ERRORS
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

# Real months have 0.5 to 1.4 %. Beyond this it is not dirt: the file's format has changed.
MAXIMUM_SHARE_QUARANTINED = 0.5

# Of a column that is not known: so many different values, of so many characters, from so many rows of a batch.
_EXAMPLES, _EXAMPLE_LENGTH, _EXAMPLES_FROM = 3, 80, 1000


@dataclass(frozen=True)
class CleanedMonth:
    """Two finished files that belong together, and what is in them."""

    clean: Path
    quarantine: Path
    report: CleaningReport


def data_version(record: SourceRecord, service: Service, rules: Sequence[Rule]) -> str:
    """Digest of all that decides what a month's clean rows are: its bytes, the schema, the rules."""
    return hashlib.sha256(json.dumps([record.sha256, service.version(rules)]).encode()).hexdigest()


def clean_month(
    path: Path, record: SourceRecord, service: Service, month: Month, rules: Sequence[Rule], output_dir: Path
) -> CleanedMonth:
    """Clean one month's file into `into/clean.parquet` and `into/quarantine.parquet`.

    Streams: memory does not grow with the month. Raises `InvalidFileError` for a file that cannot be read,
    `ColumnMismatchError` for columns of no known era, `TooManyQuarantinedError` beyond half of the rows, `ReconciliationError`
    where the rows do not add up to those that were counted when the file arrived.
    """
    label = f"{service.name} {month}"
    clean_path, quarantine_path = output_dir / "clean.parquet", output_dir / "quarantine.parquet"
    tally = _ReportBuilder(service, month)
    with ExitStack() as files:
        with _named_errors(record, label):
            reader = files.enter_context(open_trips(path, record.format, service, label=label))
        clean_writer = files.enter_context(TripWriter(clean_path, service.working_schema, ROW_GROUP_ROWS))
        quarantine_writer = files.enter_context(
            TripWriter(quarantine_path, QUARANTINE_SCHEMA, QUARANTINE_ROW_GROUP_ROWS)
        )
        reading = files.enter_context(ThreadPoolExecutor(1, "read"))
        for published in _prefetch(reader.batches(), reading, record, label):
            parted = split_batch(published, reader, service, month, rules)
            tally.add(published, parted, reader)
            clean_writer.write(parted.clean)
            quarantine_writer.write(parted.quarantine)
        report = tally.report(reader, record, rules)
        _check_totals_and_quarantine_rate(report, label)
        clean_writer.finish(report.footer())
        quarantine_writer.finish(report.footer())
    return CleanedMonth(clean_path, quarantine_path, report)


@contextmanager
def _named_errors(record: SourceRecord, label: str) -> Iterator[None]:
    # Only what reading raises says something about the file; a full disk, say, does not.
    try:
        yield
    except (pa.ArrowException, OSError, *DECOMPRESSION_ERRORS) as error:
        finding = " ".join(str(error).split()).rstrip(".")
        raise InvalidFileError(
            f"{label}: the file cannot be read as {record.format}: {finding}.",
            remedy=f"Fetch it again; when that does not help, look at what {record.url} sends.",
        ) from error


def _prefetch(batches: Iterator[RawBatch], thread: Executor, record: SourceRecord, label: str) -> Iterator[RawBatch]:
    """The batches, of which the next one is read while one is worked on."""
    coming = thread.submit(next, batches, None)
    while True:
        with _named_errors(record, label):
            batch = coming.result()
        if batch is None:
            return
        coming = thread.submit(next, batches, None)
        yield batch


def _check_totals_and_quarantine_rate(report: CleaningReport, label: str) -> None:
    found = report.clean.rows + report.rows_quarantined
    if found != report.rows_raw:
        raise ReconciliationError(
            f"{label}: {found:,} rows were read ({report.clean.rows:,} clean, {report.rows_quarantined:,} quarantined), "
            f"but the file has {report.rows_raw:,}. Nothing was published.",
            remedy="The file contradicts itself, or the reader has a defect: fetch it again, or report it.",
        )
    if report.share_quarantined > MAXIMUM_SHARE_QUARANTINED:
        reasons = ", ".join(f"{name} {reason.rows:,}" for name, reason in report.reasons.items())
        raise TooManyQuarantinedError(
            f"{label}: {report.rows_quarantined:,} of {report.rows_raw:,} rows would be quarantined ({reasons}). "
            "Nothing was published.",
            remedy="Look at the file: its format may have changed. Rules can be left out by run config.",
        )


class _ReportBuilder:
    """Counts what goes by."""

    def __init__(self, service: Service, month: Month) -> None:
        self._service = service
        self._month = month
        self._clean = NO_ROWS
        self._quarantined = self._quarantined_cents = 0
        self._reasons: Counter[str] = Counter()
        self._reason_cents: Counter[str] = Counter()
        self._by_day = np.zeros(month.days, np.int64)
        self._examples: dict[int, dict[str, None]] = {}

    def add(self, published: RawBatch, parted: SplitBatch, reader: TripReader) -> None:
        clean = parted.clean
        self._clean += compute_totals(clean, self._service.money_columns)
        for day in pc.value_counts(clean.column("pickup_date")).to_pylist():
            place = (day["values"] - self._month.start).days if day["values"] else -1
            if 0 <= place < self._month.days:
                self._by_day[place] += day["counts"]
        self._add_quarantined(parted.quarantine)
        self._add_examples(published, reader)

    def _add_quarantined(self, quarantine: Any) -> None:
        reasons, totals = quarantine.column("reasons"), quarantine.column("total_amount")
        self._quarantined += quarantine.num_rows
        self._quarantined_cents += to_cents(pc.sum(totals).as_py())
        names = reasons.flatten().dictionary_encode()
        cents = pc.cast(totals, ColumnType.MONEY.working).view(pa.int64()).fill_null(0)
        cents = np.asarray(cents.take(pc.list_parent_indices(reasons)))
        for code, name in enumerate(names.dictionary.to_pylist()):
            holds = np.asarray(names.indices) == code
            self._reasons[name] += int(np.count_nonzero(holds))
            self._reason_cents[name] += int(cents[holds].sum())

    def _add_examples(self, published: RawBatch, reader: TripReader) -> None:
        for position in reader.match.unknown:
            examples = self._examples.setdefault(position, {})
            if len(examples) < _EXAMPLES:
                values = published.arrays[position].drop_null()[:_EXAMPLES_FROM]
                examples.update(dict.fromkeys(str(to_json_value(value))[:_EXAMPLE_LENGTH] for value in values))

    def report(self, reader: TripReader, record: SourceRecord, rules: Sequence[Rule]) -> CleaningReport:
        unknown = [
            UnknownColumn(
                name=reader.names[position] or f"(field {position + 1})",
                type=reader.types[position],
                examples=list(examples)[:_EXAMPLES],
            )
            for position, examples in self._examples.items()
            # Fields that no header names are empty in all eras known: drift only when they hold something.
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
        )
