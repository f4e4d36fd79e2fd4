"""The trip demand of each service: monthly volume, pickup times, and zones. Vehicles are not modeled.

Belongs here: volumes, hours, days of the week and zones, each with its source, and the functions that read them. Does
not belong here: the records of a service (`metered_distributions.py`, `fhv_trips.py`, `fhvhv_trips.py`), and drawing
single rides (`rides.py`).

Sources of the numbers, unless a comment names another:

- green: measured on 2020-10 (95,120 rows, the CSV era that the synthetic sample imitates) and compared with 2023-01,
  2023-02 and 2024-01.
- yellow: estimates from 5,000 rows of 2025-02, the first rows of files of 2017 to 2021, and general knowledge of
  2021-01.
- fhv and fhvhv: estimates from the first 100 rows of published files, all within the hour after midnight, and general
  knowledge.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from taxi_assets.tlc.month import Month

if TYPE_CHECKING:
    from collections.abc import Sequence

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
_Value = TypeVar("_Value")

ZONE_TABLE = Path(__file__).with_name("taxi_zone_lookup.csv")
_ZONE_STATISTICS = Path(__file__).with_name("zones.csv")

# ---------------------------------------------------------------------------------------------------- trips per month

# A demonstration does not need millions of rows. Above this size (before the seasonal factor), rows grow with the fifth
# root of trips.
_DAMPED_ABOVE_ROWS = 110_000
_DAMPING_EXPONENT = 0.2


def _series(text: str) -> dict[str, float]:
    months, values = text.split()[::2], text.split()[1::2]
    return {month: float(value) for month, value in zip(months, values, strict=True)}


# Seasonal factors from January to December: an estimate of a typical year.
_SEASON = (0.97, 0.94, 1.07, 1.05, 1.06, 1.01, 0.94, 0.91, 0.96, 1.05, 0.99, 1.02)


@dataclass(frozen=True)
class Volume:
    """The monthly volume of a service."""

    known: dict[str, float]
    """Thousands of published trips, by month."""
    trips_per_row: float
    """How many published trips one row represents."""

    def rows(self, month: Month) -> int:
        """Return the number of rows of a month. With the volumes below, it is at most 200,000.

        Between two known months, the volume follows their trend and the season of a typical year. A trend above
        110,000 rows is damped (`_DAMPING_EXPONENT`). The season is not damped.
        """
        trend_rows = math.exp(np.interp(month.year * 12 + month.number, *self._trend))
        if trend_rows > _DAMPED_ABOVE_ROWS:
            trend_rows = _DAMPED_ABOVE_ROWS * (trend_rows / _DAMPED_ABOVE_ROWS) ** _DAMPING_EXPONENT
        return round(trend_rows * _SEASON[month.number - 1])

    @functools.cached_property
    def _trend(self) -> tuple[FloatArray, FloatArray]:
        """The known months, counted from year 0, and the logarithms of their rows without the seasonal factor."""
        months = [Month.parse(key) for key in self.known]
        season = np.array([_SEASON[month.number - 1] for month in months])
        rows = np.array(list(self.known.values())) * 1000 / self.trips_per_row
        return np.array([month.year * 12.0 + month.number for month in months]), np.log(rows / season)


# From general knowledge. Checked against published files: yellow 2021-01; green 2013-08, 2020-10, 2023-01, 2024-01;
# fhvhv 2025-01.
# The trips per row are chosen so that 2021-01 has 100,000 yellow, 25,000 green, 25,000 fhv and 85,000 fhvhv rows.
YELLOW_VOLUME = Volume(
    _series("""
        2009-01 14092  2012-01 14970  2014-01 13783  2015-01 12742  2016-01 10906  2017-01 9711  2018-01 8760
        2019-01 7668  2020-01 6405  2020-02 6299  2020-03 3008  2020-04 238  2020-05 348  2020-06 550  2020-07 800
        2020-08 1007  2020-09 1341  2020-10 1681  2020-11 1509  2020-12 1462  2021-01 1370  2021-02 1372  2021-03 1925
        2021-04 2171  2021-05 2507  2021-06 2834  2021-12 3215  2022-01 2464  2022-05 3588  2023-01 3067  2024-01 2965
        2025-01 3475
    """),
    trips_per_row=13.7,
)
GREEN_VOLUME = Volume(
    _series("""
        2013-08 7.6  2013-12 500  2014-06 1337  2015-01 1508  2016-01 1445  2017-01 1070  2018-01 793  2019-01 672
        2020-01 448  2020-02 399  2020-03 223  2020-04 35.6  2020-05 57.4  2020-06 63.1  2020-07 72.3  2020-08 81.1
        2020-09 88  2020-10 95.1  2020-11 88.6  2020-12 83.1  2021-01 76.5  2021-02 64.6  2021-03 83.8  2021-10 110.9
        2022-01 62.5  2023-01 68.2  2024-01 56.6  2025-01 48.3
    """),
    trips_per_row=3.06,
)
# Until January 2019, these files also contained the trips of Uber, Lyft, Juno and Via.
FHV_VOLUME = Volume(
    _series("""
        2015-01 2746  2016-01 8600  2017-01 13600  2018-01 19800  2018-12 23900  2019-01 23143  2019-02 1708
        2019-10 1898  2020-01 1850  2020-02 1800  2020-03 1150  2020-04 480  2020-05 560  2020-06 700  2020-09 1000
        2021-01 1154  2022-01 1143  2023-01 1115  2024-01 1290
    """),
    trips_per_row=46.2,
)
FHVHV_VOLUME = Volume(
    _series("""
        2019-02 20159  2019-03 23865  2020-01 20569  2020-02 21725  2020-03 13392  2020-04 4313  2020-05 6089
        2020-06 7555  2020-07 9958  2020-08 11096  2020-09 12106  2020-10 13268  2020-11 11596  2020-12 11637
        2021-01 11908  2021-02 11613  2021-03 14227  2021-06 14961  2021-12 16054  2022-01 14752  2022-06 17780
        2023-01 18479  2024-01 19664  2025-01 20406
    """),
    trips_per_row=140,
)


def days_of(month: Month) -> list[dt.date]:
    """Return the days of a month, in order."""
    return [month.start + dt.timedelta(days=n) for n in range(month.days)]


def draw_day_factors(rng: np.random.Generator, month: Month) -> FloatArray:
    """Draw a random factor around 1 for the number of trips on each day of a month; shape (days,)."""
    return np.asarray(np.exp(0.04 * rng.standard_normal(month.days)))


def apportion(total: int, weights: FloatArray) -> list[int]:
    """Return integers that sum to `total` and are approximately proportional to the weights."""
    ends = np.rint(np.cumsum(weights) / weights.sum() * total).astype(np.int64)
    return [int(count) for count in np.diff(ends, prepend=0)]


def value_in_force(rules: Sequence[tuple[str, _Value]], date: dt.date) -> _Value:
    """Return the value that is in force on a date.

    Args:
        rules: Pairs of the first month or day (`2019-02` or `2019-02-01`) and the value from then on, in order.
        date: The date. It must not be before the first pair.
    """
    return [rule for since, rule in rules if since <= date.isoformat()][-1]


# ----------------------------------------------------------------------------------------------- times

_DAY_KIND = (0, 0, 0, 0, 1, 2, 3)  # Monday to Thursday, Friday, Saturday, Sunday
_SATURDAY, _SUNDAY = 5, 6
_HOLIDAYS = ((1, 1), (7, 4), (12, 25))  # as many trips as on a Sunday, and no rush hour surcharge

# Duration of a trip by the hour of its pickup, relative to 08:00.
_DURATION_FACTORS = (
    (0.76, 0.78, 0.71, 0.67, 0.66, 0.73, 0.85, 0.92, 1.00, 0.98, 0.99, 1.01),
    (1.03, 1.06, 1.12, 1.15, 1.14, 1.10, 1.03, 0.96, 0.90, 0.85, 0.81, 0.79),
)
DURATION_FACTOR_BY_HOUR: FloatArray = np.ravel(_DURATION_FACTORS)


def is_workday(day: dt.date) -> bool:
    """Return whether the rush hour surcharge applies."""
    return day.weekday() < _SATURDAY and (day.month, day.day) not in _HOLIDAYS


@dataclass(frozen=True)
class Demand:
    """The demand for one kind of ride (hailed, dispatched or by app): its times and its zones."""

    pickups_by_hour: tuple[tuple[int, ...], ...]
    """Pickups in each hour, per thousand of the day; shape (4, 24): Monday to Thursday, Friday, Saturday, Sunday."""
    weekday_factors: tuple[float, ...]
    """Number of trips relative to an average day, Monday to Sunday."""
    zone_column_prefix: str
    """Prefix of the columns of zones.csv."""
    near_miles: float
    """Distance in miles over which attraction falls to 1/e, for most trips."""
    far_share: float
    """Weight of long-distance trips."""
    far_miles: float
    """Distance in miles over which attraction falls to 1/e, for long-distance trips."""
    same_zone_attraction: float
    """Attraction of the pickup's own zone. That of other zones decreases with distance."""

    def day_factors(self, days: Sequence[dt.date]) -> FloatArray:
        """Return the number of trips on each day, relative to an average day; shape (days,)."""
        holidays = [(day.month, day.day) in _HOLIDAYS for day in days]
        return np.array(
            [
                self.weekday_factors[_SUNDAY if is_holiday else day.weekday()]
                for day, is_holiday in zip(days, holidays, strict=True)
            ]
        )

    def hour_probabilities(self, day: dt.date) -> FloatArray:
        """Return the probability that a trip of the day begins in each hour; shape (24,)."""
        pickups = self.pickups_by_hour[_DAY_KIND[day.weekday()]]
        return np.array(pickups) / sum(pickups)


