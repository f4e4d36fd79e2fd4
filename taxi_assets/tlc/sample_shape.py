"""What the real months look like, in figures: volumes, hours, zones, tariffs and the share of every kind of dirt.

Belongs here: figures with their origin, and the small functions that read them. Does not belong here: making rows of
them (`sample_trips.py`), files (`sample.py`).

Where a comment names no other origin, a figure of green was measured on 2020-10 (95,120 rows, the CSV era the samples
imitate) and compared with 2023-01, 2023-02 and 2024-01. Of yellow there is no full month here: its figures are
estimates from 5,000 rows of 2025-02, the first rows of files of 2017 to 2021, and what is generally known of 2021-01.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taxi_assets.tlc.month import Month

Flags = npt.NDArray[np.bool_]
Whole = npt.NDArray[np.int64]
Real = npt.NDArray[np.float64]

ZONES = Path(__file__).with_name("taxi_zone_lookup.csv")
_ZONE_FIGURES = Path(__file__).with_name("sample_zones.csv")

# ----------------------------------------------------------------------------------------------- when people ride


def _series(text: str) -> dict[str, float]:
    months, values = text.split()[::2], text.split()[1::2]
    return {month: float(value) for month, value in zip(months, values, strict=True)}


# Published months in thousands of trips, as they are generally known (checked here: yellow 2021-01; green 2013-08,
# 2020-10, 2023-01, 2024-01). Between two of them the volume follows their trend and the season.
_YELLOW_VOLUME = _series("""
    2009-01 14092  2012-01 14970  2014-01 13783  2015-01 12742  2016-01 10906  2017-01 9711  2018-01 8760  2019-01 7668
    2020-01 6405  2020-02 6299  2020-03 3008  2020-04 238  2020-05 348  2020-06 550  2020-07 800  2020-08 1007
    2020-09 1341  2020-10 1681  2020-11 1509  2020-12 1462  2021-01 1370  2021-02 1372  2021-03 1925  2021-04 2171
    2021-05 2507  2021-06 2834  2021-12 3215  2022-01 2464  2022-05 3588  2023-01 3067  2024-01 2965  2025-01 3475
""")
_GREEN_VOLUME = _series("""
    2013-08 7.6  2013-12 500  2014-06 1337  2015-01 1508  2016-01 1445  2017-01 1070  2018-01 793  2019-01 672
    2020-01 448  2020-02 399  2020-03 223  2020-04 35.6  2020-05 57.4  2020-06 63.1  2020-07 72.3  2020-08 81.1
    2020-09 88  2020-10 95.1  2020-11 88.6  2020-12 83.1  2021-01 76.5  2021-02 64.6  2021-03 83.8  2021-10 110.9
    2022-01 62.5  2023-01 68.2  2024-01 56.6  2025-01 48.3
