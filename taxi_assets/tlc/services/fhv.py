"""For-hire vehicles: car services, black cars and, until January 2019, the app companies, by dispatching base.

TLC asked the bases for little: until 2016 only base, pickup time and zone, from 2017 on dropoffs. Exact duplicates are
legitimate (times were rounded to the minute), and a quarter of some months' trips end more than a day after they began.
"""

from __future__ import annotations

from taxi_assets.tlc.month import Month
from taxi_assets.tlc.rules import DROPOFF_NOT_AFTER_PICKUP, PICKUP_MISSING, PICKUP_OUTSIDE_MONTH
from taxi_assets.tlc.schema import Column, ColumnType, Service
from taxi_assets.tlc.services.shared_columns import DERIVED_TIMES, ORIGIN, local_time, zone

DROPOFFS_SINCE = Month(2017, 1)

FHV = Service(
    name="fhv",
    title="For-hire vehicle",
    description="car services and black cars, as their bases dispatched them",
    first_month=Month(2015, 1),
    columns=(
        Column(
            "dispatching_base_num",
            ColumnType.TEXT,
            "TLC licence of the base that sent the car, such as B02764.",
            aliases=("dispatching_base_number",),
            required=True,
            # Files of 2018 have both names, and the one that other years use is empty.
            merge_aliases=True,
        ),
        Column(
            "affiliated_base_number",
            ColumnType.TEXT,
            "TLC licence of the base that the car belongs to; not in the CSV files.",
        ),
        local_time("pickup_datetime", "When the trip began.", required=True, aliases=("pickup_date",)),
        local_time("dropoff_datetime", "When the trip ended; null where the base did not say.", since=DROPOFFS_SINCE),
        zone("pickup", aliases=("locationid",)),
        zone("dropoff", since=DROPOFFS_SINCE),
        Column(
            "sr_flag",
            ColumnType.INTEGER,
            "1 for a trip in a shared-ride chain, null for one that was not; other numbers occur.",
            since=Month(2017, 7),
        ),
        *DERIVED_TIMES,
        *ORIGIN,
    ),
    rules=(PICKUP_MISSING, PICKUP_OUTSIDE_MONTH, DROPOFF_NOT_AFTER_PICKUP),
)
