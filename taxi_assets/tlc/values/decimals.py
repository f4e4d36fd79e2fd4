"""Read decimals: doubles and texts, rounded half away from zero to a fixed number of places.

A decimal is computed as a whole number of its smallest unit, such as cents. pc.round is wrong on doubles (1.005 becomes
1.00), and a cast of text to decimal rejects excess digits. So most values are rounded as doubles, and the text decides
where a double is too close to a half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.values.single_values import (
    MAXIMUM_DECIMAL_DIGITS,
    decimal_reader,
    read_distinct,
)

if TYPE_CHECKING:
    Integers = np.ndarray[Any, np.dtype[np.int64]]
    Mask = np.ndarray[Any, np.dtype[np.bool_]]

# A double this close to a whole unit (a cent, or a thousandth of a mile) rounds to it. Otherwise it may be near a half,
# and its text determines the rounding.
_ROUNDING_TOLERANCE = 1e-4
# Doubles are rounded in blocks that fit into the processor's cache.
_ROUNDING_BLOCK = 16_384
_LIMIT = 10**MAXIMUM_DECIMAL_DIGITS
# A number without an exponent, with at most as many whole digits as a decimal column has.
_PLAIN_NUMBER = rf"^(?P<sign>[+-]?)0*(?P<whole>[0-9]{{0,{MAXIMUM_DECIMAL_DIGITS}}})(?:\.(?P<fraction>[0-9]*))?$"


def round_doubles(floats: Any, scale: int) -> tuple[Integers, Integers]:
    """Round doubles to whole units.

    Args:
        floats: An Arrow array of doubles.
        scale: The number of decimal places.

    Returns:
        One number of units per value, 0 where it is null. Then the sorted indices of those values that do not determine
        the number of units: they are near a half, too large or not finite.
    """
    doubles = np.asarray(floats.fill_null(0.0) if floats.null_count else floats)
    wholes = np.empty(len(doubles), np.int64)
    scratch = np.empty((2, min(_ROUNDING_BLOCK, len(doubles))))
    doubtful: list[Integers] = []
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(doubles), _ROUNDING_BLOCK):
            block = doubles[start : start + _ROUNDING_BLOCK]
            distance, whole = scratch[:, : len(block)]
            np.rint(np.multiply(block, 10.0**scale, out=distance), out=whole)
            np.subtract(distance, whole, out=distance)
            # In most blocks, all values are within the tolerance, so none is tested individually. A NaN makes
            # `all_close` false.
            all_close = distance.min() > -_ROUNDING_TOLERANCE and distance.max() < _ROUNDING_TOLERANCE
            if not (all_close and whole.min() > -_LIMIT and whole.max() < _LIMIT):
                determined = (np.abs(distance) < _ROUNDING_TOLERANCE) & (np.abs(whole) < _LIMIT)
                doubtful.append(np.flatnonzero(~determined) + start)
                whole[~determined] = 0
            wholes[start : start + _ROUNDING_BLOCK] = whole
    return wholes, np.concatenate(doubtful) if doubtful else np.empty(0, np.int64)


def round_texts(texts: Any, scale: int) -> tuple[Integers, Mask]:
    """Round numbers that were published as text, by their digits.

    Args:
        texts: An Arrow array of strings without nulls.
        scale: The number of decimal places.

    Returns:
        One number of units per text, 0 where it cannot be read. Then one boolean per text, true where it can be read.
    """
    wholes = np.zeros(len(texts), np.int64)
    readable = np.zeros(len(texts), bool)
    parts = pc.if_else(pc.match_substring(texts, "_"), pa.scalar(None, texts.type), texts)
    parts = pc.extract_regex(parts, pattern=_PLAIN_NUMBER)
    plain = np.flatnonzero(pc.and_(parts.is_valid(), pc.match_substring_regex(texts, "[0-9]")))
    if len(plain):
        sign, whole, fraction = parts.take(pa.array(plain)).flatten()
        digits = pc.utf8_slice_codeunits(pc.ascii_rpad(fraction, scale + 1, "0"), 0, scale + 1)
        # The first digit after the last place determines the rounding, whatever follows it.
        tenths = np.asarray(pc.cast(pc.binary_join_element_wise(whole, digits, ""), pa.int64()))
        wholes[plain] = (tenths + 5) // 10 * np.where(np.asarray(pc.equal(sign, "-")), -1, 1)
        readable[plain] = True
    others = np.delete(np.arange(len(texts)), plain)
    if len(others):
        read = decimal_reader(scale)
        units = read_distinct(texts.take(pa.array(others)), lambda text: _units(read(text), scale), pa.int64())
        wholes[others], readable[others] = np.asarray(units.fill_null(0)), np.asarray(units.is_valid())
    readable &= np.abs(wholes) < _LIMIT
    wholes[~readable] = 0
    return wholes, readable


def _units(value: Any, scale: int) -> int | None:
    return None if value is None else int(value.scaleb(scale))


def doubles_to_decimal(floats: Any, scale: int) -> tuple[Any, Mask | None]:
    """Convert the doubles of a typed column. NaN, which pandas writes for missing values, is null.

    Args:
        floats: An Arrow array of doubles.
        scale: The number of decimal places.

    Returns:
        The decimals, and the mask of values that are not finite or too large (None if there are none).
    """
    wholes, doubtful = round_doubles(floats, scale)
    if not len(doubtful):
        return build_decimals(wholes, scale, floats), None
    doubles = np.asarray(floats.take(pa.array(doubtful)))
    # repr() returns the double's shortest text, which is the publisher's text before conversion to binary.
    wholes[doubtful], readable = round_texts(pa.array(map(repr, doubles.tolist()), pa.string()), scale)
    null = np.asarray(floats.is_null())
    null[doubtful[~readable]] = True
    unreadable = np.zeros(len(floats), bool)
    unreadable[doubtful[~readable & ~np.isnan(doubles)]] = True
    return build_decimals(wholes, scale, null), unreadable if unreadable.any() else None


def build_decimals(wholes: Integers, scale: int, nulls: Any) -> Any:
    """Build an Arrow array of decimal64 with 12 digits.

    Args:
        wholes: The number of units of each value.
        scale: The number of decimal places.
        nulls: An Arrow array that is null where the result is null, or a mask that is true there.
    """
    type_ = pa.decimal64(MAXIMUM_DECIMAL_DIGITS, scale)
    if isinstance(nulls, np.ndarray):
        return pa.array(wholes, mask=nulls).view(type_)
    integers = pa.array(wholes)
    if nulls.null_count and nulls.offset == 0:
        integers = pa.Array.from_buffers(integers.type, len(integers), [nulls.buffers()[0], integers.buffers()[1]])
    elif nulls.null_count:
        integers = pc.if_else(pc.is_valid(nulls), integers, pa.scalar(None, integers.type))
    return integers.view(type_)
