"""Compute the metrics of a month's report from a few queries of the warehouse.

Belongs here: every metric of the page and its charts that is computed from trips. The numbers of rejected rows are in
the month's cleaning report (`tlc/cleaning/report.py`). Trips exclude reversals, and money is net of them, as in marts.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from taxi_assets.tlc.services.shared_columns import OUTSIDE_NYC_ZONE, UNKNOWN_ZONE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

CARD, CASH = 1, 2
TOP_ZONES = 10
FARE_STEP = 5
FARE_STEPS = 12
_OUTSIDE_ZONES = {UNKNOWN_ZONE, OUTSIDE_NYC_ZONE}

_PROFILE = f"""
SELECT
  data_month, pickup_date, pickup_isodow, pickup_hour,
  SUM(trips) AS trips,
  SUM(miles) AS miles,
  SUM(CASE WHEN miles IS NULL THEN 0 ELSE 1 END) AS measured_trips,
  SUM(seconds) AS seconds,
  SUM(timed_trips) AS timed_trips,
  SUM(fare) AS fare,
  SUM(tips) AS tips,
  SUM(CASE WHEN payment_type = {CARD} THEN fare END) AS card_fare,
  SUM(CASE WHEN payment_type = {CARD} THEN tips END) AS card_tips,
  SUM(revenue) AS revenue
FROM all_trips
GROUP BY data_month, pickup_date, pickup_isodow, pickup_hour
"""  # noqa: S608  (constants of this module)
_COUNTS = ("trips", "measured_trips", "seconds", "timed_trips")
_AMOUNTS = ("miles", "fare", "tips", "card_fare", "card_tips", "revenue")

_ZONES = "SELECT pickup_location_id, SUM(trips) AS trips FROM all_trips GROUP BY pickup_location_id"

_STEPS = " ".join(f"WHEN fare < {FARE_STEP * (step + 1)} THEN {step}" for step in range(FARE_STEPS))
_MONEY = f"""
SELECT
  payment_type, fare_step, SUM(trips) AS trips, SUM(fare) AS fare, SUM(tips) AS tips, SUM(revenue) AS revenue
FROM (
  SELECT
    payment_type, trips, fare, tips, revenue,
    CASE WHEN trips = 0 OR fare IS NULL OR fare <= 0 THEN -1 {_STEPS} ELSE {FARE_STEPS} END AS fare_step
  FROM all_trips
) AS trips_by_fare
GROUP BY payment_type, fare_step
"""  # noqa: S608  (constants of this module)

PAYMENTS: Mapping[int, str] = {
    0: "Flex fare",
    1: "Credit card",
    2: "Cash",
    3: "No charge",
    4: "Dispute",
    5: "Unknown",
    6: "Voided",
}
NOT_RECORDED = "Not recorded"


class QueryFunction(Protocol):
    """Run a query in portable SQL; see `Warehouse.read_portable_frame`."""

    def __call__(self, query: str, *, services: Sequence[Service], months: Sequence[Month]) -> pd.DataFrame:
        """Return the rows of the query over these months of these services."""


@dataclass(frozen=True)
class HourOfWeek:
    """An hour of the week.

    Attributes:
        isodow: Day of the week, 1 Monday to 7 Sunday.
        hour: Hour of the day, 0 to 23.
        trips: Mean trips that begin in this hour, over the month's days of this weekday.
    """

    isodow: int
    hour: int
    trips: float


@dataclass(frozen=True)
class Headline:
    """The metrics by which months are compared; None where the service does not record the data."""

    month: Month
    trips: int
    trips_per_day: float
    busiest: HourOfWeek | None
    revenue: Decimal | None
    fare_per_trip: float | None
    tips_per_fare: float | None
    miles_per_trip: float | None
    minutes_per_trip: float | None


@dataclass(frozen=True)
class ZoneMetrics:
    """Trips that began in a taxi zone."""

    name: str
    borough: str
    trips: int


@dataclass(frozen=True)
class MoneyMetrics:
    """Trips and money, by payment type or by fare."""

    name: str
    trips: int
    fare: Decimal
    tips: Decimal
    revenue: Decimal

    @property
    def tips_per_fare(self) -> float | None:
        """Tips as a share of fares; None if there are no fares."""
        return float(self.tips / self.fare) if self.fare > 0 else None


@dataclass(frozen=True)
class MonthMetrics:
    """All metrics of a month of a service.

    Attributes:
        service: The service.
        month: The month.
        headline: The metrics by which months are compared.
        month_before: The same of the month before; None if it is not loaded.
        year_before: The same of the same month a year before; None if it is not loaded.
        days: Trips by day of the month, from the first.
        trips_outside: Trips of this month's file that began in a neighboring month.
        hours: Mean trips by weekday, Monday first, and by hour; None for a weekday without trips.
        zones: The zones in which most trips begin, the most frequent first.
        trips_without_zone: Trips whose pickup zone is unknown or outside NYC.
        fares: Trips and money by fare, in steps; empty if fares are not recorded.
        tip_by_fare: Mean tip in US dollars by the same steps; of trips paid by card, if payment types are recorded.
        payments: Trips and money by payment type, the most frequent first; empty if payment types are not recorded.
    """

    service: Service
    month: Month
    headline: Headline
    month_before: Headline | None
    year_before: Headline | None
    days: Sequence[int]
    trips_outside: int
    hours: Sequence[Sequence[float | None]]
    zones: Sequence[ZoneMetrics]
    trips_without_zone: int
    fares: Sequence[MoneyMetrics]
    tip_by_fare: Sequence[float | None]
    payments: Sequence[MoneyMetrics]


def compared_months(service: Service, month: Month) -> list[Month]:
    """Return the month before and the same month a year before, without months before the service's first."""
    return [other for other in (month.shift(-1), month.shift(-12)) if other >= service.first_month]


