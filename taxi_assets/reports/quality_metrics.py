"""Compute the table of quality over time from the cleaning reports of all months; no trips are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from taxi_assets.reports import formatting
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Column, ColumnType
from taxi_assets.tlc.services.registry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taxi_assets.tlc.cleaning.report import CleaningReport

ALL = "all"
"""The value of the column `reason` in the row of the month as a whole."""

VERSION = 2
"""Increase it when the same reports give another table."""

COLUMNS = (
    Column("service", ColumnType.TEXT, "The service by name, such as yellow."),
    Column("data_month", ColumnType.DATE, "First day of the published month."),
    Column("reason", ColumnType.TEXT, f"A reason for quarantine, or '{ALL}' for the month as a whole."),
    Column(
        "rows_quarantined",
        ColumnType.INTEGER,
        f"Rows in quarantine. A row with several reasons counts under each reason, and once under '{ALL}'.",
        "rows",
    ),
    Column("share_quarantined", ColumnType.DEGREES, "Share of the month's published rows, from 0 to 1.", "share"),
    Column(
        "dollars_quarantined",
        ColumnType.DEGREES,
        "Sum of their readable total_amount; null for services that do not record it.",
        "US dollars",
    ),
    Column("rows_raw", ColumnType.INTEGER, f"Rows of the published file; only in rows '{ALL}'.", "rows"),
    Column("rows_clean", ColumnType.INTEGER, f"Clean rows; only in rows '{ALL}'.", "rows"),
    Column(
        "change_of_rows",
        ColumnType.DEGREES,
        f"Change of clean rows from the month before; 0.1 is 10% more. Only in rows '{ALL}'; null if the month before "
        "is not in the lake.",
        "share",
    ),
    Column("unknown_columns", ColumnType.TEXT, f"Published columns that are not in the schema; only in rows '{ALL}'."),
    Column(
        "absent_columns",
        ColumnType.TEXT,
        f"Columns that are missing in the file, but expected in this month; only in rows '{ALL}'.",
    ),
    Column("generated", ColumnType.BOOLEAN, "True for the generated sample: not TLC's records."),
)


def quality_frame(reports: Iterable[CleaningReport]) -> pd.DataFrame:
    """Return one row per service and month, and one per reason of that month, sorted by service, month and reason."""
    known = sorted(reports, key=lambda report: (list(SERVICES).index(report.service), report.month))
    clean = {(report.service, report.month): report.clean.rows for report in known}
    rows = []
    for report in known:
        before = clean.get((report.service, str(Month.parse(report.month).shift(-1))))
        rows.append(_month(report, before))
        rows += [_reason(report, name) for name in sorted(report.reasons)]
    frame = pd.DataFrame(rows, columns=[column.name for column in COLUMNS])
    return frame.astype({column.name: pd.ArrowDtype(column.type.arrow_type) for column in COLUMNS})


def _month(report: CleaningReport, rows_before: int | None) -> dict[str, object]:
    return _quarantined(report, ALL, report.rows_quarantined, report.quarantined_total_cents) | {
        "rows_raw": report.rows_raw,
        "rows_clean": report.clean.rows,
        "change_of_rows": report.clean.rows / rows_before - 1 if rows_before else None,
        "unknown_columns": ", ".join(column.name for column in report.unknown_columns),
        "absent_columns": ", ".join(report.missing_columns(SERVICES[report.service])),
    }


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
    """A table of the newest months for readers, one row per month and service."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def recent_months(reports: Sequence[CleaningReport], months: int = 12) -> RecentMonths:
    """Return the table of the newest months that any service has, the newest first."""
    newest = sorted({report.month for report in reports}, reverse=True)[:months]
    clean = {(report.service, report.month): report.clean.rows for report in reports}
    rows = []
    for month in newest:
        for service in SERVICES:
            report = next((r for r in reports if (r.service, r.month) == (service, month)), None)
            if report is not None:
                rows.append(_row(report, clean.get((service, str(Month.parse(month).shift(-1))))))
    headers = ["month", "service", "rows", "change from month before", "quarantined", "share", "most frequent reason"]
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
