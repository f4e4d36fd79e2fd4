"""The page of a month: one HTML file with everything in it, which a browser shows without any network.

Belongs here: what the page says, in words. The metrics are `metrics.py`'s, the charts `charts.py`'s, the layout
`page.html.j2`'s, which escapes whatever comes from data.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2

from taxi_assets.reports import formatting
from taxi_assets.reports.metrics import CASH, PAYMENTS
from taxi_assets.reports.month_comparison import NONE, comparison, tiles
from taxi_assets.reports.quality_metrics import missed_columns
from taxi_assets.tlc.rules import READING_REASONS
from taxi_assets.tlc.schema import ColumnType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taxi_assets.reports.chart_style import ChartImage
    from taxi_assets.reports.metrics import MoneyMetrics, MonthMetrics
    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.schema import Service
    from taxi_assets.tlc.sources.source_record import SourceRecord

# Bump when the same data gives other metrics or other charts; what the page says is in its digest anyway.
_VERSION = 2
_TEMPLATE = "page.html.j2"


@cache
def version() -> str:
    """Digest of what decides how a month is reported: another one makes other pages."""
    return hashlib.sha256(f"{_VERSION} {_template_text()}".encode()).hexdigest()[:16]


def render(
    metrics: MonthMetrics, report: CleaningReport, source: SourceRecord | None, charts: Sequence[ChartImage]
) -> str:
    """The page; `source` is what is known of the published file, if it is still there."""
    service = metrics.service
    months = [month for month in (metrics.month.shift(-1), metrics.month.shift(-12)) if month >= service.first_month]
    return _environment().get_template(_TEMPLATE).render(
        title=f"{service.title}, {formatting.month_name(metrics.month)}",
        lead=f"{service.description[0].upper()}{service.description[1:]}.",
        generated="These are not TLC's records: they were made up, for trying things out." if report.generated else "",
        tiles=tiles(metrics, report),
        months={
            "this": formatting.short_month(metrics.month),
            "others": [formatting.short_month(month) for month in months],
        },
        comparison=comparison(metrics, months),
        comparison_notes=_comparison_notes(metrics),
        charts={p.name: {"alt": p.alt, "data": base64.b64encode(p.png).decode()} for p in charts},
        captions=_captions(metrics),
        payments=_payments(metrics),
        quality=_quality(metrics, report),
        provenance=_provenance(report, source),
        method=_method(metrics),
    )  # fmt: skip


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.DictLoader({_TEMPLATE: _template_text()}),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _template_text() -> str:
    return resources.files("taxi_assets.reports").joinpath(_TEMPLATE).read_text(encoding="utf-8")


# --- what the sections say ---------------------------------------------------------------------------------------


def _comparison_notes(metrics: MonthMetrics) -> list[str]:
    notes = []
    if metrics.headline.tips_per_fare is not None:
        whose = "trips paid by card" if metrics.payments else "all trips"
        notes.append(f"Tips as a share of fares: over {whose}, sum by sum.")
    if metrics.headline.minutes_per_trip is not None:
        notes.append("Durations: the mean, not the median, over trips of up to 24 hours.")
    return notes


def _captions(metrics: MonthMetrics) -> dict[str, str]:
    outside = metrics.trips_outside
    strays = (
        f" {formatting.counted(outside, 'trip')} of this month's file began in a neighbouring month: counted in the "
        "month's metrics, not drawn here."
        if outside
        else ""
    )
    unknown = metrics.trips_without_zone
    if not metrics.zones:
        zones = "The taxi zone of the pickup is not recorded in this month's file."
    elif unknown:
        share = formatting.percent(unknown / metrics.headline.trips)
        trips = formatting.counted(unknown, "trip")
        zones = f"Not drawn: {trips} ({share}) whose pickup zone is unknown, or outside the city."
    else:
        zones = "Every trip has a known pickup zone in the city."
    without_fare = metrics.headline.trips - sum(fare.trips for fare in metrics.fares)
    return {
        "days": f"The letters are weekdays, Monday to Sunday.{strays}",
        "hours": "Trips that begin in such an hour: the mean over the month's days of that weekday.",
        "zones": zones,
        "fares": "Fares are those of the meter, or of the company: without tips, tolls, taxes and fees."
        + (
            f" {formatting.counted(without_fare, 'trip')} without a fare above 0 are not drawn." if without_fare else ""
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
        return NONE  # they are not recorded, whatever the column says
    return "" if payment.tips_per_fare is None else formatting.percent(payment.tips_per_fare)


def _quality(metrics: MonthMetrics, report: CleaningReport) -> dict[str, Any]:
    meanings = {rule.name: rule.description for rule in metrics.service.rules} | READING_REASONS
    reasons = sorted(report.reasons.items(), key=lambda item: (-item[1].rows, item[0]))
    reversals = report.clean.rows - metrics.headline.trips
    unknown = [f"{column.name} ({column.type})" for column in report.unknown_columns]
    days = [formatting.day_name(metrics.month, day) for day, rows in enumerate(report.rows_by_day, start=1) if not rows]
    facts = {
        "Reversals": f"{formatting.counted(reversals, 'clean row')}: no trips, but charges taken back"
        if reversals
        else "",
        "Days without trips": ", ".join(days) or "none",
        "Unknown columns": ", ".join(unknown) + ": kept out" if unknown else "none",
        "Absent columns": ", ".join(missed_columns(report)) or "none",
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
        return f"{message}: nothing was left out."
    message += (
        f" and {formatting.count(report.rows_quarantined)} ({formatting.percent(report.share_quarantined, 2)}) are in "
        "quarantine, each with its reasons and its original text"
    )
    if _has_total(service):
        message += f"; they add up to {formatting.dollars(report.quarantined_total_cents / 100, cents=True)}"
    return message + ". No row is lost."


def _has_total(service: Service) -> bool:
    # For-hire vehicles report no total, so quarantine has no sum of it, not even 0.00.
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


def _method(metrics: MonthMetrics) -> list[str]:
    notes = ["The month is that of the published file. Times are New York's wall-clock times."]
    if metrics.headline.revenue is not None:
        notes.append(
            "Trips do not count reversals, which take back a charge; all money is net of them. Revenue is all that "
            "passengers were charged, tips included where they are recorded."
        )
    notes.append("All metrics come from the clean trips in the warehouse, as the marts do.")
    return notes