def read_metrics(query: QueryFunction, service: Service, month: Month, zone_names: pd.DataFrame | None) -> MonthMetrics:
    """Compute the metrics of a month that is loaded in the warehouse.

    Args:
        query: Runs a query of the warehouse.
        service: The service.
        month: The month.
        zone_names: The table of taxi zones, or None if it is not loaded: zones then appear by number.
    """
    profile = query(_PROFILE, services=[service], months=[month, *compared_months(service, month)])
    of_month = profile[profile["data_month"] == month.start]
    hours = _hours_of_week(of_month, month)
    by_day = _rows_within(of_month, month).groupby("pickup_date")["trips"].sum()
    top, unknown = _top_zones(query(_ZONES, services=[service], months=[month]), zone_names)
    fares, tip_by_fare, payments = _money(query(_MONEY, services=[service], months=[month]))
    trips = int(of_month["trips"].sum())
    return MonthMetrics(
        service=service,
        month=month,
        headline=_headline(of_month, month),
        month_before=_headline_of(profile, month.shift(-1)),
        year_before=_headline_of(profile, month.shift(-12)),
        days=[int(by_day.get(month.start.replace(day=day), 0)) for day in range(1, month.days + 1)],
        trips_outside=trips - int(by_day.sum()),
        hours=hours,
        zones=top,
        trips_without_zone=unknown,
        fares=fares,
        tip_by_fare=tip_by_fare,
        payments=payments,
    )


# --- sums --------------------------------------------------------------------------------------------------------


def _sum(values: pd.Series[Any]) -> Decimal | None:
    """Return the exact sum of decimals in Arrow memory; None if none is recorded."""
    total: Any = values.sum(min_count=1)
    recorded: Decimal | None = None if pd.isna(total) else total
    return recorded


def _ratio(part: Decimal | float | None, whole: Decimal | float | None) -> float | None:
    return None if part is None or not whole else float(part) / float(whole)


# --- headline ----------------------------------------------------------------------------------------------------


def _headline_of(profile: pd.DataFrame, month: Month) -> Headline | None:
    of_month = profile[profile["data_month"] == month.start]
    return None if of_month.empty else _headline(of_month, month)


