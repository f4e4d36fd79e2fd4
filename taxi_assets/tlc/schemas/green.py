"""Green taxis: street hail livery, for the boroughs and upper Manhattan."""

from __future__ import annotations

from taxi_assets.tlc.month import Month
from taxi_assets.tlc.rules import STREET_HAIL_RULES
from taxi_assets.tlc.schema import Column, ColumnType, Service
from taxi_assets.tlc.schemas import street_hail as shared

GREEN = Service(
    name="green",
    title="Green taxi",
    description="street hail livery, for the outer boroughs and upper Manhattan",
    first_month=Month(2013, 8),
    columns=(
        shared.VENDOR_ID,
        *shared.pickup_and_dropoff("lpep"),
        shared.PASSENGER_COUNT,
        shared.TRIP_DISTANCE,
        shared.RATE_CODE_ID,
        shared.STORE_AND_FWD_FLAG,
        shared.PICKUP_LOCATION_ID,
        shared.DROPOFF_LOCATION_ID,
        *shared.COORDINATES,
        shared.PAYMENT_TYPE,
        Column("trip_type", ColumnType.INTEGER, "1 hailed on the street, 2 dispatched."),
        shared.FARE_AMOUNT,
        shared.EXTRA,
        shared.MTA_TAX,
        shared.TIP_AMOUNT,
        shared.TOLLS_AMOUNT,
        shared.money("ehail_fee", "Fee for hailing by app; never filled in."),
        shared.IMPROVEMENT_SURCHARGE,
        shared.TOTAL_AMOUNT,
        shared.CONGESTION_SURCHARGE,
        shared.CBD_CONGESTION_FEE,
        *shared.DERIVED,
    ),
    rules=STREET_HAIL_RULES,
)
