"""Yellow taxis: medallion cabs, hailed on the street anywhere in the city."""

from __future__ import annotations

from taxi_assets.tlc.month import Month
from taxi_assets.tlc.rules import STREET_HAIL_RULES
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.schemas import street_hail as shared

YELLOW = Service(
    name="yellow",
    title="Yellow taxi",
    description="medallion cabs, hailed on the street anywhere in the city",
    first_month=Month(2009, 1),
    columns=(
        shared.VENDOR_ID,
        *shared.pickup_and_dropoff("tpep"),
        shared.PASSENGER_COUNT,
        shared.TRIP_DISTANCE,
        shared.RATE_CODE_ID,
        shared.STORE_AND_FWD_FLAG,
        shared.PICKUP_LOCATION_ID,
        shared.DROPOFF_LOCATION_ID,
        *shared.COORDINATES,
        shared.PAYMENT_TYPE,
        shared.FARE_AMOUNT,
        shared.EXTRA,
        shared.MTA_TAX,
        shared.TIP_AMOUNT,
        shared.TOLLS_AMOUNT,
        shared.IMPROVEMENT_SURCHARGE,
        shared.TOTAL_AMOUNT,
        shared.CONGESTION_SURCHARGE,
        shared.money("airport_fee", "Pickup at LaGuardia or JFK.", since=Month(2021, 1)),
        shared.CBD_CONGESTION_FEE,
        *shared.DERIVED,
    ),
    rules=STREET_HAIL_RULES,
)
