"""Columns that yellow and green taxis share, with all names under which they were published.

Sources: TLC's data dictionaries of yellow and green trip records (2025-03), and the headers of the published files.
"""

from __future__ import annotations

from taxi_assets.tlc.month import Month
from taxi_assets.tlc.schema import Column, ColumnType
from taxi_assets.tlc.services.shared_columns import (
    CBD_FEE_DESCRIPTION,
    CONGESTION_SURCHARGE_DESCRIPTION,
    DERIVED_TIMES,
    ORIGIN,
    YES_OR_NO,
    local_time,
    money,
    zone,
)

# Until 2014, files stored vendors and payment types as text.
VENDORS = {"cmt": 1, "vts": 2, "dds": 3}
PAYMENT_TYPES = {
    **dict.fromkeys(("credit", "crd", "cre"), 1),
    **dict.fromkeys(("cash", "cas", "csh"), 2),
    **dict.fromkeys(("no charge", "no", "noc"), 3),
    **dict.fromkeys(("dispute", "dis"), 4),
    **dict.fromkeys(("unknown", "unk", "na"), 5),
}

ZONES_SINCE = Month(2016, 7)
COORDINATES_UNTIL = Month(2016, 6)


VENDOR_ID = Column(
    "vendor_id",
    ColumnType.INTEGER,
    "Vendor of the meter system that sent the record, by TLC code: 1 Creative Mobile Technologies, 2 Curb Mobility "
    "(formerly VeriFone), 3 Digital Dispatch Systems (until 2010), 6 Myle Technologies, 7 Helix.",
    aliases=("vendorid", "vendor_name"),
    required=True,
    codes=VENDORS,
)


def pickup_and_dropoff(prefix: str) -> tuple[Column, Column]:
    """Return the columns of pickup and dropoff times.

    Args:
        prefix: What the service's published names begin with: "tpep" (yellow) or "lpep" (green).
    """
    pickup, dropoff = (
        local_time(
            f"{event}_datetime",
            f"Time when the meter was {switched}, as New York's clocks showed it.",
            aliases=(f"{prefix}_{event}_datetime", f"trip_{event}_datetime"),
            required=True,
        )
        for event, switched in (("pickup", "engaged"), ("dropoff", "disengaged"))
    )
    return pickup, dropoff


PASSENGER_COUNT = Column(
    "passenger_count", ColumnType.INTEGER, "Number of passengers, as the driver entered it.", "persons", required=True
)
TRIP_DISTANCE = Column(
    "trip_distance", ColumnType.MILES, "Trip distance that the meter reported.", "miles", required=True
)
RATE_CODE_ID = Column(
    "rate_code_id",
    ColumnType.INTEGER,
    "Rate in effect at the end of the trip, by TLC code: 1 standard, 2 JFK, 3 Newark, 4 Nassau or Westchester, "
    "5 negotiated fare, 6 group ride, 99 unknown.",
    aliases=("ratecodeid", "rate_code"),
    required=True,
)
STORE_AND_FWD_FLAG = Column(
    "store_and_fwd_flag",
    ColumnType.TEXT,
    "Y if the vehicle had no connection and stored the record before sending it, N if not.",
    aliases=("store_and_forward",),
    required=True,
    codes=YES_OR_NO,
)
PICKUP_LOCATION_ID = zone("pickup", since=ZONES_SINCE, required=True)
DROPOFF_LOCATION_ID = zone("dropoff", since=ZONES_SINCE, required=True)
COORDINATES = tuple(
    Column(
        f"{event}_{axis}",
        ColumnType.DEGREES,
        f"{axis.capitalize()} of the {event}, 0 if unknown. Files from {ZONES_SINCE} on have taxi zones instead.",
        "degrees, WGS 84",
        (f"{short}_{axis[:3]}",),
        until=COORDINATES_UNTIL,
        required=True,
        alternative=f"{event}_location_id",  # Parquet files of these years
    )
    for event, short in (("pickup", "start"), ("dropoff", "end"))
    for axis in ("longitude", "latitude")
)
PAYMENT_TYPE = Column(
    "payment_type",
    ColumnType.INTEGER,
    "How the passenger paid, by TLC code: 0 flex fare, 1 credit card, 2 cash, 3 no charge, 4 dispute, 5 unknown, "
    "6 voided trip.",
    required=True,
    codes=PAYMENT_TYPES,
)
FARE_AMOUNT = money(
    "fare_amount", "Fare that the meter computed from time and distance.", required=True, aliases=("fare_amt",)
)
EXTRA = money("extra", "Rush hour, overnight and other surcharges.", required=True, aliases=("surcharge",))
MTA_TAX = money("mta_tax", "Tax for the Metropolitan Transportation Authority (MTA).", required=True)
TIP_AMOUNT = money("tip_amount", "Tip paid by card. Cash tips are not recorded.", required=True, aliases=("tip_amt",))
TOLLS_AMOUNT = money("tolls_amount", "All tolls paid during the trip.", required=True, aliases=("tolls_amt",))
IMPROVEMENT_SURCHARGE = money(
    "improvement_surcharge", "Improvement surcharge, charged when the trip starts.", since=Month(2015, 1), required=True
)
TOTAL_AMOUNT = money(
    "total_amount",
    "Total charged to the passenger, without cash tips. Negative if the row reverses a charge.",
    required=True,
    aliases=("total_amt",),
)
CONGESTION_SURCHARGE = money(
    "congestion_surcharge", CONGESTION_SURCHARGE_DESCRIPTION, since=Month(2019, 1), required=True
)
CBD_CONGESTION_FEE = money("cbd_congestion_fee", CBD_FEE_DESCRIPTION, since=Month(2025, 1), required=True)

DERIVED = (
    *DERIVED_TIMES,
    Column(
        "is_reversal",
        ColumnType.BOOLEAN,
        "Whether total_amount is negative, so that the row reverses a charge. Exclude reversals when you count trips, "
        "and include them when you sum money.",
        derived=True,
    ),
    *ORIGIN,
)
"""The columns that cleaning computes for yellow and green trips."""