# The hours of yellow are the mean of two smoothed sources: rows of 2025, and green 2020-10. In early 2021, nights were
# quieter than in 2025.
HAILED_YELLOW = Demand(
    (
        (12, 6, 3, 3, 3, 7, 21, 41, 55, 56, 55, 56, 58, 59, 64, 70, 72, 76, 71, 61, 51, 43, 34, 22),
        (19, 9, 5, 3, 2, 6, 17, 31, 43, 50, 55, 54, 52, 51, 63, 72, 73, 78, 75, 65, 53, 46, 42, 36),
        (34, 25, 19, 14, 8, 5, 9, 19, 27, 34, 48, 53, 58, 59, 69, 69, 73, 67, 63, 58, 48, 46, 49, 46),
        (38, 32, 22, 15, 10, 6, 9, 13, 17, 33, 49, 60, 68, 70, 69, 67, 69, 79, 66, 56, 46, 40, 34, 32),
    ),
    weekday_factors=(0.93, 1.01, 1.06, 1.08, 1.12, 1.04, 0.76),
    zone_column_prefix="yellow",
    near_miles=1.3,
    far_share=0.03,
    far_miles=10,
    same_zone_attraction=0.6,
)
HAILED_GREEN = Demand(
    (
        (10, 6, 3, 2, 2, 7, 24, 45, 62, 62, 60, 62, 63, 62, 70, 80, 80, 81, 70, 54, 36, 24, 19, 16),
        (10, 6, 3, 2, 2, 6, 23, 44, 58, 59, 57, 57, 58, 51, 65, 73, 77, 83, 71, 61, 46, 34, 27, 24),
        (18, 13, 8, 5, 3, 5, 11, 27, 35, 38, 55, 60, 67, 66, 81, 75, 81, 75, 71, 63, 48, 37, 30, 27),
        (28, 19, 9, 4, 6, 6, 13, 22, 27, 42, 56, 67, 72, 72, 82, 80, 70, 78, 61, 56, 44, 35, 27, 23),
    ),
    weekday_factors=(0.96, 1.01, 1.05, 1.11, 1.12, 1.02, 0.73),
    zone_column_prefix="green",
    near_miles=1.2,
    far_share=0.02,
    far_miles=10,
    same_zone_attraction=0.65,
)
DISPATCHED_TAXIS = Demand(
    (
        (2, 1, 1, 3, 16, 18, 31, 56, 78, 94, 98, 93, 94, 82, 73, 64, 56, 44, 30, 21, 16, 11, 9, 7),
        (3, 1, 1, 2, 13, 18, 32, 56, 84, 95, 98, 87, 80, 72, 76, 63, 56, 43, 31, 24, 22, 20, 16, 10),
        (6, 4, 2, 7, 23, 20, 16, 36, 57, 66, 76, 90, 81, 81, 78, 63, 55, 54, 46, 41, 34, 23, 23, 18),
        (15, 9, 6, 3, 1, 4, 10, 24, 51, 68, 82, 84, 102, 86, 81, 66, 59, 57, 47, 41, 34, 26, 29, 14),
    ),
    weekday_factors=(1.08, 1.18, 1.21, 1.2, 1.2, 0.65, 0.48),
    zone_column_prefix="dispatched",
    near_miles=2.3,
    far_share=0.08,
    far_miles=12,
    same_zone_attraction=0.9,
)
# Liveries and black cars: trips to work, school and medical appointments. Estimates, with the zones of dispatched
# taxis.
FOR_HIRE_CARS = Demand(
    (
        (10, 7, 6, 7, 15, 28, 50, 72, 76, 60, 53, 50, 50, 56, 68, 70, 62, 56, 48, 40, 34, 28, 22, 15),
        (11, 8, 6, 7, 13, 26, 46, 68, 72, 58, 52, 49, 49, 56, 68, 70, 63, 58, 51, 44, 39, 34, 29, 23),
        (33, 27, 22, 17, 17, 20, 27, 36, 44, 48, 51, 53, 55, 55, 56, 56, 55, 56, 54, 50, 45, 42, 40, 37),
        (42, 36, 29, 21, 17, 17, 21, 28, 37, 46, 53, 57, 57, 55, 54, 54, 53, 52, 50, 48, 43, 38, 32, 25),
    ),
    weekday_factors=(1.07, 1.11, 1.12, 1.12, 1.13, 0.8, 0.65),
    zone_column_prefix="dispatched",
    near_miles=2.3,
    far_share=0.08,
    far_miles=12,
    same_zone_attraction=0.9,
)
# Estimates: busiest on Friday and Saturday evenings, and in the nights that follow.
APPS = Demand(
    (
        (17, 10, 7, 7, 11, 19, 34, 51, 57, 46, 41, 41, 42, 44, 50, 54, 57, 62, 62, 56, 51, 48, 42, 31),
        (18, 11, 8, 7, 9, 16, 29, 44, 50, 42, 39, 40, 42, 45, 51, 55, 58, 63, 66, 64, 59, 58, 58, 52),
        (41, 33, 25, 18, 12, 10, 13, 20, 28, 36, 43, 48, 50, 51, 52, 52, 54, 57, 59, 58, 54, 52, 55, 57),
        (54, 47, 38, 27, 17, 11, 12, 17, 24, 34, 42, 47, 49, 51, 51, 50, 50, 51, 52, 50, 46, 41, 36, 28),
    ),
    weekday_factors=(0.87, 0.91, 0.95, 1.0, 1.14, 1.19, 0.94),
    zone_column_prefix="fhvhv",
    near_miles=1.7,
    far_share=0.02,
    far_miles=10,
    same_zone_attraction=1.0,
)


