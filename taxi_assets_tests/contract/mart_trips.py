"""Trips of all services for the tests of marts, and the expected contents of marts, computed with pandas.

Belongs here: trips with every special case of marts, and their sums. Does not belong here: SQL.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from taxi_assets.storage.lake.objects import ParquetPartition, StagedParquet
from taxi_assets.tlc.cleaning.report import CleaningReport, compute_totals
from taxi_assets.tlc.parquet_io import TripWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taxi_assets.storage.lake.base_lake import Lake
    from taxi_assets.tlc.month import Month
    from taxi_assets.tlc.schema import Service

Trips = list[dict[str, Any]]

TEXT = pd.ArrowDtype(pa.string())
ZONES = pd.DataFrame(
    {
        "location_id": pd.Series([1, 2, 3, 4, 264, 265], dtype="int64[pyarrow]"),
        "borough": pd.Series(["EWR", "Queens", "Bronx", "Queens", "Unknown", "N/A"], dtype=TEXT),
        "zone": pd.Series(["Newark Airport", "Jamaica Bay", "Größe 🚕", "O'Hare", "N/A", "Outside of NYC"], dtype=TEXT),
        "service_zone": pd.Series(["EWR", "Boro Zone", "Boro Zone", "Boro Zone", "N/A", "N/A"], dtype=TEXT),
    }
)
_NAMES = {number: names for number, *names in ZONES.drop(columns="service_zone").itertuples(index=False)}
_UNKNOWN_PLACES = {264: ("Unknown", "Unknown"), 265: ("Outside of NYC", "Outside of NYC")}
_PLACES = (1, 2, 3, 4, 264, 265, None, 999)  # 999 is not in the table of zones


def trips_of(service: Service, month: Month, count: int) -> Trips:
    """Return trips of a service: reversals, strays, nulls, trips of several days and unknown zones among them."""
    recorded = {column.name for column in service.columns}
    return [{k: v for k, v in _trip(month, i).items() if k in recorded} for i in range(count)]


def _trip(month: Month, i: int) -> dict[str, Any]:
    start = dt.datetime.combine(month.start, dt.time())
    # Every 41st trip is a stray: it begins before the month, or on the day after it.
    minutes = (i * 977) % (month.days * 1440) if i % 41 else (month.days * 1440 + 5 if i % 2 else -3000)
    pickup = start + dt.timedelta(minutes=minutes)
    # Every 17th trip lasts for days, as some bases report, or for exactly one day.
    long = (0, 86_400, 90_000, 172_800)[i % 4] if i % 17 == 6 else 0
    seconds = None if i % 11 == 3 else (long or 60 + i * 37 % 5000)
    cents = (i * 7919 % 10_000) + 1
    is_reversal = i % 13 == 5
    sign = -1 if is_reversal else 1
    return {
        "pickup_datetime": pickup,
        "dropoff_datetime": None if seconds is None else pickup + dt.timedelta(seconds=seconds),
        "passenger_count": None if i % 7 == 2 else 1 + i % 5,
        "trip_distance": Decimal(i * 1237 % 20_000).scaleb(-3),
        "pickup_location_id": _PLACES[i * 5 % 8],
        "dropoff_location_id": _PLACES[i * 3 % 8],
        "payment_type": None if i % 9 == 4 else (0, 1, 2, 1, 5, 17)[i % 6],
        "is_reversal": is_reversal,
        **{
            name: (Decimal(sign * cents * share) / 100).quantize(Decimal("0.01"))
            for name, share in (("fare_amount", 3), ("total_amount", 5), ("tip_amount", 1))
        },
        "base_passenger_fare": Decimal(cents * 4).scaleb(-2),
        "sales_tax": None if i % 4 else Decimal(i % 100).scaleb(-2),
        "airport_fee": Decimal("2.50") if i % 10 == 0 else None,
        "pickup_date": pickup.date(),
        "pickup_hour": pickup.hour,
        "pickup_isodow": pickup.isoweekday(),
        "trip_seconds": seconds,
        "data_month": month.start,
        "source_row": i + 1,
    }


def publish_trips(lake: Lake, service: Service, month: Month, trips: Trips) -> ParquetPartition:
    """Publish trips in the clean layer of a lake, and return a handle to them."""
    rows = pa.Table.from_pylist(trips, service.arrow_schema)
    report = CleaningReport(
        service=service.name,
        month=str(month),
        data_version=f"{service.name} {month} {len(trips)}",
        raw_sha256="",
        generated=True,
        rules=[],
        rows_raw=len(trips),
        rows_quarantined=0,
        clean=compute_totals(rows, service.money_columns),
        quarantined_total_cents=0,
        reasons={},
        rows_by_day=[],
        unknown_columns=[],
        absent_columns=[],
    )
    prefix = f"clean/{service.table}/{month}"
    with lake.staging() as folder:
        with TripWriter(folder / "clean.parquet", service.arrow_schema) as writer:
            for batch in rows.to_batches():
                writer.write(batch)
            writer.finish(report.footer())
        staged = StagedParquet(folder / "clean.parquet", report, lake.version(f"{prefix}.parquet"))
        return ParquetPartition.publish(lake, prefix, staged, run_id="a run")


# --- expected contents of marts ---------------------------------------------------------------------------------------

MEASURES = ("trips_within_month", "trips", "passengers", "miles", "seconds", "timed_trips", "fare", "tips", "revenue")
"""Measures of marts; in this module, money is in cents and miles in thousandths."""
_PAYMENTS = {-1: "Not recorded", 0: "Flex fare", 1: "Credit card", 2: "Cash", 5: "Unknown"}


def common(trips: Mapping[str, Trips]) -> pd.DataFrame:
    """Return one row for each trip, with its keys and its contribution to each measure."""
    return pd.DataFrame([_common(service, trip) for service, rows in trips.items() for trip in rows]).convert_dtypes()


def _common(service: str, trip: dict[str, Any]) -> dict[str, Any]:
    is_trip = not trip.get("is_reversal", False)
    extras = [_scaled(trip.get(name), 2) or 0 for name in ("sales_tax", "airport_fee", "tip_amount")]
    fare = _scaled(trip.get("base_passenger_fare" if service == "fhvhv" else "fare_amount"), 2)
    pickup, dropoff = (_place(trip.get(f"{event}_location_id")) for event in ("pickup", "dropoff"))
    seconds = None if trip["trip_seconds"] is None or trip["trip_seconds"] > 24 * 3600 else trip["trip_seconds"]
    return {
        "service": service,
        "data_month": trip["data_month"],
        "pickup_date": trip["pickup_date"],
        "pickup_hour": trip["pickup_hour"],
        "pickup_isodow": trip["pickup_isodow"],
        "pickup_location_id": pickup[0],
        "pickup_borough": pickup[1],
        "pickup_zone": pickup[2],
        "dropoff_borough": dropoff[1],
        "payment_type": -1 if trip.get("payment_type") is None else trip["payment_type"],
        "trips_within_month": int(is_trip and trip["pickup_date"].replace(day=1) == trip["data_month"]),
        "trips": int(is_trip),
        "passengers": trip.get("passenger_count") if is_trip else None,
        "miles": _scaled(trip.get("trip_distance"), 3) if is_trip else None,
        "seconds": seconds if is_trip else None,
        "timed_trips": int(seconds is not None) if is_trip else None,
        "fare": fare,
        "tips": _scaled(trip.get("tip_amount"), 2),
        "revenue": (fare or 0) + sum(extras) if service == "fhvhv" else _scaled(trip.get("total_amount"), 2),
    }


def _scaled(value: Decimal | None, places: int) -> int | None:
    return None if value is None else int(value.scaleb(places))


def _place(number: int | None) -> tuple[int, str, str]:
    number = 264 if number is None else number
    return number, *_UNKNOWN_PLACES.get(number, _NAMES.get(number, ("Unknown", "Unknown")))


def expected(mart: str, rows: pd.DataFrame, columns: Sequence[str], key: Sequence[str]) -> pd.DataFrame:
    """Return the expected rows of a mart, ordered by key, from trips as returned by `common`."""
    if mart == "payment_mix":
        rows = rows[rows["service"].isin(["yellow", "green"])]
    measures = [name for name in MEASURES if name in columns]
    labels = {"zone_day": ["pickup_borough", "pickup_zone"]}.get(mart, [])
    found = rows.groupby([*key, *labels], dropna=False)[measures].sum(min_count=1).reset_index()
    if mart == "payment_mix":
        found["payment"] = [_PAYMENTS.get(number, "Other") for number in found["payment_type"]]
    if mart == "hour_of_week":
        days = _days(rows)
        found["days"] = [days.get(hour) for hour in zip(found["service"], found["pickup_isodow"], strict=True)]
    return found[[*columns]].sort_values([*key], ignore_index=True)


def _days(rows: pd.DataFrame) -> dict[Any, int]:
    """Return the number of days with trips, by service and weekday, counting only days of the month."""
    trips = rows[rows["trips"] > 0]
    inside = trips[
        [day.month == month.month for day, month in zip(trips["pickup_date"], trips["data_month"], strict=True)]
    ]
    return inside.groupby(["service", "pickup_isodow"])["pickup_date"].nunique().to_dict()
