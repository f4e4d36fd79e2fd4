"""Convert the typed columns of Parquet files to canonical values."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.schema import ColumnType
from taxi_assets.tlc.values.decimals import doubles_to_decimal
from taxi_assets.tlc.values.new_york import NEW_YORK_NAMES, UTC_NAMES, utc_offsets
from taxi_assets.tlc.values.single_values import MAXIMUM_DECIMAL_DIGITS, SCALE
from taxi_assets.tlc.values.time_forms import TimeForm, read_epochs

if TYPE_CHECKING:
    from taxi_assets.tlc.values.time_forms import Forms, Integers, Mask

    _Parsed = tuple[Any, Any | None, Forms | None]

_MAXIMUM_WHOLE_FLOAT = 2**53
_LAST_INTEGERS = {
    ColumnType.INTEGER: 2**63 - 1,
    ColumnType.DEGREES: _MAXIMUM_WHOLE_FLOAT,
    **{type_: 10 ** (MAXIMUM_DECIMAL_DIGITS - scale) - 1 for type_, scale in SCALE.items()},
}
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Python, pandas and the warehouses support the years 1 to 9999.
FIRST_TIME = pa.scalar(dt.datetime.combine(dt.date.min, dt.time.min), pa.timestamp("us"))
"""The first time of Python's calendar."""
LAST_TIME = pa.scalar(dt.datetime.combine(dt.date.max, dt.time.max), pa.timestamp("us"))
"""The last time of Python's calendar."""
_FIRST_MICROSECOND, _LAST_MICROSECOND = (time.cast(pa.int64()).as_py() for time in (FIRST_TIME, LAST_TIME))


def is_convertible(published: Any, target: ColumnType) -> bool:
    """Return whether values of an Arrow type can be converted to a canonical type."""
    types = pa.types
    if target is ColumnType.DATETIME:
        return bool(types.is_timestamp(published) or types.is_integer(published))
    return any(is_type(published) for is_type in (types.is_integer, types.is_floating, types.is_decimal))


def parse_typed(target: ColumnType, published: Any) -> _Parsed:
    """Convert a typed column.

    Args:
        target: The canonical type; not text.
        published: An Arrow array of a type for which `is_convertible` is true, but not decimal.

    Returns:
        The values, the mask of unreadable values and the forms of times, as in `ParsedColumn`.
    """
    if target is ColumnType.DATETIME:
        return _parse_times(published) if pa.types.is_timestamp(published.type) else _parse_epochs(published)
    if pa.types.is_floating(published.type):
        return *_parse_floats(target, published.cast(pa.float64())), None
    return *_parse_integers(target, published), None


def _masked(values: Any, unreadable: Mask) -> tuple[Any, Any | None]:
    """Return values with nulls where the mask is true, and the mask; None if it is nowhere true."""
    if not unreadable.any():
        return values, None
    return pc.if_else(pa.array(~unreadable), values, pa.scalar(None, values.type)), pa.array(unreadable)


# --- numbers ---------------------------------------------------------------------------------------------------------


def _parse_floats(target: ColumnType, floats: Any) -> tuple[Any, Any | None]:
    if target in SCALE:
        values, bad = doubles_to_decimal(floats, SCALE[target])
        return values, None if bad is None else pa.array(bad)
    doubles = np.asarray(floats.fill_null(0.0) if floats.null_count else floats)
    missing = np.isnan(doubles)  # pandas writes missing values as NaN
    unreadable = ~(np.isfinite(doubles) | missing)
    if target is ColumnType.INTEGER:
        with np.errstate(invalid="ignore"):
            unreadable |= ~missing & ~((np.abs(doubles) < _MAXIMUM_WHOLE_FLOAT) & (doubles % 1 == 0))
    if (missing | unreadable).any():
        floats = pc.if_else(pa.array(~(missing | unreadable)), floats, pa.scalar(None, floats.type))
    values = pc.cast(floats, pa.int64()) if target is ColumnType.INTEGER else floats
    return values, pa.array(unreadable) if unreadable.any() else None


def _parse_integers(target: ColumnType, integers: Any) -> tuple[Any, Any | None]:
    last = _LAST_INTEGERS[target]
    first = -last - 1 if target is ColumnType.INTEGER else -last
    bounds = pc.min_max(integers).as_py()
    values, mask = integers, None
    if bounds["min"] is not None and not first <= bounds["min"] <= bounds["max"] <= last:
        numbers = np.asarray(integers.fill_null(0))
        unreadable = numbers > last
        if first >= np.iinfo(numbers.dtype).min:
            unreadable |= numbers < first
        values, mask = _masked(integers, unreadable)
    if target in SCALE:
        values = pc.cast(values, pa.int64()).cast(pa.decimal128(21, 0))
    return pc.cast(pc.cast(values, target.arrow_type), target.working_type), mask


# --- times -----------------------------------------------------------------------------------------------------------


def _parse_times(published: Any) -> _Parsed:
    unit, zone = published.type.unit, published.type.tz
    instants = published.cast(pa.int64())
    unreadable = None
    factor = 10**6 // _PER_SECOND[unit]  # 0 for nanoseconds, which only reach the years 1677 to 2262
    if factor:
        first, last = -(-_FIRST_MICROSECOND // factor), _LAST_MICROSECOND // factor
        bounds = pc.min_max(instants).as_py()
        if bounds["min"] is not None and not first <= bounds["min"] <= bounds["max"] <= last:
            numbers = np.asarray(instants.fill_null(0))
            instants, unreadable = _masked(instants, (numbers < first) | (numbers > last))
    # Nanoseconds are truncated: taxi meters do not record them.
    times = pc.cast(instants.cast(pa.timestamp(unit)), pa.timestamp("us"), safe=factor > 0)
    return (times, unreadable, None) if zone is None else _to_local(times, unreadable, zone)


def _to_local(times: Any, unreadable: Any | None, zone: str) -> _Parsed:
    """Convert instants to the time that New York's clocks showed, if the zone's clocks showed the same.

    Times in UTC are returned as they are, as if they were local times: only the whole file shows whether they are.
    """
    valid = np.asarray(times.is_valid())
    if zone in UTC_NAMES or zone == "+00:00":
        return times, unreadable, np.where(valid, TimeForm.UTC, TimeForm.LOCAL).astype(np.int8)
    instants = np.asarray(times.cast(pa.int64()).fill_null(0))
    try:
        offsets = utc_offsets(instants, zone)
    except ValueError:
        return pa.nulls(len(times), times.type), _or(unreadable, valid), None
    same = offsets == (offsets if zone in NEW_YORK_NAMES else utc_offsets(instants))
    local = pa.array(instants + offsets, mask=~(valid & same)).cast(times.type)
    forms = np.where(valid & same, TimeForm.NEW_YORK_ZONE, TimeForm.LOCAL).astype(np.int8)
    return local, _or(unreadable, valid & ~same), forms


def _or(unreadable: Any | None, more: Mask) -> Any | None:
    if unreadable is not None:
        more |= np.asarray(unreadable)
    return pa.array(more) if more.any() else None


def _parse_epochs(published: Any) -> _Parsed:
    numbers: Integers = np.asarray(published.fill_null(0) if published.null_count else published).astype(np.int64)
    microseconds, forms = read_epochs(numbers)
    readable = forms != TimeForm.LOCAL
    unreadable = np.asarray(published.is_valid()) & ~readable
    times = pa.array(microseconds, mask=~readable).cast(pa.timestamp("us"))
    return times, pa.array(unreadable) if unreadable.any() else None, forms
