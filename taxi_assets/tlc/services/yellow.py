"""Yellow taxis: medallion cabs, which passengers hail on the street anywhere in the city.

Source: TLC's data dictionary of yellow taxi trip records (2025-03).
"""

from __future__ import annotations

from taxi_assets.tlc.month import Month
from taxi_assets.tlc.rules import STREET_HAIL_RULES
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import street_hail
from taxi_assets.tlc.services.shared_columns import PARQUET_ONLY_SINCE, money

YELLOW = Service(
    name="yellow",
    title="Yellow taxi",
    description="medallion cabs, which passengers hail on the street anywhere in the city",
    first_month=Month(2009, 1),
    columns=(
        street_hail.VENDOR_ID,
        *street_hail.pickup_and_dropoff("tpep"),
        street_hail.PASSENGER_COUNT,
        street_hail.TRIP_DISTANCE,
        street_hail.RATE_CODE_ID,
        street_hail.STORE_AND_FWD_FLAG,
        street_hail.PICKUP_LOCATION_ID,
        street_hail.DROPOFF_LOCATION_ID,
        *street_hail.COORDINATES,
        street_hail.PAYMENT_TYPE,
        street_hail.FARE_AMOUNT,
        street_hail.EXTRA,
        street_hail.MTA_TAX,
        street_hail.TIP_AMOUNT,
        street_hail.TOLLS_AMOUNT,
        street_hail.IMPROVEMENT_SURCHARGE,
        street_hail.TOTAL_AMOUNT,
        street_hail.CONGESTION_SURCHARGE,
        money(
            "airport_fee",
            "Fee for pickups at LaGuardia and JFK airports.",
            since=Month(2021, 1),
            required=True,
            required_since=PARQUET_ONLY_SINCE,
        ),
        street_hail.CBD_CONGESTION_FEE,
        *street_hail.DERIVED,
    ),
    rules=STREET_HAIL_RULES,
)
