"""The month at a glance, and against the month before and the year before: figures as the page writes them."""

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
NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class _Measure:
    """A figure of the headline: its name, where it is found, how it is written and how it changes."""

    name: str
    of: Callable[[Headline], Any]
    written: Callable[[Any], str]
    change: Callable[[Any, Any], str | None] | None = formatting.change


def busiest_hour(hour: HourOfWeek) -> str:
    """Such as Friday 17:00-18:00."""
    return f"{formatting.WEEKDAYS[hour.isodow - 1]} {formatting.hour_name(hour.hour)}"


def _busiest_short(hour: HourOfWeek) -> str:
    return f"{formatting.WEEKDAYS[hour.isodow - 1][:3]} {formatting.hour_name(hour.hour)}"


def _as_float(change: Callable[[float, float], str | None]) -> Callable[[Any, Any], str | None]:
    return lambda now, before: change(float(now), float(before))


_TRIPS = _Measure("Trips", lambda h: h.trips, formatting.count)
_REVENUE = _Measure("Revenue", lambda h: h.revenue, formatting.dollars, _as_float(formatting.change))
_BUSIEST = _Measure("Busiest hour", lambda h: h.busiest, busiest_hour, None)
_MEASURES = (
    _TRIPS,
    _REVENUE,
    _Measure("Trips a day", lambda h: h.trips_per_day, formatting.count),
    _BUSIEST,
    _Measure(
        "Trips in the busiest hour",
        lambda h: h.busiest and h.busiest.trips,
        formatting.count,
    ),
    _Measure("Mean distance", lambda h: h.miles_per_trip, lambda value: f"{value:,.2f} miles"),
    _Measure("Mean duration", lambda h: h.minutes_per_trip, lambda value: f"{value:,.1f} minutes"),
    _Measure("Mean fare", lambda h: h.fare_per_trip, lambda value: formatting.dollars(value, cents=True)),
    _Measure("Tips as a share of fares", lambda h: h.tips_per_fare, formatting.percent, formatting.change_of_share),
)


def comparison(metrics: MonthMetrics, months: Sequence[Month]) -> list[dict[str, Any]]:
    """A row for each figure that the service records, with those of other months and the change since."""
    others = [_headline_of(metrics, month) for month in months]
    rows = []
    for measure in _MEASURES:
        now = measure.of(metrics.headline)
        if now is not None:
            rows.append(
                {
                    "name": measure.name,
                    "value": measure.written(now),
                    "others": [_cell(measure, now, other) for other in others],
                }
            )
    return rows


def tiles(metrics: MonthMetrics, report: CleaningReport) -> list[dict[str, Any]]:
    """What a reader looks for first: trips, revenue, busiest hour, data quality."""
    headline = metrics.headline
    tiles_ = [{"name": "Trips", "value": formatting.count(headline.trips), "more": _changes(metrics, _TRIPS)}]
    if headline.revenue is not None:
        tiles_.append(
            {"name": "Revenue", "value": formatting.dollars(headline.revenue), "more": _changes(metrics, _REVENUE)}
        )
    else:
        a_day = formatting.count(headline.trips_per_day)
        tiles_.append({"name": "Trips a day", "value": a_day, "more": ["money is not recorded"]})
    if headline.busiest is not None:
        busiest = headline.busiest
        tiles_.append(
            {
                "name": "Busiest hour",
                "value": _busiest_short(busiest),
                "more": [f"{formatting.count(busiest.trips)} trips in such an hour", _busiest_before(metrics)],
            }
        )
    left_out = f"{formatting.count(report.rows_quarantined)} of {formatting.counted(report.rows_raw, 'row')} left out"
    clean = 1 - report.share_quarantined
    tiles_.append({"name": "Data quality", "value": f"{_floored(clean)} clean", "more": [left_out, _most(report)]})
    return [tile | {"more": [line for line in tile["more"] if line]} for tile in tiles_]


def _floored(share: float) -> str:
    # 99.999% is not all.
    return "100%" if share == 1 else f"{min(share, 0.9999):.2%}"


def _most(report: CleaningReport) -> str:
    if not report.reasons:
        return ""
    name, _ = min(report.reasons.items(), key=lambda item: (-item[1].rows, item[0]))
    return f"most often {name.replace('_', ' ')}"


def _busiest_before(metrics: MonthMetrics) -> str:
    before = metrics.month_before
    if before is None or before.busiest is None:
        return ""
    return f"{formatting.short_month(before.month)}: {_busiest_short(before.busiest)}"


def _changes(metrics: MonthMetrics, measure: _Measure) -> list[str]:
    now = measure.of(metrics.headline)
    lines = []
    for month in (metrics.month.shift(-1), metrics.month.shift(-12)):
        if month < metrics.service.first_month:
            continue
        cell = _cell(measure, now, _headline_of(metrics, month))
        message = cell["change"] if cell["value"] != NOT_LOADED else NOT_LOADED
        joined = "on" if cell["value"] != NOT_LOADED else ""
        name = formatting.short_month(month)
        lines.append(f"{message} {joined} {name}" if joined else f"{name}: {message}")
    return lines


def _cell(measure: _Measure, now: Any, other: Headline | None) -> dict[str, str]:
    if other is None:
        return {"value": NOT_LOADED, "change": NONE}
    before = measure.of(other)
    if before is None:
        return {"value": NONE, "change": NONE}
    changed = measure.change(now, before) if measure.change is not None else None
    return {"value": measure.written(before), "change": changed or NONE}


def _headline_of(metrics: MonthMetrics, month: Month) -> Headline | None:
    loaded = {other.month: other for other in (metrics.month_before, metrics.year_before) if other is not None}
    return loaded.get(month)