# ------------------------------------------------------------------------------------------------- zones

NEWARK, JFK, LAGUARDIA, OUTSIDE = 1, 132, 138, 265
AIRPORTS = (NEWARK, JFK, LAGUARDIA)
# Zones of Manhattan in the yellow service zone that are (mostly) outside the area of the congestion surcharge.
_ABOVE_96TH = (24, 43, 151)
# Zones that are also outside the business district, which ends at 60th Street.
_ABOVE_60TH = (140, 141, 142, 143, 194, 202, 236, 237, 238, 239, 262, 263)


class OriginDestinationModel:
    """Draws pairs of pickup and dropoff zones for a demand, and the miles driven between them.

    `zones.csv` contains for each zone:

    - A position on a plane, in road miles east and north of Midtown Center. Fitted to the median distances of 13,415
      pairs of zones in published months, with a median error of 9%.
    - Its pickups and its attraction as a destination, per million. The attraction is fitted so that dropoffs match the
      measured ones. Those of yellow are from 2025-02, with airports at about half, because fewer people flew in 2021.
      Those of fhvhv are estimates. Borough shares are general knowledge (Manhattan 38%, Brooklyn 28%, Queens 20%, Bronx
      13%, Staten Island 2%). Within a borough, shares follow a smoothed mix of the other services.
    """

    def __init__(self, demand: Demand) -> None:
        with _ZONE_STATISTICS.open(encoding="utf-8") as file:
            names = file.readline().strip().split(",")
            statistics = dict(zip(names, np.loadtxt(file, delimiter=",", unpack=True), strict=True))
        place = np.column_stack([statistics["x_miles"], statistics["y_miles"]])
        self._distance: FloatArray = np.hypot(*(place[:, None, :] - place[None, :, :]).transpose(2, 0, 1))
        attraction = np.exp(-self._distance / demand.near_miles)
        attraction += demand.far_share * np.exp(-self._distance / demand.far_miles)
        # Airports attract trips from the whole city; few trips stay within one.
        airports = np.isin(statistics["LocationID"], AIRPORTS)
        attraction[airports, :] = np.exp(-self._distance[airports, :] / 20)
        attraction[:, airports] = np.exp(-self._distance[:, airports] / 20)
        np.fill_diagonal(attraction, np.where(airports, 0.1, 1.0) * demand.same_zone_attraction)
        trips = attraction * statistics[f"{demand.zone_column_prefix}_attraction"]
        trips *= (statistics[f"{demand.zone_column_prefix}_pickups"] / trips.sum(axis=1))[:, None]
        self._cumulative: FloatArray = np.cumsum(trips.ravel() / trips.sum())

    def draw_pairs(self, rng: np.random.Generator, count: int) -> tuple[IntArray, IntArray]:
        """Draw `count` pickup and dropoff zones, as LocationIDs from 1 to 265."""
        # Rounding can make the last cumulative sum slightly less than 1.
        pair = np.minimum(np.searchsorted(self._cumulative, rng.random(count)), self._cumulative.size - 1)
        return pair // len(self._distance) + 1, pair % len(self._distance) + 1

    def draw_miles(self, rng: np.random.Generator, origin: IntArray, destination: IntArray) -> FloatArray:
        """Draw the miles driven, one value per pair: around the distance between zones, or 0.82 miles within a zone."""
        noise = rng.standard_normal(len(origin))
        within = 0.82 * np.exp(0.62 * noise)
        return np.where(
            origin == destination, within, self._distance[origin - 1, destination - 1] * np.exp(0.22 * noise)
        )


@functools.cache
def origin_destination_model(demand: Demand) -> OriginDestinationModel:
    """Return the model for a demand, cached because it takes 10 ms to build."""
    return OriginDestinationModel(demand)


@functools.cache
def congestion_surcharge_zones() -> BoolArray:
    """Return which zones have the congestion surcharge: Manhattan south of 96th Street.

    Returns:
        One boolean per LocationID; shape (266,).
    """
    rows = [line.split(",") for line in ZONE_TABLE.read_text(encoding="utf-8").splitlines()]
    below = np.array([row[-1] == '"Yellow Zone"' for row in rows])  # index 0 is the header
    below[list(_ABOVE_96TH)] = False
    return below


@functools.cache
def business_district_zones() -> BoolArray:
    """Return which zones are in the business district, which has a fee since 2025.

    Returns:
        One boolean per LocationID; shape (266,).
    """
    below = congestion_surcharge_zones().copy()
    below[list(_ABOVE_60TH)] = False
    return below
