"""For-hire vehicles (FHV): car services, black cars and, until January 2019, app companies, by dispatching base.

Files until 2016 contain only base, pickup time and zone; dropoffs follow from 2017 on. Exact duplicates are legitimate,
because times were rounded to the minute. No rule limits the duration: in some months, a quarter of the trips end more
than a day after they started. Source: TLC's data dictionary of FHV trip records (2025-03).
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
    description="car services and black cars, as reported by the bases that dispatched them",
    first_month=Month(2015, 1),
    columns=(
        Column(
            "dispatching_base_num",
            ColumnType.TEXT,
            "TLC license number of the base that dispatched the trip, such as B02764.",
            aliases=("dispatching_base_number",),
            required=True,
            # Files of 2018 have both names. The column with the name of the other years is empty there.
            merge_aliases=True,
        ),
        Column(
            "affiliated_base_number",
            ColumnType.TEXT,
            "TLC license number of the base that the vehicle belongs to. Only Parquet files have it.",
        ),
        local_time("pickup_datetime", "Time when the trip started.", required=True, aliases=("pickup_date",)),
        local_time(
            "dropoff_datetime",
            "Time when the trip ended. Null if the base did not report it.",
            since=DROPOFFS_SINCE,
            required=True,
        ),
        zone("pickup", aliases=("locationid",), required=True),
        zone("dropoff", since=DROPOFFS_SINCE, required=True),
        Column(
            "sr_flag",
            ColumnType.INTEGER,
            "1 if the trip was part of a shared ride, null if not. Other numbers occur.",
            since=Month(2017, 7),
        ),
        *DERIVED_TIMES,
        *ORIGIN,
    ),
    rules=(PICKUP_MISSING, PICKUP_OUTSIDE_MONTH, DROPOFF_NOT_AFTER_PICKUP),
)
