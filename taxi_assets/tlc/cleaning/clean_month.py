"""Clean one published file into two Parquet files: clean trips and quarantine. No row is lost.

Belongs here: the order of the steps, and the checks of a whole month. Does not belong here: reading (`readers/`),
splitting one batch (`split_batch.py`), values (`tlc/values/`), rules (`rules.py`) and counting (`report_builder.py`).
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from taxi_assets.errors import InvalidFileError, ReconciliationError
from taxi_assets.tlc.cleaning.file_checks import DEFAULT_CHECKS
from taxi_assets.tlc.cleaning.quarantine import QUARANTINE_SCHEMA
from taxi_assets.tlc.cleaning.refusal import MAXIMUM_SHARE_QUARANTINED
from taxi_assets.tlc.cleaning.report_builder import ReportBuilder
from taxi_assets.tlc.cleaning.split_batch import split_batch
from taxi_assets.tlc.parquet_io import QUARANTINE_ROW_GROUP_ROWS, ROW_GROUP_ROWS, TripWriter
from taxi_assets.tlc.readers.csv_blocks import DECOMPRESSION_ERRORS
from taxi_assets.tlc.readers.open_trips import open_trips

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from taxi_assets.tlc.cleaning.file_checks import FileChecks
    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.readers.base_reader import RawBatch
    from taxi_assets.tlc.rules import Rule
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.source_record import SourceRecord
    from taxi_assets.tlc.values.time_forms import TimeForm


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


def data_version(record: SourceRecord, service: Service, rules: Sequence[Rule], *, pinned: bool = False) -> str:
    """Return the data version of a clean month: a digest of the file's bytes, the schema and the rules.

    Args:
        record: The record of the published file, for its sha256.
        service: The service, for its columns.
        rules: The rules that the run applies.
        pinned: Whether the month is pinned to the file. Then it has another data version, so that pinning and releasing
            a month rewrites it, even if its rows stay the same.

    Returns:
        64 hexadecimal digits.
    """
    inputs = [record.sha256, service.version(rules), *(["pinned"] if pinned else [])]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def clean_month(
    path: Path,
    record: SourceRecord,
    service: Service,
    month: Month,
    rules: Sequence[Rule],
    output_dir: Path,
    checks: FileChecks = DEFAULT_CHECKS,
    *,
    pinned: bool = False,
    unreadable_forms: frozenset[TimeForm] = frozenset(),
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
        checks: The checks of the whole file that the run has relaxed.
        pinned: Whether the month is pinned to the file, as the report then says.
        unreadable_forms: Forms of times that cannot be read. If a few rows have a form whose meaning is uncertain, the
            file is cleaned again with this form.

    Raises:
        InvalidFileError: The file cannot be read.
        ColumnMismatchError: The columns match no known layout of the service, or too many rows have another number of
            fields.
        WrongMonthError: Most of the pickups are in other months.
        TooManyQuarantinedError: More than half of the rows would be quarantined.
        AmbiguousTimesError: The pickup times are marked as UTC, and may not be New York local times.
        ReconciliationError: Clean and quarantined rows do not add up to the rows that were counted during the download.
    """
    label = f"{service.name} {month}"
    clean_path, quarantine_path = output_dir / "clean.parquet", output_dir / "quarantine.parquet"
    report_builder = ReportBuilder(service, month)
    with ExitStack() as stack:
        with _read_errors_as_invalid_file(record, label):
            reader = stack.enter_context(open_trips(path, record.format, service, label=label, month=month))
        clean_writer = stack.enter_context(TripWriter(clean_path, service.working_schema, ROW_GROUP_ROWS))
        quarantine_writer = stack.enter_context(
            TripWriter(quarantine_path, QUARANTINE_SCHEMA, QUARANTINE_ROW_GROUP_ROWS)
        )
        reader_thread = stack.enter_context(ThreadPoolExecutor(1, "read"))
        for raw in _prefetch(reader.batches(), reader_thread, record, label):
            split = split_batch(raw, service, month, rules, unreadable_forms)
            report_builder.add(raw, split)
            report_builder.refuse_hopeless_file(label)
            clean_writer.write(split.clean)
            quarantine_writer.write(split.quarantine)
        report = report_builder.build(record, rules, data_version(record, service, rules, pinned=pinned))
        report = report.model_copy(update={"pinned": pinned})
        _check_totals(report, label)
        report_builder.check_file(label, checks)
        uncertain = report_builder.uncertain_time_forms(label)
        if not uncertain:
            if report.share_quarantined > MAXIMUM_SHARE_QUARANTINED:
                raise report_builder.too_many_quarantined_error(label)
            clean_writer.finish(report.footer())
            quarantine_writer.finish(report.footer())
            return CleanedMonth(clean_path, quarantine_path, report)
    unreadable_forms |= uncertain
    return clean_month(
        path, record, service, month, rules, output_dir, checks, pinned=pinned, unreadable_forms=unreadable_forms
    )


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


def _check_totals(report: CleaningReport, label: str) -> None:
    found = report.clean.rows + report.rows_quarantined
    if found != report.rows_raw:
        raise ReconciliationError(
            f"{label}: {found:,} rows were read ({report.clean.rows:,} clean, {report.rows_quarantined:,} quarantined),"
            f" but the file has {report.rows_raw:,}. Nothing was written.",
            remedy="Fetch the file again. If the error persists, report it: the file or the reader is faulty.",
        )
