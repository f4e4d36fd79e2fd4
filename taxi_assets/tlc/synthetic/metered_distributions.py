"""The numbers behind the records of yellow and green: tariffs, payment, and the share of each kind of data error.

Belongs here: the numbers of metered taxis, with their origin. Does not belong here: generating records
(`metered_trips.py`), and the number of trips (`demand.py`, which also says what was measured and what is estimated).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taxi_assets.tlc.synthetic.demand import (
    DISPATCHED_TAXIS,
    GREEN_VOLUME,
    HAILED_GREEN,
    HAILED_YELLOW,
    YELLOW_VOLUME,
    Demand,
    Volume,
    apportion,
    days_of,
    draw_day_factors,
    value_in_force,
)

if TYPE_CHECKING:
    import datetime as dt

    import numpy as np

    from taxi_assets.tlc.month import Month

# --------------------------------------------------------------------------------------------------- tariffs

OVERNIGHT_HOURS = (20, 21, 22, 23, 0, 1, 2, 3, 4, 5)
RUSH_HOURS = (16, 17, 18, 19)


@dataclass(frozen=True)
class Tariff:
    """Fares, taxes and surcharges in cents, from the month `since`."""

    since: str
    drop: int
    unit: int
    """Per fifth of a mile, or per minute in slow traffic."""
    overnight: int
    rush: int
    jfk_flat: int
    jfk_rush: int
    newark: int
    improvement: int
    has_congestion: bool


_TARIFFS = (
    Tariff("2009-01", 250, 40, 50, 100, 4500, 0, 1500, 0, has_congestion=False),
    Tariff("2012-09", 250, 50, 50, 100, 5200, 0, 1750, 0, has_congestion=False),
    Tariff("2015-01", 250, 50, 50, 100, 5200, 450, 1750, 30, has_congestion=False),
    Tariff("2019-02", 250, 50, 50, 100, 5200, 450, 1750, 30, has_congestion=True),
    Tariff("2023-01", 300, 70, 100, 250, 7000, 500, 2000, 100, has_congestion=True),
)


def tariff_of(month: Month) -> Tariff:
    """Return the tariff in force in a month."""
    return [tariff for tariff in _TARIFFS if tariff.since <= str(month)][-1]


# ------------------------------------------------------------------------------------------------------- data errors

# Share of all rows: 41 pickups in other months among the 284,691 rows of four green months.
STRAYS = 1.44e-4
# Share of vendor 2's hailed rows: the meter ran until the taxi was used again, for about a day.
METER_LEFT_ON = 4.9e-3
DROPOFF_AT_PICKUP = 1.5e-3
DROPOFF_BEFORE_PICKUP = 2e-5
RATE_UNKNOWN = 1e-4  # RatecodeID 99
# Shares of dispatched rows.
DISPATCHED_WITHOUT_DISTANCE = 1.3e-2
DISPATCHED_TO_THE_SECOND = 7e-3  # the others have whole minutes
# Rows are in the order of their pickup hour, unsorted within it. This share was uploaded hours later.
UPLOADED_LATE = 8e-3

# ---------------------------------------------------------------------------------------------------- the services


@dataclass(frozen=True)
class MeteredService:
    """The distributions of one service. Shares are of the metered rows, unless stated otherwise."""

    volume: Volume
    hailed: Demand
    dispatched: Demand
    dispatched_share: tuple[tuple[str, float], ...]
    """Share of all rows, by the month from which it applies."""
    vendor_1: float
    passengers: tuple[float, ...]
    """Shares of 1, 2, 3, … passengers, as counted by the driver."""
    zero_passengers: float
    payment_types: tuple[float, ...]
    """Shares of credit card, cash, no charge, dispute, unknown."""
    tips: tuple[float, ...]
    """Shares of the tips on cards: none, 20%, 25%, 30%, whole dollars, any amount."""
    negotiated: float
    """RatecodeID 5."""
    odometer_failed: float
    """Distance 0 on a real trip."""
    aborted: float
    """Distance 0, and over within a minute."""
    reversal_share: float
    congestion_cents: int
    dispatch_fee: float
    """Share of the dispatched rows whose `tip_amount` is a fee of 2.75."""
    dispatch_mta_tax: bool
    absurd_distance: float
    """Share of the dispatched rows with 600 to 225,000 miles. Hailed rows have none."""
    stored: float
    """store_and_fwd_flag Y."""

    def rows_by_day(self, rng: np.random.Generator, month: Month) -> list[tuple[dt.date, int, int]]:
        """Return each day with its hailed and its dispatched rows, which sum to the rows of the month."""
        rows = self.volume.rows(month)
        dispatched = round(rows * value_in_force(self.dispatched_share, month.start))
        days, random_factors = days_of(month), draw_day_factors(rng, month)
        return list(
            zip(
                days,
                apportion(rows - dispatched, random_factors * self.hailed.day_factors(days)),
                apportion(dispatched, random_factors * self.dispatched.day_factors(days)),
                strict=True,
            )
        )


YELLOW = MeteredService(
    volume=YELLOW_VOLUME,
    hailed=HAILED_YELLOW,
    dispatched=DISPATCHED_TAXIS,
    # 98,352 of 1,369,765 rows in 2021-01; there were none before July 2019. The others are estimates.
    dispatched_share=(("0000-00", 0.0), ("2019-07", 0.008), ("2020-04", 0.0718), ("2022-01", 0.035)),
    vendor_1=0.33,
    passengers=(0.735, 0.15, 0.04, 0.016, 0.03, 0.0289, 0.0001),
    # 2021-01 had 26,726 rows, 1.95% of all. A little less here, so that at most 2% of the rows violate any rule.
    zero_passengers=0.0185,
    payment_types=(0.738, 0.2505, 0.0068, 0.0047, 0.00002),
    tips=(0.07, 0.38, 0.14, 0.08, 0.18, 0.15),
    negotiated=0.005,
    odometer_failed=0.008,
    aborted=0.006,
    reversal_share=0.005,
    congestion_cents=250,
    dispatch_fee=0.6,
    dispatch_mta_tax=True,
    absurd_distance=0.003,
    stored=0.014,
)

GREEN = MeteredService(
    volume=GREEN_VOLUME,
    hailed=HAILED_GREEN,
    dispatched=DISPATCHED_TAXIS,
    # 44.7% in 2020-10, 6.0 to 7.4% in 2023 and 2024; there were none before July 2019. The share of 2019 is an
    # estimate.
    dispatched_share=(("0000-00", 0.0), ("2019-07", 0.18), ("2020-04", 0.447), ("2022-01", 0.065)),
    vendor_1=0.19,
    passengers=(0.8777, 0.0586, 0.0094, 0.0097, 0.0274, 0.0171, 0.0001),
    zero_passengers=0.0049,
    payment_types=(0.5727, 0.4214, 0.0047, 0.0012, 0.00002),
    tips=(0.167, 0.293, 0.086, 0.051, 0.148, 0.255),
    negotiated=0.036,
    odometer_failed=0.036,
    aborted=0.022,
    reversal_share=0.0036,
    congestion_cents=275,
    dispatch_fee=0.927,
    dispatch_mta_tax=False,
    absurd_distance=0.0008,  # 31 rows of 42,510; about 0.8% in 2023 and 2024, when far fewer rows were dispatched
    stored=0.0074,
)