def _headline(rows: pd.DataFrame, month: Month) -> Headline:
    counts = {name: int(rows[name].sum()) for name in _COUNTS}
    amounts = {name: _sum(rows[name]) for name in _AMOUNTS}
    trips, hours = counts["trips"], _hours_of_week(rows, month)
    busiest = [
        HourOfWeek(isodow, hour, value)
        for isodow, day in enumerate(hours, start=1)
        for hour, value in enumerate(day)
        if value
    ]
    by_card = amounts["card_fare"] is not None
    minutes = _ratio(counts["seconds"], counts["timed_trips"])
    return Headline(
        month=month,
        trips=trips,
        trips_per_day=trips / month.days,
        busiest=max(busiest, key=lambda hour: hour.trips, default=None),
        revenue=amounts["revenue"],
        fare_per_trip=_ratio(amounts["fare"], trips),
        tips_per_fare=_ratio(
            amounts["card_tips" if by_card else "tips"],
            amounts["card_fare" if by_card else "fare"],
        ),
        miles_per_trip=_ratio(amounts["miles"], counts["measured_trips"]),
        minutes_per_trip=None if minutes is None else minutes / 60,
    )


def _rows_within(rows: pd.DataFrame, month: Month) -> pd.DataFrame:
    return rows[(rows["pickup_date"] >= month.start) & (rows["pickup_date"] < month.end)]


def _hours_of_week(rows: pd.DataFrame, month: Month) -> list[list[float | None]]:
    within = _rows_within(rows, month)
    days = within.groupby("pickup_isodow")["pickup_date"].nunique()
    trips = within.groupby(["pickup_isodow", "pickup_hour"])["trips"].sum()
    return [
        [
            float(trips.get((isodow, hour), 0)) / float(days[isodow]) if isodow in days.index else None
            for hour in range(24)
        ]
        for isodow in range(1, 8)
    ]


# --- zones and money ---------------------------------------------------------------------------------------------


def _top_zones(zones: pd.DataFrame, names: pd.DataFrame | None) -> tuple[list[ZoneMetrics], int]:
    """Return the zones with the most trips, and the number of trips whose zone is unknown or outside NYC."""
    unknown = zones["pickup_location_id"].isin(_OUTSIDE_ZONES)
    known: dict[int, tuple[str, str]] = {}
    if names is not None:
        known = {
            int(number): (str(name), str(borough))
            for number, name, borough in zip(names["location_id"], names["zone"], names["borough"], strict=True)
        }
    ranked = zones[~unknown & (zones["trips"] > 0)].sort_values(
        ["trips", "pickup_location_id"], ascending=[False, True]
    )
    metrics = []
    for number, trips in ranked[["pickup_location_id", "trips"]].head(TOP_ZONES).itertuples(index=False):
        name, borough = known.get(int(number), (f"Zone {number}", ""))
        metrics.append(ZoneMetrics(name, borough, int(trips)))
    return metrics, int(zones.loc[unknown, "trips"].sum())


def _money(rows: pd.DataFrame) -> tuple[list[MoneyMetrics], list[float | None], list[MoneyMetrics]]:
    """Return the metrics by fare, the mean tip by fare, and the metrics by payment type."""
    if rows["fare"].isna().all():
        return [], [], []
    steps = [_money_metrics(_step_name(step), rows[rows["fare_step"] == step]) for step in range(FARE_STEPS + 1)]
    recorded = rows["payment_type"].notna()
    tipping = rows[rows["payment_type"] == CARD] if recorded.any() else rows
    tips = [
        _ratio(group.tips, group.trips)
        for group in (_money_metrics("", tipping[tipping["fare_step"] == step]) for step in range(FARE_STEPS + 1))
    ]
    names = [PAYMENTS.get(int(code), f"Code {int(code)}") if pd.notna(code) else NOT_RECORDED
             for code in rows["payment_type"]]  # fmt: skip
    payments = [_money_metrics(str(name), group) for name, group in rows.groupby(pd.Series(names, index=rows.index))]
    payments.sort(key=lambda group: (-group.trips, group.name))
    return steps, tips, payments if recorded.any() else []


def _step_name(step: int) -> str:
    low = step * FARE_STEP
    return f"${low} and more" if step == FARE_STEPS else f"${low} to ${low + FARE_STEP}"


def _money_metrics(name: str, rows: pd.DataFrame) -> MoneyMetrics:
    sums = {column: _sum(rows[column]) or Decimal(0) for column in ("fare", "tips", "revenue")}
    return MoneyMetrics(name, int(rows["trips"].sum()), **sums)
