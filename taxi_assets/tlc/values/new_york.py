"""New York's clocks: their distance from UTC, and whether the clocks of another zone show the same time."""

from __future__ import annotations

import datetime as dt
import re
from functools import cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np

if TYPE_CHECKING:
    Integers = np.ndarray[Any, np.dtype[np.int64]]

NEW_YORK = "America/New_York"
NEW_YORK_NAMES = frozenset({NEW_YORK, "US/Eastern", "EST5EDT"})
"""The names of New York's zone in files: its own, and two older ones that mean the same."""

UTC_NAMES = frozenset({"UTC", "Z", "GMT", "Etc/UTC", "Etc/GMT"})
"""The names of UTC in files."""

_FIXED_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# Offsets change at most at a quarter of an hour.
_QUARTER_MINUTES = 15
_QUARTER = _QUARTER_MINUTES * 60 * 1_000_000
_FIRST_YEAR, _LAST_YEAR = 2, 9998  # a year less than Python's calendar, so that offsets can be added
_FIRST_QUARTER, _LAST_QUARTER = (
    (dt.datetime(year, 1, 1, tzinfo=dt.UTC) - _EPOCH) // dt.timedelta(minutes=_QUARTER_MINUTES)
    for year in (_FIRST_YEAR, _LAST_YEAR)
)


def utc_offsets(instants: Integers, zone: str = NEW_YORK) -> Integers:
    """Return a zone's distance from UTC at these instants, in microseconds.

    Args:
        instants: Microseconds since 1970 in UTC.
        zone: A zone's name, such as "America/New_York", or an offset, such as "-05:00".

    Raises:
        ValueError: There is no such zone.
    """
    fixed = _FIXED_OFFSET.fullmatch(zone)
    if fixed:
        minutes = int(fixed[2]) * 60 + int(fixed[3])
        return np.full(len(instants), (-minutes if fixed[1] == "-" else minutes) * 60_000_000, np.int64)
    # A month has less than 3,000 quarters of an hour.
    quarters, positions = np.unique(np.floor_divide(instants, _QUARTER), return_inverse=True)
    offsets = [_offset(zone, quarter) for quarter in np.clip(quarters, _FIRST_QUARTER, _LAST_QUARTER).tolist()]
    return np.array(offsets, np.int64)[positions]


@cache
def _zone_info(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except OSError as error:  # a folder of zones, such as "America"
        raise ValueError(f"no zone {name!r}") from error
    except KeyError as error:
        raise ValueError(f"no zone {name!r}") from error


def _offset(zone: str, quarter: int) -> int:
    time = (_EPOCH + dt.timedelta(minutes=_QUARTER_MINUTES) * quarter).astimezone(_zone_info(zone))
    return (time.utcoffset() or dt.timedelta()) // dt.timedelta(microseconds=1)
