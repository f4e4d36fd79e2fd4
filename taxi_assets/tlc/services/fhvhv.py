"""High-volume for-hire vehicles: Uber, Lyft and the like (10,000 trips a day and more), since they report apart.

The CSV files of 2019 to 2021 have 7 columns; TLC's Parquet files have 24 for all months, and 25 since 2025.
"""

from __future__ import annotations

from taxi_assets.tlc.month import Month
from taxi_assets.tlc.rules import (
    DISTANCE_OUT_OF_RANGE,
    DROPOFF_NOT_AFTER_PICKUP,
    LONGER_THAN_A_DAY,
    PICKUP_MISSING,
    PICKUP_OUTSIDE_MONTH,
)
from taxi_assets.tlc.schema import Column, ColumnType, Service
from taxi_assets.tlc.services.shared_columns import DERIVED_TIMES, ORIGIN, local_time, money, zone


def _flag(name: str, description: str) -> Column:
    return Column(name, ColumnType.TEXT, f"{description}: Y or N.")


FHVHV = Service(
    name="fhvhv",
    title="High-volume for-hire vehicle",
    description="Uber, Lyft, and until 2019 and 2021 Juno and Via",
    first_month=Month(2019, 2),
    columns=(
        Column(
            "hvfhs_license_num",
            ColumnType.TEXT,
            "TLC licence of the company: HV0002 Juno, HV0003 Uber, HV0004 Via, HV0005 Lyft.",
            required=True,
        ),
        Column("dispatching_base_num", ColumnType.TEXT, "TLC licence of the base that sent the car.", required=True),
        Column("originating_base_num", ColumnType.TEXT, "TLC licence of the base that received the request."),
        local_time("request_datetime", "When the passenger asked for the ride."),
        local_time("on_scene_datetime", "When the driver arrived; wheelchair-accessible vehicles, and Uber."),
        local_time("pickup_datetime", "When the trip began.", required=True),
        local_time("dropoff_datetime", "When the trip ended.", required=True),
        zone("pickup"),
        zone("dropoff"),
        Column("trip_distance", ColumnType.MILES, "Distance of the trip.", "miles", aliases=("trip_miles",)),
        Column("trip_time", ColumnType.INTEGER, "Duration as the company reports it.", "seconds"),
        money("base_passenger_fare", "Fare before tolls, tips, taxes and fees."),
        money("tolls_amount", "Tolls paid on the trip.", aliases=("tolls",)),
        money("black_car_fund", "Surcharge for the Black Car Fund.", aliases=("bcf",)),
        money("sales_tax", "New York State sales tax."),
        money("congestion_surcharge", "State congestion surcharge, Manhattan south of 96th Street."),
        money("airport_fee", "Pickup or dropoff at LaGuardia, JFK or Newark."),
        money("tip_amount", "Tip that the passenger gave.", aliases=("tips",)),
        money("driver_pay", "What the driver was paid, without tolls and tips, after commission and taxes."),
        money("cbd_congestion_fee", "Fee for the Congestion Relief Zone.", since=Month(2025, 1)),
        _flag("shared_request_flag", "The passenger agreed to share the ride"),
        _flag("shared_match_flag", "The ride was shared"),
        _flag("access_a_ride_flag", "The trip was for the Metropolitan Transportation Authority's Access-A-Ride"),
        _flag("wav_request_flag", "The passenger asked for a wheelchair-accessible vehicle"),
        _flag("wav_match_flag", "The vehicle was wheelchair-accessible"),
        Column(
            "sr_flag",
            ColumnType.INTEGER,
            "1 for a trip in a shared-ride chain, null for one that was not; in CSV files only.",
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
        # What the passenger paid in all; no column says it.
        "revenue": "base_passenger_fare + COALESCE(tolls_amount, 0) + COALESCE(black_car_fund, 0)"
        " + COALESCE(sales_tax, 0) + COALESCE(congestion_surcharge, 0) + COALESCE(airport_fee, 0)"
        " + COALESCE(cbd_congestion_fee, 0) + COALESCE(tip_amount, 0)",
    },
)
