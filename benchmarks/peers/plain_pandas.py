"""The same work in plain pandas: rules, derived columns, quarantine, decimals, zstd.

It lacks exact rounding (doubles are rounded, so 1.005 becomes 1.00), the original text of a row (fields are formatted
again), the repeated hour at the end of daylight saving time, control totals and a report. It fails on rows with another
number of fields and on bytes that are not UTF-8. The whole month is in memory.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.measure import measure_here

_Mask = np.ndarray[Any, np.dtype[np.bool_]]

_FIRST, _AFTER, _MONTH = pd.Timestamp(2020, 12, 1), pd.Timestamp(2021, 2, 2), pd.Timestamp(2021, 1, 1)
_NAMES = {
    "vendorid": "vendor_id",
    "tpep_pickup_datetime": "pickup_datetime",
    "tpep_dropoff_datetime": "dropoff_datetime",
    "ratecodeid": "rate_code_id",
    "pulocationid": "pickup_location_id",
    "dolocationid": "dropoff_location_id",
}
_INTEGERS = [
    "vendor_id",
    "passenger_count",
    "rate_code_id",
    "pickup_location_id",
    "dropoff_location_id",
    "payment_type",
]
_MONEY = [
    "fare_amount",
    "extra",
    "mta_tax",
    "tip_amount",
    "tolls_amount",
    "improvement_surcharge",
    "total_amount",
    "congestion_surcharge",
]


def work(source: Path, clean: Path, quarantine: Path) -> None:
    """Write the clean and the quarantined rows of a month."""
    published = pd.read_parquet(source) if source.suffix == ".parquet" else pd.read_csv(source, low_memory=False)
    frame = published.rename(columns=lambda name: _NAMES.get(name.lower(), name.lower()))
    unreadable = _parse(frame)
    _derive(frame)
    reasons = _violations(frame) | {"unreadable_value": np.logical_or.reduce(list(unreadable.values()))}
    bad = np.logical_or.reduce(list(reasons.values()))
    frame[~bad].to_parquet(clean, compression="zstd", compression_level=1, index=False)
    _quarantined(published[bad], frame[bad], {name: mask[bad] for name, mask in reasons.items()}).to_parquet(
        quarantine, compression="zstd", compression_level=1, index=False
    )


def _parse(frame: pd.DataFrame) -> dict[str, _Mask]:
    unreadable = {}
    for name in frame.columns:
        before = frame[name].isna()
        if name.endswith("datetime"):
            frame[name] = pd.to_datetime(frame[name], format="%Y-%m-%d %H:%M:%S", errors="coerce")
        elif name != "store_and_fwd_flag":
            numbers = pd.to_numeric(frame[name], errors="coerce")
            if name in _INTEGERS:
                frame[name] = numbers.astype("Int64")
            else:
                frame[name] = _decimals(numbers, 2 if name in _MONEY else 3)
        unreadable[name] = (frame[name].isna() & ~before).to_numpy(bool)
    return unreadable


def _decimals(numbers: pd.Series[float], scale: int) -> pd.Series[float]:
    exact = pa.array(numbers.round(scale), from_pandas=True).cast(pa.decimal128(12, scale))
    return pd.Series(pd.arrays.ArrowExtensionArray(exact), index=numbers.index)


def _derive(frame: pd.DataFrame) -> None:
    pickup = frame["pickup_datetime"]
    frame["source_row"] = np.arange(1, len(frame) + 1)
    frame["data_month"] = _MONTH.date()
    frame["pickup_date"] = pickup.astype("datetime64[s]").dt.normalize().astype(pd.ArrowDtype(pa.date32()))
    frame["pickup_hour"] = pickup.dt.hour.astype("Int64")
    frame["pickup_isodow"] = (pickup.dt.dayofweek + 1).astype("Int64")
    frame["trip_seconds"] = (frame["dropoff_datetime"] - pickup).dt.total_seconds().astype("Int64")
    frame["is_reversal"] = (frame["total_amount"] < 0).fillna(value=False)


def _violations(frame: pd.DataFrame) -> dict[str, _Mask]:
    pickup, miles = frame["pickup_datetime"], frame["trip_distance"]
    rules = {
        "pickup_missing": pickup.isna(),
        "pickup_outside_month": (pickup < _FIRST) | (pickup >= _AFTER),
        "dropoff_not_after_pickup": frame["dropoff_datetime"] <= pickup,
        "zero_passengers": frame["passenger_count"] == 0,
        "distance_out_of_range": (miles < 0) | (miles > 500),
        "longer_than_24_hours": frame["trip_seconds"] > 24 * 3600,
    }
    return {name: mask.fillna(value=False).to_numpy(bool) for name, mask in rules.items()}


def _quarantined(published: pd.DataFrame, frame: pd.DataFrame, reasons: dict[str, _Mask]) -> pd.DataFrame:
    names = list(reasons)
    holds = np.stack(list(reasons.values()), axis=1)
    return pd.DataFrame(
        {
            "source_row": frame["source_row"],
            "reasons": [[name for name, held in zip(names, row, strict=True) if held] for row in holds],
            "pickup_datetime": frame["pickup_datetime"],
            "total_amount": frame["total_amount"],
            "original": published.to_csv(index=False, header=False).splitlines(),
            "data_month": frame["data_month"],
        }
    )


if __name__ == "__main__":
    SOURCE, FOLDER = map(Path, sys.argv[1:])
    CLEAN, QUARANTINE = FOLDER / "clean.parquet", FOLDER / "quarantine.parquet"
    measure_here(lambda: work(SOURCE, CLEAN, QUARANTINE), written=[CLEAN, QUARANTINE])
