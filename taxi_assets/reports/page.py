"""Render the page of a month: one HTML file with its charts inside, which a browser shows without a network.

Belongs here: the texts of the page. Metrics come from `metrics.py`, charts from `charts.py`, and the layout is
`page.html.j2`, which escapes all values from data.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import jinja2

from taxi_assets.reports import formatting
from taxi_assets.reports.artifact import TEMPLATE, template_text
from taxi_assets.reports.metrics import CASH, PAYMENTS
from taxi_assets.reports.month_comparison import NO_VALUE, comparison_rows, tiles
from taxi_assets.tlc.rules import READING_REASONS
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.reports.chart_style import ChartImage
    from taxi_assets.reports.metrics import MoneyMetrics, MonthMetrics
    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.revision_report import RevisionReport
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.source_record import SourceRecord


def render(content: Mapping[str, Any]) -> str:
    """Render the content of the page, as `page_content` returns it, as HTML."""
    return _environment().get_template(TEMPLATE).render(content)


def page_content(
    metrics: MonthMetrics,
    report: CleaningReport,
    source: SourceRecord | None,
    charts: Sequence[ChartImage],
    revision: RevisionReport | None = None,
) -> dict[str, Any]:
    """Return the texts, tables and charts of the page by name.

    Args:
        metrics: The metrics of the month.
        report: The cleaning report of the month.
        source: The record of the published file, or None if the file is no longer in the lake.
        charts: The charts of the month.
        revision: The comparison with the revision before; None if there is none.
    """
    service = metrics.service
    months = [month for month in (metrics.month.shift(-1), metrics.month.shift(-12)) if month >= service.first_month]
    return {
        "title": f"{service.title}, {formatting.month_name(metrics.month)}",
        "lead": f"{service.description[0].upper()}{service.description[1:]}.",
        "generated": "These rows are generated for trials. They are not TLC's records." if report.generated else "",
        "tiles": tiles(metrics, report),
        "months": {
            "this": formatting.short_month(metrics.month),
            "others": [formatting.short_month(month) for month in months],
        },
        "comparison": comparison_rows(metrics, months),
        "comparison_notes": _comparison_notes(metrics),
        "charts": {p.name: {"alt": p.alt, "data": base64.b64encode(p.png).decode()} for p in charts},
        "captions": _captions(metrics),
        "payments": _payments(metrics),
        "quality": _quality(metrics, report),
        "revision": "" if revision is None else _revision_text(revision),
        "provenance": _provenance(report, source),
        "method": _method(metrics),
    }  # fmt: skip


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.DictLoader({TEMPLATE: template_text()}),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


# --- texts of the sections ---------------------------------------------------------------------------------------


def _comparison_notes(metrics: MonthMetrics) -> list[str]:
    notes = []
    if metrics.headline.tips_per_fare is not None:
        whose = "trips paid by card" if metrics.payments else "all trips"
        notes.append(f"Tips as a share of fares: total tips of {whose} divided by their total fares.")
    if metrics.headline.minutes_per_trip is not None:
        notes.append("Mean duration: over trips of at most 24 hours.")
    return notes


def _captions(metrics: MonthMetrics) -> dict[str, str]:
    outside = metrics.trips_outside
    strays = (
        f" {formatting.counted(outside, 'trip')} of this month's file began in a neighboring month. They are in the "
        "month's metrics, but not shown here."
        if outside
        else ""
    )
    unknown = metrics.trips_without_zone
    if not metrics.zones:
        zones = "The taxi zone of the pickup is not recorded in this month's file."
    elif unknown:
        share = formatting.percent(unknown / metrics.headline.trips)
        trips = formatting.counted(unknown, "trip")
        zones = f"Not shown: {trips} ({share}) whose pickup zone is unknown or outside NYC."
    else:
        zones = "Every trip has a known pickup zone in NYC."
    without_fare = metrics.headline.trips - sum(fare.trips for fare in metrics.fares)
    return {
        "days": f"The letters are weekdays, Monday to Sunday.{strays}",
        "hours": "Mean trips per hour of the pickup, over the month's days of each weekday.",
        "zones": zones,
        "fares": "Fares are those of the meter or the company, without tips, tolls, taxes and fees."
        + (
            f" {formatting.counted(without_fare, 'trip')} without a fare above 0 are not shown." if without_fare else ""
        ),
    }


def _payments(metrics: MonthMetrics) -> list[dict[str, str]]:
    trips = metrics.headline.trips
    return [
        {
            "name": payment.name,
            "trips": formatting.count(payment.trips),
            "share": formatting.percent(payment.trips / trips) if trips else "",
            "revenue": formatting.dollars(payment.revenue),
            "tips": _tips_text(payment),
        }
        for payment in metrics.payments
    ]


def _tips_text(payment: MoneyMetrics) -> str:
    if payment.name == PAYMENTS[CASH]:
        return NO_VALUE  # taxis do not record tips in cash; the column holds 0
    return "" if payment.tips_per_fare is None else formatting.percent(payment.tips_per_fare)


def _quality(metrics: MonthMetrics, report: CleaningReport) -> dict[str, Any]:
    meanings = {rule.name: rule.description for rule in metrics.service.rules} | READING_REASONS
    reasons = sorted(report.reasons.items(), key=lambda item: (-item[1].rows, item[0]))
    reversals = report.clean.rows - metrics.headline.trips
    unknown = [f"{column.name} ({column.type})" for column in report.unknown_columns]
    days = [formatting.day_name(metrics.month, day) for day, rows in enumerate(report.rows_by_day, start=1) if not rows]
    facts = {
        "Reversals": f"{formatting.counted(reversals, 'clean row')} that reverse a charge; they do not count as trips"
        if reversals
        else "",
        "Days without trips": ", ".join(days) or "none",
        "Unknown columns": ", ".join(unknown) + ", left out" if unknown else "none",
        "Absent columns": ", ".join(report.missing_columns(metrics.service)) or "none",
        "Interpretations": " ".join(f"{name}: {' '.join(found)}" for name, found in report.interpretations.items()),
    }
    return {
        "row_counts": _row_counts_text(metrics.service, report),
        "with_dollars": _has_total(metrics.service),
        "reasons": [
            {
                "name": name,
                "meaning": meanings.get(name, ""),
                "rows": formatting.count(reason.rows),
                "share": formatting.percent(reason.rows / report.rows_raw, 2) if report.rows_raw else "",
                "dollars": formatting.dollars(reason.total_cents / 100, cents=True),
            }
            for name, reason in reasons
        ],
        "facts": [{"name": name, "value": value} for name, value in facts.items() if value],
    }


def _row_counts_text(service: Service, report: CleaningReport) -> str:
    message = (
        f"Of {formatting.counted(report.rows_raw, 'published row')}, {formatting.count(report.clean.rows)} are clean"
    )
    if not report.rows_quarantined:
        return f"{message}. The quarantine is empty."
    message += (
        f" and {formatting.count(report.rows_quarantined)} ({formatting.percent(report.share_quarantined, 2)}) are in "
        "quarantine, with their reasons and original text"
    )
    if _has_total(service):
        message += f"; their total is {formatting.dollars(report.quarantined_total_cents / 100, cents=True)}"
    return message + ". No row is lost."


def _has_total(service: Service) -> bool:
    # For-hire vehicles report no total amount, so quarantine has no sum of it either.
    return any(column.name == "total_amount" and column.type is ColumnType.MONEY for column in service.columns)


def _provenance(report: CleaningReport, source: SourceRecord | None) -> list[dict[str, Any]]:
    facts: list[tuple[str, str | None, bool]] = []
    if source is not None and source.sha256 == report.raw_sha256:
        facts = [
            ("Publisher", source.publisher, False),
            ("File", source.url, True),
            ("Size", f"{formatting.counted(source.bytes, 'byte')}, {source.format}", False),
            ("Last modified", source.last_modified, False),
            ("Fetched", f"{source.fetched_at:%Y-%m-%d %H:%M} UTC", False),
        ]
    facts += [
        ("sha256 of the file", report.raw_sha256, True),
        ("Rules applied", ", ".join(report.rules) or "none", False),
        ("Data version", report.data_version, True),
    ]
    return [{"name": name, "value": value, "code": code} for name, value, code in facts if value]


def _revision_text(revision: RevisionReport) -> str:
    return (
        f"{revision.sentence()}. The clean trips of this month's file are compared with those of the file that it "
        f"replaced, with sha256 {revision.old_sha256[:12]}…, both cleaned by the same rules."
    )


def _method(metrics: MonthMetrics) -> list[str]:
    notes = ["The month is the month of the published file. Times are local times in New York."]
    if metrics.headline.revenue is not None:
        notes.append(
            "Reversals reverse a charge: they are not counted as trips, and money is net of them. Revenue is the "
            "total charged to passengers, with recorded tips."
        )
    notes.append("All metrics are computed from the clean trips in the warehouse.")
    return notes
