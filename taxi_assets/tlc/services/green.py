"""Green taxis: street hail liveries, for the outer boroughs and upper Manhattan.

Source: TLC's data dictionary of green taxi trip records (2025-03).
"""

from __future__ import annotations

from taxi_assets.tlc.month import Month
from taxi_assets.tlc.rules import STREET_HAIL_RULES
from taxi_assets.tlc.schema import Column, ColumnType, Service
from taxi_assets.tlc.services import street_hail
from taxi_assets.tlc.services.shared_columns import money

GREEN = Service(
    name="green",
    title="Green taxi",
    description="street hail liveries, for the outer boroughs and upper Manhattan",
    first_month=Month(2013, 8),
    columns=(
        street_hail.VENDOR_ID,
        *street_hail.pickup_and_dropoff("lpep"),
        street_hail.PASSENGER_COUNT,
        street_hail.TRIP_DISTANCE,
        street_hail.RATE_CODE_ID,
        street_hail.STORE_AND_FWD_FLAG,
        street_hail.PICKUP_LOCATION_ID,
        street_hail.DROPOFF_LOCATION_ID,
        *street_hail.COORDINATES,
        street_hail.PAYMENT_TYPE,
        Column(
            "trip_type",
            ColumnType.INTEGER,
            "How the passenger got the taxi, by TLC code: 1 street hail, 2 dispatch.",
            required=True,
        ),
        street_hail.FARE_AMOUNT,
        street_hail.EXTRA,
        street_hail.MTA_TAX,
        street_hail.TIP_AMOUNT,
        street_hail.TOLLS_AMOUNT,
        money("ehail_fee", "Fee for hailing by app. No known file has a value."),
        street_hail.IMPROVEMENT_SURCHARGE,
        street_hail.TOTAL_AMOUNT,
        street_hail.CONGESTION_SURCHARGE,
        street_hail.CBD_CONGESTION_FEE,
        *street_hail.DERIVED,
    ),
    rules=STREET_HAIL_RULES,
)
