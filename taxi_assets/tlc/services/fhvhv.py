"""High-volume for-hire vehicles (FHVHV): companies with at least 10,000 trips a day, such as Uber and Lyft.

The CSV files of 2019 to 2021 have 7 columns. TLC's Parquet files have 24 columns, and 25 from 2025 on. Source: TLC's
data dictionary of high-volume FHV trip records (2025-03).
"""

from __future__ import annotations

from typing import Any

from taxi_assets.tlc.month import Month
from taxi_assets.tlc.rules import (
    DISTANCE_OUT_OF_RANGE,
    DROPOFF_NOT_AFTER_PICKUP,
    LONGER_THAN_A_DAY,
    PICKUP_MISSING,
    PICKUP_OUTSIDE_MONTH,
)
from taxi_assets.tlc.schema import Column, ColumnType, Service
from taxi_assets.tlc.services.shared_columns import (
    CBD_FEE_DESCRIPTION,
    CONGESTION_SURCHARGE_DESCRIPTION,
    DERIVED_TIMES,
    ORIGIN,
    PARQUET_ONLY_SINCE,
    YES_OR_NO,
    local_time,
    money,
    zone,
)

# Only Parquet files have these columns, and TLC has published no CSV file since.
_IN_PARQUET: dict[str, Any] = {"required": True, "required_since": PARQUET_ONLY_SINCE}


def _flag(name: str, description: str) -> Column:
    return Column(name, ColumnType.TEXT, f"{description}: Y or N.", codes=YES_OR_NO)


FHVHV = Service(
    name="fhvhv",
    title="High-volume for-hire vehicle",
    description="trips of Uber, Lyft, Juno (until 2019) and Via (until 2021)",
    first_month=Month(2019, 2),
    columns=(
        Column(
            "hvfhs_license_num",
            ColumnType.TEXT,
            "TLC license number of the company: HV0002 Juno, HV0003 Uber, HV0004 Via, HV0005 Lyft.",
            required=True,
        ),
        Column(
            "dispatching_base_num",
            ColumnType.TEXT,
            "TLC license number of the base that dispatched the trip.",
            required=True,
        ),
        Column(
            "originating_base_num",
            ColumnType.TEXT,
            "TLC license number of the base that received the passenger's request.",
        ),
        local_time("request_datetime", "Time when the passenger requested the trip."),
        local_time(
            "on_scene_datetime",
            "Time when the driver arrived at the pickup. Only Uber and wheelchair-accessible vehicles report it.",
        ),
        local_time("pickup_datetime", "Time when the trip started.", required=True),
        local_time("dropoff_datetime", "Time when the trip ended.", required=True),
        zone("pickup", required=True),
        zone("dropoff", required=True),
        Column(
            "trip_distance",
            ColumnType.MILES,
            "Trip distance that the company reported.",
            "miles",
            aliases=("trip_miles",),
            **_IN_PARQUET,
        ),
        Column("trip_time", ColumnType.INTEGER, "Trip duration that the company reported.", "seconds", **_IN_PARQUET),
        money("base_passenger_fare", "Fare before tolls, tips, taxes and fees.", **_IN_PARQUET),
        money("tolls_amount", "All tolls paid during the trip.", aliases=("tolls",), **_IN_PARQUET),
        money("black_car_fund", "Surcharge for the Black Car Fund.", aliases=("bcf",), **_IN_PARQUET),
        money("sales_tax", "New York State sales tax.", **_IN_PARQUET),
        money("congestion_surcharge", CONGESTION_SURCHARGE_DESCRIPTION, **_IN_PARQUET),
        money("airport_fee", "Fee for pickups and dropoffs at LaGuardia, JFK and Newark airports.", **_IN_PARQUET),
        money("tip_amount", "Tip from the passenger.", aliases=("tips",), **_IN_PARQUET),
        money(
            "driver_pay",
            "Pay of the driver, after commission, surcharges and taxes, without tolls and tips.",
            **_IN_PARQUET,
        ),
        money("cbd_congestion_fee", CBD_FEE_DESCRIPTION, since=Month(2025, 1), required=True),
        _flag("shared_request_flag", "Whether the passenger agreed to share the ride"),
        _flag("shared_match_flag", "Whether the passenger shared the ride with another party"),
        _flag("access_a_ride_flag", "Whether the trip was made for the MTA's Access-A-Ride program"),
        _flag("wav_request_flag", "Whether the passenger requested a wheelchair-accessible vehicle"),
        _flag("wav_match_flag", "Whether the vehicle was wheelchair-accessible"),
        Column(
            "sr_flag",
            ColumnType.INTEGER,
            "1 if the trip was part of a shared ride, null if not. Only CSV files have it.",
        ),
        *DERIVED_TIMES,
        *ORIGIN,
    ),
    rules=(
        PICKUP_MISSING,
        PICKUP_OUTSIDE_MONTH,
        DROPOFF_NOT_AFTER_PICKUP,
        DISTANCE_OUT_OF_RANGE,
        LONGER_THAN_A_DAY,
    ),
    measures={
        "fare": "base_passenger_fare",
        # All that the passenger paid. Files have no column for it.
        "revenue": "base_passenger_fare + COALESCE(tolls_amount, 0) + COALESCE(black_car_fund, 0)"
        " + COALESCE(sales_tax, 0) + COALESCE(congestion_surcharge, 0) + COALESCE(airport_fee, 0)"
        " + COALESCE(cbd_congestion_fee, 0) + COALESCE(tip_amount, 0)",
    },
)