""")

# January to December: an estimate of an ordinary year.
_SEASON = (0.97, 0.94, 1.07, 1.05, 1.06, 1.01, 0.94, 0.91, 0.96, 1.05, 0.99, 1.02)

# Pickups per hour of the day, of a thousand: Monday to Thursday, Friday, Saturday, Sunday. The yellow ones are the mean
# of the (smoothed) 2025 sample and of green 2020-10: in early 2021 the city went to bed earlier than in 2025.
_DAY_KIND = (0, 0, 0, 0, 1, 2, 3)
_YELLOW_HOURS = (
    (12, 6, 3, 3, 3, 7, 21, 41, 55, 56, 55, 56, 58, 59, 64, 70, 72, 76, 71, 61, 51, 43, 34, 22),
    (19, 9, 5, 3, 2, 6, 17, 31, 43, 50, 55, 54, 52, 51, 63, 72, 73, 78, 75, 65, 53, 46, 42, 36),
    (34, 25, 19, 14, 8, 5, 9, 19, 27, 34, 48, 53, 58, 59, 69, 69, 73, 67, 63, 58, 48, 46, 49, 46),
    (38, 32, 22, 15, 10, 6, 9, 13, 17, 33, 49, 60, 68, 70, 69, 67, 69, 79, 66, 56, 46, 40, 34, 32),
)
_GREEN_HOURS = (
    (10, 6, 3, 2, 2, 7, 24, 45, 62, 62, 60, 62, 63, 62, 70, 80, 80, 81, 70, 54, 36, 24, 19, 16),
    (10, 6, 3, 2, 2, 6, 23, 44, 58, 59, 57, 57, 58, 51, 65, 73, 77, 83, 71, 61, 46, 34, 27, 24),
    (18, 13, 8, 5, 3, 5, 11, 27, 35, 38, 55, 60, 67, 66, 81, 75, 81, 75, 71, 63, 48, 37, 30, 27),
    (28, 19, 9, 4, 6, 6, 13, 22, 27, 42, 56, 67, 72, 72, 82, 80, 70, 78, 61, 56, 44, 35, 27, 23),
)
_DISPATCHED_HOURS = (
    (2, 1, 1, 3, 16, 18, 31, 56, 78, 94, 98, 93, 94, 82, 73, 64, 56, 44, 30, 21, 16, 11, 9, 7),
    (3, 1, 1, 2, 13, 18, 32, 56, 84, 95, 98, 87, 80, 72, 76, 63, 56, 43, 31, 24, 22, 20, 16, 10),
    (6, 4, 2, 7, 23, 20, 16, 36, 57, 66, 76, 90, 81, 81, 78, 63, 55, 54, 46, 41, 34, 23, 23, 18),
    (15, 9, 6, 3, 1, 4, 10, 24, 51, 68, 82, 84, 102, 86, 81, 66, 59, 57, 47, 41, 34, 26, 29, 14),
)
_SATURDAY, _SUNDAY = 5, 6
_HOLIDAYS = ((1, 1), (7, 4), (12, 25))  # as quiet as a Sunday, and no rush hour surcharge

# Minutes a trip takes, by the hour of its pickup, relative to 08:00.
_SLOWNESS = (
    (0.76, 0.78, 0.71, 0.67, 0.66, 0.73, 0.85, 0.92, 1.00, 0.98, 0.99, 1.01),
    (1.03, 1.06, 1.12, 1.15, 1.14, 1.10, 1.03, 0.96, 0.90, 0.85, 0.81, 0.79),
)
SLOWNESS_BY_HOUR: Real = np.ravel(_SLOWNESS)


@dataclass(frozen=True)
class Demand:
    """One way of taking a taxi (hailed or dispatched): when, and from where to where."""

    hours: tuple[tuple[int, ...], ...]
    weekdays: tuple[float, ...]  # Monday to Sunday, around 1
    zones: str  # which columns of sample_zones.csv
    near_miles: float  # how fast a destination's pull fades with distance: most trips,
    far_share: float  # and some,
    far_miles: float  # that go anywhere
    own_zone: float  # the pull of staying within the zone

    def weight(self, day: dt.date) -> float:
        """How many trips the day has, relative to an average one."""
        return self.weekdays[_SUNDAY if (day.month, day.day) in _HOLIDAYS else day.weekday()]

    def hourly(self, day: dt.date) -> Real:
        """Shape (24,): the chance that a trip of the day begins in the hour."""
        pickups = self.hours[_DAY_KIND[day.weekday()]]
        return np.array(pickups) / sum(pickups)


@dataclass(frozen=True)
class Shape:
    """One service of metered taxis. Shares are of the metered rows, unless they say otherwise."""

    volume: dict[str, float]  # thousands of real trips a month
    real_trips_per_row: float
    hailed: Demand
    dispatched: Demand
    dispatched_share: tuple[tuple[str, float], ...]  # of all rows, from the month on
    vendor_1: float
    passengers: tuple[float, ...]  # the shares of 1, 2, 3, … (a driver counts)
    zero_passengers: float
    payment_types: tuple[float, ...]  # credit card, cash, no charge, dispute, unknown
    tips: tuple[float, ...]  # on cards: none, 20 %, 25 %, 30 %, whole dollars, any
    negotiated: float  # RatecodeID 5
    odometer_failed: float  # distance 0 on a real trip
    aborted: float  # distance 0, over within seconds
    reversed: float
    congestion_cents: int
    dispatch_fee: float  # the share of dispatched rows whose `tip` is a fee of 2.75
    dispatch_mta_tax: bool
    absurd_distance: float  # of dispatched rows, hailed ones have none: 600 to 225,000 miles
    stored: float  # store_and_fwd_flag Y

    def rows(self, month: Month) -> int:
        """How many rows the month has, dispatched ones and reversals included."""
        known = {
            Month.parse(key): value * 1000 / _SEASON[Month.parse(key).number - 1] for key, value in self.volume.items()
        }
        position = [m.year * 12 + m.number for m in known]
        trend = np.interp(month.year * 12 + month.number, position, np.log(list(known.values())))
        return round(math.exp(trend) * _SEASON[month.number - 1] / self.real_trips_per_row)

    def rows_by_day(self, rng: np.random.Generator, month: Month) -> list[tuple[dt.date, int, int]]:
        """Day, hailed rows, dispatched rows; they sum to `rows(month)`."""
        days = [month.start + dt.timedelta(days=n) for n in range(month.days)]
        share = max((since, share) for since, share in self.dispatched_share if since <= str(month))[1]
        dispatched = round(self.rows(month) * share)
        weather = np.exp(0.04 * rng.standard_normal(month.days))
        return list(
            zip(
                days,
                _spread(self.rows(month) - dispatched, weather * [self.hailed.weight(day) for day in days]),
                _spread(dispatched, weather * [self.dispatched.weight(day) for day in days]),
                strict=True,
            )
        )


def _spread(total: int, weights: Real) -> list[int]:
    ends = np.rint(np.cumsum(weights) / weights.sum() * total).astype(np.int64)
    return [int(count) for count in np.diff(ends, prepend=0)]


# ------------------------------------------------------------------------------------------------- where they ride

NEWARK, JFK, LAGUARDIA, OUTSIDE = 1, 132, 138, 265
AIRPORTS = (NEWARK, JFK, LAGUARDIA)
_ABOVE_96TH = (24, 43, 151)  # zones of Manhattan that lie (mostly) beyond the congestion surcharge

# The share of trips that pay a toll, by miles driven (of green and of yellow trips).
TOLL_MILES = (0, 3, 5, 8, 12, 20, 30)
TOLL_SHARE = (0.003, 0.008, 0.025, 0.11, 0.38, 0.57, 0.7)
AIRPORT_TOLL_SHARE = (0.003, 0.008, 0.025, 0.45, 0.57, 0.6, 0.7)


class Zones:
    """The taxi zones as a demand sees them: `draw` trips between them, and the `miles` of each.

    `sample_zones.csv` holds, per zone, a place on a plane (in road miles east and north of Midtown Center, fitted to
    the median distances of 13,415 pairs of zones in the real months: median error 9 %), its pickups and its pull as a
    destination (fitted so that dropoffs come out as measured), per million. Yellow's are those of 2025-02, with the
    airports at about half of them, as few people flew in 2021.
    """

    def __init__(self, demand: Demand) -> None:
        with _ZONE_FIGURES.open(encoding="utf-8") as file:
            names = file.readline().strip().split(",")
            figures = dict(zip(names, np.loadtxt(file, delimiter=",", unpack=True), strict=True))
        place = np.column_stack([figures["x_miles"], figures["y_miles"]])
        self._distance: Real = np.hypot(*(place[:, None, :] - place[None, :, :]).transpose(2, 0, 1))
        reach = np.exp(-self._distance / demand.near_miles)
        reach += demand.far_share * np.exp(-self._distance / demand.far_miles)
        # Airports draw from the whole city, and hardly anybody rides within one.
        airports = np.isin(figures["LocationID"], AIRPORTS)
        reach[airports, :] = np.exp(-self._distance[airports, :] / 20)
        reach[:, airports] = np.exp(-self._distance[:, airports] / 20)
        np.fill_diagonal(reach, np.where(airports, 0.1, 1.0) * demand.own_zone)
        trips = reach * figures[f"{demand.zones}_pull"]
        trips *= (figures[f"{demand.zones}_pickups"] / trips.sum(axis=1))[:, None]
        self._cumulative: Real = np.cumsum(trips.ravel() / trips.sum())

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Whole, Whole]:
        """Origins and destinations: LocationIDs, 1 to 265."""
        # Rounding may leave the last sum a hair below 1.
        pair = np.minimum(np.searchsorted(self._cumulative, rng.random(count)), self._cumulative.size - 1)
        return pair // len(self._distance) + 1, pair % len(self._distance) + 1

    def miles(self, rng: np.random.Generator, origin: Whole, destination: Whole) -> Real:
        """Driven miles: spread around the distance of the zones; within a zone around 0.82 miles."""
        noise = rng.standard_normal(len(origin))
        within = 0.82 * np.exp(0.62 * noise)
        return np.where(
            origin == destination, within, self._distance[origin - 1, destination - 1] * np.exp(0.22 * noise)
        )


@functools.cache
def zones_of(demand: Demand) -> Zones:
    """The zones for a demand (some 10 ms to build, hence kept)."""
    return Zones(demand)


@functools.cache
def below_96th() -> Flags:
    """Shape (266,), indexed by LocationID: Manhattan below 96th Street, where trips pay the congestion surcharge."""
    rows = [line.split(",") for line in ZONES.read_text(encoding="utf-8").splitlines()]
    below = np.array([row[-1] == '"Yellow Zone"' for row in rows])  # the header stands at index 0
    below[list(_ABOVE_96TH)] = False
    return below


# --------------------------------------------------------------------------------------------------- what it costs

OVERNIGHT_HOURS = (20, 21, 22, 23, 0, 1, 2, 3, 4, 5)
RUSH_HOURS = (16, 17, 18, 19)


@dataclass(frozen=True)
class Tariff:
    """What the meter and the law ask for, in cents."""

    since: str
    drop: int
    unit: int  # per fifth of a mile, or per minute when slow
    overnight: int
    rush: int
    jfk_flat: int
    jfk_rush: int
    newark: int
    improvement: int
    has_congestion: bool
    toll: int  # of the bridges and tunnels between the airports and Manhattan


_TARIFFS = (
    Tariff("2009-01", 250, 40, 50, 100, 4500, 0, 1500, 0, has_congestion=False, toll=457),
    Tariff("2012-09", 250, 50, 50, 100, 5200, 0, 1750, 0, has_congestion=False, toll=480),
    Tariff("2015-01", 250, 50, 50, 100, 5200, 450, 1750, 30, has_congestion=False, toll=554),
    Tariff("2019-02", 250, 50, 50, 100, 5200, 450, 1750, 30, has_congestion=True, toll=576),
    Tariff("2019-04", 250, 50, 50, 100, 5200, 450, 1750, 30, has_congestion=True, toll=612),
    Tariff("2021-04", 250, 50, 50, 100, 5200, 450, 1750, 30, has_congestion=True, toll=655),
    Tariff("2023-01", 300, 70, 100, 250, 7000, 500, 2000, 100, has_congestion=True, toll=694),
)


def tariff_of(month: Month) -> Tariff:
    """The tariff in force in the month."""
    return [tariff for tariff in _TARIFFS if tariff.since <= str(month)][-1]


def is_workday(day: dt.date) -> bool:
    """Whether the rush hour surcharge is asked for."""
    return day.weekday() < _SATURDAY and (day.month, day.day) not in _HOLIDAYS


# ------------------------------------------------------------------------------------------------------- the dirt

# Of all rows of the four green months: 41 pickups of another month in 284,691 rows.
STRAYS = 1.44e-4
# Of vendor 2's hailed rows: meters left running until the taxi was next used, for almost a day or a little more.
METER_LEFT_ON = 4.9e-3
DROPOFF_AT_PICKUP = 1.5e-3
DROPOFF_BEFORE_PICKUP = 2e-5
RATE_UNKNOWN = 1e-4  # RatecodeID 99
# Of dispatched rows.
DISPATCHED_WITHOUT_DISTANCE = 1.3e-2
DISPATCHED_TO_THE_SECOND = 7e-3  # the others carry whole minutes
# Rows stand in the hour of their pickup, unsorted; some in the next hour, and some were uploaded hours later.
UPLOADED_LATE = 8e-3

_DISPATCHED = Demand(
    _DISPATCHED_HOURS,
    weekdays=(1.08, 1.18, 1.21, 1.2, 1.2, 0.65, 0.48),
    zones="dispatched",
    near_miles=2.3,
    far_share=0.08,
    far_miles=12,
    own_zone=0.9,
)

YELLOW = Shape(
    volume=_YELLOW_VOLUME,
    real_trips_per_row=13.7,  # 2021-01: 1,369,765 trips are 100,000 rows
    hailed=Demand(
        _YELLOW_HOURS,
        weekdays=(0.93, 1.01, 1.06, 1.08, 1.12, 1.04, 0.76),
        zones="yellow",
        near_miles=1.3,
        far_share=0.03,
        far_miles=10,
        own_zone=0.6,
    ),
    dispatched=_DISPATCHED,
    # 98,352 of 1,369,765 rows in 2021-01; there were none before July 2019. The others are estimates.
    dispatched_share=(("0000-00", 0.0), ("2019-07", 0.008), ("2020-04", 0.0718), ("2022-01", 0.035)),
    vendor_1=0.33,
    passengers=(0.735, 0.15, 0.04, 0.016, 0.03, 0.0289, 0.0001),
    # 2021-01 had 26,726 rows, 1.95 % of all: kept a little below, so that at most 2 % fail any rule.
    zero_passengers=0.0185,
    payment_types=(0.738, 0.2505, 0.0068, 0.0047, 0.00002),
    tips=(0.07, 0.38, 0.14, 0.08, 0.18, 0.15),
    negotiated=0.005,
    odometer_failed=0.008,
    aborted=0.006,
    reversed=0.005,
    congestion_cents=250,
    dispatch_fee=0.6,
    dispatch_mta_tax=True,
    absurd_distance=0.003,
    stored=0.014,
)

GREEN = Shape(
    volume=_GREEN_VOLUME,
    real_trips_per_row=3.06,  # so that green 2021-01 is a quarter of yellow: 76,518 trips are 25,000 rows
    hailed=Demand(
        _GREEN_HOURS,
        weekdays=(0.96, 1.01, 1.05, 1.11, 1.12, 1.02, 0.73),
        zones="green",
        near_miles=1.2,
        far_share=0.02,
        far_miles=10,
        own_zone=0.65,
    ),
    dispatched=_DISPATCHED,
    # 44.7 % in 2020-10, 6.0 to 7.4 % in 2023 and 2024; there were none before July 2019. That year's is an estimate.
    dispatched_share=(("0000-00", 0.0), ("2019-07", 0.18), ("2020-04", 0.447), ("2022-01", 0.065)),
    vendor_1=0.19,
    passengers=(0.8777, 0.0586, 0.0094, 0.0097, 0.0274, 0.0171, 0.0001),
    zero_passengers=0.0049,
    payment_types=(0.5727, 0.4214, 0.0047, 0.0012, 0.00002),
    tips=(0.167, 0.293, 0.086, 0.051, 0.148, 0.255),
    negotiated=0.036,
    odometer_failed=0.036,
    aborted=0.022,
    reversed=0.0036,
    congestion_cents=275,
    dispatch_fee=0.927,
    dispatch_mta_tax=False,
    absurd_distance=0.0008,  # 31 rows of 42,510; about 0.8 % in 2023 and 2024, when far fewer rows were dispatched
    stored=0.0074,
)
