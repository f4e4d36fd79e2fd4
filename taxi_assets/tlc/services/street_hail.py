"""Columns that yellow and green taxis share, under every name they were ever published with.

Sources: TLC's data dictionaries for yellow and green trip records, and the header eras of the published files.
"""

from __future__ import annotations

from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Column, ColumnType
from taxi_assets.tlc.services.shared_columns import DERIVED_TIMES, ORIGIN, local_time, money, zone

# Until 2014 vendors and payment types were published as text.
VENDORS = {"cmt": 1, "vts": 2, "dds": 3}
PAYMENT_TYPES = {
    **dict.fromkeys(("credit", "crd", "cre"), 1),
    **dict.fromkeys(("cash", "cas", "csh"), 2),
    **dict.fromkeys(("no charge", "no", "noc"), 3),
    **dict.fromkeys(("dispute", "dis"), 4),
    **dict.fromkeys(("unknown", "unk", "na"), 5),
}
STORE_AND_FORWARD = {"y": "Y", "n": "N", "1": "Y", "0": "N", "1.0": "Y", "0.0": "N"}

ZONES_SINCE = Month(2016, 7)
COORDINATES_UNTIL = Month(2016, 6)


VENDOR_ID = Column(
    "vendor_id",
    ColumnType.INTEGER,
    "Provider of the meter and the record: 1 Creative Mobile Technologies, 2 VeriFone (Curb), 3 Digital Dispatch "
    "Systems (to 2010), 6 Myle, 7 Helix.",
    aliases=("vendorid", "vendor_name"),
    required=True,
    codes=VENDORS,
)


def pickup_and_dropoff(prefix: str) -> tuple[Column, Column]:
    """Pickup and dropoff time; `prefix` is the service's in the published names (`tpep`, `lpep`)."""
    pickup, dropoff = (
        local_time(
            f"{event}_datetime",
            f"When the meter was {switched}: New York wall-clock time.",
            aliases=(f"{prefix}_{event}_datetime", f"trip_{event}_datetime"),
            required=True,
        )
        for event, switched in (("pickup", "engaged"), ("dropoff", "disengaged"))
    )
    return pickup, dropoff


PASSENGER_COUNT = Column(
    "passenger_count", ColumnType.INTEGER, "Passengers, as the driver entered them.", "persons", required=True
)
TRIP_DISTANCE = Column("trip_distance", ColumnType.MILES, "Distance that the meter reported.", "miles", required=True)
RATE_CODE_ID = Column(
    "rate_code_id",
    ColumnType.INTEGER,
    "Rate in effect at the end of the trip: 1 standard, 2 JFK, 3 Newark, 4 Nassau or Westchester, 5 negotiated, "
    "6 group ride, 99 unknown.",
    aliases=("ratecodeid", "rate_code"),
)
STORE_AND_FWD_FLAG = Column(
    "store_and_fwd_flag",
    ColumnType.TEXT,
    "Y when the record was held in the vehicle for want of a connection and sent later, N when not.",
    aliases=("store_and_forward",),
    codes=STORE_AND_FORWARD,
)
PICKUP_LOCATION_ID = zone("pickup", since=ZONES_SINCE)
DROPOFF_LOCATION_ID = zone("dropoff", since=ZONES_SINCE)
COORDINATES = tuple(
    Column(
        f"{event}_{axis}",
        ColumnType.DEGREES,
        f"{axis.capitalize()} of the {event} as published (0 where unknown); later files have taxi zones instead.",
        "degrees, WGS 84",
        (f"{short}_{axis[:3]}",),
        until=COORDINATES_UNTIL,
    )
    for event, short in (("pickup", "start"), ("dropoff", "end"))
    for axis in ("longitude", "latitude")
)
PAYMENT_TYPE = Column(
    "payment_type",
    ColumnType.INTEGER,
    "How the passenger paid: 0 flex fare, 1 credit card, 2 cash, 3 no charge, 4 dispute, 5 unknown, 6 voided.",
    required=True,
    codes=PAYMENT_TYPES,
)
FARE_AMOUNT = money("fare_amount", "Time-and-distance fare of the meter.", required=True, aliases=("fare_amt",))
EXTRA = money("extra", "Rush hour, overnight and other extras and surcharges.", required=True, aliases=("surcharge",))
MTA_TAX = money("mta_tax", "Tax of the Metropolitan Transportation Authority.", required=True)
TIP_AMOUNT = money("tip_amount", "Tip by card; cash tips are not recorded.", required=True, aliases=("tip_amt",))
TOLLS_AMOUNT = money("tolls_amount", "Tolls paid on the trip.", required=True, aliases=("tolls_amt",))
IMPROVEMENT_SURCHARGE = money("improvement_surcharge", "Improvement surcharge at flag drop.", since=Month(2015, 1))
TOTAL_AMOUNT = money(
    "total_amount",
    "All that was charged; without cash tips. Negative for a reversal.",
    required=True,
    aliases=("total_amt",),
)
CONGESTION_SURCHARGE = money(
    "congestion_surcharge", "State congestion surcharge, Manhattan south of 96th Street.", since=Month(2019, 1)
)
CBD_CONGESTION_FEE = money("cbd_congestion_fee", "Fee for the Congestion Relief Zone.", since=Month(2025, 1))


DERIVED = (
    *DERIVED_TIMES,
    Column(
        "is_reversal",
        ColumnType.BOOLEAN,
        "Whether the total is negative: the row takes a charge back. Count trips without it, sum money with it.",
        derived=True,
    ),
    *ORIGIN,
)
