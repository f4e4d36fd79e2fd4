"""Compare a month with the month before and the same month a year before, formatted for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taxi_assets.reports import formatting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taxi_assets.reports.metrics import Headline, HourOfWeek, MonthMetrics
    from taxi_assets.tlc.cleaning.report import CleaningReport
    from taxi_assets.tlc.month import Month

NOT_LOADED = "not loaded"
NO_VALUE = "\N{EN DASH}"


@dataclass(frozen=True)
class _ComparedMetric:
    """A metric that is compared: its name, its value in a headline, and the formats of values and changes."""

    name: str
    value_of: Callable[[Headline], Any]
    format_value: Callable[[Any], str]
    format_change: Callable[[Any, Any], str | None] | None = formatting.change


def busiest_hour(hour: HourOfWeek) -> str:
    """Return the name of an hour of the week, such as Friday 17:00-18:00."""
    return f"{formatting.WEEKDAYS[hour.isodow - 1]} {formatting.hour_name(hour.hour)}"


def _busiest_short(hour: HourOfWeek) -> str:
    return f"{formatting.WEEKDAYS[hour.isodow - 1][:3]} {formatting.hour_name(hour.hour)}"


def _as_float(change: Callable[[float, float], str | None]) -> Callable[[Any, Any], str | None]:
    return lambda now, before: change(float(now), float(before))


_TRIPS = _ComparedMetric("Trips", lambda h: h.trips, formatting.count)
_REVENUE = _ComparedMetric("Revenue", lambda h: h.revenue, formatting.dollars, _as_float(formatting.change))
_BUSIEST = _ComparedMetric("Busiest hour", lambda h: h.busiest, busiest_hour, None)
_METRICS = (
    _TRIPS,
    _REVENUE,
    _ComparedMetric("Trips per day", lambda h: h.trips_per_day, formatting.count),
    _BUSIEST,
    _ComparedMetric(
        "Trips in the busiest hour",
        lambda h: h.busiest and h.busiest.trips,
        formatting.count,
    ),
    _ComparedMetric("Mean distance", lambda h: h.miles_per_trip, lambda value: f"{value:,.2f} miles"),
    _ComparedMetric("Mean duration", lambda h: h.minutes_per_trip, lambda value: f"{value:,.1f} minutes"),
    _ComparedMetric("Mean fare", lambda h: h.fare_per_trip, lambda value: formatting.dollars(value, cents=True)),
    _ComparedMetric(
        "Tips as a share of fares", lambda h: h.tips_per_fare, formatting.percent, formatting.change_of_share
    ),
)


def comparison_rows(metrics: MonthMetrics, months: Sequence[Month]) -> list[dict[str, Any]]:
    """Return one row per metric that the service records: its value, the values of other months, and the changes."""
    others = [_headline_of(metrics, month) for month in months]
    rows = []
    for metric in _METRICS:
        now = metric.value_of(metrics.headline)
        if now is not None:
            rows.append(
                {
                    "name": metric.name,
                    "value": metric.format_value(now),
                    "others": [_cell(metric, now, other) for other in others],
                }
            )
    return rows


def tiles(metrics: MonthMetrics, report: CleaningReport) -> list[dict[str, Any]]:
    """Return the tiles at the top of the page: trips, revenue, busiest hour and data quality."""
    headline = metrics.headline
    tiles_ = [{"name": "Trips", "value": formatting.count(headline.trips), "more": _changes(metrics, _TRIPS)}]
    if headline.revenue is not None:
        tiles_.append(
            {"name": "Revenue", "value": formatting.dollars(headline.revenue), "more": _changes(metrics, _REVENUE)}
        )
    else:
        per_day = formatting.count(headline.trips_per_day)
        tiles_.append({"name": "Trips per day", "value": per_day, "more": ["fares are not recorded"]})
    if headline.busiest is not None:
        busiest = headline.busiest
        tiles_.append(
            {
                "name": "Busiest hour",
                "value": _busiest_short(busiest),
                "more": [f"{formatting.count(busiest.trips)} trips per hour", _busiest_before(metrics)],
            }
        )
    quarantined = (
        f"{formatting.count(report.rows_quarantined)} of {formatting.counted(report.rows_raw, 'row')} in quarantine"
    )
    clean = 1 - report.share_quarantined
    tiles_.append(
        {
            "name": "Data quality",
            "value": f"{_floored_percent(clean)} clean",
            "more": [quarantined, _most_frequent_reason(report)],
        }
    )
    return [tile | {"more": [line for line in tile["more"] if line]} for tile in tiles_]


def _floored_percent(share: float) -> str:
    # 99.999% must not be shown as 100%.
    return "100%" if share == 1 else f"{min(share, 0.9999):.2%}"


def _most_frequent_reason(report: CleaningReport) -> str:
    if not report.reasons:
        return ""
    name, _ = min(report.reasons.items(), key=lambda item: (-item[1].rows, item[0]))
    return f"most often {name.replace('_', ' ')}"


def _busiest_before(metrics: MonthMetrics) -> str:
    before = metrics.month_before
    if before is None or before.busiest is None:
        return ""
    return f"{formatting.short_month(before.month)}: {_busiest_short(before.busiest)}"


def _changes(metrics: MonthMetrics, metric: _ComparedMetric) -> list[str]:
    now = metric.value_of(metrics.headline)
    lines = []
    for month in (metrics.month.shift(-1), metrics.month.shift(-12)):
        if month < metrics.service.first_month:
            continue
        cell = _cell(metric, now, _headline_of(metrics, month))
        message = cell["change"] if cell["value"] != NOT_LOADED else NOT_LOADED
        joined = "on" if cell["value"] != NOT_LOADED else ""
        name = formatting.short_month(month)
        lines.append(f"{message} {joined} {name}" if joined else f"{name}: {message}")
    return lines


def _cell(metric: _ComparedMetric, now: Any, other: Headline | None) -> dict[str, str]:
    if other is None:
        return {"value": NOT_LOADED, "change": NO_VALUE}
    before = metric.value_of(other)
    if before is None:
        return {"value": NO_VALUE, "change": NO_VALUE}
    changed = metric.format_change(now, before) if metric.format_change is not None else None
    return {"value": metric.format_value(before), "change": changed or NO_VALUE}


def _headline_of(metrics: MonthMetrics, month: Month) -> Headline | None:
    loaded = {other.month: other for other in (metrics.month_before, metrics.year_before) if other is not None}
    return loaded.get(month)
