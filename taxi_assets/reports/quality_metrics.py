"""Quality over time: what became of every month's rows, as a table and as a picture.

Belongs here: from the months' own reports (`tlc/cleaning/report.py`) to rows and lines. No trip is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from taxi_assets.reports import formatting
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Column, ColumnType
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taxi_assets.tlc.cleaning.report import CleaningReport

ALL = "all"
"""In the place of a reason: the month as a whole."""

VERSION = 2
"""Bump when the same reports give another table."""

COLUMNS = (
    Column("service", ColumnType.TEXT, "The service by name, such as yellow."),
    Column("data_month", ColumnType.DATE, "First day of the published month."),
    Column("reason", ColumnType.TEXT, f"A reason for quarantine; '{ALL}': the month as a whole."),
    Column(
        "rows_quarantined",
        ColumnType.INTEGER,
        f"Rows left out. One with several reasons counts under each of them, and once under '{ALL}'.",
        "rows",
    ),
    Column("share_quarantined", ColumnType.DEGREES, "Of the month's published rows, between 0 and 1.", "share"),
    Column(
        "dollars_quarantined",
        ColumnType.DEGREES,
        "Sum of their total_amount where it can be read; null for services that do not record it.",
        "US dollars",
    ),
    Column("rows_raw", ColumnType.INTEGER, f"Rows of the published file; with '{ALL}' only.", "rows"),
    Column("rows_clean", ColumnType.INTEGER, f"Clean rows; with '{ALL}' only.", "rows"),
    Column(
        "change_of_rows",
        ColumnType.DEGREES,
        f"Clean rows against those of the month before, 0.1 is 10% more; with '{ALL}' only, and null where the month "
        "before is not in the lake.",
        "share",
    ),
    Column("unknown_columns", ColumnType.TEXT, f"Published columns that the schema does not know; with '{ALL}' only."),
    Column("absent_columns", ColumnType.TEXT, f"Columns that the file lacks, of those of its time; with '{ALL}' only."),
    Column("generated", ColumnType.BOOLEAN, "True for the generated sample: not TLC's records."),
)
_TYPES = {
    ColumnType.TEXT: pd.StringDtype(),
    ColumnType.INTEGER: pd.Int64Dtype(),
    ColumnType.DEGREES: pd.Float64Dtype(),
    ColumnType.BOOLEAN: pd.BooleanDtype(),
    ColumnType.DATE: pd.ArrowDtype(pa.date32()),
}


def quality_frame(reports: Iterable[CleaningReport]) -> pd.DataFrame:
    """A row for each service and month, and one for each of its reasons; by service, month and reason."""
    known = sorted(reports, key=lambda report: (list(SERVICES).index(report.service), report.month))
    clean = {(report.service, report.month): report.clean.rows for report in known}
    rows = []
    for report in known:
        before = clean.get((report.service, str(Month.parse(report.month).shift(-1))))
        rows.append(_month(report, before))
        rows += [_reason(report, name) for name in sorted(report.reasons)]
    frame = pd.DataFrame(rows, columns=[column.name for column in COLUMNS])
    return frame.astype({column.name: _TYPES[column.type] for column in COLUMNS})


def _month(report: CleaningReport, rows_before: int | None) -> dict[str, object]:
    return _quarantined(report, ALL, report.rows_quarantined, report.quarantined_total_cents) | {
        "rows_raw": report.rows_raw,
        "rows_clean": report.clean.rows,
        "change_of_rows": report.clean.rows / rows_before - 1 if rows_before else None,
        "unknown_columns": ", ".join(column.name for column in report.unknown_columns),
        "absent_columns": ", ".join(missed_columns(report)),
    }


def missed_columns(report: CleaningReport) -> list[str]:
    """Columns that the file lacks, though other files of its time have them."""
    month = Month.parse(report.month)
    of_other_times = {
        column.name
        for column in SERVICES[report.service].columns
        if (column.since is not None and month < column.since) or (column.until is not None and column.until < month)
    }
    return [name for name in report.absent_columns if name not in of_other_times]


def _reason(report: CleaningReport, name: str) -> dict[str, object]:
    reason = report.reasons[name]
    return _quarantined(report, name, reason.rows, reason.total_cents)


def _quarantined(report: CleaningReport, reason: str, rows: int, cents: int) -> dict[str, object]:
    has_total = any(column.name == "total_amount" for column in SERVICES[report.service].columns)
    return {
        "service": report.service,
        "data_month": Month.parse(report.month).start,
        "reason": reason,
        "rows_quarantined": rows,
        "share_quarantined": rows / report.rows_raw if report.rows_raw else 0.0,
        "dollars_quarantined": cents / 100 if has_total else None,
        "generated": report.generated,
    }


@dataclass(frozen=True)
class RecentMonths:
    """A table for readers: the newest months, by month and service."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def recent_months(reports: Sequence[CleaningReport], months: int = 12) -> RecentMonths:
    """The newest months that any service has, the newest first."""
    newest = sorted({report.month for report in reports}, reverse=True)[:months]
    clean = {(report.service, report.month): report.clean.rows for report in reports}
    rows = []
    for month in newest:
        for service in SERVICES:
            report = next((r for r in reports if (r.service, r.month) == (service, month)), None)
            if report is not None:
                rows.append(_row(report, clean.get((service, str(Month.parse(month).shift(-1))))))
    headers = ["month", "service", "rows", "on the month before", "quarantined", "share", "most often"]
    return RecentMonths(headers, rows)


def _row(report: CleaningReport, rows_before: int | None) -> list[str]:
    most = min(report.reasons.items(), key=lambda item: (-item[1].rows, item[0]), default=None)
    return [
        report.month,
        report.service,
        formatting.count(report.rows_raw),
        (formatting.change(report.clean.rows, rows_before) or "") if rows_before else "",
        formatting.count(report.rows_quarantined),
        formatting.percent(report.share_quarantined, 2),
        "" if most is None else f"{most[0]} ({formatting.count(most[1].rows)})",
    ]
