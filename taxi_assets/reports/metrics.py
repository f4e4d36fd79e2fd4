"""What a month's report says of its trips: a few queries of the warehouse, added up here.

Belongs here: every figure of the page and its pictures that comes from trips. What cleaning left out stands in the
month's own report (`tlc/cleaning/report.py`). Trips exclude reversals, money is net of them, as in the marts.
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
# Unknown, and outside the city.
_NO_ZONES = {UNKNOWN_ZONE, OUTSIDE_NYC_ZONE}

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
"""  # noqa: S608  (of our own numbers)
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
"""  # noqa: S608  (of our own numbers)

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
    """Asks the warehouse, in the language of marts; see `Warehouse.ask`."""

    def __call__(self, query: str, *, services: Sequence[Service], months: Sequence[Month]) -> pd.DataFrame:
        """The rows."""


@dataclass(frozen=True)
class HourOfWeek:
    """An hour of a weekday (1 Monday to 7 Sunday), and the trips of such an hour: the mean over its days."""

    isodow: int
    hour: int
    trips: float


@dataclass(frozen=True)
class Headline:
    """The figures that months are compared by; None is what a service does not record."""

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
        """A share; None without fares."""
        return float(self.tips / self.fare) if self.fare > 0 else None


@dataclass(frozen=True)
class MonthMetrics:
    """All figures of a month of a service, and the headlines of the months that it is compared with."""

    service: Service
    month: Month
    headline: Headline
    month_before: Headline | None
    year_before: Headline | None
    days: Sequence[int]
    """Trips by day of the month."""
    trips_outside: int
    """Trips of this month's file that began in a neighbouring month."""
    hours: Sequence[Sequence[float | None]]
    """Trips of such an hour, by weekday, Monday first, and hour; None for a weekday without trips."""
    zones: Sequence[ZoneMetrics]
    trips_without_zone: int
    fares: Sequence[MoneyMetrics]
    """By fare, in steps; empty where fares are not recorded."""
    tip_by_fare: Sequence[float | None]
    """The mean tip of a trip, by the same steps: of trips paid by card, where payment types are recorded."""
    payments: Sequence[MoneyMetrics]
    """By payment type, the most frequent first; empty where it is not recorded."""


def compared_months(service: Service, month: Month) -> list[Month]:
    """The month before, and the same month a year before, as far as the service's history goes."""
    return [other for other in (month.shift(-1), month.shift(-12)) if other >= service.first_month]


def read_metrics(query: QueryFunction, service: Service, month: Month, zone_names: pd.DataFrame | None) -> MonthMetrics:
    """The figures of a month whose trips are in the warehouse; `zone_names` is the table of taxi zones, if there."""
    profile = _exact(
        query(_PROFILE, services=[service], months=[month, *compared_months(service, month)]), _COUNTS, _AMOUNTS
    )
    of_month = profile[profile["data_month"] == month.start]
    hours = _hours_of_week(of_month, month)
    by_day = _within(of_month, month).groupby("pickup_date")["trips"].sum()
    zones = _exact(query(_ZONES, services=[service], months=[month]), ["trips"])
    top, unknown = _top_zones(zones, zone_names)
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


def _exact(frame: pd.DataFrame, counts: Sequence[str], amounts: Sequence[str] = ()) -> pd.DataFrame:
    """The same types from every engine: dates, integers, and exact decimals (None where nothing is recorded)."""
    exact = frame.copy()
    for name in exact.columns:
        if name in {"data_month", "pickup_date"}:
            exact[name] = pd.to_datetime(exact[name]).dt.date
        elif name in amounts:
            exact[name] = pd.Series([_decimal(value) for value in frame[name]], index=frame.index, dtype=object)
        elif name in counts or name.startswith("pickup_"):
            exact[name] = [0 if pd.isna(value) else int(value) for value in frame[name]]
    return exact


def _decimal(value: Any) -> Decimal | None:
    return None if pd.isna(value) else Decimal(str(value))


def _sum(values: pd.Series[Any]) -> Decimal | None:
    recorded = [value for value in values if value is not None]
    return sum(recorded, Decimal(0)) if recorded else None


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


def _within(rows: pd.DataFrame, month: Month) -> pd.DataFrame:
    return rows[(rows["pickup_date"] >= month.start) & (rows["pickup_date"] < month.end)]


def _hours_of_week(rows: pd.DataFrame, month: Month) -> list[list[float | None]]:
    within = _within(rows, month)
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
    """The zones with the most trips, and how many trips have no known zone in the city."""
    unknown = zones["pickup_location_id"].isin(_NO_ZONES)
    known: dict[int, tuple[str, str]] = {}
    if names is not None:
        known = {
            int(number): (str(name), str(borough))
            for number, name, borough in zip(names["location_id"], names["zone"], names["borough"], strict=True)
        }
    ranked = zones[~unknown & (zones["trips"] > 0)].sort_values(
        ["trips", "pickup_location_id"], ascending=[False, True]
    )
    figures = []
    for number, trips in ranked[["pickup_location_id", "trips"]].head(TOP_ZONES).itertuples(index=False):
        name, borough = known.get(int(number), (f"Zone {number}", ""))
        figures.append(ZoneMetrics(name, borough, int(trips)))
    return figures, int(zones.loc[unknown, "trips"].sum())


def _money(rows: pd.DataFrame) -> tuple[list[MoneyMetrics], list[float | None], list[MoneyMetrics]]:
    """By fare, the mean tip by fare, by payment type."""
    exact = _exact(rows, ["trips", "fare_step"], ["fare", "tips", "revenue"])
    if all(value is None for value in exact["fare"]):
        return [], [], []
    steps = [_money_metrics(_step_name(step), exact[exact["fare_step"] == step]) for step in range(FARE_STEPS + 1)]
    recorded = exact["payment_type"].notna()
    tipping = exact[exact["payment_type"] == CARD] if recorded.any() else exact
    tips = [
        _ratio(figure.tips, figure.trips)
        for figure in (_money_metrics("", tipping[tipping["fare_step"] == step]) for step in range(FARE_STEPS + 1))
    ]
    names = [PAYMENTS.get(int(code), f"Code {int(code)}") if pd.notna(code) else NOT_RECORDED
             for code in exact["payment_type"]]  # fmt: skip
    payments = [_money_metrics(str(name), group) for name, group in exact.groupby(pd.Series(names, index=exact.index))]
    payments.sort(key=lambda figure: (-figure.trips, figure.name))
    return steps, tips, payments if recorded.any() else []


def _step_name(step: int) -> str:
    low = step * FARE_STEP
    return f"${low} and more" if step == FARE_STEPS else f"${low} to ${low + FARE_STEP}"


def _money_metrics(name: str, rows: pd.DataFrame) -> MoneyMetrics:
    sums = {column: _sum(rows[column]) or Decimal(0) for column in ("fare", "tips", "revenue")}
    return MoneyMetrics(name, int(rows["trips"].sum()), **sums)
